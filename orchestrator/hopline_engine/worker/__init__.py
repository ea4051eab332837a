"""Hosts users' code: loads files, registers definitions, executes steps. Knows no database."""
