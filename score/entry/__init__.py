"""Shared by the entry scripts of Azure, MLflow and Spark."""
