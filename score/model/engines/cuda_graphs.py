"""Passes on an NVIDIA GPU: each shape is recorded as a CUDA graph, then replayed.

Theory of operation. A pass of a small tower is some 150 kernels. Launching each from Python takes
longer than a GPU computes it, all the more while other threads decode images and want the
interpreter, too. So the second pass of a shape is recorded, and later ones replay it: one launch,
and the same kernels. There must be few shapes (`passes` pads to some). Inputs come in pinned
memory, from which copies are several times as fast.

A shape's graph keeps its inputs and its vectors on the GPU; what is computed between them shares
one pool of memory with all graphs of its tower, as one pass runs at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Encode = Callable[..., Tensor]
"""Inputs on the device → vectors on the device."""

_MOST_SHAPES = 64  # of a tower's graphs: more than padded passes have


class _Graph(NamedTuple):
    """A recorded pass, and where it reads its inputs and writes its vectors."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    vectors: Tensor


_Shapes = tuple[torch.Size, ...]


class Recorder:
    """A tower whose passes are recorded. Safe to share between threads."""

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode, self._device = encode, device
        self._stream, self._one_pass = _of(device)
        torch.cuda.synchronize(device)  # another stream has brought the weights
        self._graphs: dict[_Shapes, _Graph | None] = {}  # None: came once, or cannot be recorded
        self._failed = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Inputs in pinned memory → vectors in memory."""
        shapes = tuple(values.shape for values in inputs)
        with self._one_pass, torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if shapes in self._graphs:
                graph = self._graphs[shapes] or self._recorded(shapes, inputs)
            else:
                graph = None
                self._graphs[shapes] = None
            vectors = self._replayed(graph, inputs) if graph else self._direct(inputs)
            return vectors.cpu()  # waits for the stream

    def _direct(self, inputs: Sequence[Tensor]) -> Tensor:
        return self._encode(*(values.to(self._device, non_blocking=True) for values in inputs))

    @staticmethod
    def _replayed(recorded: _Graph, inputs: Sequence[Tensor]) -> Tensor:
        for there, here in zip(recorded.inputs, inputs, strict=True):
            there.copy_(here, non_blocking=True)
        recorded.graph.replay()
        return recorded.vectors

    def _recorded(self, shapes: _Shapes, inputs: Sequence[Tensor]) -> _Graph | None:
        """The graph of a shape that was computed before; None where it cannot be recorded."""
        if self._failed or len(self._graphs) > _MOST_SHAPES:
            return None
        try:
            self._graphs[shapes] = self._record(inputs)
        except torch.OutOfMemoryError:  # the pass is divided, and tried again
            raise
        except RuntimeError as error:  # a kernel that cannot be recorded
            self._failed = True
            log.warning("passes are computed without CUDA graphs from now on: %s", error)
        return self._graphs[shapes]

    def _record(self, inputs: Sequence[Tensor]) -> _Graph:
        held = tuple(values.to(self._device) for values in inputs)
        graph = torch.cuda.CUDAGraph()
        self._stream.synchronize()
        torch.cuda.empty_cache()  # what the pass before has left; a graph has memory of its own
        # A pool lives as long as a graph has it. Only what this thread does is watched: others may
        # load a model meanwhile.
        pools = (recorded.graph.pool() for recorded in self._graphs.values() if recorded)
        graph.capture_begin(pool=next(pools, None), capture_error_mode="thread_local")
        try:
            vectors = self._encode(*held)
        finally:
            graph.capture_end()
        return _Graph(graph, held, vectors)


@cache
def _of(device: torch.device) -> tuple[torch.cuda.Stream, threading.Lock]:
    """The stream of all models on a GPU, since cuBLAS keeps 33 MiB for each stream that it has ever
    computed on, and the lock that whoever uses it holds: a graph records what any thread begins."""
    return torch.cuda.Stream(device), threading.Lock()  # type: ignore[no-untyped-call]


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory that copies to a GPU start from; PyTorch keeps it for the next pass."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
