"""Attacks on what reads the bytes of strangers: generated input, and what must hold."""
