"""What the entry scripts of Azure, MLflow and Spark share."""
