"""A model folder as a typed value: its path and the content of its JSON files.

Reads files and JSON; independent of torch, images and tokenizers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from score.errors import ModelError
from score.folder import mlmodel, registry
from score.folder.architecture import Architecture
from score.folder.families import Kind
from score.folder.small_files import SETTINGS, is_deep, read_text
from score.type_aliases import Json

_CODE = Path(__file__).resolve().parents[1]  # the package `score`
_IN_WHEEL = _CODE / "embedded"  # setup.py puts it there

EMBEDDED = (_IN_WHEEL if _IN_WHEEL.is_dir() else _CODE.parent) / "model"
"""The embedded model. Its `MLmodel` is in the parent folder: in a clone and in a package the one
that holds `score/`, in a wheel `score/embedded`."""

LFS_POINTER = "a Git LFS pointer; run `git lfs pull`"
"""Part of the message about a file for which `is_lfs_pointer` is true."""

_LFS_HEAD = b"version https://git-lfs"

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""The files that may hold an image processor, the first before the second, as in transformers; in
the first it is beside the tokenizer."""

_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("vocab.txt",),
)
_TOKENIZERS_OF: Mapping[Kind, str] = {
    "clip": "tokenizer.json, or vocab.json and merges.txt",
    "metaclip_2": "tokenizer.json",
    "siglip": "spiece.model, or SigLIP 2's tokenizer.json",
    "chinese_clip": "vocab.txt, or tokenizer.json",
}
"""The files that a family's checkpoints have for it."""

_WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json",),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json",),
)
_CHUNK = 2**20  # bytes
_DETERMINE_VECTORS = {".safetensors", ".json", ".txt", ".model"}
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
        """Opens a transformers folder, a package, or a folder that contains one of these.

        The last is what Azure ML mounts (`AZUREML_MODEL_DIR`). A URI of MLflow's, such as
        `models:/clip/1`, is downloaded. `base`: a folder with the tokenizer and image processor to
        use where the checkpoint lacks them; `tokenizer`: a folder whose tokenizer replaces the
        checkpoint's. Raises ModelError; if files are missing, the message lists all of them.
        """
        folder = _locate(registry.download(str(path)) if registry.is_uri(path) else Path(path))
        architecture = _architecture(folder / "config.json")
        tokenizer = tokenizer or tokenizer_folder(folder, base)
        preprocessor = preprocessor_file(folder, base)
        if tokenizer is None or preprocessor is None:
            kind = architecture.kind
            raise ModelError(
                _incomplete(folder, kind, base, tokenizer is None, preprocessor is None)
            )
        return cls(folder, architecture, image_processor(preprocessor), tokenizer)

    @property
    def name(self) -> str:
        """The model's name: its package's, else the folder's."""
        return mlmodel.model_name(self.path) or self.path.resolve().name

    def fingerprint(self, given_up: threading.Event | None = None) -> str:
        """12 hexadecimal digits that identify the model, independent of the folder's name.

        A digest of the names and contents of the files that determine vectors: weights, config,
        tokenizer and image processor; not of probes, nor of `int8/`, which is derived from the
        weights. Reads every file, which takes minutes for a large model on a slow disk; `given_up`
        ends that early. Raises ModelError.
        """
        digest = hashlib.sha256()
        try:
            for file in sorted(self.path.iterdir()):
                if file.suffix in _DETERMINE_VECTORS and file.name != _PROBES:
                    content = _digest(file, given_up or threading.Event())
                    digest.update(hashlib.sha256(file.name.encode()).digest() + content)
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error}") from error
        return digest.hexdigest()[:12]


def _digest(file: Path, given_up: threading.Event) -> bytes:
    """SHA-256 of a file. Raises OSError, ModelError where it is given up."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
            if given_up.is_set():
                raise ModelError(f"{file}: reading it was given up")
    return digest.digest()


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
        models = [candidate for candidate in candidates if (candidate / "config.json").is_file()]
        if len(models) == 1:
            return models[0]
        if models:
            listed = ", ".join(model.name for model in models)
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

    The first of `PROCESSORS` that has one. Raises ModelError.
    """
    for folder in filter(None, folders):
        combined, own = (folder / name for name in PROCESSORS)
        if combined.is_file() and isinstance(read_json(combined).get("image_processor"), dict):
            return combined
        if own.is_file():
            return own
    return None


def _holds(folder: Path, *alternatives: tuple[str, ...]) -> bool:
    """Whether all files of one of the alternatives exist."""
    return any(all((folder / name).is_file() for name in names) for names in alternatives)


def _incomplete(
    folder: Path, kind: Kind, base: Path | None, tokenizer: bool, preprocessor: bool
) -> str:
    """The message for an incomplete folder, as `save_pretrained` of a model alone writes it."""
    missing = [
        *([f"a tokenizer ({_TOKENIZERS_OF[kind]})"] if tokenizer else []),
        *(["an image processor (preprocessor_config.json)"] if preprocessor else []),
        *([] if _holds(folder, *_WEIGHTS) else ["weights (model.safetensors)"]),
    ]
    lacks = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
    so_does = f", and so does {base}" if base else ""
    example = "openai/clip-vit-base-patch32" if kind == "clip" else "ID"  # others fit few models
    return (
        f"{folder} lacks {lacks}{so_does}: `score package {folder} --base {example} --output DIR` "
        "takes tokenizer and image processor from the checkpoint that this one was fine-tuned "
        "from, a Hub id or a folder"
    )


def image_processor(file: Path) -> Json:
    """The configuration in a file that `preprocessor_file` returns. Raises ModelError."""
    content = read_json(file)
    nested: Json = content["image_processor"] if file.name == PROCESSORS[0] else content
    return nested


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is a Git LFS pointer: a placeholder for a file that was not downloaded."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS_HEAD)) == _LFS_HEAD


def read_json(file: Path, most: int = SETTINGS) -> Json:
    """The JSON object in a file of at most `most` bytes. Raises ModelError."""
    try:
        content = json.loads(read_text(file, most))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object")
    if is_deep(content):
        raise ModelError(f"cannot read {file}: its lists and objects are nested too deeply")
    return content


def read_optional_json(file: Path) -> Json:
    """The JSON object in a file; an empty one if the file is missing. Raises ModelError."""
    return read_json(file) if file.is_file() else {}
