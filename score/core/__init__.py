"""Rows → records: download, decode and encode concurrently."""
