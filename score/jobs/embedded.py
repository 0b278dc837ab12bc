"""Makes the repository root an MLflow model around the embedded model.

`python -m score.jobs.train model` leaves a model in `model/`; `python -m score.jobs.embedded` then
writes its `probes.json`, and `MLmodel`, `conda.yaml` and `input_example.json` beside it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from score.folder import EMBEDDED
from score.jobs import huggingface
from score.jobs.package import describe
from score.jobs.promise import promise
from score.jobs.reference import Reference
from score.probes import FILE

NAME = "clip-endpoints-emoji"


def build(root: Path) -> None:
    """Writes the embedded model's package files below `root`, around its weights."""
    model = root / "model"
    if model.resolve() != EMBEDDED.resolve():
        shutil.copytree(EMBEDDED, model, ignore=shutil.ignore_patterns(FILE), dirs_exist_ok=True)
    with Reference(huggingface.folder(model), model) as reference:
        promise(reference).write(model)
    describe(root, NAME, {"license": "MIT"})


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED.parent)
