"""Weights in several precisions at once: no bit is lost unless `--precision` says so.

OpenAI's `convert_weights` leaves such a mixture (matrices in fp16, norms, embeddings and the logit
scale in fp32), and so does whoever replaces a tensor in a checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel

from score.checkpoints import canonical
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.model.engines.pytorch import DTYPES
from score.model.probes import Probes, difference
from score.package.build import package
from score.settings import Settings
from tests.checkpoints.test_layouts import SMALL, assert_as_open_clip, write_open_clip
from tests.support.open_clip_reference import OpenClip

State = dict[str, Tensor]
FP32 = Settings(device="cpu", precision="fp32")


def converted(state: State) -> State:
    """As openai/CLIP's `convert_weights` (clip/model.py): what multiplies, in fp16."""

    def half(name: str) -> bool:
        module = name.rpartition(".")[0].rpartition(".")[2]
        return "norm" not in module and "layrnorm" not in module and "embedding" not in name

    return {
        name: tensor.half() if half(name) and tensor.ndim else tensor
        for name, tensor in state.items()
    }


def one(dtype: torch.dtype, *names: str) -> Callable[[State], State]:
    return lambda state: state | {name: state[name].to(dtype) for name in names}


def by_turns(state: State) -> State:
    """fp16 and bf16: neither holds what the other one does."""
    kinds = (torch.float16, torch.bfloat16)
    return {name: t.to(kinds[place % 2]) for place, (name, t) in enumerate(state.items())}


MIXED: dict[str, tuple[Callable[[State], State], str]] = {
    "as convert_weights leaves it": (converted, "float32"),
    "one fp16 matrix": (one(torch.float16, "visual_projection.weight"), "float32"),
    "one fp32 matrix": (
        lambda state: {n: t if "projection" in n else t.half() for n, t in state.items()},
        "float32",
    ),
    "bf16 and fp16": (by_turns, "float32"),
    "one fp64 matrix": (one(torch.float64, "text_projection.weight"), "float64"),
    "a logit scale in fp16": (one(torch.float16, "logit_scale"), "float32"),
}


class Mixture(NamedTuple):
    """A folder of mixed weights, its tensors, the widest precision of them, and a package of it."""

    folder: Path
    state: State
    widest: str
    made: Path


@pytest.fixture(params=MIXED, scope="module")
def mixed(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mixture:
    change, widest = MIXED[request.param]
    root = tmp_path_factory.mktemp("mixed")
    folder, state = written(tiny, root / "c", change)
    return Mixture(folder, state, widest, package(folder, root / "p"))


def written(tiny: Path, folder: Path, change: Callable[[State], State]) -> tuple[Path, State]:
    shutil.copytree(tiny, folder)
    state = change(load_file(folder / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    # What transformers' default would load it all in.
    stated = str(state["visual_projection.weight"].dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps({**config, "dtype": stated}))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, state


def equal(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in theirs
    )


@pytest.mark.reference
def test_every_tensor_is_stored_as_it_came(mixed: Mixture) -> None:
    _, state, widest, made = mixed
    assert equal(load_file(made / "model" / "model.safetensors"), state)
    assert json.loads((made / "model" / "config.json").read_text())["dtype"] == widest
    # transformers, by default, loads a folder in the precision that its config.json states.
    theirs = CLIPModel.from_pretrained(made / "model").state_dict()
    for name, tensor in state.items():
        assert torch.equal(theirs[name], tensor.to(theirs[name].dtype)), name
    # The card says what there is.
    card = (made / "README.md").read_text()
    for dtype in {tensor.dtype for tensor in state.values()}:
        assert f"{str(dtype).removeprefix('torch.')} (" in card


@pytest.mark.reference
def test_vectors_are_those_of_the_original_in_fp32(mixed: Mixture) -> None:
    """By transformers, which reads the original itself; packaged, and served as it is."""
    folder, state, _, made = mixed
    reference = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    probes = Probes.read(made / "model")
    assert probes
    for model in (folder, made):
        ours = Embedder.load(model, FP32)
        for probe in probes.texts[:4]:
            with torch.inference_mode():
                wanted = reference.get_text_features(torch.tensor([probe.ids])).pooler_output
            vector = parts_of(ours).encoder.texts([probe.ids])
            cosine, error = difference(vector, wanted.numpy())
            assert cosine >= 0.99999
            assert error <= 1e-4
            np.testing.assert_allclose(probe.vector, wanted[0], rtol=0, atol=error + 1e-5)
        scale = float(state["logit_scale"].float().exp())
        assert parts_of(ours).encoder.logit_scale == pytest.approx(scale, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["as convert_weights leaves it", "bf16 and fp16"])
def test_torch_files_too(name: str, tiny: Path, tmp_path: Path) -> None:
    folder, state = written(tiny, tmp_path / "c", MIXED[name][0])
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    made = package(folder, tmp_path / "p")
    assert equal(load_file(made / "model" / "model.safetensors"), state)


@pytest.mark.reference
def test_openclips_weights_too(tmp_path: Path) -> None:
    """Rounded where `convert_weights` rounds, and computed in fp32."""
    theirs = OpenClip(SMALL)
    for name, parameter in theirs.model.named_parameters():
        if parameter.ndim > 1 and "embedding" not in name:
            parameter.data = parameter.data.half().float()
    folder = write_open_clip(tmp_path / "c", theirs, SMALL, {})
    state = load_file(folder / "open_clip_model.safetensors")
    for name, tensor in state.items():
        if tensor.ndim > 1 and "embedding" not in name:
            state[name] = tensor.half()
    save_file(state, folder / "open_clip_model.safetensors")
    made = package(folder, tmp_path / "p")
    stored = load_file(made / "model" / "model.safetensors")
    assert stored["visual_projection.weight"].dtype == torch.float16
    assert stored["text_model.encoder.layers.0.self_attn.q_proj.weight"].dtype == torch.float16
    assert stored["text_model.encoder.layers.0.self_attn.q_proj.bias"].dtype == torch.float32
    assert stored["logit_scale"].dtype == torch.float32
    assert_as_open_clip(made, theirs)


@pytest.mark.process
@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="needs openvino")
def test_every_engine_computes_a_mixture_alike(tiny: Path, tmp_path: Path) -> None:
    folder, _ = written(tiny, tmp_path / "c", converted)
    made = package(folder, tmp_path / "p")
    asked = {"engine": "openvino", "cache": str(tmp_path / "cache"), "verify": "full"}
    Embedder.load(made, FP32.replace(asked))


@pytest.mark.slow
def test_shards_of_a_mixture(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "_SHARD", 2**20)
    folder, state = written(tiny, tmp_path / "c", converted)
    model = package(folder, tmp_path / "p") / "model"
    files = list(model.glob("*.safetensors"))
    assert len(files) > 1
    assert equal({n: t for file in files for n, t in load_file(file).items()}, state)
    index = json.loads((model / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in state.values())


# -- narrower only when asked ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "name"),
    [
        ("fp16", "as convert_weights leaves it"),
        ("bf16", "bf16 and fp16"),
        ("fp32", "one fp64 matrix"),
    ],
)
def test_a_precision_that_is_asked_for_is_what_all_is_stored_in(
    precision: Any, name: str, tiny: Path, tmp_path: Path
) -> None:
    """And what is promised is what those weights compute, not what wider ones would have."""
    folder, state = written(tiny, tmp_path / "c", MIXED[name][0])
    made = package(folder, tmp_path / "p", precision=precision)
    stored = load_file(made / "model" / "model.safetensors")
    for tensor in state:
        assert torch.equal(stored[tensor], state[tensor].to(DTYPES[precision])), tensor
    Embedder.load(made, FP32.replace({"verify": "full"}))


@pytest.mark.reference
@pytest.mark.parametrize("narrowed", ["all", "logit_scale", "vision_model.pre_layrnorm.bias"])
def test_the_proof_sees_bits_that_are_lost(
    narrowed: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the reference to read what was written, it would agree with it."""
    kept = canonical._dtypes

    def narrow(*args: Any) -> dict[str, torch.dtype]:
        dtypes = dict(kept(*args))
        lost = dtypes if narrowed == "all" else [narrowed]
        return dtypes | dict.fromkeys(lost, torch.float16)

    monkeypatch.setattr(canonical, "_dtypes", narrow)
    for change in ("safetensors", "bin"):
        folder = Path(shutil.copytree(tiny, tmp_path / change))
        if change == "bin":
            torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="was not written as the reference"):
            package(folder, tmp_path / "p")
        assert not (tmp_path / "p").exists()
