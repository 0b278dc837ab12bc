"""Which extra of the distribution brings a library, and how to install it.

Every hint that says "pip install …" is made here. Libraries that the project needs in any case are
not listed.
"""

from __future__ import annotations

from collections.abc import Mapping

EXTRAS: Mapping[str, str] = {
    "azure": "azure",
    "azureml": "collect",
    "azureml_inference_server_http": "azure",
    "marshmallow": "azure",
    "packaging": "azure",
    "emoji": "train",
    "h5py": "package",
    "huggingface_hub": "package",
    "transformers": "package",
    "yaml": "package",
    "matplotlib": "evaluate",
    "mlflow": "mlflow",
    "nncf": "int8",
    "openvino": "cpu",
    "pandas": "batch",
    "pyarrow": "batch",
    "pyspark": "spark",
    "requests": "demo",
    "resvg_py": "dev",
    "starlette": "serve",
    "uvicorn": "serve",
}
"""Import name → the extra that installs it."""


_ALONE: Mapping[str, str] = {
    "ftfy": "ftfy==6.3.1",
    "open_clip": "--no-deps open_clip_torch==3.3.0",  # what else it asks for is not used
}
"""Import name → what pip is told for a library that is installed by itself."""


def install(library: str) -> str:
    """The command that installs a library, by its import name."""
    if library in _ALONE:
        return f"pip install {_ALONE[library]}"
    extra = EXTRAS.get(library.partition(".")[0])
    what = f"'.[{extra}]'" if extra else "."
    return f"pip install -e {what} in the clone"


def missing(error: ImportError) -> str:
    """A sentence for a library that cannot be imported: what is wrong, and what installs it."""
    return f"{error}: {install(error.name or '')}"
