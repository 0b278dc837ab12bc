"""Checkpoints that are broken, half there, or out to do harm are refused in a sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from score.errors import ModelError
from score.package.build import package
from tests.support.surfaces import ROOT

Spoil = Callable[[Path], object]


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "c"))


class Bomb:
    """Unpickling this creates a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def config(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        change(content)
        (folder / "config.json").write_text(json.dumps(content))

    return spoil


def pickled(save_as: Callable[[dict[str, Any], Path], object]) -> Spoil:
    """`pytorch_model.bin` in the place of safetensors."""

    def spoil(folder: Path) -> None:
        tensors = state(folder)
        (folder / "model.safetensors").unlink()
        save_as(dict(tensors), folder / "pytorch_model.bin")

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        found = state(folder)
        change(found)
        save(folder, found)

    return spoil


def with_code(found: dict[str, Any], file: Path) -> None:
    torch.save({**found, "x": Bomb(file.parent.parent / "executed")}, file)


def plain_pickle(found: dict[str, Any], file: Path) -> None:
    file.write_bytes(pickle.dumps(Bomb(file.parent.parent / "executed")))


def old_with_code(found: dict[str, Any], file: Path) -> None:
    bomb = {**found, "x": Bomb(file.parent.parent / "executed")}
    torch.save(bomb, file, _use_new_zipfile_serialization=False)


def cut(found: dict[str, Any], file: Path) -> None:
    torch.save(found, file)
    file.write_bytes(file.read_bytes()[:-5000])


def scripted(found: dict[str, Any], file: Path) -> None:
    """As OpenAI publishes its weights: an archive with code beside them."""
    torch.save(found, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("pytorch_model/constants.pkl", b"\x80\x02}.")
        archive.writestr("pytorch_model/code/__torch__.py", "def forward(self): ...")


def without_names(found: dict[str, Any], file: Path) -> None:
    torch.save(list(found.values()), file)


def integers(found: dict[str, Any], file: Path) -> None:
    torch.save({name: tensor.to(torch.int8) for name, tensor in found.items()}, file)


def storage_too_small(found: dict[str, Any], file: Path) -> None:
    """A tensor that claims more than its storage holds: nothing lies behind it."""
    name = "visual_projection.weight"
    torch.save(found, file)
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            largest = max(old.infolist(), key=lambda info: info.file_size)
            new.writestr(entry, data[:64] if entry == largest.filename else data)
    assert name in found
    file.write_bytes(packed.getvalue())


def pointer(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 14531068\n"
        (folder / "model.safetensors").unlink()
        (folder / name).write_text(text)

    return spoil


def index(weight_map: Any, name: str = "model.safetensors") -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
        (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def lying_index(folder: Path) -> None:
    """The file is there, and does not hold what the index says."""
    found = state(folder)
    dropped = found.pop("visual_projection.weight")
    save_file(found, folder / "a.safetensors")
    (folder / "model.safetensors").unlink()
    places = dict.fromkeys([*found, "visual_projection.weight"], "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert dropped is not None


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Another header before the same bytes."""

    def spoil(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        content = json.loads(data[8 : 8 + length])
        change(content)
        changed = json.dumps(content).encode()
        rest = data[8 + length :]
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(changed)) + changed + rest)

    return spoil


def huge_shape(content: dict[str, Any]) -> None:
    content["visual_projection.weight"]["shape"] = [2**40, 2**20]


def overlapping(content: dict[str, Any]) -> None:
    content["text_projection.weight"]["data_offsets"] = content["visual_projection.weight"][
        "data_offsets"
    ]


def huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


BAD: dict[str, tuple[Spoil, str]] = {
    # pickles
    "a pickle with code": (pickled(with_code), "holds more than tensors, and is not executed"),
    "a plain pickle with code": (pickled(plain_pickle), "pytorch_model.bin"),
    "an old torch file with code": (pickled(old_with_code), "holds more than tensors"),
    "a torch file cut short": (pickled(cut), "is no whole torch file"),
    "a TorchScript archive": (pickled(scripted), "TorchScript archive, which holds code"),
    "tensors without names": (pickled(without_names), "holds no tensors by name"),
    "integers": (pickled(integers), "is torch.int8, no float"),
    "a storage too small": (pickled(storage_too_small), "is no whole torch file"),
    "an LFS pointer for a pickle": (pointer("pytorch_model.bin"), "is a Git LFS pointer"),
    "text for a pickle": (
        pickled(lambda _, file: file.write_text("<html>404</html>")),
        "is no torch file: it begins with b'<htm'",
    ),
    # safetensors
    "an LFS pointer": (pointer("model.safetensors"), "it is a Git LFS pointer; run `git lfs pull`"),
    "half a download": (
        lambda folder: os.truncate(folder / "model.safetensors", 1_000_000),
        "not a complete safetensors file",
    ),
    "a header of an exabyte": (huge_header, "not a complete safetensors file"),
    "a shape of an exabyte": (header(huge_shape), "not a complete safetensors file"),
    "tensors in one place": (header(overlapping), "not a complete safetensors file"),
    "a missing tensor": (
        tensors(lambda found: found.pop("text_model.final_layer_norm.bias")),
        "lacks 1 of the tensors of its architecture, such as text_model.final_layer_norm.bias",
    ),
    "a tensor of another shape": (
        tensors(lambda found: found.update({"text_projection.weight": torch.zeros(512, 65)})),
        "text_projection.weight is 512×65; its architecture wants 512×64",
    ),
    "whole numbers": (
        tensors(lambda found: found.update({"logit_scale": torch.tensor(3)})),
        "logit_scale is I64, not F64, F32",
    ),
    "NaN": (
        tensors(lambda found: found["text_projection.weight"].fill_(float("nan"))),
        "text_projection.weight holds NaN or infinity",
    ),
    # an index
    "an index that leads out": (
        index({"logit_scale": "../outside.safetensors"}),
        "names a file outside its folder: '../outside.safetensors'",
    ),
    "an index to /etc": (index({"logit_scale": "/etc/passwd"}), "names a file outside its folder"),
    "an index to a folder": (index({"logit_scale": ".."}), "names a file outside its folder"),
    "a shard that is missing": (index({"logit_scale": "b.safetensors"}), "half a download?"),
    "an index that is no object": (index([1, 2]), "cannot read"),
    "an index of pickles that leads out": (
        index({"logit_scale": "../x.bin"}, "pytorch_model.bin"),
        "names a file outside its folder",
    ),
    "an index that lies": (lying_index, "lacks visual_projection.weight, which the index says"),
    # a config that lies
    "a width of a billion": (
        config(lambda c: c["text_config"].update(hidden_size=10**9)),
        "hidden_size 1000000000 is not a number from 1 to",
    ),
    "a vocabulary larger than it is": (
        config(lambda c: c["text_config"].update(vocab_size=10**7)),
        "its architecture wants 10000000×64",
    ),
    "a million layers": (
        config(lambda c: c["vision_config"].update(num_hidden_layers=10**6)),
        "num_hidden_layers 1000000 is not a number from 1 to 1,024",
    ),
    "more layers than there are": (
        config(lambda c: c["vision_config"].update(num_hidden_layers=3)),
        "lacks 16 of the tensors",
    ),
    "no heads": (
        config(lambda c: c["vision_config"].update(num_attention_heads=0)),
        "num_attention_heads 0 is not",
    ),
    "heads that do not fit": (
        config(lambda c: c["vision_config"].update(num_attention_heads=7)),
        "hidden_size 64 is not a multiple of 7 heads",
    ),
    "a width in words": (
        config(lambda c: c["vision_config"].update(hidden_size="64")),
        "hidden_size '64' is not a number",
    ),
    "another activation": (
        config(lambda c: c["vision_config"].update(hidden_act="os.system")),
        "hidden_act 'os.system' is not one of quick_gelu, gelu",
    ),
    "a patch larger than the image": (
        config(lambda c: c["vision_config"].update(patch_size=448)),
        "patch_size is larger than image_size",
    ),
    "towers that are lists": (config(lambda c: c.update(text_config=[1])), "must be an object"),
    "code to run": (
        config(lambda c: c.update(model_type="custom", auto_map={"AutoModel": "evil.Evil"})),
        "model_type 'custom'; it needs code of its own, 'evil.Evil', and no code",
    ),
    "a negative end": (
        config(lambda c: c["text_config"].update(eos_token_id=-1)),
        "eos_token_id -1 is not a token id",
    ),
    # a tokenizer that is not the model's
    "ids without an embedding": (
        config(lambda c: c["text_config"].update(vocab_size=49000, eos_token_id=48999)),
        "the tokenizer makes ids up to 49,407, the model has embeddings for 49,000",
    ),
    # nothing at all
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "neither model.safetensors nor pytorch_model.bin",
    ),
    "nothing": (
        lambda folder: [file.unlink() for file in folder.iterdir()],
        "no config.json in",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_checkpoint_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    spoil, says = BAD[name]
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        package(folder, tmp_path / "dist" / "p")
    message = str(caught.value)
    assert says in message
    assert "Traceback" not in message
    assert "\n" not in message
    assert len(message) < 600
    assert not (tmp_path / "executed").exists(), "code of the checkpoint ran"
    assert not (tmp_path / "dist" / "p").exists()
    assert not list(tmp_path.glob("dist/.*")), "something half made was left"


def test_that_the_bomb_would_go_off(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.process
def test_a_lying_config_costs_no_memory(folder: Path, tmp_path: Path) -> None:
    """A table of 16 million words and as many columns would be a petabyte."""
    config(lambda c: c["text_config"].update(vocab_size=2**24, hidden_size=2**24))(folder)
    script = (
        "import resource, sys\n"
        "from score.errors import ModelError\n"
        "from score.checkpoints.resolve import find\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    find(sys.argv[1]).source.check()\n"
        "except ModelError as error:\n"
        "    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "    print(grown, error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    grown, _, message = result.stdout.partition(" ")
    assert "wants 16777216×16777216" in message
    assert int(grown) < 200_000  # KiB


@pytest.mark.parametrize("link", ["/etc/passwd", "../../secret"])
def test_links_are_read_as_files_and_copied_as_what_they_are_worth(
    link: str, folder: Path, tmp_path: Path
) -> None:
    """The Hub's cache is all links, so links are followed; what they lead to must be weights."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(link)
    with pytest.raises(ModelError, match="safetensors"):
        package(folder, tmp_path / "p")


@pytest.mark.process
def test_the_command_says_it_in_a_line(folder: Path, tmp_path: Path) -> None:
    BAD["a pickle with code"][0](folder)
    result = subprocess.run(
        [sys.executable, "-m", "score", "package", str(folder), "--output", str(tmp_path / "p")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "is not executed" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["nonsense", "a/b/c", "../x", "openai/clip..x", ""])
def test_what_is_nothing_known(name: str, tmp_path: Path) -> None:
    if name == "":
        (tmp_path / "empty").mkdir()
        name = str(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"no checkpoint|no such file|no config\.json"):
        package(name, tmp_path / "p")
