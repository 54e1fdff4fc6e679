"""Fuzzing: mutants of every file that the library reads. A mutant is refused in words, or gives what it says.

`make fuzz` runs many; `tests/fuzzing/test_fuzzing.py` runs a few.
"""
