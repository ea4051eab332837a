"""The engine: decides, stores, queues and dispatches what the workflows of ``hopline`` describe."""
