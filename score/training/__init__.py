"""Trains the embedded model."""
