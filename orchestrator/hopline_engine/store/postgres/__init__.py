"""A store in a Postgres database, which several nodes may share."""
