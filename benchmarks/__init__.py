"""What measures the library against peers and against itself: run by hand, not shipped. README.md lists it."""
