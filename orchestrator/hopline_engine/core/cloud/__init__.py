"""Queues and tasks as Google Cloud Tasks knows them: what they are and the rules they follow, without I/O."""
