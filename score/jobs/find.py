"""What a checkpoint is, found by looking at it: a name, a path or a Hub id → `Found`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from score.architecture import Architecture
from score.errors import ModelError
from score.folder import EMBEDDED
from score.jobs import hub, huggingface, kerashub, openclip
from score.jobs.catalog import ARCHITECTURES, CATALOG, Entry, lookup
from score.jobs.source import Source
from score.texts import Texts

_BARE = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint and where it came from.

    name: what to call it; origin: where it came from, in words for the model card; revision: the
    Hub's commit, where it came from there; entry: the catalog's, where it knows the checkpoint;
    licence_files: those that came with it.
    """

    source: Source
    name: str
    origin: str
    revision: str | None = None
    entry: Entry | None = None
    licence_files: tuple[Path, ...] = ()


def find(
    checkpoint: str,
    *,
    architecture: str | None = None,
    tokenizer: Path | None = None,
    revision: str | None = None,
) -> Found:
    """Looks at a checkpoint: a path here, a catalog name, or a Hub id, in this order.

    `architecture`: OpenCLIP's name of what a bare file of weights holds. `tokenizer`: a folder to
    take the tokenizer from instead. Raises ModelError.
    """
    path = Path(checkpoint)
    entry = lookup(path.name if path.is_file() else checkpoint)
    if path.exists():
        source = _local(path, architecture, tokenizer, entry)
        name = path.resolve().stem if path.is_file() else path.resolve().name
        found = Found(source, name, path.resolve().name, None, entry, _licences(path))
    elif entry or hub.is_id(checkpoint):
        id = entry.hub if entry and checkpoint in CATALOG else checkpoint
        pinned = revision or (entry.revision if entry and id == entry.hub else None)
        download = hub.download(id, pinned)
        source = _folder(download.folder, tokenizer)
        origin, licences = f"huggingface.co/{id.partition('@')[0]}", _licences(download.folder)
        name = id.partition("@")[0].split("/")[-1]
        found = Found(source, name, origin, download.revision, entry, licences)
    else:
        raise ModelError(
            f"no checkpoint {checkpoint!r}: it is no file or folder here, no Hub id (owner/name), "
            f"and none of {', '.join(CATALOG)}"
        )
    if entry:
        _must_agree(found.source.architecture, entry)
    return found


def _licences(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.glob("LICENSE*"))) if path.is_dir() else ()


def _local(
    path: Path, architecture: str | None, tokenizer: Path | None, entry: Entry | None
) -> Source:
    if path.is_dir():
        if architecture:
            raise ModelError(f"{path} says itself what it is: --architecture is for bare weights")
        return _folder(path, tokenizer)
    if path.suffix not in _BARE:
        raise ModelError(f"{path} is neither a folder nor weights ({', '.join(_BARE)})")
    if entry and architecture not in (None, entry.architecture):
        raise ModelError(
            f"{path.name} is {entry.title}, whose architecture is {entry.architecture}, "
            f"not {architecture}"
        )
    name = architecture or (entry.architecture if entry else None)
    if name is None:
        raise ModelError(
            f"{path} holds bare weights: say of which --architecture, one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    if entry and entry.sha256:
        _check_sum(path, entry)
    source = openclip.file(path, ARCHITECTURES[name], _tokenizer_of(path.parent, tokenizer))
    if entry:  # bare weights say nothing of their pictures; the catalog does
        resize = source.preprocessor.size if entry.resize == "squash" else None
        if resize:
            source = replace(
                source, preprocessor=replace(source.preprocessor, resize=resize, crop=None)
            )
    return source


def _folder(path: Path, tokenizer: Path | None) -> Source:
    if kerashub.is_preset(path):
        return kerashub.folder(path)
    if (path / openclip.CONFIG).is_file() and not huggingface.has_weights(path):
        return openclip.folder(path, _tokenizer_of(path, tokenizer))
    source = huggingface.folder(path)
    if tokenizer:
        made = source.architecture
        texts = _tokenizer_of(path, tokenizer)(made)
        source = replace(source, tokenizer=texts.to_json(), original=None)
    return source


def _tokenizer_of(folder: Path, given: Path | None) -> Callable[[Architecture], Texts]:
    """Finds the tokenizer: the one given, the checkpoint's own, else CLIP's for CLIP."""

    def find(made: Architecture) -> Texts:
        own = (folder / "tokenizer.json").is_file() or (folder / "merges.txt").is_file()
        place = given or (folder if own else None)
        if place is None and made.kind == "clip":
            place = EMBEDDED  # the embedded model's tokenizer is CLIP's own
        if place is None:
            raise ModelError(
                "these weights come without their tokenizer (XLM-V): name a folder that has its "
                "tokenizer.json with --tokenizer, such as a download of facebook/xlm-v-base"
            )
        texts = Texts.of(place, made.text.context)
        texts.check(made)
        return texts

    return find


def _check_sum(path: Path, entry: Entry) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != entry.sha256:
        raise ModelError(
            f"{path} has the name of {entry.title}, but not its SHA-256 ({entry.sha256}): half a "
            f"download, or another file; rename it to package it as something else"
        )


def _must_agree(made: Architecture, entry: Entry) -> None:
    """What a checkpoint says of itself must be what its authors published."""
    ours, theirs = made.config(), entry.made.config()
    for part in ("vision_config", "text_config"):
        for name, value in theirs[part].items():
            if not name.endswith("token_id") and ours[part][name] != value:
                raise ModelError(
                    f"this is not {entry.title}: its {part}.{name} is {ours[part][name]!r}, "
                    f"published was {value!r}"
                )
