"""Threads: the end of a call, turns among calls, and pauses between attempts."""
