"""Checkpoints on the Hugging Face Hub: an id → a folder on this machine.

huggingface_hub does the work: files are resumed where a download broke off, checked against the
sizes that the Hub states, shown by progress bars, and kept in its cache.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from score.checkpoints.openclip import is_openclips
from score.errors import ModelError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?")

# One set of weights is enough: the first of these that a repository has. Safetensors come before
# pickles, the transformers layout before others.
_WEIGHTS: Sequence[Sequence[str]] = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "*-of-*.safetensors"),
    ("open_clip_model.safetensors",),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "*-of-*.bin"),
    ("open_clip_pytorch_model.bin",),
    ("model.weights.h5",),
    ("model.weights.json", "*.weights.h5"),
)
_OPENCLIPS = [patterns for patterns in _WEIGHTS if patterns[0].startswith("open_clip")]
_BESIDE = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "vocab.txt",
    "metadata.json",
    "preprocessor.json",
    "image_converter.json",
    "assets/tokenizer/*",
    "LICENSE*",
)
_SMALL = ("*.json", *(name for name in _BESIDE if not name.endswith(".json")))


class Download(NamedTuple):
    """A repository's files on this machine, and the commit that they are of."""

    folder: Path
    revision: str


def is_id(text: str) -> bool:
    """Whether a text has the form `owner/name` or `owner/name@revision`."""
    return _ID.fullmatch(text) is not None and ".." not in text


def download(
    id: str,
    revision: str | None = None,
    *,
    weights: bool = True,
    check: Callable[[Path], None] = lambda folder: None,
) -> Download:
    """Downloads the files that packaging needs; those in the cache are not downloaded again.

    `revision`: a branch, tag or commit; None is the head of the main branch. `weights`: whether
    to download them, too. `check`: raises ModelError for the folder of a model that is not wanted,
    which lacks its weights. Raises ModelError, which says how to download on another machine.
    """
    name, _, named = id.partition("@")
    revision = named or revision
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ModelError(f"{error}: install the extra `package`") from None
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        patterns = _weights(name, files) if weights else ()
        folder = Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_BESIDE))
        )
        check(folder)
        commit = folder.name  # the cache names snapshots by their commit
        if weights:  # of the same commit, wherever its branch is now
            huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=list(patterns))
        return Download(folder, commit)
    except ModelError:
        raise
    except (HfHubHTTPError, HFValidationError) as error:
        if getattr(getattr(error, "response", None), "status_code", 0) >= 500 and (
            cached := _cached(name, revision, weights)
        ):
            return cached
        raise ModelError(f"the Hub does not give {id}: {_plain(error)}") from None
    except Exception as error:  # no network, whichever of its libraries met that first
        cached = _cached(name, revision, weights)
        if cached:
            return cached
        raise ModelError(_elsewhere(name, revision, weights, error)) from None


def _cached(name: str, revision: str | None, weights: bool) -> Download | None:
    """An earlier download from the cache, for a machine that cannot reach the Hub now."""
    import huggingface_hub

    def cached(patterns: Sequence[str]) -> Path:
        """Raises OSError if one of the repository's files of these names is not in the cache."""
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), local_files_only=True
            )
        )

    try:
        folder = cached(_BESIDE)
        if weights:
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
            cached(_weights(name, files))
    except (OSError, ValueError, ModelError):
        return None
    return Download(folder, folder.name)


def _weights(name: str, files: Sequence[str]) -> Sequence[str]:
    for patterns in _OPENCLIPS if is_openclips(files) else _WEIGHTS:
        if _found(patterns, files):
            return patterns
    raise ModelError(f"the Hub's {name} holds no weights that can be packaged: {', '.join(files)}")


def _found(patterns: Sequence[str], files: Sequence[str]) -> bool:
    return all(any(fnmatch(file, pattern) for file in files) for pattern in patterns)


def _elsewhere(name: str, revision: str | None, weights: bool, error: Exception) -> str:
    folder = name.split("/")[-1]
    pinned = f" --revision {revision}" if revision else ""
    source = f"{name}@{revision}" if revision else name
    if weights:
        small, use = "", f"package it, with the options that you gave:\n    score package {folder}"
        use += f" --source {source} --output dist/{folder}"
    else:
        small, use = (
            "".join(f" --include {shlex.quote(pattern)}" for pattern in _SMALL),
            f"name it: --base {folder}",
        )
    return (
        f"cannot reach the Hub for {name} ({_plain(error)}). On a machine that can, run\n"
        f"    hf download {name}{pinned}{small} --local-dir {folder}\n"
        f"copy the folder here, and {use}"
    )


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
