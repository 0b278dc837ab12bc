"""A model folder: its configuration, its weights, and the names by which MLflow finds it."""
