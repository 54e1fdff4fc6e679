"""The base of all other packages: errors, files, fingerprints, layer types, clocks. Imports nothing else of ours."""
