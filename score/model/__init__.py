"""Pixels and token ids → vectors, and the proof that they are right."""
