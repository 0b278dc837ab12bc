"""Names of types that rooms share and public signatures mention, each defined once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
"""What a model is asked to compute in."""

FloatPrecision = Literal["fp32", "bf16", "fp16"]
"""Of floating-point weights and arithmetic."""

Json = Mapping[str, Any]
"""A decoded JSON or YAML object."""

ImageInput = bytes | str | Path
"""An image in Python: its bytes, its file as a Path, or a string as a request spells it."""

OnFetched = Callable[[object, bytes], None]
"""Called with an image cell and the bytes that were fetched for it."""

Truncate = Literal["end", "error"]
"""What happens to a text longer than the model's context: it is cut, or is a row error."""

OnError = Literal["raise", "report"]
"""What a row that fails does: it fails the request, or is answered with an error record."""

FeatureColumn = Literal["image_features", "text_features"]
"""A table's column of vectors."""

VectorType = Literal["float32", "float16"]
"""Of a vector's numbers in the files of a long job."""

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]
    Matrix = npt.NDArray[np.float32]
else:

    def __getattr__(name):
        """`Vector`, [dimension], and `Matrix`, [rows, dimension]: arrays of float32.

        Made when first used: NumPy takes longer to import than `score --help` to run.
        """
        if name not in ("Vector", "Matrix"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import numpy as np
        import numpy.typing as npt

        globals()[name] = npt.NDArray[np.float32]
        return globals()[name]
