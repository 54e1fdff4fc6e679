"""One file per command, and cli.py that gathers them into `prune-env`."""
