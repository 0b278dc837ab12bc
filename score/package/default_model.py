"""Writes the files that make the repository root an MLflow model.

`python -m score.training model` writes the embedded model to `model/`. This module adds its
`probes.json`, and beside it `MLmodel`, `conda.yaml` and MLflow's two input examples.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from score.console.commands import Parser, required_imports, run
from score.folder.model_folder import EMBEDDED
from score.model.probes import FILE

with required_imports(__name__):
    from score.checkpoints import transformers_layout
    from score.package.build import describe
    from score.package.contents import CODE
    from score.package.probe_set import reference_probes
    from score.package.reference import Reference

NAME = "clip-endpoints-emoji"


def build(root: Path) -> None:
    """Writes the embedded model's package files below `root`, around its weights."""
    model = root / "model"
    if model.resolve() != EMBEDDED.resolve():
        shutil.copytree(EMBEDDED, model, ignore=shutil.ignore_patterns(FILE), dirs_exist_ok=True)
    with Reference(transformers_layout.folder(model), model) as reference:
        reference_probes(reference).write(model)
    describe(root, NAME, {"license": "MIT"}, code=CODE)


def main() -> None:
    """`python -m score.package.default_model [FOLDER]`."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "root",
        type=Path,
        nargs="?",
        default=EMBEDDED.parent,
        metavar="FOLDER",
        help="default: this clone",
    )
    build(parser.parse_args().root)


if __name__ == "__main__":
    run(main)
