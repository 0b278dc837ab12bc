"""Entry script of Azure ML jobs whose result is files: a parquet file for each CSV.

For a batch deployment (`output_action: summary_only`) and for a parallel step alike: `init()` once
a process, `run(mini_batch)` for some CSVs. A file is embedded row by row in bounded memory, however
long it is, and appears under its name when it is complete; a retry of it writes the same name
again. So each row is there once, even where processes were killed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import runpy
from collections.abc import Sequence
from pathlib import Path

if __name__ != "score.shards":  # Azure's runner loads this file by its path
    runpy.run_path(str(Path(__file__).parent / "entry" / "by_path.py"))

from score.contract.params import Params
from score.core.embedder import Embedder
from score.entry import model
from score.errors import RequestError, ScoreError
from score.jobs.embed import embed_file
from score.jobs.shard_names import result_name
from score.storage import atomic

log = logging.getLogger(__name__)

UNREADABLE = "unreadable"
"""Below the output: what was wrong with the files that are no tables."""

_embedder: Embedder
_output: Path


def init() -> None:
    """Loads the model of `--model`, `AZUREML_MODEL_DIR` or the embedded one; creates the output.

    That is `--output`, as a parallel step gives it, or `AZUREML_BI_OUTPUT_PATH`, as a batch
    deployment does. Raises ScoreError without either.
    """
    global _embedder, _output
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(model.model_folder(os.environ)))
    parser.add_argument("--output", default=os.environ.get("AZUREML_BI_OUTPUT_PATH"))
    options, _ = parser.parse_known_args()  # Azure adds its own
    if not options.output:
        raise ScoreError("no output folder: give --output or AZUREML_BI_OUTPUT_PATH")
    _output = Path(options.output)
    _output.mkdir(parents=True, exist_ok=True)
    _embedder = model.load(os.environ, options.model)


def run(mini_batch: Sequence[str]) -> list[str]:
    """One line for each CSV that was embedded: its name, its output, how many rows were good.

    A file that is no table gets no line, by which Azure counts it as failed, and a file below
    `unreadable/` that says why.
    """
    lines = []
    for file in map(Path, mini_batch):
        try:
            name = result_name(file)
        except OSError as error:
            _report(file.stem, file, error)
            continue
        output = _output / f"{name}.parquet"
        try:
            summary = embed_file(_embedder, file, output, Params(on_error="report"))
        except RequestError as error:  # any other error is the machine's: the file is tried again
            _report(name, file, error)
            continue
        lines.append(f"{file.name} {output.name}: {summary}")
    return lines


def _report(name: str, file: Path, error: Exception) -> None:
    log.error("%s: %s", file, error)
    folder = _output / UNREADABLE
    folder.mkdir(exist_ok=True)
    what = {"file": file.name, "message": str(error)}
    with atomic.file(folder / f"{name}.json") as part:
        part.write_text(json.dumps(what) + "\n", encoding="utf-8")
