"""The files of a package, by name: any other file in its folder is not part of it.

`score package` copies only these, and writes `.amlignore`, which lets Azure ML upload only these.
setup.py runs this file, so it must not import anything of `score`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SCORE = Path(__file__).resolve().parents[1]
"""The folder of the running package `score`."""

MLMODEL = "MLmodel"
IGNORE = ".amlignore"
ALWAYS = (MLMODEL, "conda.yaml", "model", "score")
"""Files and folders that every package has."""
PARTS = (
    *ALWAYS,
    IGNORE,
    "python_env.yaml",
    "requirements.txt",
    "input_example.json",
    "serving_input_example.json",
    "README.md",
    "LICENSE",
    "NOTICE",
)
"""All files and folders that a package may have."""

CODE: Mapping[str, Sequence[str]] = {
    "score": ("*.py", "py.typed"),
    "score/checkpoints": ("*.py",),
    "score/checkpoints/data": ("catalog.toml",),
    "score/checkpoints/data/clip": ("LICENSE", "tokenizer.json"),
    "score/cli": ("*.py",),
    "score/console": ("*.py",),
    "score/contract": ("*.py",),
    "score/core": ("*.py",),
    "score/deploy": ("*.py", "skus.yml"),
    "score/deploy/cli": ("*.py",),
    "score/deploy/rules": ("*.py",),
    "score/deploy/simulate": ("*.py",),
    "score/deploy/templates": (
        "batch.yml",
        "cluster.yml",
        "endpoint.yml",
        "model.yml",
        "online-server.yml",
        "online.yml",
    ),
    "score/concurrency": ("*.py",),
    "score/dialects": ("*.py",),
    "score/entry": ("*.py",),
    "score/evaluation": ("*.py",),
    "score/evaluation/data": ("emoji.json", "imagenet.json", "templates.json"),
    "score/executors": ("*.py",),
    "score/fetch": ("*.py",),
    "score/folder": ("*.py",),
    "score/hardware": ("*.py",),
    "score/images": ("*.py",),
    "score/index": ("*.py",),
    "score/job_folder": ("*.py",),
    "score/job_report": ("*.py",),
    "score/jobs": ("*.py",),
    "score/model": ("*.py",),
    "score/model/engines": ("*.py",),
    "score/package": ("*.py",),
    "score/pages": ("*.py",),
    "score/serve": ("*.py",),
    "score/serve/page": ("index.html", "icon.svg", "*.css", "*.js"),
    "score/storage": ("*.py",),
    "score/tables": ("*.py",),
    "score/texts": ("*.py",),
    "score/training": ("*.py",),
    "score/validation": ("*.py",),
    "score/wording": ("*.py",),
}
"""Folders of the package `score` → patterns of the files in each that a clone uploads."""

_SERVING = (
    *("score", "score/concurrency", "score/console", "score/contract", "score/core"),
    *(
        "score/dialects",
        "score/entry",
        "score/executors",
        "score/fetch",
        "score/folder",
        "score/hardware",
        "score/images",
        "score/model",
        "score/model/engines",
    ),
    *(
        "score/job_folder",
        "score/job_report",
        "score/pages",
        "score/serve",
        "score/serve/page",
        "score/storage",
        "score/tables",
        "score/texts",
    ),
    *("score/validation", "score/wording"),
)
SERVING: Mapping[str, Sequence[str]] = {
    **{folder: CODE[folder] for folder in _SERVING},
    "score/cli": (
        *("__init__.py", "arguments.py", "job_progress.py"),
        *("embed.py", "key.py", "serve.py", "status.py", "verify.py"),
    ),
    "score/jobs": (
        *("__init__.py", "embed.py", "image_files.py", "image_source.py", "input_files.py"),
        *("line_source.py", "shard_names.py", "summary.py", "table_chain.py"),
    ),
}
"""The part of `CODE` in a package: what its MLflow model, Azure's entry scripts, Spark, and the
verbs `embed`, `status`, `serve`, `key` and `verify` need."""

_HEAD = """\
# The files of this folder that Azure ML may upload, as a model or as code: only those named here.
# Written by `score package`. The last rule that matches a path wins.
"""


def copy_code(source: Path, target: Path) -> None:
    """Copies the files in `SERVING` from `source`, a folder `score`, to the new folder `target`."""
    for folder, names in SERVING.items():
        inner = Path(folder).relative_to("score")
        (target / inner).mkdir(parents=True)
        for file in _named(source / inner, names):
            shutil.copyfile(file, target / inner / file.name)


def _named(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        yield from sorted(file for file in folder.glob(name) if file.is_file())


def allow_list(root: Path, code: Mapping[str, Sequence[str]] = SERVING) -> str:
    """The text of `.amlignore` for a package: its parts, its code, and all that `model/` holds.

    code: `SERVING`, or `CODE` for the clone.
    """
    files = [name for name in PARTS if name not in ("model", "score", IGNORE)]
    folders = [root / "model", *sorted(item for item in root.glob("model/**/*") if item.is_dir())]
    model = {
        folder.relative_to(root).as_posix(): [
            file.name for file in sorted(folder.iterdir()) if file.is_file()
        ]
        for folder in folders
    }
    rules = ["*", *(f"!/{name}" for name in files), *rules_of(model), *rules_of(code)]
    return _HEAD + "".join(f"{rule}\n" for rule in rules)


def rules_of(folders: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Rules that include the named files of some folders, outer folders first.

    azure-ai-ml names an upload by a hash that skips excluded folders (`_get_dir_hash`): if `model/`
    were excluded, all models would have the same hash, and only the first would be uploaded. So the
    folder itself is included, its contents are excluded, and the named files included again.
    """
    for folder, names in folders.items():
        yield from (f"!/{folder}", f"/{folder}/**")
        yield from (f"!/{folder}/{name}" for name in names)
