"""The verbs of the command line, a module each: `HELP`, `add(parser)` and `run(options, settings)`.

They import what they need when they run, so that a verb asks for no library but its own.
"""

VERBS = (
    "embed",
    "label",
    "split",
    "merge",
    "index",
    "search",
    "serve",
    "package",
    "catalog",
    "verify",
    "export",
    "register",
    "azure",
    "evaluate",
)
"""In the order in which `score --help` lists them. A package has some of them alone."""
