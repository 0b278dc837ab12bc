"""Whether a model fits a machine size, with which settings, and how long a job takes.

Memory and speed are estimated from the model's architecture and the size's published numbers, with
the constants below, each with its source. Constants marked `stated` are assumptions: nothing was
measured at Azure. A plan says whether its rate is stated or measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from score.deploy.skus import Sku
from score.errors import AzureError
from score.folder.architecture import Architecture, Transformer
from score.hardware import drivers
from score.type_aliases import FloatPrecision

GIB = 2**30
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

# -- Memory and disk of a process -----------------------------------------------------------------

# Resident memory of a serving process beside weights and activations. For ViT-B/32 in fp32
# `python -m benchmarks.memory` reports up to 1,601 MiB, of which 577 are weights.
PROCESS_GIB = 1.0
CUDA_PROCESS_GIB = 3.0  # the same with a CUDA context and libraries loaded; stated
GPU_PROCESS_GIB = 1.0  # on each GPU: CUDA context and workspaces; stated
SYSTEM_GIB = 1.0  # for Azure's own containers and the kernel; stated
CPU_ENVIRONMENT_GIB = 5.0  # base image and Python packages on disk; stated
CUDA_ENVIRONMENT_GIB = 13.0  # the same with CUDA's libraries; stated
CORES_PER_WORKER = 8  # matrix products in one process gain little from more; stated
BATCHES = {"cpu": (32, 16, 8, 4, 2, 1), "gpu": (128, 64, 32, 16, 8, 4, 2, 1)}  # batch sizes to try

# -- Speed ----------------------------------------------------------------------------------------

# Sustained fp32 arithmetic of a core. With AVX-512, two cores at 2.8 GHz do 190 to 230 GFLOP/s
# (python -m timeit -s "import torch; a = torch.rand(2048, 2048)" "a @ a", at 17.2 GFLOP). Used are
# four fifths of that, and half as much without AVX-512. Stated.
CORE_GFLOPS = {True: 80.0, False: 40.0}
# NVIDIA's data sheets: dense half-precision tensor arithmetic, TFLOP/s. (Those of the H100 count
# sparse matrices, twice as much: 1,979 and, for the NVL, 1,671.)
GPU_TFLOPS = {
    "NVIDIA T4": 65.0,
    "NVIDIA V100": 125.0,
    "NVIDIA A10": 125.0,
    "NVIDIA A100": 312.0,
    "NVIDIA A100 PCIe": 312.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H100 NVL": 835.0,
}
# The fraction of it that a ViT reaches in practice: of an H100's 0.35 (ViT-B/32) to 0.51
# (ViT-bigG/14), measured (docs/gpu.md).
GPU_SHARE = 0.35
# Compute capabilities (https://developer.nvidia.com/cuda-gpus).
CAPABILITIES = {
    "NVIDIA T4": (7, 5),
    "NVIDIA V100": (7, 0),
    "NVIDIA A10": (8, 6),
    "NVIDIA A100": (8, 0),
    "NVIDIA A100 PCIe": (8, 0),
    "NVIDIA H100": (9, 0),
    "NVIDIA H100 NVL": (9, 0),
}
# Images/s of a core: decoding and resizing a JPEG of 640 × 480, bit-exact with the reference, takes
# 4.3 ms, downloading and queueing about as much. Stated.
DECODED_PER_CORE = 120.0

LEAST_RATE = 1.0  # images/s; a slower machine is not suggested for the model
REQUEST_ROWS = 32  # images of a request that must finish within Azure's time limit
DOWNLOAD_SECONDS = 60  # the default of SCORE_REQUEST_DEADLINE
LONGEST_REQUEST_SECONDS = 180  # Azure's limit of request_timeout_ms
# How to manage quotas (learn.microsoft.com/azure/machine-learning/how-to-manage-quotas).
MOST_INSTANCES = 50  # of a real-time deployment; Azure grants more on request
FILE_ROWS = 1_000  # rows of a CSV in a batch job, as `prepare` cuts them


@dataclass(frozen=True, slots=True)
class Rate:
    """Images per second of one machine; whether that is an estimate; what limits it."""

    images: float
    basis: Literal["measured", "stated"]
    limit: Literal["encoding", "decoding", "as given"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings for a model on a machine size, and why it does not fit. Memory and disk in GiB.

    precision: for which memory and speed are estimated. Deployments do not set it: `auto` chooses
    one on the machine, by the model's probes, as for `score serve`.
    """

    sku: Sku
    model: str
    dimension: int  # numbers in a vector of the model
    precision: FloatPrecision
    workers: int
    batch_size: int
    memory: float
    gpu_memory: float  # on each GPU
    disk: float
    rate: Rate
    obstacles: tuple[str, ...]  # why no deployment works
    online_obstacles: tuple[str, ...]  # why a real-time deployment does not work, beyond those
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether a batch deployment works."""
        return not self.obstacles

    @property
    def fits_online(self) -> bool:
        """Whether a real-time deployment works, too."""
        return self.fits and not self.online_obstacles

    def check(self, *, online: bool = False) -> None:
        """Raises AzureError where a batch deployment, or a real-time one, does not work."""
        obstacles = self.obstacles + (self.online_obstacles if online else ())
        if obstacles:
            raise AzureError(f"{self.model} does not fit {self.sku.name}: {'; '.join(obstacles)}")

    @property
    def request_timeout_ms(self) -> int:
        """Time for the downloads of a request, and for encoding its images."""
        seconds = DOWNLOAD_SECONDS + 2 * REQUEST_ROWS * self.workers / self.rate.images
        return min(LONGEST_REQUEST_SECONDS, max(90, 10 * math.ceil(seconds / 10))) * 1000

    @property
    def mini_batch_seconds(self) -> int:
        """Three times the estimate for one CSV of a batch job, since images and networks vary."""
        seconds = 3 * FILE_ROWS * self.workers / self.rate.images
        return max(600, 60 * math.ceil(seconds / 60))

    def hours(self, rows: float, instances: int) -> float:
        """Hours that a job of `rows` images takes on `instances` machines."""
        return rows / (self.rate.images * instances) / 3600


def plan(
    sku: Sku, model: str, architecture: Architecture, *, measured: float | None = None
) -> Plan:
    """The plan for a model on a machine size. `measured`: the images/s of one such machine.

    Raises AzureError for a measured rate that is not positive and finite.
    """
    if measured is not None and not 0 < measured < math.inf:
        raise AzureError(f"a rate is a positive number of images a second, not {measured!r}")
    precision: FloatPrecision = "fp16" if sku.gpus else "fp32"
    weights = architecture.parameters * _BYTES["fp32"] / GIB
    needs = _needs(sku, architecture, precision)
    environment = CUDA_ENVIRONMENT_GIB if sku.gpus else CPU_ENVIRONMENT_GIB
    disk = environment + weights
    rate = _rate(sku, architecture, measured)
    return Plan(
        sku=sku,
        model=model,
        dimension=architecture.dimension,
        precision=precision,
        workers=needs.workers,
        batch_size=needs.batch_size,
        memory=needs.memory,
        gpu_memory=needs.gpu_memory,
        disk=disk,
        rate=rate,
        obstacles=tuple(_obstacles(sku, needs, disk, rate)),
        online_obstacles=tuple(_online_obstacles(sku, rate, needs.workers)),
        remarks=tuple(_remarks(sku)),
    )


@dataclass(frozen=True, slots=True)
class _Needs:
    workers: int
    batch_size: int
    memory: float
    gpu_memory: float


def _needs(sku: Sku, architecture: Architecture, precision: FloatPrecision) -> _Needs:
    """The most workers that fit, with the largest batch; the least of both if nothing fits."""
    fewest = max(1, sku.gpus)
    most = sku.gpus or math.ceil(sku.cores / CORES_PER_WORKER)
    candidates = [
        _memory(sku, architecture, precision, workers, batch)
        for workers in range(most, fewest - 1, -1)
        for batch in BATCHES["gpu" if sku.gpus else "cpu"]
    ]
    fitting = (
        needs
        for needs in candidates
        if needs.memory <= sku.memory_gib and needs.gpu_memory <= sku.gpu_memory_gib
    )
    return next(fitting, candidates[-1])


def _memory(
    sku: Sku, architecture: Architecture, precision: FloatPrecision, workers: int, batch: int
) -> _Needs:
    weights = architecture.parameters * _BYTES[precision] / GIB
    activations = batch * activation_bytes(architecture, precision) / GIB
    if not sku.gpus:
        memory = SYSTEM_GIB + workers * (weights + activations + PROCESS_GIB)
        return _Needs(workers, batch, memory, 0.0)
    # Weights are copied to the GPU one tensor at a time, so they take no memory of the process.
    memory = SYSTEM_GIB + workers * CUDA_PROCESS_GIB
    return _Needs(workers, batch, memory, weights + activations + GPU_PROCESS_GIB)


def activation_bytes(architecture: Architecture, precision: FloatPrecision) -> float:
    """Bytes of one image's activations at a layer's widest point: T·(h + 4·w) numbers.

    For T tokens of width w and an MLP of width h: the residual stream, queries, keys and values,
    and the MLP's hidden layer. The T × T attention matrix is never held in memory as a whole.
    """
    vision = architecture.vision
    width = vision.tower.hidden + 4 * vision.tower.width
    return float(vision.tokens * width * _BYTES[precision])


def _obstacles(sku: Sku, needs: _Needs, disk: float, rate: Rate) -> list[str]:
    reasons = []
    if needs.memory > sku.memory_gib:
        reasons.append(f"it needs {needs.memory:.1f} GiB of memory, the size has {sku.memory_gib}")
    if needs.gpu_memory > sku.gpu_memory_gib:
        reasons.append(
            f"it needs {needs.gpu_memory:.1f} GiB of a GPU's memory, "
            f"one of the size has {sku.gpu_memory_gib}"
        )
    if disk > sku.temp_disk_gib:
        reasons.append(
            f"environment and model take {disk:.1f} GiB of disk, the size has {sku.temp_disk_gib}"
        )
    if rate.images < LEAST_RATE:
        reasons.append(f"it does {rate.images:.2g} images/s there: too slow for any use")
    if sku.gpu and not drivers.has_kernels(CAPABILITIES[sku.gpu], drivers.CUDA):
        major, minor = CAPABILITIES[sku.gpu]
        reasons.append(
            f"PyTorch for CUDA {drivers.CUDA} has no kernels for {sku.gpu} "
            f"(compute capability {major}.{minor})"
        )
    if sku.status == "retired":
        reasons.append(f"Azure retired the size on {sku.retires}")
    return reasons


def _online_obstacles(sku: Sku, rate: Rate, workers: int) -> list[str]:
    reasons = []
    if not sku.online:
        reasons.append("Azure's list of sizes for managed online endpoints does not have it")
    seconds = REQUEST_ROWS * workers / rate.images
    left = LONGEST_REQUEST_SECONDS - DOWNLOAD_SECONDS
    if seconds > left:
        reasons.append(
            f"a request of {REQUEST_ROWS} images takes {seconds:.0f} s to encode, "
            f"and Azure's limit of {LONGEST_REQUEST_SECONDS} s leaves {left}"
        )
    return reasons


def _remarks(sku: Sku) -> list[str]:
    reasons = []
    if sku.status == "retiring":
        reasons.append(f"Azure retires the size on {sku.retires}; new subscriptions cannot have it")
    if sku.gpu_shared_by > 1:
        reasons.append(f"it has one part in {sku.gpu_shared_by} of a GPU, time and memory")
    return reasons


def _rate(sku: Sku, architecture: Architecture, measured: float | None) -> Rate:
    if measured is not None:
        return Rate(measured, "measured", "as given")
    decoding = sku.cores * DECODED_PER_CORE
    if not sku.gpu:  # the same cores decode and encode, one after the other
        encoding = sku.cores * CORE_GFLOPS[sku.avx512] * 1e9 / image_flops(architecture)
        return Rate(1 / (1 / encoding + 1 / decoding), "stated", _slower(encoding, decoding))
    peak = sku.gpus * GPU_TFLOPS[sku.gpu] / sku.gpu_shared_by
    encoding = peak * 1e12 * GPU_SHARE / image_flops(architecture)
    return Rate(min(encoding, decoding), "stated", _slower(encoding, decoding))


def _slower(encoding: float, decoding: float) -> Literal["encoding", "decoding"]:
    return "encoding" if encoding <= decoding else "decoding"


def image_flops(architecture: Architecture) -> float:
    """FLOPs of encoding one image: two for each multiply-add of the image tower.

    Of each layer, projections and MLP take 2·T·(4·w² + 2·w·h) and attention 4·T²·w; the patch
    embedding takes 2·w·3·p² a patch. Pooling by attention takes keys and values of all tokens, and
    an MLP. T tokens of width w, an MLP of width h, patches of p × p
    pixels (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361, section 2.1, without patches).
    """
    vision = architecture.vision
    tower, tokens = vision.tower, vision.tokens
    squares = (vision.image // vision.patch) ** 2
    patches = 2 * squares * tower.width * 3 * vision.patch**2
    if vision.pooling == "class":
        head = 2 * tower.width * architecture.dimension
    else:
        of_query = 2 * tower.width**2 + 2 * tower.width * tower.hidden
        head = 4 * tokens * tower.width**2 + 2 * of_query + 4 * tokens * tower.width
    return float(patches + tower.layers * _layer_flops(tower, tokens) + head)


def _layer_flops(tower: Transformer, tokens: int) -> int:
    matrices = 4 * tower.width**2 + 2 * tower.width * tower.hidden
    return 2 * tokens * matrices + 4 * tokens**2 * tower.width


def instances_note(instances: int) -> str | None:
    """A note on more instances of a real-time deployment than Azure grants by default."""
    if instances <= MOST_INSTANCES:
        return None
    return f"a real-time deployment may have {MOST_INSTANCES} instances, and more on request"
