"""Decisions as pure functions: preflight, choice of network mode, estimates."""
