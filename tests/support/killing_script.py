"""score/shards.py in a process that is killed once, in the middle of the file `fatal.csv`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from score import shards
from score.contract.params import Params
from score.core.embedder import Embedder
from score.jobs.embed import embed_file
from score.jobs.summary import Summary
from score.shards import init, run

__all__ = ["init", "run"]


def _embed_file(embedder: Embedder, source: Path, output: Path, params: Params) -> Summary:
    mark = Path(os.environ["KILL_MARK"])

    def progress(summary: Summary) -> None:
        if source.name == "fatal.csv" and summary.rows == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return embed_file(embedder, source, output, params, progress)


shards.embed_file = _embed_file
