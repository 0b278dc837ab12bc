"""Deployment at Azure ML: machine sizes, plans, YAML, checks, and a simulator."""
