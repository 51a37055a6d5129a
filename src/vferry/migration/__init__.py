"""Carrying a plan out: steps with their undo, phases, events, the report."""
