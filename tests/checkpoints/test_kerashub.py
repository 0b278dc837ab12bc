"""Presets of KerasHub: equality with KerasHub's own MetaCLIP 2, on Keras' torch backend.

The weights are random, the presets written by KerasHub itself. KerasHub reads its presets, we read
ours, from the same files; then token ids must be equal, and vectors within `TOLERANCE`.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, XLMRobertaTokenizer

from score.checkpoints import canonical, family, kerashub, resolve
from score.checkpoints.hdf5 import FILE, H5, INDEX
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.images.processors import CLIP_MEAN, CLIP_STD
from score.settings import Settings
from score.texts import sentencepiece_model
from score.texts.tokenizer import Tokenizer
from tests.model.test_reference import TEXTS, relative_error, rewrite, saved, scene
from tests.support import sentencepiece_models
from tests.support.images import normalised
from tests.support.shared import cores

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported
keras_hub: Any = importlib.import_module("keras_hub")

pytestmark = [
    pytest.mark.reference,
    # Keras turns its variables to arrays in the way of NumPy 1; KerasHub leaves a file open.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file .*vocabulary.spm:ResourceWarning"),
]

TOLERANCE = 1e-4
CONTEXT = 77

Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def every_core() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    yield
    torch.set_num_threads(before)


# -- presets -------------------------------------------------------------------------------------


def trained(**options: object) -> bytes:
    """A SentencePiece model trained on the texts of the tests, normalising as XLM-V's does."""
    texts = (text for text in TEXTS * 3 if "\0" not in text)
    return sentencepiece_models.trained(texts, **{"vocab_size": 700, **options})


@pytest.fixture(scope="session")
def vocabulary() -> bytes:
    return trained()


TINY = {
    "vision": {"hidden_dim": 32, "num_layers": 3, "num_heads": 4, "intermediate_dim": 48},
    "text": {"hidden_dim": 24, "num_layers": 2, "num_heads": 3, "intermediate_dim": 40},
    "image": 28,
    "activation": "gelu",
    "dimension": 20,
}
HUGE = {
    "vision": {"hidden_dim": 1280, "num_layers": 1, "num_heads": 16, "intermediate_dim": 5120},
    "text": {"hidden_dim": 1024, "num_layers": 1, "num_heads": 16, "intermediate_dim": 4096},
    "dimension": 1024,
}
GIANT = {
    "vision": {"hidden_dim": 1664, "num_layers": 1, "num_heads": 16, "intermediate_dim": 8192},
    "text": {"hidden_dim": 1280, "num_layers": 1, "num_heads": 20, "intermediate_dim": 5120},
    "dimension": 1280,
}
PRESETS: dict[str, Json] = {
    "tiny": TINY,
    "tiny, quick": TINY | {"activation": "quick_gelu"},
    "tiny, bfloat16": TINY | {"dtype": "bfloat16"},
    "tiny, float16": TINY | {"dtype": "float16"},
    "tiny, in shards": TINY | {"shard": 8e-5},
    "tiny, bfloat16 in shards": TINY | {"dtype": "bfloat16", "shard": 4e-5},
    "huge 224": HUGE | {"image": 224, "activation": "quick_gelu"},
    "huge 378": HUGE | {"image": 378, "activation": "gelu"},
    "giant 224": GIANT | {"image": 224, "activation": "gelu"},
    "giant 378": GIANT | {"image": 378, "activation": "gelu"},
}


def write_preset(folder: Path, vocabulary: bytes, made: Json) -> Path:
    """A preset of random weights, as `save_to_preset` writes it."""
    dtype, size = made.get("dtype", "float32"), made["image"]
    shared = {"intermediate_activation": made["activation"], "dtype": dtype}
    tokenizer = keras_hub.models.MetaCLIP2Tokenizer(proto=vocabulary)
    backbone = keras_hub.models.MetaCLIP2Backbone(
        keras_hub.models.MetaCLIP2VisionEncoder(
            patch_size=14, image_shape=(size, size, 3), **made["vision"], **shared
        ),
        keras_hub.models.MetaCLIP2TextEncoder(
            vocabulary_size=tokenizer.vocabulary_size() + 1,  # <mask>
            embedding_dim=made["text"]["hidden_dim"],
            max_sequence_length=CONTEXT,
            **made["text"],
            **shared,
        ),
        made["dimension"],
        dtype=dtype,
    )
    dice = np.random.default_rng(0)
    for weight in backbone.weights:
        weight.assign(random_weight(weight, dice))
    converter = keras_hub.layers.MetaCLIP2ImageConverter(
        image_size=(size, size),
        scale=[1 / 255 / std for std in CLIP_STD],
        offset=[-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)],
        interpolation="bicubic",
    )
    backbone.save_to_preset(folder, max_shard_size=made.get("shard"))
    keras_hub.models.MetaCLIP2CausalLMPreprocessor(
        tokenizer, converter, sequence_length=CONTEXT, to_lower=False
    ).save_to_preset(folder)
    return folder


def random_weight(weight: Any, dice: np.random.Generator) -> np.ndarray:
    """No two alike, none left at 0 or 1, and of a size at which every tensor shows."""
    values = dice.standard_normal(weight.shape, np.float32)
    if weight.name == "gamma":
        return 1 + values / 4
    if weight.name == "logit_scale":
        return np.asarray(3.5)
    if len(weight.shape) == 1 or weight.name in ("bias", "embeddings"):
        return values / 4
    inputs = weight.shape[:1] if weight.path.count("attention/") else weight.shape[:-1]
    return values * 1.5 / np.sqrt(np.prod(inputs))


class KerasHub:
    """A preset as KerasHub reads and runs it, in float32."""

    def __init__(self, preset: Path) -> None:
        models = keras_hub.models
        exact = Path(shutil.copytree(preset, preset.with_name(f"{preset.name} in float32")))
        text = (exact / "config.json").read_text()  # a dtype for all of it, encoders included
        text = text.replace('"bfloat16"', '"float32"').replace('"float16"', '"float32"')
        (exact / "config.json").write_text(text)
        self.backbone = models.MetaCLIP2Backbone.from_preset(str(exact))
        assert {str(weight.dtype) for weight in self.backbone.weights} == {"float32"}
        self.preprocessor = models.MetaCLIP2CausalLMPreprocessor.from_preset(str(preset))

    def prepared(self, texts: Sequence[str], pixels: np.ndarray) -> Json:
        return self.preprocessor({"prompts": list(texts), "images": pixels})

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        size = self.preprocessor.image_converter.image_size
        padded = self.prepared(texts, np.zeros((1, *size, 3), np.uint8))["token_ids"]
        return [[id for id in row if id != 1] for row in np.asarray(padded).tolist()]

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prepared = self.prepared(texts, pixels)
        images = self.backbone.get_vision_embeddings(torch.as_tensor(prepared["images"]))
        ids = torch.as_tensor(np.asarray(prepared["token_ids"]))
        return images.numpy(), self.backbone.get_text_embeddings(ids).numpy()


def made_canonical(preset: Path, folder: Path) -> Path:
    return canonical.write(kerashub.folder(preset), folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, vocabulary: bytes) -> Path:
    return write_preset(tmp_path_factory.mktemp("keras") / "tiny", vocabulary, TINY)


@pytest.fixture(scope="session")
def tiny_canonical(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_canonical(tiny, tmp_path_factory.mktemp("canonical") / "tiny")


@pytest.fixture(scope="session")
def reference(tiny: Path) -> KerasHub:
    return KerasHub(tiny)


# -- vectors -------------------------------------------------------------------------------------

FEW = ["a photo of a cat", "Eine KATZE", "猫の写真", "кошка 😺 and a dog", "!", "cat " * 100]


def sample_images(size: int) -> list[np.ndarray]:
    """Of just the model's size, so that nothing is resized."""
    return [np.asarray(scene(size, size, seed)) for seed in range(3)]


@pytest.mark.parametrize("name", PRESETS)
def test_vectors_are_kerashubs(name: str, vocabulary: bytes, tmp_path: Path) -> None:
    made = PRESETS[name]
    preset = write_preset(tmp_path / "preset", vocabulary, made)
    assert (preset / (INDEX if "shard" in made else FILE)).is_file()
    assert "shard" not in made or len(list(preset.glob("*.h5"))) > 2
    pixels = np.stack(sample_images(made["image"]))
    theirs = KerasHub(preset).vectors(FEW, pixels)
    folder = made_canonical(preset, tmp_path / "canonical")
    assert json.loads((folder / "config.json").read_text())["dtype"] == made.get("dtype", "float32")
    rows = [Row(saved(scene(made["image"], made["image"], n), "PNG"), "") for n in range(3)]
    rows += [Row(None, text) for text in FEW]
    records = list(Embedder.load(folder, Settings(device="cpu", precision="fp32")).embed(rows))
    ours = (
        np.stack([record.image_features for record in records[:3]]),  # type: ignore[misc]
        np.stack([record.text_features for record in records[3:]]),  # type: ignore[misc]
    )
    for mine, reference in zip(ours, theirs, strict=True):
        mine, reference = np.float32(mine), np.float32(reference)
        norms = np.linalg.norm(mine, axis=-1) * np.linalg.norm(reference, axis=-1)
        assert ((mine * reference).sum(-1) / norms).min() >= 0.99999
        assert relative_error(mine, reference) <= TOLERANCE


def test_what_else_is_in_the_canonical_folder(tiny: Path, tiny_canonical: Path) -> None:
    folder = ModelFolder.open(tiny_canonical)
    text = folder.architecture.text
    assert (text.begin, text.pad, text.end, text.context) == (0, 1, 2, CONTEXT)
    assert folder.preprocessor["image_mean"] == list(CLIP_MEAN)
    assert folder.preprocessor["image_std"] == list(CLIP_STD)
    assert folder.preprocessor["size"] == {"shortest_edge": 28}
    assert folder.preprocessor["crop_size"] == {"height": 28, "width": 28}
    source = kerashub.folder(tiny)
    part = source.parts["logit_scale"]
    assert part.convert(source.tensors.read(part.source)).item() == 3.5


# -- token ids -----------------------------------------------------------------------------------

# Where tokenizers, and so transformers, departs from SentencePiece itself.
DEPARTURES = (
    "<unk>",  # special tokens that are spelled out
    "\x85",  # a space to one, a character to the other
    "zalgo",  # marks are normalised with their letter, not alone
    unicodedata.normalize("NFD", "고양이"),
    "a" * 300,  # of two ways to the same score each takes another
    "0" * 300,
)
MORE = ["<mask>", "a<mask>b </s> c", "▁ under ▁▁ score", " \u3000 ", "ＦＵＬＬ　ｗｉｄｔｈ"]


def our_ids(folder: Path, texts: Sequence[str]) -> list[Any]:
    return list(Tokenizer.load(ModelFolder.open(folder)).encode(texts, "end"))


def test_ids_are_transformers(vocabulary: bytes, tiny_canonical: Path, tmp_path: Path) -> None:
    """Theirs are read from the vocabulary file, by sentencepiece's and protobuf's own code."""
    (tmp_path / "sentencepiece.bpe.model").write_bytes(vocabulary)
    theirs = XLMRobertaTokenizer.from_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tiny_canonical)
    for text, ours in zip(TEXTS + MORE, our_ids(tiny_canonical, TEXTS + MORE), strict=True):
        for tokenizer in (theirs, again):
            ids = tokenizer(text, truncation=True, max_length=CONTEXT)["input_ids"]
            assert ours == ids, repr(text[:80])


def test_ids_are_kerashubs(reference: KerasHub, tiny_canonical: Path) -> None:
    texts = [text for text in TEXTS if not any(oddity in text for oddity in DEPARTURES)]
    assert len(texts) > 480
    theirs = reference.ids(texts)
    for text, ours, ids in zip(texts, our_ids(tiny_canonical, texts), theirs, strict=True):
        assert ours == ids, repr(text[:80])


def test_case_is_kept(tiny_canonical: Path) -> None:
    upper, lower = our_ids(tiny_canonical, ["BROWN", "brown"])
    assert upper != lower


def test_without_a_row_for_the_mask(tiny: Path, tmp_path: Path) -> None:
    """KerasHub's tokenizer counts one piece fewer than XLM-V's embeddings have rows."""
    preset = Path(shutil.copytree(tiny, tmp_path / "preset"))
    assert "<mask>" in kerashub.folder(preset).tokenizer
    fewer = json.loads((preset / "config.json").read_text())
    text = fewer["config"]["text_encoder"]["config"]
    text["vocabulary_size"] -= 1
    (preset / "config.json").write_text(json.dumps(fewer))
    assert "<mask>" not in kerashub.folder(preset).tokenizer
    text["vocabulary_size"] -= 1
    (preset / "config.json").write_text(json.dumps(fewer))
    with pytest.raises(ModelError, match="the tokenizer makes ids up to"):
        kerashub.folder(preset)


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"])
def test_every_normalisation_that_sentencepiece_has(rule: str) -> None:
    found = sentencepiece_model.parse(trained(normalization_rule_name=rule))
    assert bool(found.charsmap) == (rule != "identity")


# -- images ------------------------------------------------------------------------------------

CONVERTERS: dict[str, tuple[Json, Json]] = {
    "squash": (
        {"crop_to_aspect_ratio": False},
        {"do_center_crop": False, "size": {"height": 28, "width": 28}},
    ),
    "bilinear": ({"interpolation": "bilinear"}, {"resample": 2}),
    "bicubic": ({}, {"resample": 3}),
    "rounded": (
        {
            "scale": [float(np.float32(1 / 255 / std)) for std in CLIP_STD],
            "offset": [
                float(np.float32(-mean / std))
                for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)
            ],
        },
        {"image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    ),
    "not the published": (
        {"offset": [-1.79, -1.75, -1.48]},
        {"image_mean": [1.79 * CLIP_STD[0], 1.75 * CLIP_STD[1], 1.48 * CLIP_STD[2]]},
    ),
    "one number": (
        {"scale": 1 / 127.5, "offset": -1},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_image_converters(name: str, tiny: Path, tmp_path: Path) -> None:
    change, wanted = CONVERTERS[name]
    preset = Path(shutil.copytree(tiny, tmp_path / "preset"))
    rewrite(preset / kerashub.IMAGES, lambda config: config["config"].update(change))  # type: ignore[attr-defined]
    config = kerashub.folder(preset).preprocessor.config()
    for key, value in wanted.items():
        assert config[key] == pytest.approx(value, rel=0 if name == "rounded" else 1e-12)


def test_pixels_are_kerashubs(tiny: Path, reference: KerasHub) -> None:
    preprocessor = kerashub.folder(tiny).preprocessor
    pixels = np.stack(sample_images(28))
    theirs = np.asarray(reference.prepared(["a"] * 3, pixels)["images"])
    np.testing.assert_allclose(normalised(preprocessor, pixels), theirs, atol=1e-6)


# -- broken and hostile presets ------------------------------------------------------------------

DENSE = "layers/dense/vars/0"
HEAD = "layers/meta_clip2_head/vars/0"

Damage = Callable[[Path], object]


def config(*path: str, **change: object) -> Damage:
    """Changes `config.json` at a path of keys."""

    def damage(folder: Path) -> None:
        whole = part = json.loads((folder / "config.json").read_text())
        for key in path:
            part = part[key]
        part.update(change)
        (folder / "config.json").write_text(json.dumps(whole))

    return damage


def converter(**change: object) -> Damage:
    return lambda folder: rewrite(
        folder / kerashub.IMAGES,
        lambda whole: whole["config"].update(change),  # type: ignore[attr-defined]
    )


def h5(change: Callable[[h5py.File], object]) -> Damage:
    def damage(folder: Path) -> None:
        with h5py.File(folder / FILE, "r+") as file:
            change(file)

    return damage


def replaced(
    make: Callable[[h5py.File, str, tuple[int, ...]], object], name: str = DENSE
) -> Damage:
    """Another dataset in the place of one."""

    def change(file: h5py.File) -> None:
        shape = file[name].shape
        del file[name]
        make(file, name, shape)

    return h5(change)


def write(name: str | Path, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def no(name: str | Path) -> Damage:
    return lambda folder: (folder / name).unlink()


def cut(name: str | Path, size: int) -> Damage:
    return lambda folder: os.truncate(folder / name, size)


def soft(file: h5py.File, name: str, _: object) -> None:
    file[name] = h5py.SoftLink("/layers/dense_1/vars/0")


def external_link(file: h5py.File, name: str, _: object) -> None:
    file[name] = h5py.ExternalLink("../elsewhere.h5", "/data")


def external_group(file: h5py.File) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink("../elsewhere.h5", "/data")


def external_storage(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    file.create_dataset(name, shape, "<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    layout = h5py.VirtualLayout(shape, "<f4")
    layout[:] = h5py.VirtualSource("../elsewhere.h5", "data", shape)
    file.create_virtual_dataset(name, layout)


def dataset(**options: object) -> Damage:
    return replaced(
        lambda file, name, shape: file.create_dataset(name, **{"shape": shape} | options)
    )


def compact(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan)


def odd_float(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """Four bytes that NumPy would call float32, with another exponent."""
    type = h5py.h5t.IEEE_F32LE.copy()
    type.set_ebias(100)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), type, space).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(shape, "<f4")
    )


def opaque_without_note(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    file.create_dataset(name, data=np.zeros(shape, "V2"))


def two_bytes_of_a_record(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    made = file.create_dataset(name, data=np.zeros(shape, [("a", "i1"), ("b", "i1")]))
    made.attrs["dtype"] = "bfloat16"


def stretched(folder: Path) -> None:
    """The shape in the header of a tensor, changed by hand: ten times the bytes that there are."""
    data = (folder / FILE).read_bytes()
    before, after = (
        np.array([32, 20 * times, 32, 20 * times], "<u8").tobytes() for times in (1, 10)
    )
    assert before in data  # the shape, and the largest that it may become
    (folder / FILE).write_bytes(data.replace(before, after))


def in_shards(change: Callable[[Json], object]) -> Damage:
    """The weights with an index, and a change of it."""

    def damage(folder: Path) -> None:
        (folder / FILE).rename(folder / "model_00000.weights.h5")
        with h5py.File(folder / "model_00000.weights.h5") as file:
            groups: set[str] = set()
            file.visit(lambda name: groups.add("/" + name))
        index: Json = {"weight_map": dict.fromkeys(groups, ("model_00000.weights.h5",))}
        change(index)
        (folder / INDEX).write_text(json.dumps(index))

    return damage


def listed(name: object) -> Damage:
    return in_shards(lambda index: index["weight_map"].update({"/layers/dense/vars": name}))


def message(number: int, *parts: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    content = b"".join(parts)
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def piece(text: str, score: float = -1, kind: int = 1) -> bytes:
    packed = b"\x15" + np.float32(score).tobytes()
    return message(1, message(1, text.encode()), packed, b"\x18", bytes([kind]))


FIRST = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("▁", -1)


def spm(*parts: bytes) -> Damage:
    return write(kerashub.VOCABULARY, FIRST + b"".join(parts))


def charsmap(units: Sequence[int], texts: bytes = b"a\0") -> Damage:
    trie = np.array(units, "<u4").tobytes()
    return spm(message(3, message(2, len(trie).to_bytes(4, "little"), trie, texts)))


BROKEN: dict[str, tuple[Damage, str]] = {
    # the configuration
    "another model": (
        config(class_name="CLIPBackbone", registered_name="keras_hub>CLIPBackbone"),
        "holds a CLIPBackbone where a MetaCLIP2Backbone should be",
    ),
    "no class": (write("config.json", "{}"), "holds a None where a MetaCLIP2Backbone"),
    "config no JSON": (write("config.json", '{"class'), "cannot read"),
    "config too deep": (write("config.json", '{"a":' + "[" * 10**6), "cannot read"),
    "no encoder": (config("config", text_encoder=None), "holds a None where a MetaCLIP2TextEnc"),
    "encoder without config": (
        config("config", "text_encoder", config=[]),
        "the preset's MetaCLIP2TextEncoder has no config",
    ),
    "another activation": (
        config("config", "vision_encoder", "config", intermediate_activation="relu"),
        "hidden_act 'relu' is not one of quick_gelu, gelu",
    ),
    "an activation of code": (
        config("config", "vision_encoder", "config", intermediate_activation={"class": "Lambda"}),
        "is not one of quick_gelu, gelu",
    ),
    "an image not square": (
        config("config", "vision_encoder", "config", image_shape=[28, 42, 3]),
        "image_shape [28, 42, 3] is not square",
    ),
    "embeddings of another width": (
        config("config", "text_encoder", "config", embedding_dim=16),
        "embedding_dim 16 and hidden_dim 24",
    ),
    "layers without end": (
        config("config", "text_encoder", "config", num_layers=10**9),
        "num_hidden_layers 1000000000 is not a number from 1 to 1,024",
    ),
    "another width": (
        config("config", "vision_encoder", "config", hidden_dim=64),
        "its architecture wants 64",
    ),
    "a layer more": (
        config("config", "vision_encoder", "config", num_layers=4),
        "lacks 16 of the tensors of its architecture, such as layers/meta_clip2_vision_encoder/",
    ),
    # the weights
    "no weights": (no(FILE), f"neither {FILE} nor {INDEX}"),
    "a Git LFS pointer": (
        write(FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "is no whole HDF5 file: it is a Git LFS pointer",
    ),
    "weights empty": (write(FILE, ""), "is no whole HDF5 file: half a download?"),
    "weights cut short": (cut(FILE, 60_000), "is no whole HDF5 file: half a download?"),
    "weights of zeros": (write(FILE, bytes(10_000)), "is no whole HDF5 file"),
    "a tensor missing": (
        replaced(lambda *_: None),
        f"lacks 1 of the tensors of its architecture, such as {DENSE}",
    ),
    "a soft link": (replaced(soft), f"{DENSE} is reached over a SoftLink, which is not followed"),
    "an external link": (replaced(external_link), "is reached over an ExternalLink"),
    "a group elsewhere": (h5(external_group), "is reached over an ExternalLink"),
    "bytes of another file": (replaced(external_storage), "is kept in another file"),
    "a virtual dataset": (replaced(virtual), "is kept in another file"),
    "a group for a dataset": (
        replaced(lambda file, name, _: file.create_group(name)),
        "is no dataset",
    ),
    "a dataset for a group": (
        h5(lambda file: (file.pop("layers/dense"), file.create_dataset("layers/dense", (1,), "f"))),
        "lies within what is no group",
    ),
    "a type for a dataset": (
        replaced(lambda file, name, _: file.__setitem__(name, np.dtype("<f4"))),
        "is no dataset",
    ),
    "strings": (dataset(dtype=h5py.string_dtype()), "is of type object, no float"),
    "lists of floats": (dataset(dtype=h5py.vlen_dtype("<f4")), "is of type object, no float"),
    "references": (dataset(dtype=h5py.ref_dtype), "is of type object, no float"),
    "integers": (dataset(dtype="<i4"), "is of type int32, no float"),
    "bytes swapped": (dataset(dtype=">f4"), "is of type >f4, no float that Keras writes"),
    "complex": (dataset(dtype="<c8"), "is of type complex64, no float"),
    "a float of another making": (replaced(odd_float), "no float that Keras writes"),
    "opaque": (replaced(opaque_without_note), "is of type |V2, no float"),
    "records": (replaced(two_bytes_of_a_record), "no float that Keras writes"),
    "compressed": (dataset(dtype="<f4", compression="gzip"), "is chunked or compressed"),
    "chunked": (dataset(dtype="<f4", chunks=(1, 1)), "is chunked or compressed"),
    "compact": (replaced(compact), "is chunked or compressed"),
    "a bomb": (
        dataset(shape=(2**20, 2**20), dtype="<f4"),
        "declares 4,398,046,511,104 bytes and holds 0",
    ),
    "never written": (dataset(dtype="<f4"), "bytes and holds 0"),
    "stretched": (stretched, f"{DENSE} is damaged: "),
    "of no shape": (
        replaced(lambda f, name, _: f.create_dataset(name, data=h5py.Empty("f"))),
        "is empty",
    ),
    "another shape": (
        replaced(
            lambda file, name, shape: file.create_dataset(name, data=np.zeros(shape[::-1], "f"))
        ),
        f"the checkpoint's {DENSE} is 20×32; its architecture wants 32×20",
    ),
    "a scalar that is none": (
        replaced(lambda file, name, _: file.create_dataset(name, data=np.zeros(1, "f")), HEAD),
        f"{HEAD} is 1; its architecture wants a scalar",
    ),
    "not finite": (
        h5(lambda file: file[DENSE].write_direct(np.full((32, 20), np.nan, "f"))),
        f"{DENSE} holds NaN or infinity",
    ),
    # shards
    "an index of nothing": (in_shards(lambda index: index.pop("weight_map")), "has no weight_map"),
    "a shard elsewhere": (listed("../model_00000.weights.h5"), "names a file outside its folder"),
    "a shard at the root": (listed("/etc/passwd"), "names a file outside its folder"),
    "a shard that is no name": (listed([7]), "names a file outside its folder: 7"),
    "a shard that is the folder": (listed(".."), "names a file outside its folder"),
    "a shard missing": (listed("model_00001.weights.h5"), "lacks model_00001.weights.h5"),
    "a group in no shard": (listed([]), f"such as {DENSE}"),
    # images
    "no converter": (no(kerashub.IMAGES), "cannot read"),
    "images of another size": (converter(image_size=[56, 56]), "makes images of [56, 56]"),
    "another interpolation": (converter(interpolation="lanczos3"), "interpolation 'lanczos3'"),
    "padding": (converter(pad_to_aspect_ratio=True), "pads its images"),
    "no scale": (converter(scale=None), "scale None is no number for each channel"),
    "scale of nothing": (converter(scale=[0, 1, 1]), "is not above 0"),
    "scale endless": (converter(scale=float("inf")), "scale inf is no number"),
    "two channels": (converter(offset=[1, 2]), "offset [1, 2] is no number for each channel"),
    # texts
    "no tokenizer": (no(kerashub.TOKENIZER), "cannot read"),
    "another tokenizer": (
        write(kerashub.TOKENIZER, '{"class_name": "CLIPTokenizer"}'),
        "holds a CLIPTokenizer where a MetaCLIP2Tokenizer should be",
    ),
    "no vocabulary": (no(kerashub.VOCABULARY), "no assets/tokenizer/vocabulary.spm"),
    "vocabulary a pointer": (
        write(kerashub.VOCABULARY, "version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "vocabulary cut short": (cut(kerashub.VOCABULARY, 5_000), "is damaged or cut short"),
    "vocabulary empty": (write(kerashub.VOCABULARY, ""), "does not begin with <unk>, <s> and </s>"),
    "vocabulary huge": (cut(kerashub.VOCABULARY, 2**28 + 1), "is larger than"),
    "a length beyond the file": (spm(b"\x0a\xff\xff\xff\xff\x0f"), "is damaged"),
    "a length of nothing read": (spm(b"\x2a\x7f"), "is damaged"),
    "a number without end": (spm(b"\x0a" + b"\xff" * 20), "is damaged"),
    "a field of no type": (spm(b"\x0b\x00"), "is damaged"),
    "a piece that is a number": (spm(b"\x08\x01"), "is damaged"),
    "a piece of no text": (spm(piece("")), "is damaged"),
    "a piece not UTF-8": (spm(message(1, message(1, b"\xff"))), "is damaged"),
    "a score not finite": (spm(piece("a", float("nan"))), "is damaged"),
    "a piece twice": (spm(piece("a"), piece("a")), "has 'a' twice"),
    "a mask of its own": (spm(piece("<mask>")), "has '<mask>' twice"),
    "user-defined": (spm(piece("a", 0, 4)), "piece 'a' is user-defined"),
    "unused": (spm(piece("a", 0, 5)), "piece 'a' is unused"),
    "BPE": (spm(message(2, b"\x18\x02")), "is of type BPE, not Unigram"),
    "byte fallback": (spm(message(2, b"\x98\x02\x01")), "has byte_fallback on"),
    "spaces kept": (spm(message(3, b"\x20\x00")), "has remove_extra_whitespaces off"),
    "a charsmap of two bytes": (spm(message(3, message(2, b"ab"))), "is damaged"),
    "a charsmap of no texts": (charsmap([0] * 256, b""), "is damaged"),
    "a charsmap not UTF-8": (charsmap([0] * 256, b"\xff\0"), "is damaged"),
    "a charsmap that leads out": (charsmap([1 << 20] + [0] * 255), "is damaged"),
    "a charsmap whose root leads out": (charsmap([1 << 31 | 1 << 20] + [0] * 255), "is damaged"),
    "a charsmap too short": (charsmap([0] * 255), "is damaged"),
    "a charsmap of texts beyond": (charsmap([1 << 8] * 256, b"a\0"), "is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_preset_is_a_model_error(name: str, tiny: Path, tmp_path: Path) -> None:
    damage, sentence = BROKEN[name]
    preset = Path(shutil.copytree(tiny, tmp_path / "preset"))
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:  # what links may not lead to
        file["data"] = np.zeros((32, 20), "<f4")
    damage(preset)
    with pytest.raises(ModelError) as caught:
        made_canonical(preset, tmp_path / "canonical")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trainer_of_many_files_is_read() -> None:
    """`TrainerSpec.input` repeats for each."""
    files = b"".join(message(1, b"part-%d.txt" % number) for number in range(3_000))
    assert sentencepiece_model.parse(FIRST + message(2, files)).pieces == [("▁", -1.0)]
    with pytest.raises(ModelError, match="has over 4,096 fields"):
        sentencepiece_model.parse(FIRST + message(2, files * 2))


def test_tensors_may_lie_anywhere_in_the_file(tiny: Path, tmp_path: Path) -> None:
    """Behind a block of the user's own, and not at multiples of their size."""
    with (
        h5py.File(tiny / FILE) as plain,
        h5py.File(tmp_path / FILE, "w", userblock_size=512) as odd,
    ):
        odd.create_dataset("three", data=np.zeros(3, "i1"))
        plain.copy("layers", odd)
        assert odd[HEAD].id.get_offset() % 4
    moved = H5.open(tmp_path)
    with h5py.File(tiny / FILE) as plain:
        for part in kerashub.folder(tiny).parts.values():
            assert np.array_equal(moved.read(part.source).numpy(), plain[part.source][()])


def test_the_damage_is_what_is_refused(tiny: Path, tmp_path: Path) -> None:
    """The tools of the tests above, with nothing wrong."""
    preset = Path(shutil.copytree(tiny, tmp_path / "preset"))
    in_shards(lambda index: None)(preset)
    kerashub.folder(preset).check()
    data = FIRST + message(3, message(2, (1024).to_bytes(4, "little"), bytes(1024), b"a\0"))
    assert sentencepiece_model.parse(data).pieces == [("▁", -1.0)]


def test_a_preset_takes_no_other_parts(tiny: Path, tmp_path: Path) -> None:
    for options in ({"tokenizer": tmp_path}, {"weights": "ema"}):
        with pytest.raises(ModelError, match="--weights and --tokenizer are for other layouts"):
            resolve.find(str(tiny), **options)


def test_what_is_a_preset(tiny: Path, tiny_canonical: Path, tmp_path: Path) -> None:
    assert family.is_preset(tiny)
    assert not family.is_preset(tiny_canonical)
    assert not family.is_preset(tmp_path)
    (tmp_path / "config.json").write_text('{"registered_name": "keras_hub>CLIPBackbone"}')
    assert family.is_preset(tmp_path)


def test_tensors_that_share_their_bytes_are_no_model(tmp_path: Path) -> None:
    """A thousand hard links to one tensor would make a model of a thousand times the file."""
    with h5py.File(tmp_path / FILE, "w") as file:
        file["0"] = np.zeros(10_000, "<f4")
        for number in range(1, 1_000):
            file[str(number)] = file["0"]
    found = H5.open(tmp_path)
    assert found.shape("0") == (10_000,)
    with pytest.raises(ModelError, match="shares its bytes with others"):
        [found.shape(str(number)) for number in range(1_000)]
