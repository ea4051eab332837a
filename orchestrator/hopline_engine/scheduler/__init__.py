"""What makes runs move: events in, decisions committed, effects released."""
