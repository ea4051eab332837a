"""Hopline's command line: tables for people, JSON for programs, everything through the HTTP API."""
