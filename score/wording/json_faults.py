"""What is wrong with a JSON file of ours that cannot be read, in words."""

from __future__ import annotations

import json

from score.wording.quoting import quoted

FAULTS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading such a file raises: its syntax, a key that is missing, a value of another type."""


def fault_of(error: Exception) -> str:
    """The end of a sentence on one of `FAULTS`."""
    match error:
        case json.JSONDecodeError():
            return f"it is no JSON ({error.msg} at character {error.pos + 1:,})"
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case KeyError():
            return f"it has no {quoted(error.args[0])}"
        case ValueError():
            return str(error)
        case RecursionError():
            return "it is nested too deep"
    return "a value in it is of another type than it should be"
