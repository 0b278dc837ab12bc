"""Turns a checkpoint into an MLflow model folder: `MLmodel`, environment files, `model/`, `score/`.

The repository root is such a folder, written by this module around the embedded model. Before a
package appears at its path, the model's outputs are compared with the reference implementation's,
which the package contains as probes.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import Template
from types import ModuleType
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from PIL import Image

from score.checkpoints import canonical
from score.checkpoints.resolve import ResolvedCheckpoint, find
from score.checkpoints.source import Tensors
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.model_folder import ModelFolder, read_optional_json
from score.folder.weights import Weights
from score.hardware.drivers import CPU_INDEX, CUDA, CUDA_INDEX
from score.model.probes import Finding, Probes
from score.package import card
from score.package.contents import IGNORE, SCORE, SERVING, allow_list, copy_code
from score.package.export import is_package
from score.settings import Settings
from score.storage import atomic
from score.storage.outputs import check_folder, check_replaceable
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Cleaning, Name
from score.type_aliases import FloatPrecision

if TYPE_CHECKING:
    from score.package.reference import Reference

REQUIREMENTS = (
    "azureml-inference-server-http>=1.5",
    "backports.zstd>=1",
    "brotli>=1.2",
    "certifi",
    "ftfy==6.3.1",
    "mlflow==3.17.2",
    "numpy>=1.26,<3",
    "orjson>=3.10",
    "pandas>=2.2,<3",
    "pillow==13.0.0",
    "pyarrow>=18",
    "safetensors>=0.5",
    "tokenizers>=0.21,!=0.23.1,!=0.23.2",
    "torch==2.13.0",
    "tqdm>=4.66",
    "typing_extensions",
    "urllib3>=2.6,<3",
)
"""What a package's environment installs; libraries that affect pixels, ids, vectors are pinned."""

OPENVINO = "openvino==2026.4.1"
"""What the environment of a package with int8 installs in addition."""

Torch = Literal["cpu", "cuda"]
"""Which build of PyTorch conda.yaml asks for."""

# pip prefers the index's build to PyPI's, because 2.13.0+cpu is a later version than 2.13.0.
_BUILDS: Mapping[Torch, tuple[str, str]] = {
    "cpu": (CPU_INDEX, "without CUDA, gigabytes smaller than PyPI's: for CPUs"),
    "cuda": (CUDA_INDEX, f"for CUDA {CUDA}, which works with older drivers than PyPI's build"),
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
    config:  # settings, which `load_model(…, model_config=…)` and variables SCORE_… override
      batch_size: 0
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
# The environment of this model, for Azure ML and for `mlflow models serve`. PyTorch is the build
# $build.
# `score package --torch cpu` or `cuda` selects it.
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
# UV_TORCH_BACKEND=cpu. No index is named here: uv would take every
# package that the index has from it alone.
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
    as in `resolve.find`. `name`: the model's in the metadata, by default the checkpoint's.
    `precision`: of the stored weights, by default each tensor's own. `int8`: a folder or CSV of
    images to calibrate int8 towers on; `force`: write them even if they find too few of fp32's
    nearest images. `torch`: the build of PyTorch in conda.yaml, which Azure installs where it
    serves the package without an entry script. `overwrite`: `output` may be an older package.
    `say` is called with progress messages, the licence first. Raises RequestError for an `output`
    that may not be written, ModelError for an unusable checkpoint and for a model whose outputs
    here differ from the reference's.
    """
    _check_transformers()
    check = _output_check(output, checkpoint, overwrite=overwrite)
    if int8:
        _int8().check_images(int8)
    builder = _Builder(
        find(
            str(checkpoint),
            source=source,
            architecture=architecture,
            tokenizer=tokenizer,
            revision=revision,
            weights=weights,
            base=base,
            cleaning=cleaning,
            say=say,
        ),
        say,
    )
    builder.check_reference()
    with atomic.folder(output, check) as root:
        model = root / "model"
        findings = builder.write_model(model, precision)
        agreement = str(_int8().quantise(model, int8, force=force, say=say)) if int8 else None
        builder.write_rest(root, name, torch, findings, agreement)
    return output


def _check_transformers() -> None:
    """Raises ImportError where transformers is not installed: before anything is downloaded.

    What imports it is itself imported once the checkpoint is known: that takes seconds.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")


def _output_check(output: Path, checkpoint: str | Path, *, overwrite: bool) -> Callable[[], None]:
    """Checks that `output` may be written; returns the check to repeat before it is replaced."""
    check = partial(check_folder, output, is_package, overwrite=overwrite)
    check(inputs=[Path(checkpoint)] if Path(checkpoint).exists() else [])
    check_replaceable(output)
    return check


def _int8() -> ModuleType:
    """The module that quantises, imported when needed: NNCF is an extra of its own."""
    from score.package import int8

    return int8


@dataclass
class _Builder:
    """Writes the files of a package.

    checkpoint: the one to package. After `write_model` its tensors are those of the written files:
    nothing keeps the checkpoint's own files in memory then.
    """

    checkpoint: ResolvedCheckpoint
    say: Callable[[str], None]

    def check_reference(self) -> None:
        """Raises ModelError where the reference implementation's tokenizer is not installed."""
        from score.package.reference import check_installed

        check_installed(self.checkpoint.source)
        self.say(f"texts: {card.texts(self.checkpoint)}")

    def write_model(self, model: Path, precision: FloatPrecision | None) -> Sequence[Finding]:
        """Writes weights, tokenizer and probes to a new folder; returns the probes' results here.

        Raises ModelError if a weight or an output differs from the reference's.
        """
        from score.package.probe_set import reference_probes
        from score.package.reference import Reference

        self.say(f"writing {self.checkpoint.source.architecture.parameters:,} parameters")
        if unused := self.checkpoint.source.unused():
            self.say(f"{len(unused)} tensors of the checkpoint are not used, such as {unused[0]}")
        canonical.write(self.checkpoint.source, model, precision)
        self.say("computing the reference implementation's vectors")
        with Reference(self.checkpoint.source, model, precision) as reference:
            # Releases the checkpoint's own files, hence their memory.
            written = replace(self.checkpoint.source, tensors=Weights.open(model), parts={})
            self.checkpoint = replace(self.checkpoint, source=written)
            _check_weights(reference, written.tensors)
            reference_probes(reference).write(model)
        return _check_outputs(model)

    def write_rest(
        self,
        root: Path,
        name: str | None,
        torch: Torch,
        findings: Sequence[Finding],
        agreement: str | None,
    ) -> None:
        """Writes what surrounds `model/`: licences, code, MLflow's files and the model card."""
        title = "".join(c for c in name or self.checkpoint.name if c.isprintable())
        for file in self.checkpoint.licence_files:
            shutil.copyfile(file, root / "model" / file.name)
        base = self.checkpoint.base
        for file in base.licence_files if base else ():  # of the tokenizer, not the weights
            shutil.copyfile(file, root / "model" / f"{file.name}.base")
        copy_code(SCORE, root / "score")
        describe(root, title, _metadata(self.checkpoint), torch)
        card.write(root, title, self.checkpoint, findings, _example_image(), agreement)


def _check_weights(reference: Reference, written: Tensors) -> None:
    """Raises ModelError unless every written tensor equals the reference's, to the last bit.

    Comparing vectors would not find every difference: they do not depend on the logit scale, and
    one rounded tensor among hundreds may stay within their tolerance.
    """
    for name in reference.differing(written):
        raise ModelError(
            f"this checkpoint cannot be packaged: {name} was not written as the reference "
            "implementation reads it"
        )


def _check_outputs(model: Path) -> Sequence[Finding]:
    """Computes the probes without the reference. Raises ModelError where one differs."""
    settings = Settings(device="cpu", precision="fp32", engine="torch", verify="off")
    embedder = Embedder.load(model, settings)
    probes = Probes.read(model)
    assert probes is not None, "written above"
    findings = probes.check(*parts_of(embedder))
    broken = [finding for finding in findings if not finding.passed]
    if broken:
        raise ModelError(
            f"this checkpoint cannot be packaged: computed here, {broken[0]}"
            + (f" (and {len(broken) - 1} more)" if broken[1:] else "")
        )
    return findings


def _metadata(checkpoint: ResolvedCheckpoint) -> dict[str, str]:
    entry, base = checkpoint.entry, checkpoint.base
    known = {
        "source": checkpoint.origin,
        "revision": checkpoint.revision,
        "license": entry.licence.name if entry else None,
        "architecture": entry.architecture_name if entry else None,
        "base": base.name if base else None,
    }
    return {key: value for key, value in known.items() if value}


def describe(
    root: Path,
    name: str,
    metadata: Mapping[str, str] | None = None,
    torch: Torch = "cpu",
    code: Mapping[str, Sequence[str]] = SERVING,
) -> None:
    """Writes the files that make a folder with `model/` and `score/` an MLflow model.

    `name`, `metadata`: of the model, for `MLmodel`. `torch`: the build of PyTorch in conda.yaml.
    `code`: the files of `score/` that Azure ML may upload, folder → names.
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
    example = {
        "columns": ["image", "text"],
        "data": [[_example_image(), ""], ["", "a photo of a cat"]],
    }
    for file, content in (
        ("input_example.json", example),
        (
            "serving_input_example.json",
            {"dataframe_split": example},
        ),  # a request body for MLflow's server
    ):
        (root / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
    (root / IGNORE).write_text(allow_list(root, code), encoding="utf-8")


def _quoted(text: str) -> str:
    """A YAML string. JSON's syntax is valid YAML if characters are not escaped as surrogates."""
    return json.dumps("".join(c for c in text if c.isprintable()), ensure_ascii=False)


def _example_image() -> str:
    """A red square of 8×8 pixels: a PNG in base64."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
