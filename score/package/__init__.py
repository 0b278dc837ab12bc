"""A checkpoint → a proven MLflow model folder."""
