"""What a checkpoint is, found by looking at it: a name, a path or a Hub id → `Found`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from score.architecture import Architecture
from score.cleaning import Name
from score.errors import ModelError
from score.jobs import hub, huggingface, kerashub, openclip
from score.jobs.catalog import (
    ARCHITECTURES,
    CATALOG,
    CLIP_TOKENIZER,
    CLIP_VOCABULARY,
    Entry,
    lookup,
)
from score.jobs.retokenized import cleaned
from score.jobs.source import Source
from score.texts import Texts

_BARE = (".pt", ".pth", ".bin", ".safetensors")
_HUB = "huggingface.co/"
_LARGEST_LICENCE = 2**20  # bytes


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

    @property
    def notice(self) -> str:
        """What must be known before it is used: whose it is, and its licence."""
        return self.entry.notice if self.entry else _unknown(self.origin)


def _unknown(origin: str) -> str:
    return f"{origin} is not in the catalog: find out yourself what its licence allows"


def find(
    checkpoint: str,
    *,
    source: str | None = None,
    architecture: str | None = None,
    tokenizer: Path | None = None,
    revision: str | None = None,
    cleaning: Name | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Looks at a checkpoint: a path here, a catalog name, or a Hub id, in this order.

    `source`: the Hub id or catalog name that a folder here was downloaded as; a folder's own name
    proves nothing. `architecture`: OpenCLIP's name of what a bare file of weights holds.
    `tokenizer`: a folder to take the tokenizer from instead. `cleaning`: of its texts, by default
    that of its layout's library. `say` is told the licence as soon as it is known, before anything
    is downloaded. Raises ModelError.
    """
    path = Path(checkpoint)
    if path.exists():
        found = _here(path, source, architecture, tokenizer)
        say(found.notice)
    elif path.suffix in _BARE:
        known = lookup(path.name)
        where = f"; download it from {known.file}" if known and known.file else ""
        raise ModelError(f"no such file: {path}{where}")
    elif checkpoint.startswith(("/", "./", "../", "~")):
        raise ModelError(f"no such file or folder: {checkpoint}")
    else:
        found = _on_the_hub(checkpoint, tokenizer, revision, say)
    if found.entry:
        _must_agree(found.source.architecture, found.entry)
    return replace(found, source=cleaned(found.source, cleaning))


def _here(
    path: Path, source: str | None, architecture: str | None, tokenizer: Path | None
) -> Found:
    told = _told(path)
    said = source or told.get("source")
    origin = said or path.resolve().name
    id, _, revision = origin.removeprefix(_HUB).partition("@")
    entry = lookup(id) if said else lookup(path.name) if path.is_file() else None
    if source and entry is None and not hub.is_id(source):
        raise ModelError(f"--source {source!r} is neither a Hub id nor a name of the catalog")
    if hub.is_id(id) and (source or origin.startswith(_HUB)):
        origin = _HUB + id
    elif entry and source:
        origin = _HUB + entry.hub
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return Found(
        _local(path, architecture, tokenizer, entry),
        name,
        origin,
        revision or told.get("revision"),
        entry,
        _licences(path),
    )


def _told(path: Path) -> Mapping[str, str]:
    """What a package's `MLmodel` says of where it came from; nothing for what is no package."""
    file = path / "MLmodel"
    if not file.is_file():
        return {}
    try:
        metadata = yaml.safe_load(file.read_text(encoding="utf-8"))["metadata"]
        return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error


def _on_the_hub(
    checkpoint: str, tokenizer: Path | None, revision: str | None, say: Callable[[str], None]
) -> Found:
    named, _, asked = checkpoint.partition("@")
    entry = lookup(named)
    id = named if "/" in named else entry.hub if entry and named in CATALOG else f"keras/{named}"
    if not hub.is_id(id) or ("/" not in named and entry is None):
        raise ModelError(
            f"no checkpoint {checkpoint!r}: it is no file or folder here, no Hub id (owner/name), "
            f"and none of {', '.join(CATALOG)}"
        )
    say(entry.notice if entry else _unknown(_HUB + id))
    pinned = entry.revision if entry and id.lower() == entry.hub.lower() else None
    download = hub.download(id, asked or revision or pinned)
    return Found(
        _folder(download.folder, tokenizer),
        id.split("/")[-1],
        _HUB + id,
        download.revision,
        entry,
        _licences(download.folder),
    )


def _licences(path: Path) -> tuple[Path, ...]:
    """The licence files of a folder or a package: real files of its own, none too large."""
    if not path.is_dir():
        return ()
    # A download's files are links into the Hub's cache, two folders up.
    real = path.resolve()
    homes = (real, real.parents[1] / "blobs") if real.parent.name == "snapshots" else (real,)
    found = [*path.glob("LICENSE*"), *path.glob("model/LICENSE*")]
    return tuple(
        file
        for file in sorted(found)
        if file.is_file()
        and file.stat().st_size <= _LARGEST_LICENCE
        and any(file.resolve().is_relative_to(home) for home in homes)
    )


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
            f"{', '.join(ARCHITECTURES)}. Nothing in the weights can confirm it: -quickgelu is for "
            "those that were trained with QuickGELU, as OpenAI's and MetaCLIP's were"
        )
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    if entry and entry.sha256:
        _check_sum(path, entry)
    source = openclip.file(path, ARCHITECTURES[name], _tokenizer_of(path.parent, tokenizer))
    if entry and entry.resize == "squash":  # bare weights say nothing of their pictures
        plain = source.preprocessor
        source = replace(source, preprocessor=replace(plain, resize=plain.size, crop=None))
    return source


def _folder(path: Path, tokenizer: Path | None) -> Source:
    if kerashub.is_preset(path):
        return kerashub.folder(path)
    if (path / openclip.CONFIG).is_file() and not huggingface.has_weights(path):
        return openclip.folder(path, _tokenizer_of(path, tokenizer))
    source = huggingface.folder(path)
    if tokenizer:
        made = source.architecture
        texts = _tokenizer_of(path, tokenizer)(made, None)
        source = replace(source, tokenizer=texts.to_json(), original=None, cleaning=texts.cleaning)
    return source


def _tokenizer_of(folder: Path, given: Path | None) -> openclip.Tokenizer:
    """Finds the tokenizer: the one given, the checkpoint's own, else CLIP's for plain CLIP."""

    def find(made: Architecture, named: str | None) -> Texts:
        own = (folder / "tokenizer.json").is_file() or (folder / "merges.txt").is_file()
        place = given or (folder if own else None)
        clips = made.kind == "clip" and made.text.vocabulary == CLIP_VOCABULARY and not named
        if place is None and clips:
            place = CLIP_TOKENIZER
        if place is None:
            raise ModelError(
                f"these weights come without their tokenizer ({named or 'XLM-V'}): name a folder "
                "that has its tokenizer.json with --tokenizer"
                f", such as a download of {named or 'facebook/xlm-v-base'}"
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
    for name, (ours, theirs) in made.differences(entry.made).items():
        if not name.endswith("token_id"):
            raise ModelError(
                f"this is not {entry.title}: its {name} is {ours!r}, published was {theirs!r}"
            )
