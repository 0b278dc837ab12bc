"""Drivers of GPUs: what is here, what a build of PyTorch needs, and what is said where it fails."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from score.errors import ModelError
from score.hardware import drivers
from score.model.engines import pytorch
from score.model.engines.pytorch import Placement
from score.settings import Settings

CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.216.03  Fri Oct 25 22:43:06 UTC 2024\n"
    "GCC version:  gcc version 12.3.0\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  "
    "(dvs-builder@U22)  Sun Jul 27 06:54:38 UTC 2025\n"
)

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with such a driver and so many GPUs, and a torch that finds none of them."""

    def make(driver: str | None, gpus: int = 1, version: str = "", cuda: str | None = None) -> None:
        folder = tmp_path / "dev"
        folder.mkdir()
        for number in range(gpus):
            (folder / f"nvidia{number}").touch()
        (folder / "nvidia-uvm").touch()
        if driver is not None:
            (tmp_path / "version").write_text(driver)
        monkeypatch.setattr(drivers, "_VERSION", tmp_path / "version")
        monkeypatch.setattr(drivers, "_DEVICES", folder)
        monkeypatch.setattr(drivers, "_NVML", "libno-such-library.so.1")
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        pytorch._warn.cache_clear()

    return make


@pytest.mark.parametrize(
    ("text", "found"),
    [(CLOSED, "535.216.03"), (OPEN, "580.65.06"), ("nothing known\n", None), (None, None)],
)
def test_the_drivers_version_is_read(machine: Machine, text: str | None, found: str | None) -> None:
    machine(text)
    assert drivers.installed() == found


@pytest.mark.parametrize(
    ("gpus", "file", "may"),
    [(0, "kvm", False), (1, "kvm", True), (0, "kfd", True), (0, "dxg", True)],
)
def test_a_gpu_shows_by_its_device_file(
    gpus: int, file: str, may: bool, machine: Machine, tmp_path: Path
) -> None:
    machine(None, gpus)
    (tmp_path / "dev" / file).touch()
    assert drivers.may_have_gpu() is may


def library(version: bytes, code: int = 0) -> SimpleNamespace:
    """A stand-in for NVIDIA's management library."""

    def ask(answer: ctypes.Array[ctypes.c_char], size: int) -> int:
        answer.value = version[: size - 1]
        return code

    return SimpleNamespace(nvmlInit_v2=lambda: 0, nvmlSystemGetDriverVersion=ask)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (library(b"560.35.03"), "560.35.03"),
        (library(b"560.35.03", 9), None),  # NVML_ERROR_DRIVER_NOT_LOADED
        (library(b""), None),
        (SimpleNamespace(), None),
    ],
)
def test_without_a_kernel_module_to_read_the_library_is_asked(
    answer: SimpleNamespace, found: str | None, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: answer)
    assert drivers.installed() == found


def test_gpus_are_counted_without_torch(machine: Machine) -> None:
    machine(CLOSED, gpus=3)
    assert drivers.devices() == 3


PYPI, OURS, CPU = ("2.13.0+cu130", "13.0"), ("2.13.0+cu126", "12.6"), ("2.13.0+cpu", None)
REFUSED = [
    (
        CLOSED,
        PYPI,
        r"the NVIDIA driver is 535\.216\.03, and PyTorch 2\.13\.0\+cu130 \(CUDA 13\.0\) needs "
        r"driver 580 or later: update it, or take the build from https://\S+/cu126",
    ),
    (
        CLOSED.replace("535.216.03", "470.256.02"),
        OURS,
        r"the NVIDIA driver is 470\.256\.02, and PyTorch 2\.13\.0\+cu126 \(CUDA 12\.6\) needs "
        "driver 525 or later: update it$",
    ),
    (None, OURS, r"there is no NVIDIA driver, and PyTorch \S+ \(CUDA 12\.6\) needs driver 525"),
    (OPEN, CPU, r"PyTorch 2\.13\.0\+cpu is a build without CUDA; install one from https://\S+126"),
]


@pytest.mark.parametrize(("driver", "build", "said"), REFUSED)
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_says_which_driver_is_here_and_which_is_needed(
    device: str, driver: str | None, build: tuple[str, str | None], said: str, machine: Machine
) -> None:
    machine(driver, 1, *build)
    with pytest.raises(ModelError, match=rf"^no device '{device}' here: {said}") as caught:
        Placement.of(Settings(device=device))
    assert "\n" not in str(caught.value)


def test_what_no_driver_explains_is_torchs_to_say(machine: Machine) -> None:
    machine(CLOSED, 1, *OURS)
    with pytest.raises(ModelError, match="no device 'cuda' here: Torch not compiled"):
        Placement.of(Settings(device="cuda"))
    assert drivers.driver_problem("9.0+cu999", "99.9") is None  # a CUDA of which nothing is known


@pytest.mark.parametrize(("driver", "build", "said"), REFUSED)
def test_auto_takes_the_cpu_and_is_loud_about_it(
    driver: str | None,
    build: tuple[str, str | None],
    said: str,
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine(driver, 1, *build)
    with caplog.at_level(logging.WARNING):
        places = [Placement.of(Settings()) for _ in range(3)]
    assert {place.device.type for place in places} == {"cpu"}
    (message,) = caplog.messages  # once a process
    assert "COMPUTING ON THE CPU" in message
    assert re.search(said.rstrip("$"), message)


def test_auto_without_a_gpu_is_silent(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine(CLOSED, 0, *OURS)  # a container without a GPU, on a host that has some
    assert Placement.of(Settings()).device.type == "cpu"
    assert not caplog.messages


WHEEL_126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
WHEEL_130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("name", "capability"),
    [("V100", (7, 0)), ("T4", (7, 5)), ("A100", (8, 0)), ("A10", (8, 6)), ("H100", (9, 0))],
)
def test_every_gpu_of_the_table_has_kernels_in_our_build(
    name: str, capability: tuple[int, int]
) -> None:
    assert drivers.kernel_problem(name, capability, WHEEL_126) is None
    assert (drivers.kernel_problem(name, capability, WHEEL_130) is None) == (capability >= (7, 5))


def test_code_that_the_driver_translates_runs_on_what_comes_later() -> None:
    assert drivers.kernel_problem("later", (13, 0), WHEEL_130) is None
    assert drivers.kernel_problem("later", (13, 0), WHEEL_126)
    assert drivers.kernel_problem("L4", (8, 9), WHEEL_126) is None  # as 8.6
    assert drivers.kernel_problem("unknown", (8, 9), []) is None


def test_a_gpu_without_kernels_is_refused_or_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(OPEN, 1, *PYPI)
    real = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL_130)
    monkeypatch.setattr(torch, "empty", lambda size, device: real(size))
    said = r"no kernels for Tesla V100 \(compute capability 7\.0\)"
    with pytest.raises(ModelError, match=f"device 'cuda' cannot be used: .*{said}"):
        Placement.of(Settings(device="cuda"))
    assert Placement.of(Settings()).device.type == "cpu"
    assert re.search(said, caplog.text)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL_126)
    assert Placement.of(Settings()).device.type == "cuda"
