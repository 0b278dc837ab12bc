"""Vectors in a folder, and the nearest of them to a query."""
