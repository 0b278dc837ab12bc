"""A name, a path or a Hub id → `ResolvedCheckpoint`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from score.checkpoints import (
    family,
    hub,
    kerashub,
    openclip,
    state_dict,
    tokenizer_trial,
    transformers_layout,
)
from score.checkpoints.architectures import ARCHITECTURES, CLIP_TOKENIZER, CLIP_VOCABULARY
from score.checkpoints.base_checkpoint import Base
from score.checkpoints.base_checkpoint import find as find_base
from score.checkpoints.catalog import Entry, lookup
from score.checkpoints.provenance import HUB, address, licences, unknown
from score.checkpoints.retokenized import cleaned
from score.checkpoints.source import Source, opened
from score.errors import ModelError
from score.folder import mlmodel
from score.folder.architecture import Architecture
from score.folder.model_folder import (
    preprocessor_file,
    read_optional_json,
    tokenizer_folder,
)
from score.storage.digest import sha256_of
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Name
from score.texts.tokenizer import Tokenizer
from score.texts.tokenizer_files import names_in

_BARE = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True, slots=True)
class ResolvedCheckpoint:
    """A checkpoint and where it came from.

    name: what to call it; origin: where it came from, in words for the model card; revision: the
    Hub's commit, where it came from there; entry: the catalog's, where it knows the checkpoint;
    licence_files: those that came with it; base: whose tokenizer and image processor it has, where
    they are another's.
    """

    source: Source
    name: str
    origin: str
    revision: str | None = None
    entry: Entry | None = None
    licence_files: tuple[Path, ...] = ()
    base: Base | None = None

    @property
    def notice(self) -> str:
        """Its title, authors and licence, shown before it is used."""
        own = self.entry.notice if self.entry else unknown(self.origin)
        return f"{own}; {self.base.notice}" if self.base else own


@dataclass(frozen=True, slots=True)
class _Options:
    """The user's options for a checkpoint's parts, as in `find`."""

    architecture: str | None
    tokenizer: Path | None
    weights: str | None
    base: Base | None


def find(
    checkpoint: str,
    *,
    source: str | None = None,
    architecture: str | None = None,
    tokenizer: Path | None = None,
    revision: str | None = None,
    weights: str | None = None,
    base: str | None = None,
    cleaning: Name | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ResolvedCheckpoint:
    """Looks at a checkpoint: a path here, a catalog name, or a Hub id, in this order.

    `source`: the Hub id or catalog name that a folder here was downloaded as; a folder's own name
    proves nothing. `architecture`: OpenCLIP's name of what a bare file of weights holds.
    `tokenizer`: a folder to take the tokenizer from instead. `weights`: where in its file the model
    is, as in `state_dict.find`. `base`: a folder, a catalog name or a Hub id from which a
    checkpoint that came without them takes tokenizer and image processor. `cleaning`: of its texts,
    by default that of its layout's library. `say` is told the licence as soon as it is known,
    before anything is downloaded. Raises ModelError.
    """
    path = Path(checkpoint)
    if not path.exists():
        _may_be_on_the_hub(checkpoint)
    options = _Options(architecture, tokenizer, weights, find_base(base, say) if base else None)
    if path.exists():
        resolved = _here(path, source, options)
        say(resolved.notice)
    else:
        resolved = _on_the_hub(checkpoint, revision, options, say)
    for remark in resolved.source.remarks:
        say(remark)
    if resolved.entry:
        _must_agree(resolved.source.architecture, resolved.entry)
    return replace(resolved, source=cleaned(resolved.source, cleaning))


def _may_be_on_the_hub(checkpoint: str) -> None:
    """Raises ModelError for a name that can only be a path, and does not exist."""
    if Path(checkpoint).suffix in _BARE:
        known = lookup(Path(checkpoint).name)
        where = f"; download it from {known.file}" if known and known.file else ""
        raise ModelError(f"no such file: {checkpoint}{where}")
    if checkpoint.startswith(("/", "./", "../", "~")):
        raise ModelError(f"no such file or folder: {checkpoint}")


def _here(path: Path, source: str | None, options: _Options) -> ResolvedCheckpoint:
    metadata = mlmodel.metadata(path)
    source_name = source or metadata.get("source")
    origin = source_name or path.resolve().name
    id, _, revision = origin.removeprefix(HUB).partition("@")
    entry = lookup(id) if source_name else lookup(path.name) if path.is_file() else None
    if source and entry is None and not hub.is_id(source):
        raise ModelError(f"--source {source!r} is neither a Hub id nor a name of the catalog")
    if hub.is_id(id) and (source or origin.startswith(HUB)):
        origin = HUB + id
    elif entry and source:
        origin = HUB + entry.hub
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return ResolvedCheckpoint(
        _local(path, options, entry),
        name,
        origin,
        revision or metadata.get("revision"),
        entry,
        licences(path),
        options.base or Base.remembered(metadata, path),
    )


def _on_the_hub(
    checkpoint: str, revision: str | None, options: _Options, say: Callable[[str], None]
) -> ResolvedCheckpoint:
    where = address(checkpoint, revision)
    say(where.notice)
    download = hub.download(where.id, where.revision, check=_known_family)
    try:
        source = _folder(download.folder, options)
    except ModelError as error:  # the folder's name is that of the cache
        raise ModelError(str(error).replace(str(download.folder), checkpoint)) from error
    return ResolvedCheckpoint(
        source,
        where.id.split("/")[-1],
        HUB + where.id,
        download.revision,
        where.entry,
        licences(download.folder),
        options.base,
    )


def _known_family(folder: Path) -> None:
    """As `family.check`, for a folder whose name is that of the cache."""
    try:
        family.check(folder)
    except ModelError as error:
        raise ModelError(str(error).replace(f"{folder}/", "")) from error


def _local(path: Path, options: _Options, entry: Entry | None) -> Source:
    if path.is_dir():
        return _folder(path, options)
    if path.suffix not in _BARE:
        raise ModelError(f"{path} is neither a folder nor weights ({', '.join(_BARE)})")
    architecture = _architecture(path, options, entry)
    if entry and entry.sha256:
        _check_sum(path, entry)
    return _bare(path, architecture, options, entry)


def _architecture(path: Path, options: _Options, entry: Entry | None) -> Architecture:
    """The architecture of bare weights, as stated by the user or the catalog. Raises ModelError."""
    if entry and options.architecture not in (None, entry.architecture_name):
        raise ModelError(
            f"{path.name} is {entry.title}, whose architecture is {entry.architecture_name}, "
            f"not {options.architecture}"
        )
    name = options.architecture or (entry.architecture_name if entry else None)
    base = options.base.architecture if options.base else None
    if name is None and base:
        return base
    if name is None:
        raise ModelError(
            f"{path} holds bare weights: say of which --architecture, one of "
            f"{', '.join(ARCHITECTURES)}. Nothing in the weights can confirm it: -quickgelu is for "
            "those that were trained with QuickGELU, as OpenAI's and MetaCLIP's were"
        )
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    for what, (ours, theirs) in (base.differences(architecture) if base else {}).items():
        if not what.endswith("token_id"):
            raise ModelError(f"--base is no {name}: its {what} is {ours!r}, not {theirs!r}")
    return architecture


def _bare(path: Path, architecture: Architecture, options: _Options, entry: Entry | None) -> Source:
    """Bare weights; the names of their tensors tell the layout."""
    layouts = (openclip.NAMES, transformers_layout.NAMES)
    model = state_dict.find(opened(path), layouts, options.weights)
    base = options.base
    texts = _tokenizer_of(path.parent, options)(architecture, None)
    read = transformers_layout.file if model.names == transformers_layout.NAMES else openclip.file
    source = replace(read(model.tensors, architecture, texts), remarks=model.remarks)
    plain = source.preprocessor
    if base:
        parts = ("image processor",) if options.tokenizer else ("tokenizer", "image processor")
        base.must_fit(architecture, parts)
        source = replace(
            source,
            preprocessor=base.preprocessor or plain,
            tokenizer_folder=None if options.tokenizer else tokenizer_folder(base.folder),
            processor_file=preprocessor_file(base.folder),
        )
    elif entry and entry.resize == "squash":  # bare weights have no image processor
        source = replace(source, preprocessor=replace(plain, resize=plain.size, crop=None))
    return source


def _folder(path: Path, options: _Options) -> Source:
    family.check(path)
    base = options.base
    if options.architecture:
        raise ModelError(f"{path} says itself what it is: --architecture is for bare weights")
    is_openclips = openclip.is_openclips([file.name for file in path.iterdir() if file.is_file()])
    if base and (is_openclips or family.is_preset(path)):
        raise ModelError(f"{path}: --base is for the transformers layout, and for bare weights")
    if family.is_preset(path):
        if options.tokenizer or options.weights:
            raise ModelError(
                f"{path} is a KerasHub preset, of one model and its own tokenizer: --weights and "
                "--tokenizer are for other layouts"
            )
        return kerashub.folder(path)
    if is_openclips:
        source = openclip.folder(path, _tokenizer_of(path, options), options.weights)
        as_published = source.architecture.text.pads and options.tokenizer is None
        return replace(source, tokenizer_folder=path) if as_published else source
    parts = base.complete(path, options.tokenizer) if base else ()
    source = transformers_layout.folder(
        path, base.folder if base else None, options.weights, options.tokenizer
    )
    if base:
        remark = f"taken from {base.name}: {' and '.join(parts)}"
        source = replace(source, remarks=(*source.remarks, remark))
    return source


def _tokenizer_of(folder: Path, options: _Options) -> openclip.MakeTokenizer:
    """Finds the tokenizer: of `--tokenizer`, the base, the checkpoint, else CLIP's own."""

    def find(architecture: Architecture, named: str | None) -> Tokenizer:
        pads = architecture.text.pads
        own = names_in(folder, read_optional_json(folder / CONFIG), pads=pads)
        base = tokenizer_folder(options.base.folder) if options.base else None
        files = options.tokenizer or base or (folder if own else None)
        clips = (
            architecture.kind == "clip"
            and architecture.text.vocabulary == CLIP_VOCABULARY
            and not named
        )
        if files is None and clips:
            files = CLIP_TOKENIZER
        if files is None:
            raise ModelError(
                f"these weights come without their tokenizer ({named or 'XLM-V'}): name a folder "
                "that has its tokenizer.json with --tokenizer"
                f", such as a download of {named or 'facebook/xlm-v-base'}"
            )
        tokenizer_trial.check(files, architecture.text.context, pads=pads)
        texts = Tokenizer.of(files, architecture.text.context, pads=pads)
        texts.check(architecture)
        return texts

    return find


def _check_sum(path: Path, entry: Entry) -> None:
    if sha256_of(path) != entry.sha256:
        raise ModelError(
            f"{path} has the name of {entry.title}, but not its SHA-256 ({entry.sha256}): half a "
            f"download, or another file; rename it to package it as something else"
        )


def _must_agree(architecture: Architecture, entry: Entry) -> None:
    """Raises ModelError if the architecture differs from the one that its authors published."""
    for name, (ours, theirs) in architecture.differences(entry.architecture).items():
        if not name.endswith("token_id"):
            raise ModelError(
                f"this is not {entry.title}: its {name} is {ours!r}, published was {theirs!r}"
            )
