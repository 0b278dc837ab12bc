"""A model folder: its configuration, weights and `MLmodel`; MLflow's URIs of models."""
