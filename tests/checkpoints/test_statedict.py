"""The model in a file of weights, whatever training code wrapped it in or left beside it."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from score.checkpoints import openclip, random_checkpoint, resolve, state_dict, transformers_layout
from score.checkpoints.source import Pickled, opened
from score.core.embedder import Embedder
from score.errors import ModelError
from score.package.build import package
from tests.checkpoints.test_layouts import assert_as_open_clip
from tests.support.open_clip_reference import OpenClip

pytestmark = pytest.mark.reference

State = dict[str, Tensor]
Wrap = Callable[[State], dict[str, Any]]

CONFIG = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1, "context_length": 77, "vocab_size": 49408},
}
MADE = openclip.architecture(CONFIG)
THEIRS = OpenClip(CONFIG)
LAYOUTS = {"OpenCLIP": openclip, "transformers": transformers_layout}
BOTH = (openclip.NAMES, transformers_layout.NAMES)
OPTIMIZER = {"state": {0: {"step": torch.ones(()), "exp_avg": torch.ones(3)}}, "param_groups": []}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "ARCHITECTURES", {"small": MADE})


@functools.cache
def states() -> dict[str, State]:
    """The same kind of model in both layouts."""
    random = random_checkpoint.RandomTensors(MADE, 0)
    return {
        "OpenCLIP": dict(THEIRS.model.state_dict()),
        "transformers": {name: random.read(name) for name in random.names()},
    }


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that a package has of the transformers layout, unwrapped and in a folder."""
    folder = tmp_path_factory.mktemp("unwrapped")
    made = package(random_checkpoint.write(folder / "c", MADE), folder / "p")
    return (made / "model/model.safetensors").read_bytes()


def under(prefix: str) -> Wrap:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


def compiled_towers(state: State) -> State:
    """As towers that are compiled or distributed by themselves are saved."""
    renamed = {}
    for name, tensor in state.items():
        first, rest = name.split(".", 1) if "." in name else (name, "")
        wrapped = first in ("visual", "vision_model") and rest
        renamed[f"{first}._orig_mod.module.{rest}" if wrapped else name] = tensor
    return renamed


WRAPPED: dict[str, Wrap] = {
    "module": under("module."),
    "_orig_mod": under("_orig_mod."),
    "module around _orig_mod": under("module._orig_mod."),
    "_orig_mod around module": under("_orig_mod.module."),
    "Lightning's": under("model."),
    "Lightning's, compiled": under("model._orig_mod."),
    "clip_model": under("clip_model."),
    "a tower of its own": compiled_towers,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": OPTIMIZER},
    "model": lambda state: {"model": state, "optimizer": OPTIMIZER, "scaler": {}},
    "model_state_dict": lambda state: {
        "model_state_dict": under("module.")(state),
        "optimizer_state_dict": OPTIMIZER,
        "loss": torch.ones(()),
    },
    "a Lightning checkpoint": lambda state: {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("model.")(state) | {"loss.weight": torch.ones(2)},
        "optimizer_states": [OPTIMIZER],
        "hyper_parameters": {"lr": 1e-4},
    },
}


def held(state: dict[str, Any], file: Path) -> Path:
    """Saves what may be nested, with dots in names where the format knows no dictionaries."""
    if file.suffix != ".safetensors":
        torch.save(state, file)
        return file
    flat: State = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, Tensor):
            flat[prefix] = value.clone()
        elif isinstance(value, Mapping):
            for key, part in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), part)

    flatten("", state)
    save_file(flat, file)
    return file


@pytest.mark.parametrize("layout", ["OpenCLIP", "transformers"])
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_a_model_is_wrapped_in_is_taken_off(
    wrapped: str, suffix: str, layout: str, tmp_path: Path
) -> None:
    state = states()[layout]
    file = held(WRAPPED[wrapped](state), tmp_path / f"weights{suffix}")
    found = state_dict.find(opened(file), BOTH)
    assert found.names == LAYOUTS[layout].NAMES
    for name, tensor in state.items():
        assert torch.equal(found.tensors.read(name), tensor), name
        assert found.tensors.shape(name) == tuple(tensor.shape)
    (remark,) = found.remarks
    assert "weights hold under '" in remark or remark.endswith(": _orig_mod, module")
    # What lies beside the model is not taken for a part of it.
    assert set(found.tensors.names()) - set(state) <= {"loss.weight"}


@pytest.mark.parametrize("layout", ["OpenCLIP", "transformers"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_not_wrapped_is_left_alone(suffix: str, layout: str, tmp_path: Path) -> None:
    tensors = opened(held(states()[layout], tmp_path / f"weights{suffix}"))
    assert state_dict.find(tensors, BOTH) == (tensors, LAYOUTS[layout].NAMES, ())


def test_a_wrapped_model_is_packaged(tmp_path: Path) -> None:
    state = WRAPPED["a Lightning checkpoint"](dict(THEIRS.model.state_dict()))
    file = held(state, tmp_path / "last.ckpt")
    said: list[str] = []
    made = package(file, tmp_path / "p", architecture="small", say=said.append)
    assert_as_open_clip(made, THEIRS)
    assert "the model is what the weights hold under 'state_dict.model'" in said


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_bare_weights_in_the_transformers_layout(
    suffix: str, packaged: bytes, tmp_path: Path
) -> None:
    """`pytorch_model.bin` or `model.safetensors` alone: as the folder that it came from."""
    file = held(states()["transformers"], tmp_path / f"model{suffix}")
    made = package(file, tmp_path / "p", architecture="small")
    assert (made / "model/model.safetensors").read_bytes() == packaged


@pytest.mark.parametrize("wrapped", ["Lightning's", "_orig_mod"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_whose_weights_are_wrapped(
    wrapped: str, name: str, packaged: bytes, tmp_path: Path
) -> None:
    folder = random_checkpoint.write(tmp_path / "c", MADE)
    (folder / "model.safetensors").unlink()
    held(WRAPPED[wrapped](states()["transformers"]), folder / name)
    said: list[str] = []
    made = package(folder, tmp_path / "p", say=said.append)
    assert (made / "model/model.safetensors").read_bytes() == packaged
    assert any("the model is what the weights hold under" in line for line in said)


# -- several models --------------------------------------------------------------------------------


class Names:
    """Tensors of which only the names matter; a name's length is what it holds."""

    def __init__(self, *roots: str, layout: str = "OpenCLIP") -> None:
        self._names = [
            f"{root}.{name}" if root else name for root in roots for name in states()[layout]
        ]

    def names(self) -> list[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...] | None:
        return () if name in self._names else None

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32

    def read(self, name: str) -> Tensor:
        return torch.tensor(len(name))


def root(*roots: str, wanted: str | None = None) -> tuple[int, tuple[str, ...]]:
    """How much longer the chosen names are in the file, and what was said of the choice."""
    found = state_dict.find(Names(*roots), BOTH, wanted)
    return int(found.tensors.read("logit_scale")) - len("logit_scale"), found.remarks


EMA = ("ema", "model_ema", "state_dict_ema", "ema_model.module", "model.ema_model", "swa_model")


@pytest.mark.parametrize("average", EMA)
@pytest.mark.parametrize("trained", ["", "state_dict", "model.module"])
def test_trained_weights_count_more_than_their_average(trained: str, average: str) -> None:
    for order in ((trained, average), (average, trained)):
        length, remarks = root(*order)
        assert length == len(f"{trained}.") * bool(trained)
        assert remarks[-1].endswith(f"--weights {average} takes them instead")
    length, remarks = root(trained, average, wanted=average)
    assert length == len(f"{average}.")
    assert "average (EMA)" in remarks[-1]


def test_a_file_of_endless_models_is_refused() -> None:
    with pytest.raises(ModelError, match="the weights hold 101 models"):
        root(*(f"model.m{number}" for number in range(101)))


def test_a_file_of_endless_tensors_is_refused() -> None:
    names = Names("")
    names._names = [f"model.{number}" for number in range(2**15 + 1)]
    with pytest.raises(ModelError, match="hold 32,769 tensors; at most 32,768 are read"):
        state_dict.find(names, BOTH)


def test_what_is_wanted_may_be_wrapped_once_more() -> None:
    length, _ = root("model", "model_ema.module", wanted="model_ema")
    assert length == len("model_ema.module.")
    with pytest.raises(ModelError, match="no model of the weights is under 'model_em'"):
        root("model", "model_ema.module", wanted="model_em")


@pytest.mark.parametrize("average", EMA)
def test_an_average_alone_is_taken_and_said(average: str) -> None:
    length, remarks = root(average)
    assert length == len(f"{average}.")
    assert remarks[-1] == "these weights are an average (EMA), and the file holds no others"


@pytest.mark.parametrize(
    "roots",
    [
        ("model", "state_dict"),
        ("", "module"),
        ("student", "teacher"),
        ("model", "teacher"),
        ("ema", "swa_model"),
    ],
)
def test_of_two_models_none_is_chosen_silently(roots: tuple[str, str]) -> None:
    with pytest.raises(ModelError, match=r"several models .*name one with --weights") as caught:
        root(*roots)
    for one in roots:
        assert repr(one) in str(caught.value)
        assert root(*roots, wanted=one)[0] == len(f"{one}.") * bool(one)


def test_two_layouts_in_one_file_are_two_models() -> None:
    both = Names("")
    both._names = sorted({*both._names, *Names("", layout="transformers")._names})
    with pytest.raises(ModelError, match="several models"):
        state_dict.find(both, BOTH)
    assert state_dict.find(both, (transformers_layout.NAMES,)).names == transformers_layout.NAMES


def test_an_unknown_wrapper_is_named_not_guessed() -> None:
    with pytest.raises(ModelError, match=r"no wrapper that is known: --weights encoder\.clip"):
        root("encoder.clip")
    assert root("encoder.clip", wanted="encoder.clip")[0] == len("encoder.clip.")
    with pytest.raises(ModelError, match=r"no model .* under 'nowhere': there is 'encoder\.clip'"):
        root("encoder.clip", wanted="nowhere")


def test_a_name_that_is_there_twice_is_refused() -> None:
    names = Names("")
    names._names.append("visual._orig_mod.proj")
    names._names += ["loss.module.weight", "loss.weight"]  # which is no matter
    found = state_dict.find(names, BOTH)
    assert found.tensors.shape("visual.conv1.weight") == ()
    with pytest.raises(ModelError, match=r"hold visual\.proj twice: as visual\.proj and as visual"):
        found.tensors.shape("visual.proj")


def test_a_name_that_a_dictionary_makes_once_more_is_refused(tmp_path: Path) -> None:
    state = {"model": {"visual.proj": torch.ones(1)}, "model.visual.proj": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"holds model\.visual\.proj twice"):
        opened(tmp_path / "w.pt")


def test_weights_as_the_command_names_them(tmp_path: Path) -> None:
    state = states()["transformers"]
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    file = held({"model": state, "model_ema": zeros}, tmp_path / "w.pt")
    trained = resolve.find(str(file), architecture="small").source
    average = resolve.find(str(file), architecture="small", weights="model_ema").source
    assert torch.equal(trained.read("logit_scale"), state["logit_scale"])
    assert torch.equal(average.read("logit_scale"), torch.zeros(()))


# -- what is no model ------------------------------------------------------------------------------


def test_what_is_there_instead_is_named(tmp_path: Path) -> None:
    state = {name: t for name, t in states()["OpenCLIP"].items() if name != "visual.ln_pre.bias"}
    state |= {"visual.norm_pre.bias": torch.ones(16), "a\x1b[31m" + "b" * 200: torch.ones(1)}
    file = held(state, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        resolve.find(str(file), architecture="small").source.check()
    message = str(caught.value)
    assert "lacks 1 of the tensors of its architecture, such as visual.ln_pre.bias" in message
    assert "it holds visual.norm_pre.bias, a?[31mb" in message
    assert "\x1b" not in message
    assert len(message) < 600


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_only_one_tower(suffix: str, tmp_path: Path) -> None:
    state = under("model.")(states()["transformers"])
    vision = {name: tensor for name, tensor in state.items() if "vision" in name}
    file = held(vision, tmp_path / f"w{suffix}")
    with pytest.raises(
        ModelError, match=r"it holds model\.vision_model\.embeddings.* and \d+ more"
    ):
        resolve.find(str(file), architecture="small").source.check()


def test_a_folder_that_is_served_without_being_packaged(tmp_path: Path) -> None:
    """Serving strips nothing; it says what is there, and what does."""
    folder = random_checkpoint.write(tmp_path / "c", MADE)
    held(under("module.")(states()["transformers"]), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"logit_scale; it holds module\.\w.*score package"):
        Embedder.load(folder)


def test_dictionaries_that_hold_themselves(tmp_path: Path) -> None:
    """A pickle may hold loops, and one dictionary in many places."""
    state: dict[str, Any] = {"model": states()["transformers"]}
    state["again"] = state["model"]
    state["loop"] = state
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"a": deep, "b": deep}
    state["deep"] = deep
    torch.save(state, tmp_path / "w.pt")
    assert len(Pickled(tmp_path / "w.pt").names()) == len(states()["transformers"])


def test_more_than_tensors_names_the_way_out(tmp_path: Path) -> None:
    content = {"state_dict": states()["OpenCLIP"], "args": argparse.Namespace()}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"is not executed.*save the model's state_dict\(\) alone"
    ) as caught:
        opened(tmp_path / "w.pt")
    assert "add_safe_globals" not in str(caught.value)
