"""The checkpoint that another one was fine-tuned from: source of its tokenizer and image processor.

`save_pretrained` of a model alone writes its configuration and its weights. What it leaves out is
usually the base's, unchanged; whether it fits is checked as far as the files allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from score.checkpoints import hub
from score.checkpoints.catalog import Entry, lookup
from score.checkpoints.provenance import HUB, address, licences
from score.errors import ModelError
from score.folder import mlmodel
from score.folder.architecture import Architecture
from score.folder.model_folder import (
    ModelFolder,
    image_processor,
    preprocessor_file,
    read_json,
    tokenizer_folder,
)
from score.images.preprocess import Preprocessor


@dataclass(frozen=True, slots=True)
class Base:
    """Whose tokenizer and image processor a checkpoint takes.

    folder: where their files are; origin, revision, entry, licence_files: as
    `resolve.ResolvedCheckpoint` has them.
    """

    folder: Path
    origin: str
    revision: str | None = None
    entry: Entry | None = None
    licence_files: tuple[Path, ...] = ()

    @classmethod
    def remembered(cls, metadata: Mapping[str, str], package: Path) -> Base | None:
        """What a package's metadata says of its base; None where it says nothing."""
        if "base" not in metadata:
            return None
        origin, _, revision = metadata["base"].partition("@")
        entry = lookup(origin.removeprefix(HUB)) if origin.startswith(HUB) else None
        return cls(package / "model", origin, revision or None, entry)

    @property
    def name(self) -> str:
        """Where it came from, for the metadata."""
        return f"{self.origin}@{self.revision}" if self.revision else self.origin

    @property
    def notice(self) -> str:
        """A sentence on the base's licence, for users of the fine-tuned checkpoint."""
        if self.entry is None:
            return f"if {self.origin} is what it was fine-tuned from, its licence counts, too"
        licence = self.entry.licence
        return (
            f"if {self.entry.title} is what it was fine-tuned from, its licence counts, too: "
            f"{licence.name}, {licence.says}"
        )

    @property
    def architecture(self) -> Architecture | None:
        """The base's architecture, if it has a configuration. Raises ModelError."""
        file = self.folder / "config.json"
        if not file.is_file():
            return None
        try:
            return Architecture.from_config(read_json(file))
        except ModelError as error:
            raise ModelError(f"--base {self.origin}: {error}") from error

    @property
    def preprocessor(self) -> Preprocessor | None:
        """Its image processor. Raises ModelError."""
        file = preprocessor_file(self.folder)
        return Preprocessor.from_config(image_processor(file)) if file else None

    def complete(self, path: Path, tokenizer: Path | None = None) -> tuple[str, ...]:
        """The parts that a folder in the transformers layout takes from the base.

        `tokenizer`: the folder of the tokenizer, if not the base's. Raises ModelError if no part is
        missing, or if the base lacks it, or its part does not fit.
        """
        folder = ModelFolder.open(path, self.folder, tokenizer)
        lacking = {
            "tokenizer": tokenizer_folder(tokenizer, folder.path) is None,
            "image processor": preprocessor_file(folder.path) is None,
        }
        parts = tuple(part for part, is_lacking in lacking.items() if is_lacking)
        if not parts:
            raise ModelError(f"{path} has a tokenizer and an image processor: --base adds nothing")
        self.must_fit(folder.architecture, parts)
        return parts

    def must_fit(self, architecture: Architecture, parts: tuple[str, ...]) -> None:
        """Raises ModelError unless the base's parts are for models of this architecture."""
        differing = [
            f"its {what} is {theirs}, the checkpoint's {ours}"
            for what, theirs, ours in self._compared(architecture, parts)
            if theirs != ours
        ]
        if differing:
            raise ModelError(f"--base {self.origin} does not fit: {'; '.join(differing)}")

    def _compared(
        self, architecture: Architecture, parts: tuple[str, ...]
    ) -> Iterator[tuple[str, object, object]]:
        """What must agree: its name, its value in the base, its value in the checkpoint."""
        own, preprocessor = self.architecture, self.preprocessor
        if own and "tokenizer" in parts:
            yield "kind", own.kind, architecture.kind
            yield "vocabulary", own.text.vocabulary, architecture.text.vocabulary
            yield "context", own.text.context, architecture.text.context
        if preprocessor and "image processor" in parts:
            (height, width), side = preprocessor.size, architecture.vision.image
            yield "image size", f"{height}×{width}", f"{side}×{side}"


def find(name: str, say: Callable[[str], None] = lambda line: None) -> Base:
    """The base at a path, on the Hub or in the catalog. Raises ModelError."""
    path = Path(name)
    if path.is_file():
        raise ModelError(f"--base {path} is a file; name the folder of a checkpoint, or a Hub id")
    if path.is_dir():
        return _here(path)
    if name.startswith(("/", "./", "../", "~")):
        raise ModelError(f"--base: no such folder: {name}")
    where = address(name)
    say(f"tokenizer and image processor come from {HUB}{where.id}: {where.notice}")
    download = hub.download(where.id, where.revision, weights=False)
    return Base(
        download.folder,
        HUB + where.id,
        download.revision,
        where.entry,
        licences(download.folder),
    )


def _here(path: Path) -> Base:
    """A folder here: a checkpoint's, a processor's, or a package."""
    metadata = mlmodel.metadata(path)
    origin = metadata.get("source", path.resolve().name)
    return Base(
        path / "model" if metadata else path,
        origin,
        metadata.get("revision"),
        lookup(origin.removeprefix(HUB)) if origin.startswith(HUB) else None,
        licences(path),
    )
