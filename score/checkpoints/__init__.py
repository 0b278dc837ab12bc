"""Checkpoints in the layouts that they are published in → the canonical model folder."""
