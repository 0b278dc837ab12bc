"""A checkpoint → an MLflow model folder, checked against the reference implementation."""
