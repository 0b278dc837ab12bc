"""A worker process that runs an entry script as Azure's batch runner does.

It calls `init()` once, and `run()` for each mini-batch. `runner` starts it, and talks to it over
two pipes, so that the script may print: a list of paths comes in, a result or an error goes out,
each one line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def load(script: Path) -> ModuleType:
    """The entry script as a module. Raises what importing it raises."""
    spec = importlib.util.spec_from_file_location("entry_script", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def appended(result: Any) -> tuple[str, int]:
    """What `run()` returned, as text for `append_row` (no header, no index), and its item count.

    Raises TypeError for a result that is neither a list nor a DataFrame.
    """
    if hasattr(result, "to_csv"):
        return result.to_csv(header=False, index=False, lineterminator="\n"), len(result)
    if not isinstance(result, list | tuple):
        raise TypeError(f"run() must return a list or a DataFrame, not {type(result).__name__}")
    return "".join(f"{item}\n" for item in result), len(result)


def main(arguments: Sequence[str]) -> None:
    """`python worker.py SCRIPT READ WRITE …`: READ and WRITE are file descriptors of the pipes; the
    remaining arguments become the script's `sys.argv`."""
    script, read, write, *rest = arguments
    sys.argv = [script, *rest]
    with os.fdopen(int(read)) as orders, os.fdopen(int(write), "w") as answers:

        def answer(**content: Any) -> None:
            print(json.dumps(content), file=answers, flush=True)

        try:
            module = load(Path(script))
            module.init()
        except BaseException:
            answer(error=traceback.format_exc())
            raise
        answer(ready=True)
        for line in orders:
            try:
                text, count = appended(module.run(json.loads(line)))
            except Exception:
                answer(error=traceback.format_exc())
            else:
                answer(text=text, count=count)


if __name__ == "__main__":
    main(sys.argv[1:])
