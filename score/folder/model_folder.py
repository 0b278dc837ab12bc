"""A model folder as a typed value: where it is, and what its JSON files say.

Knows files and JSON; knows nothing of torch, images or words.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from score.arrays import Json
from score.errors import ModelError
from score.folder import registry
from score.folder.architecture import Architecture

_CODE = Path(__file__).resolve().parents[1]  # the package `score`
_IN_WHEEL = _CODE / "embedded"  # setup.py puts it there

EMBEDDED = (_IN_WHEEL if _IN_WHEEL.is_dir() else _CODE.parent) / "model"
"""The model that comes with the code, with its `MLmodel` beside it: in a clone, as in a package,
beside `score/`; in a wheel, in `score/embedded`."""

LFS_POINTER = "a Git LFS pointer; run `git lfs pull`"
"""What to say of a file for which `is_lfs_pointer` is true."""

_LFS_HEAD = b"version https://git-lfs"
_PROCESSOR = "processor_config.json"
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json",),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json",),
)
_DECISIVE = {".safetensors", ".json", ".txt", ".model"}
_PROBES = "probes.json"
_PACKAGE_DATA = "model"  # what a package's MLmodel names as `data`


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A CLIP checkpoint in the transformers layout.

    path: the folder that holds `config.json`, `model.safetensors` and the tokenizer.
    architecture: what its `config.json` declares.
    preprocessor: how images become pixels, from `preprocessor_config.json`.
    tokenizer: the folder that holds the tokenizer; `path`, unless it lacks one.
    """

    path: Path
    architecture: Architecture
    preprocessor: Json
    tokenizer: Path

    @classmethod
    def open(
        cls, path: str | Path, base: Path | None = None, tokenizer: Path | None = None
    ) -> ModelFolder:
        """The checkpoint at `path`: a plain transformers folder, a package, or their one parent.

        The last is what Azure ML mounts (`AZUREML_MODEL_DIR`). A name of MLflow's, such as
        `models:/clip/1`, is downloaded. `base`: a folder from which tokenizer and preprocessor are
        taken where the checkpoint's lacks them; `tokenizer`: one whose tokenizer counts instead of
        the checkpoint's. Raises ModelError, for missing files one that names them all.
        """
        folder = _locate(registry.download(str(path)) if registry.is_uri(path) else Path(path))
        architecture = _architecture(folder / "config.json")
        tokenizer = tokenizer or tokenizer_folder(folder, base)
        preprocessor = preprocessor_file(folder, base)
        if tokenizer is None or preprocessor is None:
            raise ModelError(_bare(folder, base, tokenizer is None, preprocessor is None))
        return cls(folder, architecture, image_processor(preprocessor), tokenizer)

    def fingerprint(self) -> str:
        """12 hexadecimal digits that tell models apart, whatever their folders are called.

        Of the names and contents of all that decides vectors: weights, config, tokenizer and
        preprocessor; not of probes, nor of what was made of the weights, as `int8/` is. Reads every
        file. Raises ModelError.
        """
        digest = hashlib.sha256()
        try:
            for file in sorted(self.path.iterdir()):
                if file.suffix in _DECISIVE and file.name != _PROBES:
                    with file.open("rb") as stream:
                        content = hashlib.file_digest(stream, "sha256").digest()
                    digest.update(hashlib.sha256(file.name.encode()).digest() + content)
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error}") from error
        return digest.hexdigest()[:12]


def _locate(path: Path) -> Path:
    if not path.is_dir():
        raise ModelError(f"no model folder at {path}")
    children = sorted(child for child in path.iterdir() if child.is_dir())
    for candidates in (
        [path],
        [path / _PACKAGE_DATA],
        children,
        [c / _PACKAGE_DATA for c in children],
    ):
        found = [candidate for candidate in candidates if (candidate / "config.json").is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(candidate.name for candidate in found)
            raise ModelError(f"several models in {path} ({listed}): name one of them")
    raise ModelError(f"no config.json in {path}, nor in {path / _PACKAGE_DATA}")


def _architecture(file: Path) -> Architecture:
    config = read_json(file)
    try:
        return Architecture.from_config(config)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def tokenizer_folder(*folders: Path | None) -> Path | None:
    """The first of some folders that holds a tokenizer."""
    return next((folder for folder in folders if folder and _holds(folder, *_TOKENIZERS)), None)


def preprocessor_file(*folders: Path | None) -> Path | None:
    """The image processor's configuration in the first of some folders that has one.

    Where transformers looks: what a whole processor was saved as counts more than its part. Raises
    ModelError.
    """
    for folder in filter(None, folders):
        combined, own = folder / _PROCESSOR, folder / "preprocessor_config.json"
        if combined.is_file() and isinstance(read_json(combined).get("image_processor"), dict):
            return combined
        if own.is_file():
            return own
    return None


def _holds(folder: Path, *alternatives: tuple[str, ...]) -> bool:
    """Whether all files of one of the alternatives are there."""
    return any(all((folder / name).is_file() for name in names) for names in alternatives)


def _bare(folder: Path, base: Path | None, tokenizer: bool, preprocessor: bool) -> str:
    """What a folder lacks, as `save_pretrained` of a model alone leaves it, and what to do."""
    missing = [
        *(["a tokenizer (tokenizer.json, or vocab.json and merges.txt)"] if tokenizer else []),
        *(["an image processor (preprocessor_config.json)"] if preprocessor else []),
        *([] if _holds(folder, *_WEIGHTS) else ["weights (model.safetensors)"]),
    ]
    lacks = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
    so_does = f", and so does {base}" if base else ""
    return (
        f"{folder} lacks {lacks}{so_does}: `score package {folder} --base "
        "openai/clip-vit-base-patch32 --output DIR` takes tokenizer and image processor from the "
        "checkpoint that this one was fine-tuned from, a Hub id or a folder"
    )


def image_processor(file: Path) -> Json:
    """The configuration in what `preprocessor_file` finds. Raises ModelError."""
    content = read_json(file)
    nested: Json = content["image_processor"] if file.name == _PROCESSOR else content
    return nested


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what Git leaves in the place of one that was not downloaded."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS_HEAD)) == _LFS_HEAD


def read_json(file: Path) -> Json:
    """The JSON object in a file. Raises ModelError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object")
    return content


def read_optional_json(file: Path) -> Json:
    """The JSON object in a file; an empty one where there is no such file. Raises ModelError."""
    return read_json(file) if file.is_file() else {}
