"""The JSON, YAML and headers of a stranger's folder: bounded before they are read."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from score.checkpoints.hdf5 import FILE, H5
from score.errors import ModelError
from score.folder import mlmodel
from score.folder.architecture import Architecture
from score.folder.model_folder import EMBEDDED, ModelFolder, read_json
from score.folder.weights import Weights, read_index
from score.images.preprocess import Preprocessor
from tests.support.spending import spent


def huge(file: Path) -> None:
    """Four gigabytes that take no room on the disk."""
    with file.open("wb") as stream:
        stream.truncate(2**32)


def lists(file: Path) -> None:
    """As many lists as fit: each takes twenty times its three bytes."""
    file.write_text('{"a": [' + "[]," * 1_300_000 + "0]}")


def deep(file: Path) -> None:
    file.write_text('{"a": ' * 900 + "1" + "}" * 900)


CONFIGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "huge": (huge, "is larger than 4,194,304 bytes"),
    "deep": (deep, "nested too deeply"),
    "lists": (lists, "there is no model_type"),
}
READERS = {
    "model.safetensors.index.json": "score.folder.weights:read_index",
    "probes.json": "score.model.probes:Probes.read",
    "MLmodel": "score.folder.mlmodel:metadata",
    "open_clip_config.json": "score.checkpoints.resolve:find",
    "model.weights.json": "score.checkpoints.hdf5:H5.open",
}


@pytest.mark.process
def test_a_small_file_costs_what_it_is_worth(tmp_path: Path) -> None:
    calls: list[tuple[str, Path]] = []
    for name, (make, _) in CONFIGS.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / "config.json")
        calls.append(("score.folder.model_folder:ModelFolder.open", tmp_path / name))
    for name, call in READERS.items():
        folder = tmp_path / f"{name} huge"
        folder.mkdir()
        huge(folder / name)
        calls.append((call, folder / name if call.endswith("read_index") else folder))
    costs = spent(calls)
    wanted = [says for _, says in CONFIGS.values()] + ["is larger than"] * len(READERS)
    for cost, says, (call, _) in zip(costs, wanted, calls, strict=True):
        assert cost.said.startswith("ModelError: "), call
        assert says in cost.said, call
        assert cost.mebibytes < 300, call
        assert cost.seconds < 20, call


def test_an_image_processor_has_a_size(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EMBEDDED, tmp_path / "m"))
    for name in ("processor_config.json", "preprocessor_config.json"):
        huge(folder / name)
        with pytest.raises(ModelError, match="is larger than"):
            ModelFolder.open(folder)
        (folder / name).unlink()


# -- values ----------------------------------------------------------------------------------------

NUMBERS: list[Any] = [
    10**9,
    10**400,
    -1,
    0,
    True,
    False,
    float("nan"),
    float("inf"),
    -float("inf"),
    "7",
    [],
    {},
    "n" * 10**6,
]


def sizes() -> list[tuple[str | None, str]]:
    config = read_json(EMBEDDED / "config.json")
    towers = [(t, k) for t in ("text_config", "vision_config") for k in config[t]]
    numeric = [(t, k) for t, k in towers if type(config[t][k]) in (int, float)]
    return [(None, "projection_dim"), *[(t, k) for t, k in numeric if k != "projection_dim"]]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("tower", "key"), sizes())
def test_a_size_that_is_none_is_refused_by_name(tower: str | None, key: str, value: Any) -> None:
    if key.endswith("token_id") and value in (0, False) and not isinstance(value, bool):
        pytest.skip("an id")
    config = json.loads((EMBEDDED / "config.json").read_text())
    (config[tower] if tower else config)[key] = value
    with pytest.raises(ModelError) as caught:
        Architecture.from_config(config)
    assert key in str(caught.value)
    assert len(str(caught.value)) < 200


ODD: list[Any] = [10**400, True, False, float("nan"), float("inf"), "n" * 10**6, [1], {"x": 1}]
SIDES: list[Any] = [*ODD, 10**9, -1, 0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, value) for key in ("size", "crop_size", "resample") for value in SIDES],
        *[(key, value) for key in ("image_mean", "image_std", "rescale_factor") for value in ODD],
        ("image_std", 0),
        ("rescale_factor", -1),
        ("size", {"height": True, "width": 7}),
        ("size", {"shortest_edge": float("nan")}),
        ("image_mean", [1, 2, float("inf")]),
        ("image_mean", [1, 2, True]),
        ("image_mean", [0.5] * 10**6),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_image_processor_s_value_that_is_none_is_refused(key: str, value: Any) -> None:
    if (key, value) == ("resample", 0) and not isinstance(value, bool):
        value = 99  # 0 is the nearest pixel
    with pytest.raises(ModelError, match=r"preprocessor_config\.json") as caught:
        Preprocessor.from_config({key: value})
    assert len(str(caught.value)) < 300


# -- safetensors -----------------------------------------------------------------------------------


@pytest.mark.process
def test_headers_and_notes_of_any_size(tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps(dict.fromkeys(map(str, range(500_000)), tensor)).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with h5py.File(tmp_path / FILE, "w", libver="latest") as file:
        file.create_dataset("0", data=np.zeros(2, "V2"))
        file["0"].attrs.create("dtype", np.zeros(2**25, "<f8"))
    safetensors, hdf5 = spent(
        [
            ("score.folder.weights:Weights.open", tmp_path),
            ("tests.folder.test_small_files:shape_of_0", tmp_path),
        ]
    )
    assert "is not a complete safetensors file: its header states" in safetensors.said
    assert "is of type |V2, no float" in hdf5.said
    assert safetensors.mebibytes < 100
    assert hdf5.mebibytes < 100


def shape_of_0(folder: Path) -> None:
    H5.open(folder).shape("0")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2**64], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**64 - 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        },
        [1],
        "[" * 10_000,
    ],
)
def test_a_header_that_is_none(header: Any, tmp_path: Path) -> None:
    text = header if isinstance(header, str) else json.dumps(header)
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(8))
    with pytest.raises(ModelError, match="is not a complete safetensors file"):
        Weights.open(tmp_path)


# -- an index --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../x",
        "..",
        ".",
        "",
        "a\\..\\x\0",
        "x/",
        7,
        None,
        ["x"],
        "x" * 9999,
    ],
)
def test_an_index_names_files_beside_it(name: Any, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=r"outside its folder|lacks") as caught:
        read_index(tmp_path / "i.json")
    assert len(str(caught.value)) < 600


def test_an_index_of_loops_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("loop", "pipe"):
        (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match=f"lacks {name}"):
            read_index(tmp_path / "i.json")


# -- MLmodel ---------------------------------------------------------------------------------------


def doubled(levels: int, start: str, within: str) -> str:
    """Each line refers nine times to the one before."""
    lines = [f"a0: &a0 {start}"]
    for number in range(1, levels):
        again = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} {within % again}")
    return "\n".join([*lines, f"metadata: {{x: *a{levels - 1}}}\n"])


GROWING = [
    "metadata: &a {x: 1}\nother: *a\n",
    doubled(20, "[1]", "[%s]"),
    doubled(12, "{x: 1, y: 2}", "{<<: [%s]}"),
    "metadata: " + "[" * 5_000,
    "metadata: " + "{a: " * 5_000,
    "metadata: {a: " + "'b', c: " * 20_000,
]


@pytest.mark.process
def test_an_mlmodel_that_grows(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(len(GROWING))]
    for folder, text in zip(folders, GROWING, strict=True):
        folder.mkdir()
        (folder / "MLmodel").write_text(text)
    costs = spent([("score.folder.mlmodel:metadata", folder) for folder in folders])
    for cost, text in zip(costs, GROWING, strict=True):
        assert cost.said.startswith("ModelError: cannot read"), text[:80]
        assert cost.mebibytes < 300, text[:80]
        assert cost.seconds < 30, text[:80]


def test_our_own_mlmodel_is_read() -> None:
    assert mlmodel.metadata(EMBEDDED.parent)
