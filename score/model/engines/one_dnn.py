"""Linear layers with weights in oneDNN's blocked layout.

With weights in the plain layout, oneDNN would rearrange them in every pass. The operators are those
that PyTorch's own compiler substitutes for linear layers with frozen weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from score.hardware.processor import cpu_flags, cpu_maker, supports

_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")


class OneDnnLinear:
    """A linear layer, as `towers.Linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return result


def works(dtype: torch.dtype) -> bool:
    """Whether this PyTorch can compute `OneDnnLinear` on this CPU in a dtype (fp32 or bf16)."""
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `OneDnnLinear` is faster than `F.linear`, as measured on CPUs with AVX-512.

    In bf16 `F.linear` uses oneDNN, too; in fp32 it uses MKL, which is fast on Intel's CPUs only.
    """
    if device.type != "cpu" or "avx512f" not in cpu_flags() or not works(dtype):
        return False
    return cpu_maker() == "AuthenticAMD" if dtype == torch.float32 else supports("bf16")
