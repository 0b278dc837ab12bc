"""Which extra of the distribution installs a library, and the command that does so.

Every hint that says "pip install …" is made here. Libraries that the distribution needs in any case
are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

EXTRAS: Mapping[str, str] = {
    "adlfs": "azure-storage",
    "aiohttp": "web",
    "anyio": "serve",
    "azure": "azure",
    "azureml": "collect",
    "azureml_inference_server_http": "azure",
    "marshmallow": "azure",
    "packaging": "azure",
    "emoji": "train",
    "fsspec": "s3",
    "gcsfs": "gcs",
    "h11": "serve",
    "google": "package",
    "h5py": "package",
    "huggingface_hub": "package",
    "sentencepiece": "package",
    "transformers": "package",
    "lancedb": "search",
    "matplotlib": "evaluate",
    "mlflow": "mlflow",
    "nncf": "int8",
    "openvino": "openvino",
    "opentelemetry": "trace",
    "pandas": "batch",
    "pyarrow": "batch",
    "prometheus_client": "serve",
    "pyspark": "spark",
    "ray": "ray",
    "requests": "demo",
    "resvg_py": "dev",
    "s3fs": "s3",
    "sklearn": "cluster",
    "starlette": "serve",
    "uvicorn": "serve",
    "yaml": "plan",
}
"""Import name → the extra that installs it."""


_ALONE: Mapping[str, str] = {
    "ftfy": "ftfy==6.3.1",
    "open_clip": "--no-deps open_clip_torch==3.3.0",  # its other dependencies are not used
}
"""Import name → pip's arguments, for a library that is installed by itself."""

_CLONE = Path(__file__).resolve().parents[1] / "pyproject.toml"
"""A file that lies beside `score/` in a clone only, not in a wheel or a package."""


def install(library: str) -> str:
    """The command that installs a library, by its import name.

    In a clone that is an editable install; from a wheel, or in a package that `score package`
    wrote, the distribution is named.
    """
    if library in _ALONE:
        return f"pip install {_ALONE[library]}"
    extra = EXTRAS.get(library.partition(".")[0])
    distribution = "." if _CLONE.is_file() else "clip-endpoints"
    wanted = f"'{distribution}[{extra}]'" if extra else distribution
    return f"pip install -e {wanted} in the clone" if _CLONE.is_file() else f"pip install {wanted}"


def missing(error: ImportError) -> str:
    """A sentence for a library that cannot be imported: the error, and what installs it."""
    return f"{error}: {install(error.name or '')}"
