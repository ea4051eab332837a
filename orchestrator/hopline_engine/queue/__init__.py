"""Queues and the dispatch of their tasks over HTTP."""
