"""The verbs of the command line, a module each: `HELP`, `add(parser)` and `run(options, settings)`.
`REMOTE`, where there is one, names the arguments that may be URLs of object stores.

Each imports what it needs when it runs, so a verb needs only its own libraries.
"""

VERBS = (
    "embed",
    "label",
    "split",
    "merge",
    "status",
    "index",
    "search",
    "dedupe",
    "cluster",
    "serve",
    "key",
    "package",
    "catalog",
    "verify",
    "export",
    "register",
    "azure",
    "evaluate",
)
"""In the order of `score --help`. A package contains only some of them."""
