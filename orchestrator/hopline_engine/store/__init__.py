"""Durable state; the only room with SQL."""
