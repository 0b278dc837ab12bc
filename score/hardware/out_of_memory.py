"""Whether an error says that memory is lacking."""

from __future__ import annotations

# Beginnings and parts of messages, in lower case: of PyTorch's CPU allocator, of CUDA's, which may
# also come as a plain RuntimeError from its libraries, and of OpenVINO, which shows C++'s.
_MESSAGES = (
    *("can't allocate memory", "out of memory", "alloc_failed"),
    *("bad_alloc", "failed to allocate"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine's error says that memory is lacking. PyTorch's own class for it, which is
    not imported here, is a RuntimeError."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in message for part in _MESSAGES)
    )
