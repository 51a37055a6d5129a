"""Tests of the memory path."""
