"""NVIDIA drivers: the one that a build of PyTorch needs, the installed one, and problems."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

# CUDA's major version → the oldest driver (series), by minor version compatibility, on which
# PyTorch's wheels rely (https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
MINIMUM_DRIVERS = {11: 450, 12: 525, 13: 580}

CUDA = "12.6"
"""The version of CUDA of the PyTorch build in this project's GPU environments.

PyPI's build is for CUDA 13. Hosts of Azure ML have drivers of the 535 series (azureml-assets,
foundation-model-inference/context/Dockerfile; release notes of the compute instance's image), on
which that build finds no GPU. Releases of PyTorch up to 2.14 have a build for CUDA 12.6, too
(https://github.com/pytorch/pytorch/pull/187075, https://github.com/pytorch/pytorch/issues/190355).
The alternative, NVIDIA's forward compatibility libraries, is supported on data-center GPUs only;
Azure's A10 sizes have virtual GPUs.
"""

# CUDA's major version → the lowest and highest compute capability for which PyTorch 2.13's builds
# have kernels (https://github.com/pytorch/pytorch/blob/main/RELEASE.md, CUDA support matrix).
KERNELS = {12: ((5, 0), (9, 0)), 13: ((7, 5), (12, 0))}

_INDEX = "https://download.pytorch.org/whl/"
CPU_INDEX = f"{_INDEX}cpu"
"""Package index of PyTorch's builds without CUDA."""
CUDA_INDEX = f"{_INDEX}cu{CUDA.replace('.', '')}"
"""Package index of its builds for `CUDA`."""

_VERSION = Path("/proc/driver/nvidia/version")
_DEVICES = Path("/dev")
_NVML = "libnvidia-ml.so.1"


def minimum_driver(cuda: str) -> int:
    """The oldest driver series, such as 525, for a version of CUDA. Raises KeyError."""
    return MINIMUM_DRIVERS[int(cuda.partition(".")[0])]


def has_kernels(capability: tuple[int, int], cuda: str = CUDA) -> bool:
    """Whether PyTorch's build for that CUDA has kernels for a compute capability."""
    first, last = KERNELS[int(cuda.partition(".")[0])]
    return first <= capability <= last


def installed() -> str | None:
    """The version of the NVIDIA driver here, such as 535.216.03; None without one."""
    try:
        text = _VERSION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _from_library()
    match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match[1] if match else _from_library()


def _from_library() -> str | None:
    """The version from NVIDIA's management library, where no kernel module states it (WSL)."""
    try:
        library = ctypes.CDLL(_NVML)
        answer = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(answer, len(answer)):
            return None
    except (OSError, AttributeError):
        return None
    return answer.value.decode(errors="replace") or None


def devices() -> int:
    """Number of NVIDIA GPUs with a device file, whether or not PyTorch can use them."""
    return sum(1 for file in _DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name))


def may_have_gpu() -> bool:
    """Whether there is a device file of a GPU: NVIDIA's, AMD's, or Windows' in WSL."""
    return devices() > 0 or any((_DEVICES / name).exists() for name in ("kfd", "dxg"))


def driver_problem(version: str, cuda: str | None) -> str | None:
    """Why a build of PyTorch cannot use a GPU here, and what to do; None if no reason is found.

    `version`, `cuda`: torch's own, such as 2.13.0+cu126 and 12.6; None for a build without CUDA.
    """
    if cuda is None:
        return f"PyTorch {version} is a build without CUDA; install one from {CUDA_INDEX}"
    needed, current = MINIMUM_DRIVERS.get(int(cuda.partition(".")[0])), installed()
    if needed is None:
        return None
    wanted = f"PyTorch {version} (CUDA {cuda}) needs driver {needed} or later"
    if current is None:
        return f"there is no NVIDIA driver, and {wanted}"
    if int(current.partition(".")[0]) >= needed:
        return None
    alternative = "" if needed <= minimum_driver(CUDA) else f", or take the build from {CUDA_INDEX}"
    return f"the NVIDIA driver is {current}, and {wanted}: update it{alternative}"


def kernel_problem(name: str, capability: tuple[int, int], kernels: Sequence[str]) -> str | None:
    """Why a build of PyTorch cannot run on a GPU, and what to do; None if it has kernels for it.

    `kernels`: as `torch.cuda.get_arch_list` returns them: sm_75 (machine code, which runs on the
    same major version and the same or a higher minor), compute_90 (code that the driver compiles
    for that capability and higher ones).
    """
    if not kernels or any(_runs(kernel, capability) for kernel in kernels):
        return None
    major, minor = capability
    return (
        f"this PyTorch has no kernels for {name} (compute capability {major}.{minor}), "
        f"only for {', '.join(kernels)}; builds from {CUDA_INDEX} have those for 5.0 to 9.0"
    )


def _runs(kernel: str, capability: tuple[int, int]) -> bool:
    kind, _, number = kernel.partition("_")
    digits = re.sub(r"\D", "", number)
    if not digits:
        return False
    built = (int(digits[:-1] or 0), int(digits[-1]))
    if kind == "compute":
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]
