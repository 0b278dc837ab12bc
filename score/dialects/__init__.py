"""Dialects: what requests, answers and errors look like to clients of other servers.

Each is a small module of functions without I/O; `table` lists them. Knows no web framework.
"""
