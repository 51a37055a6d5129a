"""Fuzzing, led by coverage: `__main__` says how."""
