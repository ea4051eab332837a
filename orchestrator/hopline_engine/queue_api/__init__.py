"""The queue service on the wire of Google Cloud Tasks: REST and gRPC, in three versions."""
