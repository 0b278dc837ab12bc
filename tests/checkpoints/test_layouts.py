"""Every layout that a checkpoint may come in becomes the same model, as its own code computes it.

The architectures are the published ones, two layers deep, large towers at half their width; the
weights are random. That the published sizes are read as they are is a test of its own.
Packaging itself compares with transformers, so a package that exists has passed that; here it is
compared with OpenCLIP too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from score.checkpoints import openclip, random_checkpoint, resolve
from score.checkpoints.architectures import ARCHITECTURES, CLIP_TOKENIZER
from score.checkpoints.catalog import CATALOG
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.architecture import Architecture
from score.images import decode
from score.model.probes import Probes, difference
from score.package import probe_set
from score.package.build import package
from score.settings import Settings
from tests.support.images import normalised
from tests.support.open_clip_reference import OpenClip, config
from tests.support.open_clip_reference import package as open_clip_package

pytestmark = pytest.mark.reference

Json = dict[str, Any]
FP32 = Settings(device="cpu", precision="fp32")
TEXTS = probe_set.TEXTS
IMAGES = probe_set.images()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for large files, emptied at once."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


# -- OpenCLIP --------------------------------------------------------------------------------------

NAMES = sorted(
    name
    for name in ARCHITECTURES
    if (open_clip_package() / "model_configs" / f"{name}.json").is_file()
)


@pytest.mark.parametrize("name", NAMES)
def test_named_architectures_are_openclips(name: str) -> None:
    assert openclip.architecture(config(name)) == ARCHITECTURES[name]


PUBLISHED = sorted({entry.architecture_name for entry in CATALOG.values()} & set(ARCHITECTURES))


def test_every_published_architecture_is_openclips() -> None:
    assert set(PUBLISHED) <= set(NAMES)


def shallow(name: str, layers: int = 2) -> Json:
    """OpenCLIP's configuration of that name with few layers, and few words of XLM-V.

    Towers are a quarter as wide, with a quarter of the heads: heads are as wide as they were.
    """
    content = config(name)
    for tower in (content["vision_cfg"], content["text_cfg"]):
        tower["layers"] = layers
        tower["width"] //= 4
        if "heads" in tower:
            tower["heads"] //= 4
    if content["text_cfg"].get("pool_type") == "eos":
        content["text_cfg"]["vocab_size"] = 1000
    return content


def write_open_clip(folder: Path, model: OpenClip, model_cfg: Json, preprocess: Json) -> Path:
    """As `open_clip.push_to_hf_hub` lays a model out."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {name: tensor.contiguous() for name, tensor in model.model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    if model_cfg["text_cfg"].get("pool_type") == "eos":
        words = random_checkpoint.xlm_vocabulary(model_cfg["text_cfg"]["vocab_size"])
        (folder / "tokenizer.json").write_text(words)
    else:
        shutil.copy(CLIP_TOKENIZER / "tokenizer.json", folder)
    return folder


def assert_as_open_clip(made: Path, theirs: OpenClip) -> None:
    """A package's vectors are those of OpenCLIP's model."""
    ours = Embedder.load(made, FP32)
    decoded = [decode.decode(data, 10**7) for data in IMAGES.values()]
    pixels = [parts_of(ours).preprocessor.pixels(image, 10**7) for image in decoded]
    values = np.moveaxis(normalised(parts_of(ours).preprocessor, np.stack(pixels)), -1, 1)
    ids = [
        found for found in parts_of(ours).tokenizer.encode(TEXTS, "end") if isinstance(found, list)
    ]
    assert len(ids) == len(TEXTS)
    for mine, reference in (
        (parts_of(ours).encoder.images(pixels), theirs.images(values)),
        (parts_of(ours).encoder.texts(ids), theirs.texts(ids, parts_of(ours).tokenizer.context)),
    ):
        cosine, error = difference(mine, reference)
        assert cosine >= 0.99999
        assert error <= 1e-4
    scale = float(theirs.model.logit_scale.detach().exp())
    assert parts_of(ours).encoder.logit_scale == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_openclip_folder_of_each_architecture(name: str, folder: Path) -> None:
    model_cfg = shallow(name)
    theirs = OpenClip(model_cfg)
    resize = "squash" if "378" in name else "shortest"
    checkpoint = write_open_clip(folder / "c", theirs, model_cfg, {"resize_mode": resize})
    made = package(checkpoint, folder / "package")
    assert_as_open_clip(made, theirs)


SMALL = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64},
    "text_cfg": {"width": 64, "heads": 2, "layers": 2, "context_length": 77, "vocab_size": 49408},
}


def _as_bin(folder: Path) -> None:
    """`open_clip_pytorch_model.bin`."""
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")


def _as_old_bin(folder: Path) -> None:
    """A file of torch before 1.6, which was no zip."""
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin", _use_new_zipfile_serialization=False)


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("change", [lambda _: None, _as_bin, _as_old_bin, _without_tokenizer])
@pytest.mark.parametrize("custom", [False, True])
def test_openclips_other_files(
    change: Callable[[Path], None], custom: bool, tmp_path: Path
) -> None:
    theirs = OpenClip(SMALL, custom=custom)
    folder = write_open_clip(tmp_path / "c", theirs, SMALL, {"mean": [0.5] * 3, "std": [0.25] * 3})
    change(folder)
    made = package(folder, tmp_path / "p")
    assert_as_open_clip(made, theirs)
    assert parts_of(Embedder.load(made)).preprocessor.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bare_weights_whose_architecture_is_named(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as MetaCLIP's, with the optimizer beside them and `module.` before each name."""
    monkeypatch.setattr(resolve, "ARCHITECTURES", {"small": openclip.architecture(SMALL)})
    theirs = OpenClip(SMALL)
    state = theirs.model.state_dict()
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        named = {f"module.{name}": tensor for name, tensor in state.items()}
        training = {"epoch": 3, "name": "x", "state_dict": named, "optimizer": {"state": {}}}
        torch.save(training, file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    with pytest.raises(ModelError, match="say of which --architecture, one of small"):
        package(file, tmp_path / "p")
    with pytest.raises(ModelError, match="no architecture 'ViT-B-33'"):
        package(file, tmp_path / "p", architecture="ViT-B-33")
    made = package(file, tmp_path / "p", architecture="small")
    assert_as_open_clip(made, theirs)


def test_bare_weights_of_the_catalog_are_known_by_their_name(tmp_path: Path) -> None:
    file = tmp_path / "b32_400m.pt"
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ModelError, match="whose architecture is ViT-B-32-quickgelu, not ViT-B-32"):
        package(file, tmp_path / "p", architecture="ViT-B-32")
    with pytest.raises(ModelError, match=r"has the name of MetaCLIP .* but not its SHA-256"):
        package(file, tmp_path / "p")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "timm_model_name", "vit_base"),
        ("vision_cfg", "attentional_pool", True),
        ("vision_cfg", "pool_type", "avg"),
        ("vision_cfg", "ls_init_value", 1e-5),
        ("vision_cfg", "qk_norm", True),
        ("text_cfg", "hf_model_name", "roberta-base"),
        ("text_cfg", "no_causal_mask", True),
        ("text_cfg", "pool_type", "last"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-6}),
        ("vision_cfg", "head_width", 0),
        ("vision_cfg", "width", "wide"),
        (None, "multimodal_cfg", {"width": 3}),
    ],
)
def test_what_is_no_plain_clip_is_refused_by_name(part: str | None, key: str, value: Any) -> None:
    model_cfg = json.loads(json.dumps(SMALL))
    (model_cfg if part is None else model_cfg[part])[key] = value
    says = r"OpenCLIP's \w+\.\w+|hidden_size|num_attention_heads|OpenCLIP's is not supported: "
    with pytest.raises(ModelError, match=says):
        openclip.architecture(model_cfg)


# -- transformers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What the tiny model computes, packaged from safetensors."""
    return promised(package(tiny, tmp_path_factory.mktemp("package") / "p"))


def promised(made: Path) -> np.ndarray:
    """A package's probes' vectors, recomputed."""
    probes = Probes.read(made / "model")
    assert probes
    ours = Embedder.load(made, FP32)
    assert all(finding.passed for finding in probes.check(*parts_of(ours)))
    return np.stack([*(probe.vector for probe in (*probes.texts, *probes.images))])


def _pickled(folder: Path) -> None:
    torch.save(_taken(folder), folder / "pytorch_model.bin")


def _sharded_pickles(folder: Path) -> None:
    _sharded(folder, "pytorch_model", ".bin", torch.save)


def _sharded_safetensors(folder: Path) -> None:
    """With the odd names that LAION's bigG has."""

    def save(state: dict[str, torch.Tensor], file: Path) -> None:
        save_file(state, file, metadata={"format": "pt"})

    _sharded(folder, "pytorch_model", ".safetensors", save)


def _sharded(folder: Path, stem: str, suffix: str, save: Callable[..., None]) -> None:
    state = _taken(folder)
    names = sorted(state)
    places: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05}-of-00002{suffix}"
        save({name: state[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": places}))


def _taken(folder: Path) -> dict[str, torch.Tensor]:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return state


def _with_position_ids(folder: Path) -> None:
    """Buffers that old checkpoints hold, and integers at that."""
    state = _taken(folder)
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _as_openai(folder: Path) -> None:
    """OpenAI's repositories: the end token is said to be 2, settings are said twice."""
    content = json.loads((folder / "config.json").read_text())
    text, vision = content["text_config"], content["vision_config"]
    text.update(bos_token_id=0, eos_token_id=2)
    content |= {"text_config_dict": dict(text), "vision_config_dict": dict(vision)}
    text["num_hidden_layers"] = 99  # what the other one says counts
    (folder / "config.json").write_text(json.dumps(content))
    old = {"size": 224, "crop_size": 224, "resample": 3, "do_resize": True, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))


def _as_metaclip(folder: Path) -> None:
    """MetaCLIP's compact configs leave to defaults what is default."""
    content = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        for name in ("hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id"):
            content[part].pop(name, None)
    (folder / "config.json").write_text(json.dumps(content))


def _as_merges(folder: Path) -> None:
    """`vocab.json` and `merges.txt` for a tokenizer."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        _pickled,
        _sharded_pickles,
        _sharded_safetensors,
        _with_position_ids,
        _as_openai,
        _as_metaclip,
        _as_merges,
    ],
)
def test_transformers_other_files(
    change: Callable[[Path], None], tiny: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "c"))
    change(folder)
    assert np.array_equal(promised(package(folder, tmp_path / "p")), vectors)


SQUASHING = {
    "old key": ("preprocessor_config.json", {"feature_extractor_type": "ViTFeatureExtractor"}),
    "old name": ("preprocessor_config.json", {"image_processor_type": "ViTFeatureExtractor"}),
    "whole processor": (
        "processor_config.json",
        {"image_processor": {"image_processor_type": "ViTImageProcessorFast"}},
    ),
}


@pytest.mark.parametrize("name", SQUASHING)
def test_the_image_processor_that_a_checkpoint_names_is_promised(
    name: str, tiny: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    """Packaging compares our pixels and vectors with those of that very class."""
    folder = Path(shutil.copytree(tiny, tmp_path / "c"))
    file, content = SQUASHING[name]
    (folder / file).write_text(json.dumps(content))
    made = package(folder, tmp_path / "p")
    assert not np.allclose(promised(made), vectors, atol=1e-2)
    preprocessor = parts_of(Embedder.load(made)).preprocessor
    assert (preprocessor.resize, preprocessor.crop) == ((224, 224), None)
    assert preprocessor.resample == Image.Resampling.BILINEAR
    assert preprocessor.mean == (0.5, 0.5, 0.5)


def test_a_package_can_be_packaged_again(tiny: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    once = package(tiny, tmp_path / "once", "m")
    twice = package(once, tmp_path / "twice", "m")
    assert np.array_equal(promised(twice), vectors)
    for file in (once / "model").iterdir():
        assert file.read_bytes() == (twice / "model" / file.name).read_bytes(), file.name


# -- precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "itemsize"), [("bf16", 2), ("fp16", 2), ("fp32", 4)])
def test_weights_are_stored_in_the_precision_asked_for(
    precision: Any, itemsize: int, tiny: Path, tmp_path: Path
) -> None:
    made = package(tiny, tmp_path / "p", precision=precision)
    state = load_file(made / "model" / "model.safetensors")
    assert {tensor.itemsize for tensor in state.values()} == {itemsize}
    stored = json.loads((made / "model" / "config.json").read_text())["dtype"]
    assert stored == str(next(iter(state.values())).dtype).removeprefix("torch.")
    promised(made)
    # In half precision too, where it computes so.
    half = Embedder.load(made, Settings(device="cpu", precision=precision, verify="full"))
    assert half.precision == precision


def test_weights_too_large_for_fp16_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "c"))
    state = _taken(folder)
    state["visual_projection.weight"][3, 4] = 1e6
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"visual_projection.weight holds NaN or infinity"):
        package(folder, tmp_path / "p", precision="fp16")
    assert not (tmp_path / "p").exists()


def test_large_models_are_written_in_shards(
    tiny: Path, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.checkpoints.canonical._SHARD", 2**20)
    made = package(tiny, tmp_path / "p")
    names = {file.name for file in (made / "model").glob("*.safetensors*")}
    assert "model.safetensors.index.json" in names
    assert len(names) > 3
    # Not to the bit: the reference maps its files, and sums may depend on where numbers lie.
    np.testing.assert_allclose(promised(made), vectors, rtol=0, atol=1e-5 * np.abs(vectors).max())


def test_shards_hold_no_more_than_they_may() -> None:
    from score.checkpoints.canonical import _SHARD, _shards

    made = ARCHITECTURES["ViT-bigG-14-worldwide-378"]
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in made.shapes().items()}
    shards = _shards(sizes)
    for names in shards:
        assert len(names) == 1 or sum(sizes[name] for name in names) <= _SHARD
    assert [name for names in shards for name in names] == list(sizes)


def test_the_architectures_sizes_are_the_published_ones() -> None:
    """Parameters as OpenCLIP's model_profile.csv and KerasHub's presets state them."""
    counts = {name: entry.parameters for name, entry in CATALOG.items()}
    assert counts["openai-vit-b-32"] == 151_277_313
    assert counts["laion-vit-bigg-14"] == 2_539_567_105
    assert counts["laion-vit-g-14"] == 1_366_678_273
    assert counts["dfn-vit-h-14-378"] == 986_714_881
    assert counts["datacomp-vit-b-32-256"] == 151_288_833
    assert counts["siglip-b-16-224"] == 203_155_970
    assert counts["siglip-so400m-14-224"] == 877_360_306
    assert counts["siglip-so400m-14-384"] == 877_960_498
    assert counts["metaclip-2-huge"] == 1_858_783_745
    assert counts["metaclip-2-huge-378"] == 1_859_389_185
    assert counts["metaclip-2-giant"] == 3_630_409_985
    assert counts["metaclip-2-giant-378"] == 3_631_197_057


def test_a_config_says_what_an_architecture_is() -> None:
    for made in (*ARCHITECTURES.values(), random_checkpoint.TINY):
        assert Architecture.from_config(made.config()) == made
        odd = replace(made, dimension=7)
        assert Architecture.from_config(odd.config()) == odd
