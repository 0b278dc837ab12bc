"""`score` whose worker processes are killed by a row that holds the word `fatal`: each of them, or
one alone where DYING_ONCE names a file that the first one makes.

A process that is spawned runs this file, too, before it works.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from score.__main__ import main
from score.job_folder.shard import Shard

_add = Shard.add


def _dying(self: Shard, line: Any, *others: Any) -> None:
    if any("fatal" in (cell or "") for cell in line.kept):
        mark = Path(os.environ.get("DYING_ONCE", ""))
        if not mark.is_file():
            if "DYING_ONCE" in os.environ:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    _add(self, line, *others)


Shard.add = _dying  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
