"""Writes the embedded model and makes the repository root an MLflow model around it.

`python -m score.jobs.embedded` rebuilds `model/`, `MLmodel`, `conda.yaml` and `input_example.json`.
The weights are random: the vectors are real numbers of the right shape, and mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from score.folder import EMBEDDED
from score.jobs import checkpoint
from score.jobs.package import describe

NAME = "clip-endpoints-tiny-random"
SEED = 20261121


def build(root: Path) -> None:
    """Writes the embedded model's package files below `root`."""
    checkpoint.write(root / "model", checkpoint.tiny(), SEED, torch.float16)
    describe(root, NAME)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED.parent)
