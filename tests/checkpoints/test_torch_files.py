"""Files of `torch.save`: what it writes is read, and what it never writes costs nothing."""

from __future__ import annotations

import argparse
import io
import math
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from score.checkpoints.source import Pickled
from score.errors import ModelError
from tests.support.spending import spent

OLD = [False, True]


def write(content: Any, file: Path, *, old: bool = False, protocol: int = 2) -> Path:
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    return file


# -- what torch.save writes ------------------------------------------------------------------------


def trained() -> dict[str, Any]:
    """What training code saves: a state dict with metadata, an optimizer, a scaler, seeds."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "name": "a run",
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": {"torch": torch.get_rng_state(), "seed": 2**63 + 1},
        "more": [None, True, (1, 2.5), {1, 2}, b"bytes", bytearray(b"x"), 1j, torch.Size([2, 3])],
        "kinds": {"device": torch.device("cpu"), "dtype": torch.bfloat16, "seen": Counter("aab")},
        ("a", "tuple"): torch.ones(1),
        "storage": torch.ones(3).untyped_storage(),
    }


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("old", OLD)
def test_what_training_code_saves_is_read(old: bool, protocol: int, tmp_path: Path) -> None:
    content = trained()
    found = Pickled(write(content, tmp_path / "w.pt", old=old, protocol=protocol))
    assert isinstance(content["state_dict"], OrderedDict)
    assert content["state_dict"]._metadata
    for name, tensor in content["state_dict"].items():
        if tensor.is_floating_point():
            assert found.shape(f"state_dict.{name}") == tuple(tensor.shape)
            assert torch.equal(found.read(f"state_dict.{name}"), tensor), name
    assert "optimizer.state.0.exp_avg" in found.names()
    with pytest.raises(ModelError, match=r"is torch\.int64, no float"):
        found.shape("state_dict.1.num_batches_tracked")


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_later_protocol_is_named(protocol: int, tmp_path: Path) -> None:
    write(trained(), tmp_path / "w.pt", protocol=protocol)
    with pytest.raises(ModelError, match=f"protocol {protocol}; save with the default protocol"):
        Pickled(tmp_path / "w.pt")


def quantized() -> dict[str, torch.Tensor]:
    """Tensors as each of torch's schemes writes them."""
    whole, ones, zeros = torch.ones(2, 8), torch.ones(2), torch.zeros(2)
    channels = torch.quantize_per_channel
    return {
        "tensor": torch.quantize_per_tensor(whole, 0.1, 3, torch.quint8),
        "channels": channels(whole, ones.double(), zeros.long(), 0, torch.qint8),
        "floats": channels(whole, ones, zeros, 0, torch.quint8),
        "half bytes": channels(whole, ones, zeros, 0, torch.quint4x2),
    }


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
@pytest.mark.parametrize("old", OLD)
def test_floats_beside_quantized_tensors_are_read(old: bool, tmp_path: Path) -> None:
    content = quantized()
    found = Pickled(write({**content, "y": torch.ones(3)}, tmp_path / "w.pt", old=old))
    assert torch.equal(found.read("y"), torch.ones(3))
    for name in content:
        with pytest.raises(ModelError, match=r"is no plain tensor \(quantized\)"):
            found.shape(name)


@pytest.mark.parametrize("name", ["a", "aa"])  # at addresses of which one is odd
def test_only_a_tensor_s_own_part_of_a_storage_is_read(name: str, tmp_path: Path) -> None:
    whole = torch.arange(2**16, dtype=torch.float32).reshape(256, 256)
    content = {name: whole, "row": whole[3], "part": whole[2:4, ::2]}
    found = Pickled(write(content, tmp_path / "w.pt", old=True))
    for name, elements in (("row", 256), ("part", 511)):
        assert torch.equal(found.read(name), content[name])
        assert found.read(name).untyped_storage().nbytes() == 4 * elements


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_views_are_read_as_torch_reads_them(dtype: torch.dtype, old: bool, tmp_path: Path) -> None:
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    content = {
        "odd": torch.ones(1, dtype=torch.uint8),  # what follows may lie at an odd address
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[1, 1:, ::2],
        "scalar": torch.tensor(1.5).to(dtype),
        "none": torch.zeros(0, 3, dtype=dtype),
        "parameter": torch.nn.Parameter(whole[0]),
    }
    found = Pickled(write(content, tmp_path / "w.pt", old=old))
    theirs = torch.load(tmp_path / "w.pt", weights_only=True)
    for name in [*content][1:]:
        ours = found.read(name)
        assert found.shape(name) == tuple(theirs[name].shape)
        assert ours.dtype == theirs[name].dtype == dtype
        assert torch.equal(ours, theirs[name]), name


def test_a_tensor_with_attributes_is_read(tmp_path: Path) -> None:
    content = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(3), "c": torch.ones(1)}
    content["a"].kind, content["b"].kind = "bias", {"of": "layer"}
    found = Pickled(write(content, tmp_path / "w.pt"))
    assert [torch.equal(found.read(n), t) for n, t in content.items()] == [True] * 3


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.eye(3).to_sparse(), "is no plain tensor (sparse)"),
        (torch.ones(1).expand(2**40), "is no plain tensor (expanded)"),
        (torch.ones(2, device="meta"), "is no plain tensor (without content)"),
    ],
)
def test_a_tensor_that_is_not_plain_is_refused_where_it_is_wanted(
    tensor: torch.Tensor, says: str, tmp_path: Path
) -> None:
    found = Pickled(write({"x": tensor, "y": torch.ones(1)}, tmp_path / "w.pt"))
    assert found.shape("y") == (1,)
    with pytest.raises(ModelError) as caught:
        found.shape("x")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "value", [argparse.Namespace(lr=1), np.float64(1), Path("x"), torch.nn.Linear(1, 1)]
)
@pytest.mark.parametrize("old", OLD)
def test_what_would_have_to_be_executed_is_named(old: bool, value: object, tmp_path: Path) -> None:
    write({"a": torch.ones(1), "args": value}, tmp_path / "w.pt", old=old)
    with pytest.raises(ModelError, match=r"not executed: the (global|operation) .*save the"):
        Pickled(tmp_path / "w.pt")


# -- what it never writes --------------------------------------------------------------------------


class Called:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


def archive(file: Path, data: bytes, *, pack: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """A torch archive around a pickle."""
    with zipfile.ZipFile(file, "w", pack) as made:
        made.writestr("a/data.pkl", data)
        made.writestr("a/version", b"3\n")
        made.writestr("a/byteorder", b"little")
        for name, content in members.items():
            made.writestr(f"a/data/{name[1:]}", content)
    return file


def nested_keys(levels: int) -> bytes:
    """A dictionary whose key is a tuple of two equal tuples, and so on: 2**levels to hash."""
    return b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * levels + b"K\x02s."


def collision(number: int) -> bytes:
    """An item whose key has the hash 0: all of them collide in a dictionary."""
    return b"\x8a\x0a" + ((2**61 - 1) * number).to_bytes(10, "little") + b"N"


def storage(key: str, elements: int, kind: str = "FloatStorage") -> bytes:
    return (
        b"(X\x07\x00\x00\x00storagectorch\n%s\n" % kind.encode()
        + pickled(key)[2:-1].replace(b"q\x00", b"")
        + b"X\x03\x00\x00\x00cpu"
        + pickled(elements)[2:-1]
        + b"tQ"
    )


def tensor(storage: bytes, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    parts = b"".join(
        pickled(part)[2:-1].replace(b"q\x00", b"") for part in (offset, shape, stride, False)
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + parts + b"}tR"


def one(value: bytes, name: str = "x") -> bytes:
    return b"\x80\x02}" + pickled(name)[2:-1].replace(b"q\x00", b"") + value + b"s."


def before_1_6(content: bytes, keys: list[str], *storages: bytes) -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    first = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(map(pickled, first)) + content + pickled(keys) + b"".join(storages)


PAIRS = b"](" + b"".join(b"M%sN\x86" % struct.pack("<H", n) for n in range(60_000)) + b"e"
SAME_PAIRS = b"](" + b"NN\x86" * 60_000 + b"e"
DICTIONARY = b"}(" + b"".join(b"M%sN" % struct.pack("<H", n) for n in range(60_000)) + b"u"
ORDERED = b"ccollections\nOrderedDict\n"
LONG_NAME = b"X" + struct.pack("<I", 10**7) + b"n" * 10**7

Make = Callable[[Path], object]

HOSTILE: dict[str, tuple[Make, str]] = {
    "gigabytes of bytearray": (
        lambda f: archive(f, pickled({"x": Called(bytearray, 3 * 2**30)})),
        "holds no tensors by name",
    ),
    "keys that take forever": (lambda f: archive(f, nested_keys(60)), "holds no tensors by name"),
    "integers that collide": (
        lambda f: archive(f, b"\x80\x02}(" + b"".join(map(collision, range(1, 50_000))) + b"u."),
        "holds no tensors by name",
    ),
    "a deflated pickle": (
        lambda f: archive(f, pickled("a" * 2**28), pack=zipfile.ZIP_DEFLATED),
        "compresses 'a/data.pkl', which torch.save never does",
    ),
    "a huge pickle": (
        lambda f: archive(f, pickled("a" * 2**25)),
        "a pickle or a directory of over",
    ),
    "a huge pickle before 1.6": (
        lambda f: f.write_bytes(before_1_6(pickled("a" * 2**25), [])),
        "a pickle or a directory of over 33,554,432 bytes (where you trust it",
    ),
    "a large pickle of wide characters": (
        lambda f: archive(f, pickled({"a" * (2**25 - 100) + "\U0001f600": 1})),
        "holds a name of over 1,000 characters",
    ),
    "a pickle that is shorter than its directory states": (
        lambda f: f.write_bytes(beyond_the_end()),
        "is no whole torch file: it ends early",
    ),
    "many operations": (
        lambda f: archive(f, b"\x80\x02]" + b"N0" * 10 + b"(" + b"}" * 2**21 + b"e."),
        "not executed: the operation POP",
    ),
    "many dictionaries": (
        lambda f: archive(f, b"\x80\x02](" + b"}" * 2**21 + b"e."),
        "has a pickle of over 1,048,576 operations",
    ),
    "a tower of tuples": (
        lambda f: archive(f, b"\x80\x02)" + b"\x85" * 1_000_000 + b"."),
        "holds no tensors by name",
    ),
    "names that grow": (
        lambda f: archive(
            f, pickled({"n" * 2**20: {str(i): Called(OrderedDict) for i in range(2**14)}})
        ),
        "holds a name of over 1,000 characters: nnn",
    ),
    **{
        f"{what} that is copied again and again": (
            lambda f, made=made, call=call: archive(
                f, b"\x80\x02" + made + b"q\0" + call + b"q\1" + b"h\1h\0\x85R" * 20_000 + b"."
            ),
            says,
        )
        for what, made, call, says in (
            ("a list of pairs", PAIRS, ORDERED, "a pickle that copies"),
            ("a list of one pair", SAME_PAIRS, ORDERED, "a pickle that copies"),
            ("a dictionary", DICTIONARY, ORDERED, "a pickle that copies"),
            ("a tuple", b"(" + b"N" * 60_000 + b"t", b"c__builtin__\nset\n", "no tensors by name"),
        )
    },
    "a shape of thousands of sides, again and again": (
        lambda f: archive(
            f,
            b"\x80\x02(" + b"K\1" * 60_000 + b"tq\0" + storage("0", 16) + b"q\1"
            b"ctorch._utils\n_rebuild_tensor\nq\2"
            + b"(h\1K\0h\0h\0tq\3"
            + b"h\2h\3R" * 20_000
            + b".",
        ),
        "a tensor has 60000 dimensions",
    ),
    "a call with thousands of arguments": (
        lambda f: archive(
            f,
            b"\x80\x02("
            + b"N" * 60_000
            + b"tq\0c__builtin__\nset\nq\1"
            + b"h\1h\0R" * 20_000
            + b".",
        ),
        "a call with 60,000 arguments",
    ),
    "an inner call that copies": (
        lambda f: archive(
            f,
            b"\x80\x02" + PAIRS + b"q\0" + ORDERED + b"q\1"
            b"ctorch._tensor\n_rebuild_from_type_v2\nq\2(h\1h\1h\0\x85}tq\3"
            + b"h\2h\3R" * 20_000
            + b".",
        ),
        "a pickle that copies",
    ),
    "long names that are equal": (
        lambda f: archive(
            f,
            b"\x80\x02}"
            + LONG_NAME
            + b"q\0"
            + LONG_NAME
            + b"q\1N"
            + b"\x86q\2}h\0Nsh\1Ns"
            + b"h\1Ns" * 100_000
            + b".",
        ),
        "holds a name of over 1,000 characters: nnn",
    ),
    "a storage that is not there": (
        lambda f: archive(f, one(tensor(storage("0", 2**40), 0, (2**40,), (1,)))),
        "data/0 should hold 4,398,046,511,104 bytes, and holds nothing",
    ),
    "a storage beyond its record": (
        lambda f: archive(f, one(tensor(storage("0", 2**30), 0, (2**30,), (1,))), _0=bytes(64)),
        "data/0 should hold 4,294,967,296 bytes, and holds 64 bytes",
    ),
    "a tensor beyond its storage": (
        lambda f: archive(f, one(tensor(storage("0", 16), 8, (9,), (1,))), _0=bytes(64)),
        "reaches beyond its storage of 64 bytes",
    ),
    "a stride of terabytes": (
        lambda f: archive(f, one(tensor(storage("0", 16), 0, (2,), (2**40,))), _0=bytes(64)),
        "reaches beyond its storage",
    ),
    "a negative offset": (
        lambda f: archive(f, one(tensor(storage("0", 16), -4, (4,), (1,))), _0=bytes(64)),
        "is no whole torch file: its pickle is damaged",
    ),
    "a storage of two sizes": (
        lambda f: archive(
            f,
            b"\x80\x02(" + storage("0", 16) + storage("0", 8) + b"t.",
            _0=bytes(64),
        ),
        "the storage 0 has two sizes or types",
    ),
    "one storage as thousands of tensors": (
        lambda f: archive(
            f,
            b"\x80\x02}("
            + tensor(storage("0", 2**18), 0, (2**18,), (1,)).join(
                [b"K%c" % n for n in range(64)] + [b""]
            )
            + b"u.",
            _0=bytes(2**20),
        ),
        "views of the same storages",
    ),
    "no content": (lambda f: archive(f, b""), "is no whole torch file"),
    "no memo": (lambda f: archive(f, b"\x80\x02h\x07."), "is no whole torch file"),
    "no stack": (lambda f: archive(f, b"\x80\x02a."), "is no whole torch file"),
    "two pickles": (
        lambda f: [archive(f, b"\x80\x02}."), zipfile.ZipFile(f, "a").writestr("b/data.pkl", b"")],
        "the archive has 2 members data.pkl",
    ),
    "a directory of a million members": (
        lambda f: f.write_bytes(endless_directory(2**20)),
        "a pickle or a directory of over",
    ),
    "before 1.6, a storage of terabytes": (
        lambda f: f.write_bytes(
            before_1_6(
                one(tensor(storage("0", 2**40), 0, (2**40,), (1,))),
                ["0"],
                struct.pack("<q", 2**40),
                bytes(64),
            )
        ),
        "its storages end at",
    ),
    "before 1.6, another size": (
        lambda f: f.write_bytes(
            before_1_6(
                one(tensor(storage("0", 16), 0, (16,), (1,))),
                ["0"],
                struct.pack("<q", 2**40),
                bytes(64),
            )
        ),
        "the storage 0 is not of the size that its tensors state",
    ),
    "before 1.6, keys of keys": (
        lambda f: f.write_bytes(
            before_1_6(pickled({}), []).removesuffix(pickled([]))
            + b"\x80\x02]K\x01"
            + b"q\x00h\x00\x86" * 60
            + b"a."
        ),
        "its list of storages is not that of its tensors",
    ),
    "before 1.6, gigabytes of bytearray": (
        lambda f: f.write_bytes(before_1_6(pickled({"x": Called(bytearray, 3 * 2**30)}), [])),
        "holds no tensors by name",
    ),
}


def beyond_the_end() -> bytes:
    """A zip archive whose directory states 1,000 bytes more of its member than the file has."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02}.")
    data = bytearray(made.getvalue())
    at = struct.unpack("<L", data[-6:-2])[0]
    data[at + 20 : at + 28] = struct.pack("<2L", 1000, 1000)
    return bytes(data)


def endless_directory(members: int) -> bytes:
    """A zip archive whose directory lists one member again and again."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02}.")
    data, end = made.getvalue()[:-22], made.getvalue()[-22:]
    at = struct.unpack("<L", end[16:20])[0]
    entry = data[at:]
    return (
        data[:at]
        + entry * members
        + end[:8]
        + struct.pack("<2H2LH", 1, 1, len(entry) * members, at, 0)
    )


@pytest.mark.process
def test_what_a_file_states_costs_no_memory_and_no_time(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.pt" for number in range(len(HOSTILE))]
    for file, (make, _) in zip(files, HOSTILE.values(), strict=True):
        make(file)
    costs = spent([("score.checkpoints.source:Pickled", file) for file in files])
    for cost, (name, (_, says)) in zip(costs, HOSTILE.items(), strict=True):
        assert cost.said.startswith("ModelError: "), name
        assert says in cost.said, name
        assert len(cost.said) < 600, name
        assert cost.mebibytes < 400, name
        assert cost.seconds < 30, name


def test_an_expanded_tensor_is_not_made_plain(tmp_path: Path) -> None:
    """A shape that a lying configuration agrees with would take a terabyte."""
    archive(
        tmp_path / "w.pt",
        one(tensor(storage("0", 16), 0, (2**20, 2**20), (0, 0))),
        _0=bytes(64),
    )
    with pytest.raises(ModelError, match="x is no plain tensor"):
        Pickled(tmp_path / "w.pt").shape("x")
    assert math.prod((2**20, 2**20)) * 4 == 2**42
