"""The names that a pickle of tensors may mention, and what each of them stands for.

All that `torch.save` writes for dictionaries of tensors, and nothing else: a name that is in none
of these tables refuses the file. None is ever imported; `restricted_pickle` answers calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

STORAGES: Mapping[str, torch.dtype] = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexDouble": torch.complex128,
        "ComplexFloat": torch.complex64,
        "QInt8": torch.qint8,
        "QUInt8": torch.quint8,
        "QInt32": torch.qint32,
        "QUInt4x2": torch.quint4x2,
        "QUInt2x4": torch.quint2x4,
    }.items()
} | {"torch.storage UntypedStorage": torch.uint8}
"""Types of storages, and of their elements."""

DTYPES: Mapping[str, torch.dtype] = {
    f"torch {name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)
}

TYPES = {"torch Tensor", "torch.nn.parameter Parameter"} | {
    f"torch {scheme}"
    for scheme in (
        "per_tensor_affine",
        "per_tensor_symmetric",
        "per_channel_affine",
        "per_channel_symmetric",
        "per_channel_affine_float_qparams",
    )
}
"""What is stated beside a tensor."""

Call = Literal["dictionary", "tensor", "typed tensor", "first argument", "inner call", "ignored"]
"""What a call makes: an inner call is one with attributes of its result, which are left out; what
is ignored makes neither a tensor nor a dictionary, such as a set or a device."""

CALLS: Mapping[str, Call] = {
    "collections OrderedDict": "dictionary",
    "collections Counter": "dictionary",
    "torch._utils _rebuild_tensor": "tensor",
    "torch._utils _rebuild_tensor_v2": "tensor",
    "torch._utils _rebuild_tensor_v3": "typed tensor",
    "torch._utils _rebuild_parameter": "first argument",
    "torch._utils _rebuild_parameter_with_state": "first argument",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": "first argument",
    "torch._tensor _rebuild_from_type_v2": "inner call",
    "torch Size": "ignored",
    "torch device": "ignored",
    "torch.serialization _get_layout": "ignored",
    "_codecs encode": "ignored",
    **{
        f"{module} {name}": "ignored"
        for module in ("builtins", "__builtin__")  # of Python 3, and of Python 2
        for name in ("bytearray", "set", "complex")
    },
}

SPECIAL_TENSORS: Mapping[str, str] = {
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch._utils _rebuild_qtensor": "quantized",
    "torch._utils _rebuild_meta_tensor_no_storage": "without content",
    "torch._utils _rebuild_nested_tensor": "nested",
}
"""Calls that make tensors without a plain storage, and their kinds."""

KNOWN = {*STORAGES, *DTYPES, *TYPES, *CALLS, *SPECIAL_TENSORS}
