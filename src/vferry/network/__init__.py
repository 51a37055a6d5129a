"""One module a network mode: which steps it adds, in which order."""
