"""A job's shards, made by several processes: of this machine, or of many."""
