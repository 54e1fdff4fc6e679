"""The commands of `prune-env`, one file each; cli.py combines them."""
