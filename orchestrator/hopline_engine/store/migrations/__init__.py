"""The history of the schema. Only ``schema.upgrade`` runs it; alembic is imported nowhere else."""
