"""Writes the pages of docs/reference/ from the code: settings, command line, errors, Python API,
checkpoints.

`make reference` rewrites them; a test fails where one is out of date. Nothing in them depends on
the Python version, the terminal or the machine.
"""
