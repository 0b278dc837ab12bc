"""The checkpoints that the project knows by name, as `data/catalog.toml` lists them.

Each entry's facts are those of its authors; `source` and `figures` say where they were published. A
revision is a commit of the Hub repository that is known to exist and to hold the weights; where
none is pinned, packaging takes the newest and records it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.folder.architecture import Architecture
from score.images.processors import CLIP_MEAN, CLIP_STD
from score.texts.cleaning import Name

Resize = Literal["shortest edge, centre crop", "squash"]


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of a checkpoint. `name`: its SPDX identifier; `says`: a summary."""

    name: str
    says: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A published checkpoint.

    hub: its Hugging Face Hub id; revision: a commit of it, None where none is pinned.
    architecture_name: a key of `ALL_ARCHITECTURES`.
    accuracy: zero-shot top-1 on ImageNet-1k in percent, as published at `figures`; None where its
        authors publish none that could be found.
    limits, traps: sentences; traps are what other programs, or a hasty conversion, get wrong.
    resize, resample, mean_and_std: how its own preprocessing makes pixels. mean_and_std: OpenAI's
        or 0.5 for each channel.
    cleaning: of texts, in its authors' own code. The Hub's transformers folders are read by a
        library that cleans nothing but SigLIP's, and are packaged so unless `--cleaning` asks for
        this.
    file: URL of its bare weights; sha256: their digest, None where it is not known.
    keras: its KerasHub preset.
    """

    title: str
    authors: str
    hub: str
    revision: str | None
    licence: Licence
    architecture_name: str
    accuracy: float | None
    figures: str
    languages: str
    limits: tuple[str, ...]
    traps: tuple[str, ...]
    source: str
    resize: Resize = "shortest edge, centre crop"
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    mean_and_std: Literal["OpenAI", "0.5"] = "OpenAI"
    cleaning: Name = "openclip"  # `basic_clean` is OpenAI's, and in all that came from their code
    file: str | None = None
    sha256: str | None = None
    keras: str | None = None

    @property
    def notice(self) -> str:
        """Its title, authors and licence, shown before it is used."""
        return f"{self.title}, by {self.authors}. Licence {self.licence.name}: {self.licence.says}."

    @property
    def architecture(self) -> Architecture:
        """Its architecture."""
        return ALL_ARCHITECTURES[self.architecture_name]

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return self.architecture.parameters

    @property
    def tokenizer(self) -> str:
        """Its tokenizer, in words."""
        return _TOKENIZERS[self.architecture.text.vocabulary]

    @property
    def pooling(self) -> str:
        """Which token of a text is pooled, and the padding after it, in words."""
        text = self.architecture.text
        if text.pooling == "first":
            return "first token; every token of a text sees every other"
        if text.pads:
            return f"the last of {text.context} tokens; padding takes part"
        if self.architecture.kind == "clip":
            return "end token 49407; padding behind it is never seen"
        return "first end token 2; padding 1 behind it is never seen"


_TOKENIZERS: Mapping[int, str] = {
    49_408: "CLIP byte pairs, 49,408 entries, lower-cased",
    901_629: "XLM-V pieces, 901,629 entries, case kept",
    32_000: "SentencePiece Unigram, 32,000 entries, lower-cased, without punctuation",
    21_128: "WordPiece, 21,128 entries, lower-cased, each Chinese character by itself",
    256_000: "Gemma byte pairs, 256,000 entries, lower-cased",
}
"""The tokenizers of the catalog, by the sizes of their vocabularies."""


def _read() -> Iterator[tuple[str, Entry]]:
    """The entries of `data/catalog.toml` by name."""
    file = Path(__file__).parent / "data" / "catalog.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    for project in content["projects"].values():
        shared = {key: value for key, value in project.items() if key != "models"}
        for name, model in project["models"].items():
            yield name, _entry(content, shared, model)


def _entry(content: Mapping[str, Any], project: Mapping[str, Any], model: dict[str, Any]) -> Entry:
    """The entry of a model: what its project's table says, unless it says otherwise."""
    facts = {"accuracy": None, "revision": None, **project, **model}
    address = facts.pop("files", None)
    file = facts.get("file")
    own = {
        "title": f"{project['title']} {model['title']}",
        "hub": f"{project['hub']}{model['hub']}",
        "licence": Licence(facts["licence"], content["licences"][facts["licence"]]),
        "architecture_name": facts.pop("architecture"),
        "file": file and f"{address}/{file}",
        **{key: tuple(content["sentences"][one] for one in facts[key]) for key in _SENTENCES},
    }
    return Entry(**{**facts, **own})


_SENTENCES = ("limits", "traps")

CATALOG: Mapping[str, Entry] = dict(_read())
"""Every checkpoint by the short name that `score package` takes."""


def lookup(name: str) -> Entry | None:
    """The entry of a short name, a Hub id, a KerasHub preset's name or a bare file's name."""
    if name in CATALOG:
        return CATALOG[name]
    wanted = name.lower().removeprefix("keras/")
    for entry in CATALOG.values():
        file = entry.file.rsplit("/", 1)[-1].lower() if entry.file else None
        if wanted in (entry.hub.lower(), entry.keras, file):
            return entry
    return None


def table() -> str:
    """The catalog in a table of plain text."""
    lines = [f"{'name':26} {'dim':>4} {'parameters':>13} {'top-1':>5}  {'licence':28} source"]
    for name, entry in CATALOG.items():
        accuracy = "-" if entry.accuracy is None else f"{entry.accuracy:.1f}"
        lines.append(
            f"{name:26} {entry.architecture.dimension:4} {entry.parameters:13,} {accuracy:>5}  "
            f"{entry.licence.name:28} {entry.hub}"
        )
    return "\n".join(lines)


def as_json(name: str) -> dict[str, Any]:
    """All facts of the entry of that name, as JSON values. docs/checkpoint.md lists the keys."""
    entry = CATALOG[name]
    architecture = entry.architecture
    vision, text = architecture.vision, architecture.text
    half = [0.5] * 3
    own = entry.mean_and_std == "0.5"
    return {
        "name": name,
        "title": entry.title,
        "authors": entry.authors,
        "source": entry.source,
        "hub": entry.hub,
        "revision": entry.revision,
        "weights": {"url": entry.file, "sha256": entry.sha256} if entry.file else None,
        "keras": entry.keras,
        "licence": {"name": entry.licence.name, "says": entry.licence.says},
        "architecture": entry.architecture_name,
        "model_type": architecture.kind,
        "parameters": entry.parameters,
        "dimension": architecture.dimension,
        "activation": vision.tower.activation,
        "image": {
            "size": vision.image,
            "patch": vision.patch,
            "resize": entry.resize,
            "resample": entry.resample,
            "mean": half if own else list(CLIP_MEAN),
            "std": half if own else list(CLIP_STD),
        },
        "text": {
            "context": text.context,
            "vocabulary": text.vocabulary,
            "tokenizer": entry.tokenizer,
            "pooling": entry.pooling,
            "padded": text.pads,
            "cleaning": entry.cleaning,
        },
        "scores": "sigmoid" if architecture.has_bias else "softmax",
        "languages": entry.languages,
        "accuracy": {"imagenet_top1": entry.accuracy, "source": entry.figures}
        if entry.accuracy
        else None,
        "traps": list(entry.traps),
        "limits": list(entry.limits),
    }


def _cleaning(entry: Entry) -> str:
    if entry.architecture.kind == "siglip":
        return "lower-cased" + (", without punctuation" if entry.cleaning == "siglip" else "")
    if entry.cleaning == "transformers":
        return "none, neither by its authors nor in transformers"
    return (
        "by its authors' code as OpenCLIP's (ftfy, html.unescape); in transformers none, and so "
        "in a package of its transformers folder unless --cleaning openclip asks for it"
    )


_ACTIVATIONS = {"gelu": "GELU", "quick_gelu": "QuickGELU", "gelu_pytorch_tanh": "GELU by tanh"}


def describe(entry: Entry) -> str:
    """All facts of an entry, in plain text."""
    architecture = entry.architecture
    vision, text = architecture.vision, architecture.text
    facts = {
        "authors": f"{entry.authors}, {entry.source}",
        "Hub": f"{entry.hub}, revision {entry.revision or '(none pinned: the newest)'}",
        "bare weights": entry.file
        and f"{entry.file}, SHA-256 {entry.sha256 or '(none published)'}",
        "KerasHub": entry.keras,
        "licence": f"{entry.licence.name}: {entry.licence.says}",
        "architecture": f"{entry.architecture_name}, {architecture.kind} in transformers",
        "parameters": f"{entry.parameters:,}",
        "vectors": f"{architecture.dimension} numbers",
        "activation": _ACTIVATIONS[vision.tower.activation],
        "images": f"{vision.image} pixels, patches of {vision.patch}, {entry.resample}, "
        f"{entry.resize}, normalised by {entry.mean_and_std}"
        + ("'s mean and deviation" if entry.mean_and_std == "OpenAI" else ""),
        "texts": f"{text.context} tokens; {entry.tokenizer}; {entry.pooling}",
        "cleaning": _cleaning(entry),
        "languages": entry.languages,
        "ImageNet-1k": f"zero-shot top-1 {entry.accuracy} % ({entry.figures})"
        if entry.accuracy
        else "zero-shot top-1: not published, as far as known",
    }
    lines = [entry.title, *(f"  {key:12} {value}" for key, value in facts.items() if value)]
    lines += [f"  trap         {trap}" for trap in entry.traps]
    return "\n".join([*lines, *(f"  limit        {limit}" for limit in entry.limits)])
