"""`manifest.json`: what a job computes. A job that goes on must compute the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from score.contract.params import Params
from score.contract.rows import IMAGE
from score.core.embedder import Embedder
from score.core.identity import Identity
from score.errors import RequestError
from score.job_folder import input_files
from score.job_folder.input_files import InputFile
from score.job_folder.ledger import FORCE_NEW, number
from score.job_folder.ledger import NAME as LEDGER
from score.settings import Settings
from score.storage import atomic
from score.tables.lines import NO_NAMES, Lines
from score.type_aliases import Json, VectorType
from score.wording.json_faults import FAULTS, fault_of
from score.wording.quoting import quoted

NAME = "manifest.json"
FORMAT = 1
_SETTINGS = ("exif_orientation", "decoding", "wide_pixels")
"""Those that change a row's vector. Others decide which rows fail, and may be changed."""
_VECTORS_OF = 1
"""Is raised when a release computes other vectors with the same model and options."""
_LARGEST = 64 * 2**20  # bytes; a job of a hundred thousand input files has 16 MiB


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a job computes, and of what.

    identity: of the model. options: what shapes a vector, by the name that messages give it.
    columns: of the input, kept beside the vectors; types: of those that hold no text. size: how far
    the input can be read, in the unit of `Lines.size`. rows: of the input; None until all have been
    read.
    """

    created: str
    identity: Identity
    dimension: int
    options: Mapping[str, Any]
    columns: tuple[str, ...]
    inputs: tuple[InputFile, ...]
    size: int
    rows: int | None = None
    types: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        params: Params,
        vectors: VectorType,
        lines: Lines,
        chosen: Mapping[str, str] = NO_NAMES,
    ) -> Self:
        """What a job that begins now computes. Reads the input files. Raises OSError.

        chosen: the input's own names of our columns, as for `open_lines`.
        """
        identity, dimension = Identity.of(embedder), embedder.dimension
        return cls.about(identity, dimension, embedder.settings, params, vectors, lines, chosen)

    @classmethod
    def about(
        cls,
        identity: Identity,
        dimension: int,
        settings: Settings,
        params: Params,
        vectors: VectorType,
        lines: Lines,
        chosen: Mapping[str, str] = NO_NAMES,
        inputs: tuple[InputFile, ...] | None = None,
    ) -> Self:
        """As `of`, where the model is in another process. settings: that it was loaded with.
        inputs: where the files are not to be read."""
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            identity=identity,
            dimension=dimension,
            options={
                "vectors": vectors,
                "columns": dict(sorted(chosen.items())),
                "root": _other_root(lines),
                **_shaping(settings, params),
            },
            columns=tuple(lines.columns),
            inputs=input_files.of(lines.files) if inputs is None else inputs,
            size=lines.size,
            types={name: str(kind) for name, kind in lines.types.items()},
        )

    def change(self, now: Manifest) -> str:
        """What a job that goes on would compute otherwise, as a sentence; empty for nothing."""
        was, identity = self.identity, now.identity
        if was.fingerprint != identity.fingerprint:
            return (
                f"the model was {quoted(was.model)} (fingerprint {was.fingerprint[:12]}), and is "
                f"{quoted(identity.model)} ({identity.fingerprint[:12]}) now"
            )
        if was.precision != identity.precision:
            return f"the precision was {was.precision}, and is {identity.precision} now"
        for name, value in now.options.items():
            if (before := self.options.get(name)) != value:
                return f"{name} was {_shown(before)}, and is {_shown(value)} now"
        if self.columns != now.columns:
            return (
                f"the input's columns were {', '.join(map(quoted, self.columns))}, and are "
                f"{', '.join(map(quoted, now.columns))} now"
            )
        return input_files.change(self.inputs, now.inputs) or self._change_of_types(now)

    def _change_of_types(self, now: Manifest) -> str:
        for name in self.columns:
            before, after = (one.types.get(name, "text") for one in (self, now))
            if before != after:
                return f"the column {quoted(name)} was kept as {before}, and would be {after} now"
        return ""

    @property
    def image_column(self) -> str:
        """What the input calls its column of images."""
        return str(self.options["columns"].get(IMAGE, IMAGE))

    def counted(self, rows: int) -> Manifest:
        """With the number of the input's rows."""
        return replace(self, rows=rows)

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        content: Json = {
            "format": FORMAT,
            "created": self.created,
            "model": asdict(self.identity),
            "dimension": self.dimension,
            "options": dict(self.options),
            "columns": list(self.columns),
            "types": dict(self.types),
            "rows": self.rows,
            "size": self.size,
            "inputs": [file.json() for file in self.inputs],
        }
        with atomic.file(folder / NAME) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises RequestError for a folder without a manifest, or with a damaged one, or what is no
        folder; OSError."""
        try:
            with (folder / NAME).open("rb") as stream:
                content = json.loads(stream.read(_LARGEST))
            if content["format"] != FORMAT:
                raise RequestError(
                    f"{folder / NAME} is of format {quoted(str(content['format']))}, not {FORMAT}: "
                    f"another version of this program wrote it, and goes on with it; {FORCE_NEW}"
                )
            model = content["model"]
            return cls(
                created=str(content["created"]),
                identity=Identity(*(str(model[one.name]) for one in fields(Identity))),
                dimension=number(content["dimension"]),
                options=dict(content["options"]),
                columns=tuple(map(str, content["columns"])),
                types=dict(content.get("types", {})),  # an older version kept text alone
                inputs=tuple(map(InputFile.parse, content["inputs"])),
                size=number(content["size"]),
                rows=None if content["rows"] is None else number(content["rows"]),
            )
        except FileNotFoundError:
            raise missing(folder) from None
        except NotADirectoryError:
            raise RequestError(f"{folder} is no folder: a job is in one") from None
        except FAULTS as error:
            raise RequestError(
                f"{folder / NAME} is damaged: {fault_of(error)}. Without it the job cannot go on; "
                f"{FORCE_NEW}"
            ) from error


def key_of(identity: Identity, settings: Settings, params: Params) -> str:
    """Equal for jobs that give the same content the same vector."""
    told = [identity.fingerprint, identity.precision, _shaping(settings, params)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _shaping(settings: Settings, params: Params) -> dict[str, Any]:
    """What shapes a vector beside the model."""
    return {
        "normalize": params.normalize,
        "truncate": params.truncate,
        **{name: getattr(settings, name) for name in _SETTINGS},
        "vectors_of": _VECTORS_OF,
    }


def _other_root(lines: Lines) -> str | None:
    """The folder of images, where it is not the one that follows from the input's own place: both
    may be moved together."""
    if lines.root is None:
        return None
    files = [file for file in lines.files if isinstance(file, Path)]
    own = {*files, *(file.parent for file in files)}
    if files:
        own.add(Path(os.path.commonpath([file.parent for file in files])))
    return None if lines.root in own else str(lines.root.absolute())


def exists(folder: Path) -> bool:
    """Whether a folder holds a job."""
    return (folder / NAME).is_file()


def is_lost(folder: Path) -> bool:
    """Whether a folder holds a job's ledger alone."""
    return not exists(folder) and (folder / LEDGER).is_file()


def missing(folder: Path) -> RequestError:
    """The error of a folder without a manifest."""
    if is_lost(folder):
        return RequestError(
            f"{folder} holds a job without its {NAME}, and cannot go on with it: copy that back; "
            f"or {FORCE_NEW}"
        )
    if not folder.exists():
        return RequestError(f"no such folder: {folder}")
    return RequestError(f"{folder} holds no job: it has no {NAME}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return quoted(",".join(f"{ours}={theirs}" for ours, theirs in value.items()))
    if value is None:
        return "that of the input"
    return json.dumps(value) if isinstance(value, bool) else quoted(str(value))
