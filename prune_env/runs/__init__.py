"""Runs: the folder of one run, a search into it, a training into it."""
