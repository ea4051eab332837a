"""Decisions: no I/O, no clock, no randomness; the time and random numbers are arguments."""
