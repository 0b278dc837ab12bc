"""Which NVIDIA driver a build of PyTorch needs, which one is here, and what stands in its way."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

# CUDA's major version → the least driver, by minor version compatibility, which PyTorch's wheels
# rely on (https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
LEAST = {11: 450, 12: 525, 13: 580}

CUDA = "12.6"
"""What this project's GPU environments install PyTorch for.

PyPI's build is for CUDA 13. Hosts of Azure ML have drivers of the 535 series (azureml-assets,
foundation-model-inference/context/Dockerfile; release notes of the compute instance's image), on
which that build finds no GPU. Releases of PyTorch up to 2.14 have a build for CUDA 12.6, too
(https://github.com/pytorch/pytorch/pull/187075, https://github.com/pytorch/pytorch/issues/190355).
The other way would be NVIDIA's libraries for forward compatibility, which it promises for
data-center GPUs; Azure's A10 sizes have virtual ones.
"""

# CUDA's major version → the compute capabilities that PyTorch 2.13's builds have kernels for, and
# what lies between (https://github.com/pytorch/pytorch/blob/main/RELEASE.md, CUDA support matrix).
KERNELS = {12: ((5, 0), (9, 0)), 13: ((7, 5), (12, 0))}

_INDEX = "https://download.pytorch.org/whl/"
CPU_INDEX = f"{_INDEX}cpu"
"""Where PyTorch's builds without CUDA are."""
CUDA_INDEX = f"{_INDEX}cu{CUDA.replace('.', '')}"
"""Where its builds for that CUDA are."""

_VERSION = Path("/proc/driver/nvidia/version")
_DEVICES = Path("/dev")
_NVML = "libnvidia-ml.so.1"


def least(cuda: str) -> int:
    """The least driver (its first number) for a version of CUDA; KeyError for an unknown one."""
    return LEAST[int(cuda.partition(".")[0])]


def has_kernels(capability: tuple[int, int], cuda: str = CUDA) -> bool:
    """Whether PyTorch's build for that CUDA has kernels for such a GPU."""
    first, last = KERNELS[int(cuda.partition(".")[0])]
    return first <= capability <= last


def installed() -> str | None:
    """The version of the NVIDIA driver here, such as 535.216.03; None without one."""
    try:
        text = _VERSION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _from_library()
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else _from_library()


def _from_library() -> str | None:
    """What NVIDIA's management library answers, where there is no kernel module to ask (WSL)."""
    try:
        library = ctypes.CDLL(_NVML)
        answer = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(answer, len(answer)):
            return None
    except (OSError, AttributeError):
        return None
    return answer.value.decode(errors="replace") or None


def devices() -> int:
    """GPUs of NVIDIA's that this process may open, whether or not PyTorch can use them."""
    return sum(1 for file in _DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name))


def fault(version: str, cuda: str | None) -> str | None:
    """Why a build of PyTorch can use no GPU here, and what to do; None where nothing shows it.

    `version` and `cuda` are what torch says of itself: 2.13.0+cu126, and 12.6 or None.
    """
    if cuda is None:
        return f"PyTorch {version} is a build without CUDA; install one from {CUDA_INDEX}"
    needed, here = LEAST.get(int(cuda.partition(".")[0])), installed()
    if needed is None:
        return None
    wanted = f"PyTorch {version} (CUDA {cuda}) needs driver {needed} or later"
    if here is None:
        return f"there is no NVIDIA driver, and {wanted}"
    if int(here.partition(".")[0]) >= needed:
        return None
    older = "" if needed <= least(CUDA) else f", or take the build from {CUDA_INDEX}"
    return f"the NVIDIA driver is {here}, and {wanted}: update it{older}"


def lacking(name: str, capability: tuple[int, int], kernels: Sequence[str]) -> str | None:
    """Why a build of PyTorch has nothing to run on a GPU, and what to do; None where it has.

    `kernels`: what it was built for, as torch lists it: sm_75 (machine code, which runs on the
    same major and no lower minor version), compute_90 (code that the driver translates).
    """
    if not kernels or any(_runs(one, capability) for one in kernels):
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
