"""Turns a checkpoint into an MLflow model folder: `MLmodel`, environment files, `model/`, `score/`.

The repository root is one of these, written by this module around the embedded model. A package is
proven before it exists: what it computes is compared with the reference, and goes with it.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import Template
from typing import Literal
from uuid import uuid4

from PIL import Image

from score.arrays import FloatPrecision
from score.checkpoints import canonical
from score.checkpoints.resolve import ResolvedCheckpoint, find
from score.checkpoints.source import Tensors
from score.core.embedder import Embedder
from score.errors import ModelError
from score.folder.model_folder import ModelFolder, read_optional_json
from score.folder.weights import Weights
from score.hardware.drivers import CPU_INDEX, CUDA, CUDA_INDEX
from score.model.probes import Finding, Probes
from score.package import card
from score.package.contents import IGNORE, SCORE, SERVING, allow_list, copy_code
from score.package.export import is_package
from score.package.probe_set import promise
from score.package.reference import Reference, ready
from score.settings import Settings
from score.storage import atomic
from score.storage.outputs import check_folder, check_replaceable
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Cleaning, Name

REQUIREMENTS = (
    "azureml-inference-server-http>=1.5",
    "backports.zstd>=1",
    "brotli>=1.2",
    "certifi",
    "ftfy==6.3.1",
    "mlflow==3.17.2",
    "numpy>=1.26,<3",
    "pandas>=2.2,<3",
    "pillow==13.0.0",
    "pyarrow>=18",
    "safetensors>=0.5",
    "tokenizers>=0.21",
    "torch==2.13.0",
    "tqdm>=4.66",
    "typing_extensions",
    "urllib3>=2.6,<3",
)
"""What a package's environment installs. What decides pixels, ids and vectors is pinned."""

OPENVINO = "openvino==2026.4.1"
"""What the environment of a package with int8 installs, too."""

Torch = Literal["cpu", "cuda"]
"""Which build of PyTorch conda.yaml asks for."""

# pip takes the build of the index before PyPI's, as 2.13.0+cpu is a later version than 2.13.0.
_BUILDS: Mapping[Torch, tuple[str, str]] = {
    "cpu": (CPU_INDEX, "without CUDA, gigabytes smaller than PyPI's: for CPUs"),
    "cuda": (CUDA_INDEX, f"for CUDA {CUDA}, which older drivers than PyPI's will do for"),
}

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
    config:  # settings that `load_model(…, model_config=…)` may name; the environment's go before
      batch_size: 32
      decoding: exact
      device: auto
      engine: auto
      precision: auto
      verify: quick
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml  # `uv` reads it, too
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
  serving_input_path: serving_input_example.json
  type: dataframe

metadata:
  base_model_name: $name
  base_model_task: embeddings
  dimension: $dimension
  text_cleaning: $cleaning$more

mlflow_version: 3.17.2
model_uuid: $uuid
utc_time_created: '$time'
""")

_CONDA = Template("""\
# The environment of this model, for Azure ML and for `mlflow models serve`. PyTorch is its build
# $build.
# `score package --torch cpu` or `cuda` decides which.
name: clip-endpoints
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
      - --extra-index-url $index
""")

_PYTHON_ENV = """\
# The environment of this model, for MLflow's environment managers `virtualenv` and `uv`.
python: "3.11"
build_dependencies:
  - pip
dependencies:
  - -r requirements.txt
"""

_REQUIREMENTS_HEAD = """\
# The packages of conda.yaml, for pip and uv. PyPI's torch for Linux brings CUDA 13, some gigabytes;
# its build for CPUs: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu with pip, or
# UV_TORCH_BACKEND=cpu. No index stands here: uv would take whatever it has from there alone.
"""


def package(
    checkpoint: str | Path,
    output: Path,
    name: str | None = None,
    *,
    source: str | None = None,
    architecture: str | None = None,
    tokenizer: Path | None = None,
    revision: str | None = None,
    precision: FloatPrecision | None = None,
    weights: str | None = None,
    base: str | None = None,
    cleaning: Name | None = None,
    int8: Path | None = None,
    force: bool = False,
    torch: Torch = "cpu",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a proven MLflow folder around a checkpoint, and returns it.

    `checkpoint`, `source`, `architecture`, `tokenizer`, `revision`, `weights`, `base`, `cleaning`:
    as `resolve.find` has them. `name` is what the metadata calls the model, by default the
    checkpoint's. `precision`: what the weights are stored in, by default each tensor as it comes.
    `int8`: a folder or CSV of images by which the towers are put into int8, too; `force`: even
    where that costs much. `torch`: the build that the package's conda.yaml asks for, which Azure
    installs where it serves the package without an entry script. `overwrite`: `output` may hold an
    older package. `say` is told what happens, the licence first of all.
    Raises RequestError for an `output` that holds something already, ModelError for what is no
    checkpoint and for a model that does not compute here what the reference computes.
    """
    local = [Path(checkpoint)] if Path(checkpoint).exists() else []
    check = partial(check_folder, output, is_package, overwrite=overwrite)
    check(inputs=local)
    check_replaceable(output)
    if int8:
        from score.package import int8 as towers  # of an extra of its own

        towers.ready(int8)
    found = find(
        str(checkpoint),
        source=source,
        architecture=architecture,
        tokenizer=tokenizer,
        revision=revision,
        weights=weights,
        base=base,
        cleaning=cleaning,
        say=say,
    )
    ready(found.source.cleaning)
    say(f"texts: {card.texts(found)}")
    title = "".join(c for c in name or found.name if c.isprintable())
    with atomic.folder(output, check) as begun:
        say(f"writing {found.source.architecture.parameters:,} parameters")
        if unused := found.source.unused():
            say(f"{len(unused)} tensors of the checkpoint are not used, such as {unused[0]}")
        model = canonical.write(found.source, begun / "model", precision)
        say("asking the reference implementation for its vectors")
        with Reference(found.source, model, precision) as reference:
            # The checkpoint's own files are let go of: what is left of it is what was written.
            written = replace(found.source, tensors=Weights.open(model), parts={})
            found = replace(found, source=written)
            _must_be_the_same(reference, written.tensors)
            promise(reference).write(model)
        findings = _prove(model)
        agreement = str(towers.quantise(model, int8, force=force, say=say)) if int8 else None
        for file in found.licence_files:
            shutil.copyfile(file, model / file.name)
        for file in found.base.licence_files if found.base else ():
            shutil.copyfile(file, model / f"{file.name}.base")  # of the tokenizer, not the weights
        copy_code(SCORE, begun / "score")
        describe(begun, title, _metadata(found), torch)
        card.write(begun, title, found, findings, _dot(), agreement)
    return output


def _must_be_the_same(reference: Reference, written: Tensors) -> None:
    """Raises ModelError unless every tensor was written as the reference has it, to the last bit.

    Vectors would not tell of all: the logit scale has no part in them, and one rounded tensor among
    hundreds may stay within their tolerance.
    """
    for name in reference.unlike(written):
        raise ModelError(
            f"this checkpoint cannot be packaged: {name} was not written as the reference "
            "implementation reads it"
        )


def _prove(model: Path) -> Sequence[Finding]:
    """Computes the reference's probes beside the model, without the reference."""
    settings = Settings(device="cpu", precision="fp32", verify="off")
    embedder = Embedder.load(model, settings)
    probes = Probes.read(model)
    assert probes is not None, "written above"
    findings = probes.check(embedder.encoder, embedder.tokenizer, embedder.preprocessor)
    broken = [finding for finding in findings if not finding.passed]
    if broken:
        raise ModelError(
            f"this checkpoint cannot be packaged: computed here, {broken[0]}"
            + (f" (and {len(broken) - 1} more)" if broken[1:] else "")
        )
    return findings


def _metadata(found: ResolvedCheckpoint) -> dict[str, str]:
    entry = found.entry
    known = {
        "source": found.origin,
        "revision": found.revision,
        "license": entry.licence.name if entry else None,
        "architecture": entry.architecture if entry else None,
        "base": found.base.name if found.base else None,
    }
    return {key: value for key, value in known.items() if value}


def describe(
    root: Path,
    name: str,
    metadata: Mapping[str, str] | None = None,
    torch: Torch = "cpu",
    code: Mapping[str, Sequence[str]] = SERVING,
) -> None:
    """Writes what makes a folder with `model/` and `score/` an MLflow model.

    `code`: the files of `score/`, folder → names, which Azure ML may upload.
    """
    architecture = ModelFolder.open(root / "model").architecture
    cleaning = Cleaning.from_config(read_optional_json(root / "model" / CONFIG))
    inputs = [{"type": "string", "name": column, "required": False} for column in ("image", "text")]
    params = [
        {"name": param, "type": kind, "default": default, "shape": None}
        for param, kind, default in _PARAMS
    ]
    more = "".join(f"\n  {key}: {_quoted(value)}" for key, value in (metadata or {}).items())
    mlmodel = _MLMODEL.substitute(
        inputs=json.dumps(inputs),
        params=json.dumps(params),
        name=_quoted(name),
        dimension=architecture.dimension,
        cleaning=cleaning.name,
        more=more,
        uuid=uuid4().hex,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    )
    (root / "MLmodel").write_text(mlmodel, encoding="utf-8")
    int8 = (OPENVINO,) if (root / "model" / "int8").is_dir() else ()
    requirements = sorted(REQUIREMENTS + int8)
    pip = "".join(f"      - {requirement}\n" for requirement in requirements)
    index, build = _BUILDS[torch]
    conda = _CONDA.substitute(index=index, build=build) + pip
    (root / "conda.yaml").write_text(conda, encoding="utf-8")
    (root / "python_env.yaml").write_text(_PYTHON_ENV, encoding="utf-8")
    lines = "".join(f"{requirement}\n" for requirement in requirements)
    (root / "requirements.txt").write_text(_REQUIREMENTS_HEAD + lines, encoding="utf-8")
    example = {"columns": ["image", "text"], "data": [[_dot(), ""], ["", "a photo of a cat"]]}
    for file, content in (
        ("input_example.json", example),
        ("serving_input_example.json", {"dataframe_split": example}),  # a body for MLflow's server
    ):
        (root / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
    (root / IGNORE).write_text(allow_list(root, code), encoding="utf-8")


def _quoted(text: str) -> str:
    """A YAML string. JSON's is one, where nothing beyond the first plane is escaped in pairs."""
    return json.dumps("".join(c for c in text if c.isprintable()), ensure_ascii=False)


def _dot() -> str:
    """A small image in base64: a red square."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
