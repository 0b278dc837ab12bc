"""The checkpoints that the project knows by name.

Each entry's facts are those of its authors; `source` and `figures` say where they were published. A
revision is a commit of the Hub repository that is known to exist and to hold the weights; where
none is pinned, packaging takes the newest and records it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from score.checkpoints.architectures import ARCHITECTURES
from score.folder.architecture import Architecture
from score.texts.cleaning import Name

Resize = Literal["shortest edge, centre crop", "squash"]


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of a checkpoint. `name`: its SPDX identifier; `says`: a summary."""

    name: str
    says: str


MIT = Licence("MIT", "free to use, also commercially")
CC_BY_NC = Licence(
    "CC-BY-NC-4.0", "NON-COMMERCIAL use only, with attribution to its authors (Meta AI)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A published checkpoint.

    hub: its Hugging Face Hub id; revision: a commit of it, None where none is pinned.
    architecture_name: OpenCLIP's, a key of `ARCHITECTURES`.
    accuracy: zero-shot top-1 on ImageNet-1k in percent, with OpenAI's 80 templates, as published
        at `figures`; None where its authors publish none that could be found.
    resize: how its own preprocessing resizes images that are not square.
    cleaning: of texts, in its authors' own code. The Hub's transformers folders are read by a
        library that cleans nothing, and are packaged so unless `--cleaning` asks for this.
    file: URL of its bare weights; sha256: their digest. (OpenAI's are archives with code: none.)
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
    source: str
    resize: Resize = "shortest edge, centre crop"
    cleaning: Name = "openclip"
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
        return ARCHITECTURES[self.architecture_name]

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return self.architecture.parameters

    @property
    def tokenizer(self) -> str:
        """Its tokenizer, in words."""
        if self.architecture.kind == "clip":
            return "CLIP byte pairs, 49,408 entries, lower-cased"
        return "XLM-V pieces, 901,629 entries, case kept"

    @property
    def pooling(self) -> str:
        """Which token of a text is pooled, and the padding after it, in words."""
        if self.architecture.kind == "clip":
            return "end token 49407; padding behind it is never seen"
        return "first end token 2; padding 1 behind it is never seen"


_OPENCLIP = "github.com/mlfoundations/open_clip, docs/openclip_results.csv"
_METACLIP = "github.com/facebookresearch/MetaCLIP, README.md"
_META = "https://dl.fbaipublicfiles.com/MMPT/metaclip"

_OPENAI_LIMITS = (
    "English only: it was neither trained on nor evaluated in other languages.",
    "Its authors call any deployed use out of scope without testing it for the task with a fixed "
    "set of classes, and surveillance and facial recognition always.",
    "Weak at fine-grained classification and at counting; its accuracy and its biases depend on "
    "how classes are chosen and worded.",
)
_LAION_LIMITS = (
    *_OPENAI_LIMITS[:2],
    "Trained on the English part of LAION-5B, which is an uncurated crawl of the web: expect its "
    "biases and harmful content in what the model has learnt.",
)
_METACLIP_LIMITS = (
    "English only: trained on English captions from Common Crawl.",
    "Published for research; surveillance and facial recognition are out of scope as for OpenAI's "
    "CLIP, whose recipe it follows.",
)
_WORLDWIDE_LIMITS = (
    "Trained on captions in more than 300 languages; quality differs between them.",
    "Published for research; surveillance and facial recognition are out of scope as for OpenAI's "
    "CLIP, whose recipe it follows.",
)


class _Family(NamedTuple):
    """What the checkpoints of one project have in common. title, hub: common prefixes."""

    title: str
    authors: str
    hub: str
    licence: Licence
    figures: str
    languages: str
    limits: tuple[str, ...]
    source: str
    resize: Resize = "shortest edge, centre crop"
    cleaning: Name = "openclip"  # `basic_clean` is OpenAI's, and in all that came from their code


_OPENAI = _Family(
    "OpenAI CLIP",
    "OpenAI",
    "openai/",
    MIT,
    _OPENCLIP,
    "English",
    _OPENAI_LIMITS,
    "github.com/openai/CLIP",
)
_LAION = _Family(
    "LAION CLIP",
    "LAION",
    "laion/",
    MIT,
    _OPENCLIP,
    "English",
    _LAION_LIMITS,
    "github.com/mlfoundations/open_clip",
)
_METACLIP_1 = _Family(
    "MetaCLIP",
    "Meta AI",
    "facebook/",
    CC_BY_NC,
    _METACLIP,
    "English",
    _METACLIP_LIMITS,
    "github.com/facebookresearch/MetaCLIP",
)
_METACLIP_2 = _METACLIP_1._replace(
    title="MetaCLIP 2",
    hub="facebook/metaclip-2-worldwide-",
    figures="arxiv.org/abs/2507.22062",
    languages="more than 300",
    limits=_WORLDWIDE_LIMITS,
    cleaning="transformers",  # `get_tokenizer` in src/mini_clip/factory.py
    resize="squash",  # as transformers' conversion writes its preprocessor_config.json
)


def _entry(
    family: _Family,
    title: str,
    hub: str,
    revision: str | None,
    architecture: str,
    accuracy: float | None,
    file: str | None = None,
    sha256: str | None = None,
    keras: str | None = None,
) -> Entry:
    own = {"title": f"{family.title} {title}", "hub": f"{family.hub}{hub}"}
    return Entry(
        **{**family._asdict(), **own},
        revision=revision,
        architecture_name=architecture,
        accuracy=accuracy,
        file=file and f"{_META}/{file}",
        sha256=sha256,
        keras=keras,
    )


CATALOG: Mapping[str, Entry] = {
    "openai-vit-b-32": _entry(
        _OPENAI,
        "ViT-B/32",
        "clip-vit-base-patch32",
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        "ViT-B-32-quickgelu",
        63.3,
    ),
    "openai-vit-b-16": _entry(
        _OPENAI,
        "ViT-B/16",
        "clip-vit-base-patch16",
        "57c216476eefef5ab752ec549e440a49ae4ae5f3",
        "ViT-B-16-quickgelu",
        68.3,
    ),
    "openai-vit-l-14": _entry(
        _OPENAI,
        "ViT-L/14",
        "clip-vit-large-patch14",
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        "ViT-L-14-quickgelu",
        75.5,
    ),
    "openai-vit-l-14-336": _entry(
        _OPENAI,
        "ViT-L/14 at 336 pixels",
        "clip-vit-large-patch14-336",
        "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        "ViT-L-14-336-quickgelu",
        76.6,
    ),
    "laion-vit-b-16": _entry(
        _LAION,
        "ViT-B/16 laion2B-s34B-b88K",
        "CLIP-ViT-B-16-laion2B-s34B-b88K",
        "7288da5a0d6f0b51c4a2b27c624837a9236d0112",
        "ViT-B-16",
        70.2,
    ),
    "laion-vit-bigg-14": _entry(
        _LAION,
        "ViT-bigG/14 laion2B-39B-b160k",
        "CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "743c27bd53dfe508a0ade0f50698f99b39d03bec",
        "ViT-bigG-14",
        80.1,
    ),
    "metaclip-b-32-400m": _entry(
        _METACLIP_1,
        "ViT-B/32 400M",
        "metaclip-b32-400m",
        "d09846ebe09e56b80e92e8a6db1071350044d7cf",
        "ViT-B-32-quickgelu",
        65.5,
        "b32_400m.pt",
        "3c68642594a329afc1ec0fe489ee2b58ab19c9d0556ccf7c404a59baa0762d71",
    ),
    "metaclip-b-16-400m": _entry(
        _METACLIP_1,
        "ViT-B/16 400M",
        "metaclip-b16-400m",
        "22f8d590ed578af104cbf16b9405f2d21c9a2a09",
        "ViT-B-16-quickgelu",
        70.8,
        "b16_400m.pt",
        "68dfb5996c52a8f4fecb9bd16601e97e1895236645082778bd9cede8429a8d49",
    ),
    "metaclip-b-16": _entry(
        _METACLIP_1,
        "ViT-B/16 fullcc2.5B",
        "metaclip-b16-fullcc2.5b",
        None,
        "ViT-B-16-quickgelu",
        72.1,
        "b16_fullcc2.5b.pt",
        "512ea0fb9f2cf88d027e96e4674247a1a91a96af18abc2e2fcdb8008c551e04b",
    ),
    "metaclip-h-14": _entry(
        _METACLIP_1,
        "ViT-H/14 fullcc2.5B",
        "metaclip-h14-fullcc2.5b",
        None,
        "ViT-H-14-quickgelu",
        80.5,
        "h14_fullcc2.5b.pt",
        "1286807d5cc8d9a0b12563b47474efb53b9522eb3d7eac5a9a5d39c3a776ad5c",
    ),
    "metaclip-2-huge": _entry(
        _METACLIP_2,
        "ViT-H/14 worldwide",
        "huge-quickgelu",
        "c139061af7b10fdb2e754b60d2b1182a3d5526c2",
        "ViT-H-14-worldwide-quickgelu",
        81.3,  # stated as 0.8 above its English-only counterpart's 80.5
        "metaclip2_h14_quickgelu_224px_worldwide.pt",
        "9d28636c949d20d9c2e4cb4fd3824082e12d383851b6bfcd65eb33e165c63e37",
        "metaclip_2_vit_huge_patch14_224",
    ),
    "metaclip-2-huge-378": _entry(
        _METACLIP_2,
        "ViT-H/14 worldwide at 378 pixels",
        "huge-378",
        None,
        "ViT-H-14-worldwide-378",
        None,
        "metaclip2_h14_378px_worldwide.pt",
        "914d25384ad6655af5309e875abc17619f4a4ce9c2030675bcec7626214341a9",
        "metaclip_2_vit_huge_patch14_378",
    ),
    "metaclip-2-giant": _entry(
        _METACLIP_2,
        "ViT-bigG/14 worldwide",
        "giant",
        None,
        "ViT-bigG-14-worldwide",
        None,
        "metaclip2_bigG14_224px_worldwide.pt",
        "aa87c36904aa607b0f58a6537d965ce08e62073e4204acc38e8a5c586cc83624",
        "metaclip_2_vit_giant_patch14_224",
    ),
    "metaclip-2-giant-378": _entry(
        _METACLIP_2,
        "ViT-bigG/14 worldwide at 378 pixels",
        "giant-378",
        None,
        "ViT-bigG-14-worldwide-378",
        None,
        "metaclip2_bigG14_378px_worldwide.pt",
        "42166f47ec5b52771865931c266d5f09b67e031cea2daa6df68bee3c7ca0baa6",
        "metaclip_2_vit_giant_patch14_378",
    ),
}
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
    lines = [f"{'name':20} {'dim':>4} {'parameters':>13} {'top-1':>5}  {'licence':12} source"]
    for name, entry in CATALOG.items():
        accuracy = "-" if entry.accuracy is None else f"{entry.accuracy:.1f}"
        lines.append(
            f"{name:20} {entry.architecture.dimension:4} {entry.parameters:13,} {accuracy:>5}  "
            f"{entry.licence.name:12} {entry.hub}"
        )
    return "\n".join(lines)


def _cleaning(entry: Entry) -> str:
    if entry.cleaning == "transformers":
        return "none, neither by its authors nor in transformers"
    return (
        "by its authors' code as OpenCLIP's (ftfy, html.unescape); in transformers none, and so "
        "in a package of its transformers folder unless --cleaning openclip asks for it"
    )


def describe(entry: Entry) -> str:
    """All facts of an entry, in plain text."""
    architecture = entry.architecture
    vision, text = architecture.vision, architecture.text
    facts = {
        "authors": f"{entry.authors}, {entry.source}",
        "Hub": f"{entry.hub}, revision {entry.revision or '(none pinned: the newest)'}",
        "bare weights": entry.file and f"{entry.file}, SHA-256 {entry.sha256}",
        "KerasHub": entry.keras,
        "licence": f"{entry.licence.name}: {entry.licence.says}",
        "architecture": (
            f"{entry.architecture_name} (OpenCLIP's name), {architecture.kind} in transformers"
        ),
        "parameters": f"{entry.parameters:,}",
        "vectors": f"{architecture.dimension} numbers",
        "activation": {"gelu": "GELU", "quick_gelu": "QuickGELU"}[vision.tower.activation],
        "images": f"{vision.image} pixels, patches of {vision.patch}, bicubic, {entry.resize}",
        "texts": f"{text.context} tokens; {entry.tokenizer}; {entry.pooling}",
        "cleaning": _cleaning(entry),
        "languages": entry.languages,
        "ImageNet-1k": f"zero-shot top-1 {entry.accuracy} % ({entry.figures})"
        if entry.accuracy
        else "zero-shot top-1: not published, as far as known",
    }
    lines = [entry.title, *(f"  {key:12} {value}" for key, value in facts.items() if value)]
    return "\n".join([*lines, *(f"  limit        {limit}" for limit in entry.limits)])
