"""Coupled channels, found by running a network once on labels."""
