"""Values that are too large for rows: in a folder, or in a bucket."""
