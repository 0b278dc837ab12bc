"""Rows → records: downloads, decoding and encoding side by side."""
