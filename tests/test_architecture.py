"""Imports go down only, and each outside library has its doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "score"

# From the ground up; a module may import only from floors below its own.
FLOORS = [
    {"by_path", "errors", "extras"},
    {"commands", "outputs"},
    {"labels", "settings", "gpus", "drivers", "registry"},
    {"rows", "params", "architecture"},
    {"folder", "addresses", "deadline", "urls", "framing", "codings"},
    {"cells", "connections", "hosts", "room"},
    {"added_tokens", "cleaning"},
    {"decoder_errors", "depth", "metadata", "processors"},
    {"wire", "fetch", "images", "texts", "tables", "writers", "parquet_body", "weights"}
    | {"zeroshot"},
    {"jobs.pictures", "parquet_table", "jobs.contents"},
    {"packing", "towers"},
    {"engine", "machine"},
    {"engines.blocked", "engines.cache"},
    {"engines.pytorch"},
    {"engines.openvino"},
    {"encoder"},
    {"probes"},
    {"precision", "batching"},
    {"embedder"},
    {"endpoint", "frames", "collector"},
    {"pyfunc", "online", "batch", "server", "spark"},
    {"shards", "jobs.split", "jobs.merge", "jobs.index"},
    {"jobs.source", "jobs.verify", "jobs.h5", "jobs.pieces", "jobs.charts"}
    | {"jobs.export", "jobs.webpage"},
    {"jobs.statedict"},
    {"jobs.prompts", "jobs.classfolders", "jobs.metrics"},
    {"jobs.huggingface", "jobs.openclip", "jobs.kerashub", "jobs.catalog"},
    {"jobs.canonical", "jobs.hub"},
    {"jobs.provenance"},
    {"jobs.base"},
    {"jobs.retokenized", "jobs.reference", "jobs.checkpoint"},
    {"jobs.find"},
    {"jobs.promise", "jobs.card", "jobs.int8"},
    {"jobs.package"},
    {"jobs.register"},
    {"jobs.embedded", "jobs.names", "jobs.train"},
    {"jobs.imagefolder", "jobs.evaluate"},
    {"jobs.label", "jobs.report"},
    {"jobs.page"},
    {"deploy.skus", "deploy.simulate", "deploy.image", "deploy.front"}
    | {
        "deploy.values",
        "deploy.limits",
        "deploy.worker",
        "deploy.nocode_batch",
        "deploy.nocode_online",
    },
    {"deploy.names", "deploy.registered", "deploy.smoke"},
    {"deploy.target"},
    {"deploy.scripts"},
    {"deploy.plan"},
    {"deploy.rules.notes", "deploy.rules.spelling"},
    {"deploy.rules.documents"},
    {"deploy.rules.parts", "deploy.rules.images", "deploy.rules.packages"},
    {
        f"deploy.rules.{noun}"
        for noun in ("bindings", "commands", "contents", "endpoints", "names", "ports")
    }
    | {f"deploy.rules.{noun}" for noun in ("ranges", "schemas", "scripts", "sizes", "spark")}
    | {"deploy.rules.variables"},
    {"deploy.rules.references"},
    {f"deploy.rules.{noun}" for noun in ("deployments", "environments", "mlflow_models")}
    | {"deploy.rules.pipelines"},
    {"deploy.check", "deploy.harness"},
    {"deploy.render"},
    {"deploy.scaling"},
    {"deploy.flags"},
    {"deploy.running"},
    {"deploy.cli"},
    {"cli.arguments", "cli.progress"},
    {f"cli.{verb}" for verb in ("azure", "catalog", "embed", "evaluate", "export", "index")}
    | {f"cli.{verb}" for verb in ("label", "merge", "package", "register", "search", "serve")}
    | {"cli.split", "cli.verify"},
    {"__main__"},
]

# Who may use what. NumPy is everybody's.
DOORS = {
    "torch": {"engines.pytorch", "engines.blocked", "engines.openvino", "towers", "weights"}
    | {"jobs.canonical", "jobs.checkpoint", "jobs.kerashub", "jobs.openclip"}
    | {"jobs.h5", "jobs.huggingface", "jobs.reference", "jobs.source", "jobs.statedict"}
    | {"jobs.train"},
    "transformers": {"jobs.reference", "jobs.train"},
    "huggingface_hub": {"jobs.hub"},
    "h5py": {"jobs.h5"},
    "safetensors": {"weights", "jobs.canonical"},
    "tokenizers": {"added_tokens", "texts", "jobs.train"},
    "ftfy": {"cleaning"},
    "open_clip": set(),  # its tokenizer's file alone is loaded, by jobs.reference
    "PIL": {
        "depth",
        "images",
        "jobs.kerashub",
        "jobs.openclip",
        "jobs.package",
        "jobs.promise",
        "jobs.reference",
        "jobs.train",
        "jobs.webpage",
    },
    "urllib3": {"connections", "fetch", "urls", "deploy.harness"},
    "brotli": {"codings"},
    "backports": {"codings"},
    "certifi": {"connections"},
    "ipaddress": {"addresses", "settings"},
    "socket": {"connections", "server", "deploy.front", "deploy.harness"},
    "ssl": {"connections", "fetch"},
    "http": {"connections", "fetch", "framing", "deploy.front"},
    "pandas": {"collector", "frames", "pyfunc", "batch", "spark"}
    | {"deploy.nocode_batch", "deploy.nocode_online"},
    "pyarrow": {"writers", "parquet_body", "parquet_table", "jobs.merge", "jobs.index"},
    "pyspark": {"spark"},
    "csv": {"tables", "writers", "jobs.split", "jobs.merge"},
    "mlflow": {
        "pyfunc",
        "registry",
        "jobs.register",
        "deploy.nocode_batch",
        "deploy.nocode_online",
    },
    "azure": {"deploy.rules.schemas"},
    "marshmallow": {"deploy.rules.schemas"},
    "packaging": {"deploy.rules.packages"},
    "fcntl": {"gpus", "registry"},
    "openvino": {"engines.openvino"},
    "nncf": {"jobs.int8"},
    "azureml": {"collector"},
    "azureml_inference_server_http": {"online"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "tqdm": {"cli.progress"},
    "matplotlib": {"jobs.charts"},
    "argparse": {"__main__", "commands", "deploy.cli", "deploy.harness", "deploy.scripts"}
    | {"deploy.flags", "deploy.running"}
    | {"shards", "spark"}
    | {f"cli.{name}" for name in ("arguments", "azure", "catalog", "embed", "evaluate", "export")}
    | {f"cli.{name}" for name in ("index", "label", "merge", "package", "register", "search")}
    | {"cli.serve", "cli.split", "cli.verify"},
    "emoji": {"jobs.train"},
    "yaml": {
        "jobs.provenance",
        "jobs.report",
        "deploy.cli",
        "deploy.harness",
        "deploy.rules.contents",
        "deploy.rules.documents",
        "deploy.skus",
    },
    "pickle": set(),
    "subprocess": {"deploy.harness", "deploy.image", "deploy.simulate"},
}

MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.name != "__init__.py"
}


def imports(module: str) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports break Azure's entry scripts"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    return next(height for height, names in enumerate(FLOORS) if module in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for name in imports(module):
        parts = name.split(".")
        if parts[0] != "score":
            continue
        below = parts[1:2] in (["cli"], ["deploy"], ["engines"], ["jobs"])
        own = ".".join(parts[1:3]) if below else (parts[1:2] or [""])[0]
        if own in MODULES and own != module:
            assert floor(own) < floor(module), f"{module} imports {own}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_come_in_by_their_doors(module: str) -> None:
    for name in imports(module):
        library = name.split(".")[0]
        assert module in DOORS.get(library, {module}), f"{module} imports {library}"


def test_only_surfaces_read_the_environment() -> None:
    readers = {name for name, file in MODULES.items() if "os.environ" in file.read_text()}
    local = {"deploy.harness", "deploy.image", "deploy.simulate"}  # which start processes
    assert readers <= {"pyfunc", "online", "batch", "shards", "spark", "__main__"} | local | {
        "deploy.nocode_batch",
        "deploy.nocode_online",
    }


def test_the_core_needs_no_extras() -> None:
    extras = {"pandas", "pyarrow", "mlflow", "starlette", "uvicorn"}
    for module in ("embedder", "encoder", "fetch", "images", "texts", "wire", "endpoint"):
        assert not extras & {name.split(".")[0] for name in imports(module)}
