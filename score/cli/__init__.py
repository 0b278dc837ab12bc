"""The verbs of the command line, a module each: `HELP`, `add(parser)` and `run(options, settings)`.

They import what they need when they run, so that a verb asks for no library but its own.
"""
