"""Turns a model folder into an MLflow model folder: `MLmodel`, `conda.yaml`, `model/`, `score/`.

The repository root is one of these, written by this module around the embedded model.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from uuid import uuid4

from PIL import Image

from score.embedder import Embedder
from score.errors import ModelError
from score.folder import ModelFolder

SOURCE = Path(__file__).resolve().parent.parent  # the package `score` itself

REQUIREMENTS = (
    "azureml-inference-server-http>=1.5",
    "certifi",
    "mlflow==3.17.2",
    "numpy>=1.26,<3",
    "pandas>=2.2,<3",
    "pillow==13.0.0",
    "pyarrow>=18",
    "safetensors>=0.5",
    "tokenizers>=0.21",
    "torch==2.13.0",
    "tqdm>=4.66",
    "transformers==5.23.0",
    "typing_extensions",
    "urllib3>=2.6,<3",
)
"""What a package's environment installs. What decides pixels, ids and vectors is pinned."""

# What a checkpoint brings along; pickles, other frameworks' weights and .git stay behind.
_MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "README.md",
)

_PARAMS = (
    ("normalize", "boolean", False),
    ("truncate", "string", "end"),
    ("on_error", "string", "raise"),
    ("labels", "string", ""),
    ("confidence", "double", 0.0),
)

_MLMODEL = Template("""\
# An MLflow model: `mlflow.pyfunc.load_model` and `mlflow models serve` take this folder as it is.
# Loading runs score/pyfunc.py on the files in model/; nothing is unpickled.
flavors:
  python_function:
    loader_module: score.pyfunc
    code: .
    data: model
    env:
      conda: conda.yaml
    python_version: "3.11"

# Both columns are optional strings: `binary` would make MLflow's server base64-decode URLs.
# Outputs are left undeclared: a record holds only the vectors that its row asked for.
signature:
  inputs: >-
    $inputs
  params: >-
    $params

saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe

metadata:
  base_model_name: $name
  base_model_task: embeddings
  dimension: $dimension

mlflow_version: 3.17.2
model_uuid: $uuid
utc_time_created: '$time'
""")

_CONDA = """\
# The environment of this model, for Azure ML and for `mlflow models serve`.
name: clip-endpoints
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def package(checkpoint: Path, output: Path, name: str | None = None) -> Path:
    """Writes an MLflow folder around a transformers-layout checkpoint, and returns it.

    `name` is what the metadata calls the model, by default the checkpoint folder's name. Raises
    ModelError for a folder that is no checkpoint and for an `output` that holds something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"{output} is not empty")
    folder = ModelFolder.open(checkpoint).path
    Embedder.load(folder)  # what does not load is not packaged
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        begun = Path(scratch) / "package"
        (begun / "model").mkdir(parents=True)
        for pattern in _MODEL_FILES:
            for file in sorted(folder.glob(pattern)):
                shutil.copyfile(file, begun / "model" / file.name)
        shutil.copytree(SOURCE, begun / "score", ignore=shutil.ignore_patterns("__pycache__"))
        describe(begun, name or folder.name)
        begun.replace(output)
    return output


def describe(root: Path, name: str) -> None:
    """Writes what makes a folder with `model/` and `score/` an MLflow model."""
    architecture = ModelFolder.open(root / "model").architecture
    inputs = [{"type": "string", "name": column, "required": False} for column in ("image", "text")]
    params = [
        {"name": param, "type": kind, "default": default, "shape": None}
        for param, kind, default in _PARAMS
    ]
    mlmodel = _MLMODEL.substitute(
        inputs=json.dumps(inputs),
        params=json.dumps(params),
        name=json.dumps(name),  # a JSON string is a YAML string, whatever it holds
        dimension=architecture.dimension,
        uuid=uuid4().hex,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    )
    (root / "MLmodel").write_text(mlmodel, encoding="utf-8")
    pip = "".join(f"      - {requirement}\n" for requirement in REQUIREMENTS)
    (root / "conda.yaml").write_text(_CONDA + pip, encoding="utf-8")
    example = {"columns": ["image", "text"], "data": [[_dot(), ""], ["", "a photo of a cat"]]}
    (root / "input_example.json").write_text(json.dumps(example) + "\n", encoding="utf-8")


def _dot() -> str:
    """A small picture in base64: a red square."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
