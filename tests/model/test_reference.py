"""Equality with the reference implementation, transformers' own CLIP, on a full-size ViT-B/32.

The weights are random (`score.checkpoints.random_checkpoint`), everything else is as published.
Three things must agree, each on its own: pixels and token ids to the last bit, vectors within
`TOLERANCE`.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import json
import random
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import ARCHITECTURES
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.images import decode, processors
from score.images.preprocess import Preprocessor
from score.settings import Settings
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Vector
from tests.support.images import normalised
from tests.support.shared import built_once, cores

pytestmark = pytest.mark.reference

TOLERANCE = 1e-5
CONTEXT = 77
NO_LIMIT = 10**9

AS_REFERENCE = Settings(device="cpu", wide_pixels="reference")
"""Images of more than 8 bits are clipped, too: `test_depth` has what is done by default."""

Json = dict[str, object]
Made = dict[str, Vector]


# -- images ------------------------------------------------------------------------------------


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image with slopes, edges, detail and noise, so that each step's rounding shows."""
    noise = np.random.default_rng([seed, width, height])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / (3 + 11 * c) + seed) + np.cos(y / (5 + 7 * c)) for c in range(3)]
    values = np.stack(waves, axis=-1) * 50 + 128 + noise.normal(0, 25, (height, width, 3))
    values[height // 3 : height // 2, width // 4 : width // 2] = noise.integers(0, 256, 3)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    """The image with every degree of transparency, wholly transparent pixels included."""
    width, height = image.size
    slope = np.linspace(0, 400, width * height).reshape(height, width) % 256
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(slope.astype(np.uint8)))
    return image


def deep(image: Image.Image, dtype: type[np.generic], scale: float) -> Image.Image:
    """A grey image with more than 8 bits a pixel."""
    return Image.fromarray((np.asarray(image.convert("F")) * scale).astype(dtype))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def animated(image: Image.Image, format: str, **options: object) -> bytes:
    frames = [
        image.transpose(way)
        for way in (Image.Transpose.ROTATE_180, Image.Transpose.FLIP_LEFT_RIGHT)
    ]
    options |= {"save_all": True, "append_images": frames, "duration": 100}
    return saved(image, format, **options)


def palette(image: Image.Image, colours: int = 64) -> Image.Image:
    return image.quantize(colours, Image.Quantize.MEDIANCUT)


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda p: saved(p, "JPEG", quality=85),
    "JPEG 4:4:4": lambda p: saved(p, "JPEG", quality=95, subsampling=0),
    "JPEG progressive": lambda p: saved(p, "JPEG", progressive=True, optimize=True),
    "JPEG grey": lambda p: saved(p.convert("L"), "JPEG"),
    "JPEG CMYK": lambda p: saved(p.convert("CMYK"), "JPEG"),
    "PNG": lambda p: saved(p, "PNG"),
    "PNG one transparent colour": lambda p: saved(p, "PNG", transparency=p.getpixel((0, 0))),
    "PNG RGBA": lambda p: saved(with_alpha(p), "PNG"),
    "PNG LA": lambda p: saved(with_alpha(p).convert("LA"), "PNG"),
    "PNG L": lambda p: saved(p.convert("L"), "PNG"),
    "PNG L, transparent": lambda p: saved(p.convert("L"), "PNG", transparency=128),
    "PNG 1": lambda p: saved(p.convert("1"), "PNG"),
    "PNG P": lambda p: saved(palette(p), "PNG"),
    "PNG P, 4 colours": lambda p: saved(palette(p, 4), "PNG", bits=2),
    "PNG P, transparent": lambda p: saved(palette(p), "PNG", transparency=3),
    "PNG P, degrees": lambda p: saved(palette(p), "PNG", transparency=bytes(range(0, 256, 4))),
    "PNG I;16": lambda p: saved(deep(p, np.uint16, 257), "PNG"),
    "TIFF I;16": lambda p: saved(deep(p, np.uint16, 3), "TIFF"),
    "TIFF I": lambda p: saved(deep(p, np.int32, 2), "TIFF"),
    "TIFF F": lambda p: saved(deep(p, np.float32, 0.7), "TIFF"),
    "TIFF CMYK": lambda p: saved(p.convert("CMYK"), "TIFF"),
    "GIF": lambda p: saved(palette(p), "GIF"),
    "GIF animated": lambda p: animated(palette(p), "GIF"),
    "GIF animated, transparent": lambda p: animated(palette(p), "GIF", transparency=2, disposal=2),
    "WebP": lambda p: saved(p, "WEBP", quality=70),
    "WebP lossless": lambda p: saved(p, "WEBP", lossless=True),
    "WebP RGBA": lambda p: saved(with_alpha(p), "WEBP", quality=70),
    "WebP RGBA lossless": lambda p: saved(with_alpha(p), "WEBP", lossless=True, exact=True),
    "WebP animated": lambda p: animated(p, "WEBP"),
    "BMP": lambda p: saved(p, "BMP"),
    "JPEG 2000": lambda p: saved(p, "JPEG2000"),
}

SIZES = [(1, 1), (5, 2), (223, 225), (224, 224), (97, 331), (640, 480)]


def exif_rotated(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "JPEG", exif=exif)


Recipe = Callable[[], bytes]


def recipe(format: str, width: int, height: int) -> tuple[str, Recipe]:
    return f"{format} {width}x{height}", lambda: FORMATS[format](scene(width, height))


def exif_recipe(turn: int) -> tuple[str, Recipe]:
    return f"EXIF {turn}", lambda: exif_rotated(scene(300, 200), turn)


RECIPES = dict(
    [
        *(recipe(format, *size) for format in FORMATS for size in SIZES),
        *(recipe("JPEG", *size) for size in ((3, 500), (500, 3), (1920, 1080))),
        recipe("PNG RGBA", 3, 500),
        recipe("PNG P", 500, 3),
        recipe("WebP", 1080, 1920),
        *map(exif_recipe, range(1, 9)),
    ]
)
assert len(RECIPES) == 200


@functools.cache
def image_of(name: str) -> bytes:
    """An encoded image. Made when it is asked for: collecting the tests should cost nothing."""
    return RECIPES[name]()


# -- texts ---------------------------------------------------------------------------------------

CURIOUS = [
    "!",
    ".",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "a",
    "A",
    " a ",
    "é",
    "e\u0301",
    "É",
    "Ångström ﬁancée naïve",
    unicodedata.normalize("NFD", "Ångström ﬁancée naïve"),
    "ﬁ ﬀ Ⅷ ½ ① ™",
    "İstanbul ıI",
    "ΟΔΥΣΣΕΥΣ",
    "STRASSE Straße ẞ",
    "😀",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "🇩🇪🇫🇷",
    "שלום עולם",
    "مرحبا بالعالم ١٢٣",
    "\u202bשלום\u202c abc",
    "一张猫的照片",
    "猫の写真。カタカナ",
    "고양이 사진",
    unicodedata.normalize("NFD", "고양이 사진"),
    "สวัสดีชาวโลก",
    "नमस्ते दुनिया",
    "𝕳𝖊𝖑𝖑𝖔 𝓌𝑜𝓇𝓁𝒹",
    "\U00020000\U0002f800",
    "<|endoftext|>",
    "<|startoftext|>",
    "a cat<|endoftext|>a dog",
    "a cat <|endoftext|> a dog <|endoftext|>",
    "<|startoftext|>a photo of a cat<|endoftext|>",
    "<|EndOfText|> <|endoftext| > <start_of_text>",
    "<unk> <s> </s> [PAD] <w/>",
    "</w>",
    "a</w> b",
    "\x00",
    "a\x00b\x01c\x7fd\x80e",
    "\x1b[31mred\x1b[0m",
    "a\tb\nc\r\nd\x0be\x0cf\x85g\u2028h\u2029i\xa0j\u3000k",
    "   many      spaces     ",
    "\n\n\n line \n\n breaks \n",
    "word" + " " * 5000 + "word",
    "it's we'll they've I'm you're he'd don't IT'S",
    "rock'n'roll 'tis ''quoted'' “quoted” ‘single’",
    "1234567890 3.14159 1,000,000 ٣",
    "x²+y³=z₄",
    "&amp; &lt;b&gt; &#39;",
    "http://example.com/a_b-c?d=e&f=g#h",
    "user@example.com",
    "snake_case camelCase kebab-case",
    "!!!???...---___",
    "a" * 300,
    "ab" * 400,
    "0" * 300,
    "😀" * 100,
    "猫" * 200,
    "é" * 200,
    "cat " * 74,
    "cat " * 75,
    "cat " * 76,
    "cat " * 300,
    "nul\0 in the middle",
    "mojibake: â€™ Ã©",
    "zalgo: a\u0300\u0301\u0302\u0303\u0304b\u0316\u0317",
    "\ue000\uf8ff private",
    "\ufffd\ufffe\uffff",
]

# Every script and oddity meets every other in made-up sentences.
# fmt: off
WORDS = [
    "the", "photo", "of", "cat", "dog", "Quick", "BROWN", "fox", "painting", "watercolour", "35mm",
    "f/1.8", "can't", "o'clock", "№5", "über", "façade", "smörgåsbord", "Москва", "кошка",
    "Ελλάδα", "東京", "ネコ", "고양이", "قطة", "חתול", "แมว", "बिल्ली", "😺", "❤️", "1st",
    "antidisestablishmentarianism", "---", "...", "?!", "#tag", "@user", "$9.99", "50%", "C++",
    "x=y",
]
# fmt: on
SPACES = [" ", " ", " ", " ", "  ", "\t", "\n", "\u3000", "", ", ", "-"]


def sentence(seed: int) -> str:
    dice = random.Random(seed)
    length = dice.choice([1, 2, 3, 5, 8, 12, 20, 40, 70, 300])
    return "".join(dice.choice(WORDS) + dice.choice(SPACES) for _ in range(length)).strip()


TEXTS = [*CURIOUS, *map(sentence, range(500 - len(CURIOUS)))]

# Pixels and ids are compared for all of them. Where those are the same, so is what the towers
# compute, and a full-size model takes 0.3 s for an image and for a text: vectors are compared for
# some images of every size, and for texts of every length.
EMBEDDED_IMAGES = list(RECIPES)[::5]
EMBEDDED_TEXTS = TEXTS[::5]


# -- the reference -------------------------------------------------------------------------------


class Reference:
    """A model folder as transformers itself reads and runs it. Its weights are read when asked."""

    def __init__(self, folder: Path, kind: type[PreTrainedModel] = CLIPModel) -> None:
        self._folder, self._kind = folder, kind
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessorPil.from_pretrained(folder)

    @functools.cached_property
    def model(self) -> PreTrainedModel:
        return self._kind.from_pretrained(self._folder).eval()

    def pixels(self, images: Iterable[bytes]) -> torch.Tensor:
        opened = [Image.open(io.BytesIO(data)) for data in images]
        return self.processor(opened, return_tensors="pt")["pixel_values"]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=CONTEXT)["input_ids"]

    @torch.inference_mode()
    def images(self, images: Sequence[bytes]) -> np.ndarray:
        parts = [self.pixels(images[at : at + 20]) for at in range(0, len(images), 20)]
        features = [self.model.get_image_features(pixel_values=part) for part in parts]
        return torch.cat([part.pooler_output for part in features]).numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Padded to the longest of each batch with the tokenizer's own padding, mask and all."""
        features = []
        for at in range(0, len(texts), 50):
            inputs = self.tokenizer(
                list(texts[at : at + 50]),
                padding=True,
                truncation=True,
                max_length=CONTEXT,
                return_tensors="pt",
            )
            features.append(self.model.get_text_features(**inputs).pooler_output)
        return torch.cat(features).numpy()


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference in a vector over the largest value in it, of the worst vector."""
    assert ours.shape == reference.shape
    assert ours.dtype == reference.dtype == np.float32
    return float((np.abs(ours - reference).max(-1) / np.abs(reference).max(-1)).max())


def assert_same_pixels(
    ours: np.ndarray, theirs: np.ndarray, processor: CLIPImageProcessorPil, made: Preprocessor
) -> None:
    """Our uint8 image, which the reference itself rescales and normalises, is its own to the bit.

    Ours to normalise are values that differ from one another by 0.003 at the least.
    """
    steps = {"do_resize": False, "do_center_crop": False, "return_tensors": "np"}
    again = processor(Image.fromarray(ours), **steps)["pixel_values"][0]
    assert again.dtype == theirs.dtype
    np.testing.assert_array_equal(again, theirs)
    np.testing.assert_allclose(
        np.moveaxis(normalised(made, ours), -1, 0), theirs, rtol=2e-6, atol=2e-6
    )


@pytest.fixture(scope="module", autouse=True)
def every_core() -> Iterator[None]:
    """Full-size models are worth all threads; the models of other tests are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = ARCHITECTURES["ViT-B-32-quickgelu"]
    return built_once(
        tmp_path_factory, "vit-b-32", lambda path: random_checkpoint.write(path, made)
    )


@pytest.fixture(scope="session")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="session")
def embedder(folder: Path) -> Embedder:
    return Embedder.load(folder, AS_REFERENCE)


@pytest.fixture(scope="session")
def image_vectors(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Made:
    def build(folder: Path) -> None:
        reference: Reference = request.getfixturevalue("reference")
        np.save(folder / "vectors.npy", reference.images([*map(image_of, EMBEDDED_IMAGES)]))

    vectors = np.load(built_once(tmp_path_factory, "images", build) / "vectors.npy")
    return dict(zip(EMBEDDED_IMAGES, vectors, strict=True))


@pytest.fixture(scope="session")
def text_vectors(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Made:
    def build(folder: Path) -> None:
        reference: Reference = request.getfixturevalue("reference")
        np.save(folder / "vectors.npy", reference.texts(EMBEDDED_TEXTS))

    vectors = np.load(built_once(tmp_path_factory, "texts", build) / "vectors.npy")
    return dict(zip(EMBEDDED_TEXTS, vectors, strict=True))


# -- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_pixels_are_the_references_to_the_last_bit(name: str, reference: Reference) -> None:
    preprocessor = Preprocessor.from_config(reference.processor.to_dict())
    ours = preprocessor.read(image_of(name), NO_LIMIT, wide="reference")
    (theirs,) = reference.pixels([image_of(name)]).numpy()
    assert_same_pixels(ours, theirs, reference.processor, preprocessor)


CONFIGS: dict[str, Json] = {
    "nothing said": {},
    "old spelling": {"size": 224, "crop_size": 224},
    "nulls": {"size": {"height": 90, "width": 160}, "do_center_crop": None},
    "fixed size, no crop": {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "oblong": {"size": {"height": 90, "width": 160}, "crop_size": {"height": 90, "width": 160}},
    "larger model": {"size": {"shortest_edge": 336}, "crop_size": 336},
    "crop within": {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
    "crop over the edge": {"size": {"shortest_edge": 100}, "crop_size": 133},
    "bilinear": {"resample": 2},
    "no resize": {"do_resize": False},
    "other numbers": {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]},
    "no normalising": {"do_normalize": False},
    "no rescaling": {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_under_other_configurations(name: str) -> None:
    assert_processes_alike(CLIPImageProcessorPil(**CONFIGS[name]), CONFIGS[name], "PNG RGBA")


FEW_SIZES = [(50, 31), (301, 400), (500, 223)]
MANY_SIZES = [(1, 1), (223, 225), (225, 100), (224, 224), *FEW_SIZES]


@functools.cache
def encoded(format: str, width: int, height: int) -> bytes:
    return FORMATS[format](scene(width, height))


def assert_processes_alike(
    processor: CLIPImageProcessorPil,
    config: Json,
    format: str = "PNG",
    sizes: Sequence[tuple[int, int]] = MANY_SIZES,
) -> None:
    """Ours makes the pixels of transformers' class, from images of many shapes."""
    preprocessor = Preprocessor.from_config(config)
    for size in sizes:
        image = encoded(format, *size)
        theirs = processor(Image.open(io.BytesIO(image)), return_tensors="np")["pixel_values"][0]
        ours = preprocessor.pixels(decode.decode(image, NO_LIMIT), NO_LIMIT)
        assert_same_pixels(ours, theirs, processor, preprocessor)


# What decides pixels may be left to the class's defaults, or said in any of its spellings.
SPELLINGS: dict[str, Json] = {
    "nothing said": {},
    "size of one number": {"size": 200},
    "oblong list": {"size": [90, 160]},
    "shortest edge": {"size": {"shortest_edge": 200}},
    "square": {"size": {"height": 200, "width": 200}},
    "crop asked for": {"do_center_crop": True, "crop_size": 180},
    "crop of a list": {"do_center_crop": True, "crop_size": [180, 150]},
    "no crop": {"size": {"height": 200, "width": 200}, "do_center_crop": False},
    "other resampling": {"resample": 1},
    "other numbers": {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.1]},
    "nothing normalised": {"do_normalize": None},
    "converted to RGB": {"do_convert_rgb": True},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", processors.DEFAULTS)
def test_pixels_of_every_image_processor(kind: str, spelling: str) -> None:
    name = f"{kind}ImageProcessor"
    config = {"image_processor_type": name, **SPELLINGS[spelling]}
    processor = getattr(transformers, f"{name}Pil")(**SPELLINGS[spelling])
    # The classes differ in their defaults alone: that images of every size are resized alike is
    # tested above.
    assert_processes_alike(processor, config, sizes=FEW_SIZES)


NAMED = [
    ("image_processor_type", "{}ImageProcessor"),
    ("image_processor_type", "{}ImageProcessorFast"),
    ("image_processor_type", "{}ImageProcessorPil"),
    ("feature_extractor_type", "{}FeatureExtractor"),
    ("feature_extractor_type", "{}ImageProcessor"),
]


@pytest.mark.parametrize(("key", "pattern"), NAMED)
@pytest.mark.parametrize("kind", processors.DEFAULTS)
def test_image_processors_are_those_that_transformers_chooses(
    kind: str, key: str, pattern: str, copy: Path
) -> None:
    """By every name that a class had, in a file of its own or in the whole processor's."""
    config = {key: pattern.format(kind), "size": 200, "processor_class": "CLIPProcessor"}
    (copy / "preprocessor_config.json").write_text(json.dumps(config))
    assert_chosen(kind, copy)
    (copy / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    whole = {"image_processor": config, "processor_class": "CLIPProcessor"}
    (copy / "processor_config.json").write_text(json.dumps(whole))
    assert_chosen(kind, copy)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "CLIP"),
        ({"processor_class": "SiglipProcessor"}, "CLIP"),  # which decides nothing
        (
            {
                "image_processor_type": "ViTImageProcessor",
                "feature_extractor_type": "CLIPFeatureExtractor",
            },
            "ViT",
        ),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "feature_extractor_type": "ViTFeatureExtractor",
            },
            "CLIP",
        ),
    ],
)
def test_which_name_counts(config: Json, kind: str, copy: Path) -> None:
    (copy / "preprocessor_config.json").write_text(json.dumps(config))
    assert_chosen(kind, copy)


def assert_chosen(kind: str, folder: Path) -> None:
    """transformers takes that class for a folder, and makes the pixels of it that we make."""
    chosen = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    assert type(chosen).__name__ == f"{kind}ImageProcessorPil"
    config = ModelFolder.open(folder).preprocessor
    assert processors.kind(config) == kind
    image = encoded("PNG", 301, 223)
    theirs = chosen(Image.open(io.BytesIO(image)), return_tensors="np")["pixel_values"][0]
    made = Preprocessor.from_config(config)
    assert_same_pixels(made.read(image, NO_LIMIT), theirs, chosen, made)


def test_a_feature_extractor_where_the_image_processor_belongs() -> None:
    """As files of 2022 have it; transformers 5 refuses them, version 4 took the class."""
    config = {"image_processor_type": "ViTFeatureExtractor", "size": 200}
    assert_processes_alike(transformers.ViTImageProcessorPil(size=200), config)


@pytest.mark.parametrize("name", ["PNG L", "PNG RGBA", "PNG P", "PNG 1", "JPEG CMYK"])
def test_without_conversion_transformers_reads_rgb_alone(name: str) -> None:
    """So `do_convert_rgb` need not be asked: where it matters, the reference has no answer."""
    image = FORMATS[name](scene(50, 31))
    with pytest.raises(ValueError, match="elements if it is an iterable"):
        transformers.ViTImageProcessorPil()(Image.open(io.BytesIO(image)), return_tensors="np")
    own = Preprocessor.from_config({"image_processor_type": "ViTImageProcessor"})
    converting = transformers.ViTImageProcessorPil(do_convert_rgb=True)
    theirs = converting(Image.open(io.BytesIO(image)), return_tensors="np")["pixel_values"][0]
    assert_same_pixels(own.read(image, NO_LIMIT), theirs, converting, own)


# -- token ids -----------------------------------------------------------------------------------


def our_ids(folder: Path, texts: Sequence[str]) -> list[object]:
    return list(Tokenizer.load(ModelFolder.open(folder)).encode(texts, "end"))


def test_ids_are_the_references(folder: Path, reference: Reference) -> None:
    ours = our_ids(folder, TEXTS)
    for text, mine, theirs in zip(TEXTS, ours, reference.ids(TEXTS), strict=True):
        assert mine == theirs, repr(text[:80])


def test_ids_from_vocabulary_and_merges(folder: Path, tmp_path: Path) -> None:
    """Older folders hold no tokenizer.json."""
    tables = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, tables["merges"]), ""])
    (tmp_path / "vocab.json").write_text(json.dumps(tables["vocab"]), "utf-8")
    (tmp_path / "merges.txt").write_text(merges, "utf-8")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, truncation=True, max_length=CONTEXT)
    assert our_ids(tmp_path, TEXTS) == theirs["input_ids"] == our_ids(folder, TEXTS)


class PaperBpe:
    """CLIP's byte-pair encoding, read anew from its description and its list of merges.

    Slow and plain on purpose, and sharing no code with what it checks: join the pair of symbols
    that comes first in the list, all over the word, until none is in it.
    """

    def __init__(self) -> None:
        regex = pytest.importorskip("regex")
        printable = [n for n in range(256) if chr(n).isprintable() and chr(n) not in " \xa0\xad"]
        rest = [n for n in range(256) if n not in printable]
        self.bytes = {n: chr(n) for n in printable} | {n: chr(256 + i) for i, n in enumerate(rest)}
        single = [self.bytes[n] for n in (*printable, *rest)]
        pairs = [tuple(line.split()) for line in self.lines()[1 : 1 + 48894]]
        self.rank = {pair: place for place, pair in enumerate(pairs)}
        symbols = [*single, *(s + "</w>" for s in single), *map("".join, pairs)]
        self.id = {symbol: place for place, symbol in enumerate(symbols)}
        self.words = regex.compile(
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
        )

    @staticmethod
    def lines() -> list[str]:
        found = importlib.util.find_spec("open_clip")  # located, not imported: it needs torchvision
        if found is None or not found.submodule_search_locations:
            pytest.skip("CLIP's list of merges comes with open_clip, which is not here")
        file = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
        return gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")

    def __call__(self, text: str) -> list[int]:
        words = self.words.findall(unicodedata.normalize("NFC", text).lower())
        ids = [id for word in words for id in self.word(word)]
        return [49406, *ids[: CONTEXT - 2], 49407]

    @functools.cache  # noqa: B019 - lives as long as its test
    def word(self, word: str) -> list[int]:
        if word in ("<|startoftext|>", "<|endoftext|>"):
            return [49406 if word == "<|startoftext|>" else 49407]
        symbols = [self.bytes[byte] for byte in word.encode("utf-8")]
        symbols[-1] += "</w>"
        while True:
            pairs = [pair for pair in pairwise(symbols) if pair in self.rank]
            if not pairs:
                return [self.id[symbol] for symbol in symbols]
            first = min(pairs, key=self.rank.__getitem__)
            symbols = self.joined(symbols, first)

    @staticmethod
    def joined(symbols: list[str], pair: tuple[str, ...]) -> list[str]:
        done: list[str] = []
        waiting = iter(symbols)
        for symbol in waiting:
            if done and not done[-1].endswith("\0") and (done[-1], symbol) == pair:
                done[-1] += symbol + "\0"  # marked, so that it is not joined twice in one go
            else:
                done.append(symbol)
        return [symbol.removesuffix("\0") for symbol in done]


# Where transformers itself departs from OpenAI's tokenizer: Python's lower() knows that Σ ends a
# word as ς, and turns İ into two characters; OpenAI takes the special tokens in any case.
DEPARTURES = ("Σ", "İ", "<|EndOfText|>")


def test_ids_are_those_of_clips_own_rules(folder: Path) -> None:
    bpe = PaperBpe()
    texts = [text for text in TEXTS if not any(oddity in text for oddity in DEPARTURES)]
    for text, ours in zip(texts, our_ids(folder, texts), strict=True):
        assert ours == bpe(text), repr(text[:80])


# -- vectors -------------------------------------------------------------------------------------


def check(
    rows: Sequence[tuple[str, str]], records: Iterable[Record], images: Made, texts: Made
) -> None:
    """`rows`: the name of an image or "", and a text or ""."""
    of_images: list[tuple[Vector, Vector]] = []
    of_texts: list[tuple[Vector, Vector]] = []
    for (name, text), record in zip(rows, records, strict=True):
        assert record.error is None, (name, text[:80], record.error)
        assert (record.image_features is None) == (name == "")
        assert (record.text_features is None) == (text == "")
        if record.image_features is not None:
            of_images.append((record.image_features, images[name]))
        if record.text_features is not None:
            of_texts.append((record.text_features, texts[text]))
    for pairs in filter(None, (of_images, of_texts)):
        ours, theirs = map(np.stack, zip(*pairs, strict=True))
        assert relative_error(ours, theirs) < TOLERANCE


def asked(rows: Iterable[tuple[str, str]]) -> list[Row]:
    return [Row(image_of(name) if name else None, text) for name, text in rows]


def test_vectors_in_order(embedder: Embedder, image_vectors: Made, text_vectors: Made) -> None:
    rows = [(name, "") for name in EMBEDDED_IMAGES] + [("", text) for text in EMBEDDED_TEXTS]
    check(rows, embedder.embed(asked(rows)), image_vectors, text_vectors)


def test_vectors_in_other_company(
    embedder: Embedder, image_vectors: Made, text_vectors: Made
) -> None:
    """Every second image and text, and rows of both, shuffled together."""
    dice = random.Random(1)
    names, texts = EMBEDDED_IMAGES[::2], EMBEDDED_TEXTS[::2]
    dice.shuffle(names)
    dice.shuffle(texts)
    both = [(names.pop(), texts.pop()) for _ in range(14)]
    rows = both + [(name, "") for name in names] + [("", text) for text in texts]
    dice.shuffle(rows)
    check(rows, embedder.embed(asked(rows)), image_vectors, text_vectors)


@pytest.mark.parametrize("at", range(6))
def test_vectors_alone(
    at: int, embedder: Embedder, reference: Reference, image_vectors: Made, text_vectors: Made
) -> None:
    """A row by itself, beside the reference by itself and beside the reference in a batch."""
    name, text = EMBEDDED_IMAGES[7 * at], EMBEDDED_TEXTS[18 * at]
    (record,) = embedder.answer(asked([(name, text)]))
    check([(name, text)], [record], image_vectors, text_vectors)
    alone = {name: reference.images([image_of(name)])[0]}, {text: reference.texts([text])[0]}
    check([(name, text)], [record], *alone)


# -- other folders -------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A tiny model folder to change."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def rewrite(file: Path, change: Callable[[Json], None]) -> None:
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")


FEW_IMAGES = list(RECIPES)[::9]
FEW_TEXTS = TEXTS[::5]


def agrees(folder: Path, theirs: Reference) -> None:
    rows = [(name, "") for name in FEW_IMAGES] + [("", text) for text in FEW_TEXTS]
    random.Random(0).shuffle(rows)
    records = Embedder.load(folder, AS_REFERENCE).embed(asked(rows))
    images = dict(zip(FEW_IMAGES, theirs.images([*map(image_of, FEW_IMAGES)]), strict=True))
    texts = dict(zip(FEW_TEXTS, theirs.texts(FEW_TEXTS), strict=True))
    check(rows, records, images, texts)


def test_a_tiny_clip(tiny: Path) -> None:
    agrees(tiny, Reference(tiny))


def test_the_end_token_of_old_configs(tiny: Path, copy: Path) -> None:
    """Until 2023 configs said `eos_token_id: 2`, and meant the largest id of the text."""
    rewrite(copy / "config.json", lambda config: config["text_config"].update(eos_token_id=2))
    agrees(copy, Reference(copy))
    agrees(copy, Reference(tiny))


@pytest.fixture(scope="session")
def metaclip2(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Begin, padding and end are 0, 1 and 2, and the end token is looked for by its id."""
    folder = tmp_path_factory.mktemp("metaclip2")
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    layers |= {"num_attention_heads": 2, "projection_dim": 48}
    tokenizer = tokenizers.Tokenizer.from_str(random_checkpoint.xlm_vocabulary(600))
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = MetaClip2Config(
        text_config={**layers, **ids, "vocab_size": tokenizer.get_vocab_size()},
        vision_config={**layers, "image_size": 64, "patch_size": 16, "hidden_act": "gelu"},
        projection_dim=48,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        MetaClip2Model(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    shutil.copy(tiny / "preprocessor_config.json", folder)
    rewrite(
        folder / "preprocessor_config.json",
        lambda config: config.update(size={"shortest_edge": 64}, crop_size=64),
    )
    return folder


def test_a_metaclip2(metaclip2: Path) -> None:
    theirs = Reference(metaclip2, MetaClip2Model)
    assert our_ids(metaclip2, TEXTS) == theirs.ids(TEXTS)
    agrees(metaclip2, theirs)


def test_half_precision_stays_close(metaclip2: Path) -> None:
    rows = asked([*((name, "") for name in FEW_IMAGES), *(("", text) for text in FEW_TEXTS)])
    exact, half = (
        np.stack(
            [
                record.image_features if record.text_features is None else record.text_features
                for record in Embedder.load(metaclip2, settings).embed(rows, Params(normalize=True))
            ]
        )
        for settings in (
            replace(AS_REFERENCE, precision="fp32"),
            replace(AS_REFERENCE, precision="bf16"),
        )
    )
    assert (exact * half).sum(-1).min() > 0.999
    assert not np.array_equal(exact, half)


# -- broken folders ------------------------------------------------------------------------------


def _lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def _other_width(config: Json) -> None:
    config["text_config"]["hidden_size"] = 32  # type: ignore[index]


def _edit(name: str, change: Callable[[Json], None]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / name, change)


def _processor(name: object) -> Callable[[Json], None]:
    """A configuration that leaves its crop to the class of that name."""

    def change(config: Json) -> None:
        config.update(image_processor_type=name, size=224)
        del config["crop_size"]
        if name == "SiglipImageProcessor":
            del config["do_center_crop"]

    return change


def _no(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)  # type: ignore[return-value]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (_no("config.json"), "no config.json"),
    "config cut short": (_write("config.json", '{"model_type": "cl'), "cannot read"),
    "config no object": (_write("config.json", "[]"), "must hold a JSON object"),
    "no model type": (
        _edit("config.json", lambda config: config.pop("model_type")),
        "there is no model_type; supported are clip",
    ),
    "another model": (
        _edit("config.json", lambda config: config.update(model_type="align")),
        "model_type 'align': ALIGN",
    ),
    "weights of another width": (_edit("config.json", _other_width), "config.json wants 49408×32"),
    "no weights": (_no("model.safetensors"), "no model.safetensors in"),
    "a pickle": (_pickle, "no model.safetensors in"),
    "a tensor missing": (
        _lose_a_tensor,
        "lacks 1 of the tensors that its config.json needs, such as visual",
    ),
    "weights cut short": (_cut_short, "not a complete safetensors file"),
    "weights empty": (_write("model.safetensors", ""), "not a complete safetensors file"),
    "no preprocessor": (
        _no("preprocessor_config.json"),
        "lacks an image processor (preprocessor_config.json",
    ),
    "preprocessor of another size": (
        _edit("preprocessor_config.json", lambda config: config.update(crop_size=336)),
        "makes images of",
    ),
    "preprocessor without a size": (
        _edit("preprocessor_config.json", lambda config: config.update(do_center_crop=False)),
        "fixes no image size",
    ),
    "a processor that nobody knows": (
        _edit("preprocessor_config.json", _processor("JinaCLIPImageProcessor")),
        "preprocessor_config.json: the image processor 'JinaCLIPImageProcessor' is not supported",
    ),
    "a processor that does more than the common steps": (
        _edit("preprocessor_config.json", _processor("ConvNextFeatureExtractor")),
        "'ConvNextFeatureExtractor' is not supported, only CLIPImageProcessor, ",
    ),
    "a processor of no name": (
        _edit("preprocessor_config.json", _processor(["CLIPImageProcessor"])),
        "the image processor list is not supported",
    ),
    "a shortest edge without a crop": (
        _edit("preprocessor_config.json", _processor("SiglipImageProcessor")),
        "fixes no image size",
    ),
    "a crop of no size": (
        _edit("preprocessor_config.json", _processor("ViTImageProcessor")),
        "unusable preprocessor_config.json: size None",
    ),
    "padding": (
        _edit("preprocessor_config.json", lambda c: c.update(do_pad=True, pad_size=300)),
        "do_pad to a pad_size is not supported",
    ),
    "a square by another name": (
        _edit("preprocessor_config.json", lambda config: config.update(use_square_size=True)),
        "use_square_size, which KOSMOS-2 has, is not supported",
    ),
    "a longest edge": (
        _edit(
            "preprocessor_config.json",
            lambda config: config.update(size={"shortest_edge": 224, "longest_edge": 300}),
        ),
        "unusable preprocessor_config.json: size {'shortest_edge'",
    ),
    "preprocessor with nonsense": (
        _edit("preprocessor_config.json", lambda config: config.update(size="large")),
        "unusable preprocessor_config.json",
    ),
    "no tokenizer": (_no("tokenizer.json"), "lacks a tokenizer (tokenizer.json"),
    "tokenizer cut short": (_write("tokenizer.json", '{"version'), "cannot read the tokenizer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_a_model_error(name: str, copy: Path) -> None:
    damage, sentence = BROKEN[name]
    damage(copy)
    with pytest.raises(ModelError) as caught:
        Embedder.load(copy, Settings(device="cpu"))
    assert sentence in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder at"):
        Embedder.load(tmp_path / "nowhere")
