"""Passes on an NVIDIA GPU: each shape is recorded as a CUDA graph, then replayed.

Theory of operation. A pass of a small tower is some 150 kernels. Launching each from Python takes
longer than a GPU computes it, all the more while other threads decode images and want the
interpreter, too. So the second pass of a shape is recorded, and later ones replay it: one launch,
and the same kernels. There must be few shapes (`passes` pads to some). Inputs come in pinned
memory, from which copies are several times as fast.

- A graph keeps its inputs and its vectors on the GPU; what is computed between them shares one
  pool of memory with all graphs of its tower, as one pass runs at a time.
- One lock for the process: whatever another thread does to a stream that is recorded, or to the
  whole device, would spoil the recording, and a recording that is spoilt leaves PyTorch's allocator
  in disorder.
- Two streams a GPU. On one, passes are recorded, and nothing else ever runs: memory that was used
  on it may be freed at any time, by any thread. On the other they run.
- Before a pass is recorded it is computed on the same thread and stream: libraries make there
  what they keep for it, which they must not do during the recording.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from score.hardware.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

Encode = Callable[..., Tensor]
"""Inputs on the device → vectors on the device."""

_MOST_SHAPES = 64  # that a tower has graphs of: more than padded passes have


class _Graph(NamedTuple):
    """A recorded pass, and where it reads its inputs and writes its vectors."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    vectors: Tensor


_Shapes = tuple[torch.Size, ...]


class _Streams(NamedTuple):
    """passes: on which they run. recordings: on which they are recorded."""

    passes: torch.cuda.Stream
    recordings: torch.cuda.Stream


_alone = threading.Lock()
_streams: dict[int, _Streams] = {}  # by the GPU's index; cuBLAS keeps 33 MiB for each


def _streams_of(device: torch.device) -> _Streams:
    """Call it with the lock."""
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _streams:
        two = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        _streams[index] = _Streams(*two)
    return _streams[index]


class Recorder:
    """A tower whose passes are recorded. Safe to share between threads."""

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode, self._device = encode, device
        self._graphs: dict[_Shapes, _Graph] = {}
        self._seen = set[_Shapes]()  # those that came once, at least
        self._unrecorded = set[_Shapes]()  # those that could not be recorded
        self._failed = False
        with _alone:
            self._streams = _streams_of(device)
            torch.cuda.synchronize(device)  # the weights are there, whatever stream brought them

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Inputs in pinned memory → vectors in memory."""
        with _alone, torch.cuda.device(self._device), torch.cuda.stream(self._streams.passes):
            graph = self._graph(inputs)
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

    def _graph(self, inputs: Sequence[Tensor]) -> _Graph | None:
        """The graph of the inputs' shapes; None where they come for the first time, or cannot be
        recorded."""
        shapes = tuple(values.shape for values in inputs)
        if shapes in self._graphs:
            return self._graphs[shapes]
        is_new = shapes not in self._seen
        if is_new and len(self._seen) < _MOST_SHAPES:
            self._seen.add(shapes)
        if is_new or self._failed or shapes in self._unrecorded:
            return None
        try:
            self._graphs[shapes] = self._recorded(inputs)
        except RuntimeError as error:
            self._unrecorded.add(shapes)
            self._failed = not is_out_of_memory(error)
            log.warning("passes are computed without further CUDA graphs: %s", error)
        return self._graphs.get(shapes)

    def _recorded(self, inputs: Sequence[Tensor]) -> _Graph:
        held = tuple(values.to(self._device) for values in inputs)
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._streams.recordings):
            self._encode(*held)
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()  # what this left; a graph has memory of its own
            # A pool lives as long as a graph has it.
            pools = (recorded.graph.pool() for recorded in self._graphs.values())
            graph = torch.cuda.CUDAGraph()
            # Only what this thread does is watched: others may load a model meanwhile.
            graph.capture_begin(pool=next(pools, None), capture_error_mode="thread_local")
            try:
                vectors = self._encode(*held)
            except BaseException:
                with suppress(RuntimeError):  # what went wrong first tells more
                    graph.capture_end()
                raise
            graph.capture_end()
        return _Graph(graph, held, vectors)


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory that copies to a GPU start from; PyTorch keeps it for the next pass."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def release_pinned() -> None:
    """Gives back what is free of such memory. PyTorch has no public function for it."""
    if release := getattr(torch._C, "_host_emptyCache", None):
        release()
