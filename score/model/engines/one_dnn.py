"""Linear layers whose weights lie in blocks, as oneDNN multiplies them.

Else oneDNN arranges them anew for every pass. The operators are PyTorch's own: its compiler puts
them in place of linear layers whose weights it may freeze.
"""

from __future__ import annotations

import torch
from torch import Tensor

from score.hardware.processor import computes, cpu_flags, cpu_maker

_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")


class OneDnnLinear:
    """A linear layer, as `towers.Linear` has it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return made


def works(dtype: torch.dtype) -> bool:
    """Whether this PyTorch computes `OneDnnLinear` on this CPU: in fp32, or in bf16."""
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `OneDnnLinear` is faster than PyTorch's own way, as measured on CPUs with AVX-512.

    In bf16 that way is oneDNN, too. In fp32 it is MKL, which is at its best on Intel's CPUs.
    """
    if device.type != "cpu" or "avx512f" not in cpu_flags() or not works(dtype):
        return False
    return cpu_maker() == "AuthenticAMD" if dtype == torch.float32 else computes("bf16")
