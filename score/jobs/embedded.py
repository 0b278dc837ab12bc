"""Writes the embedded model and makes the repository root an MLflow model around it.

`python -m score.jobs.embedded` rebuilds `model/`, `MLmodel`, `conda.yaml` and `input_example.json`.
The weights are random: the vectors are real numbers of the right shape, and mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from score.folder import EMBEDDED, ModelFolder
from score.jobs import checkpoint
from score.jobs.package import describe
from score.jobs.promise import promise
from score.jobs.reference import Reference

NAME = "clip-endpoints-tiny-random"
SEED = 20261121


def build(root: Path) -> None:
    """Writes the embedded model's package files below `root`."""
    model = checkpoint.write(root / "model", checkpoint.TINY, SEED, "fp16")
    with Reference(model, None, ModelFolder.open(model).architecture) as reference:
        promise(reference).write(model)
    describe(root, NAME)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED.parent)
