"""The rooms of `score/`: imports go down only, and each outside library has its doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "score"


class Room(NamedTuple):
    """What lives there, its floor, and the rooms that it imports from, all of lower floors."""

    floor: int
    what: str
    imports: str


ROOMS = {
    "errors": Room(0, "every error, and what it means for the caller", ""),
    "extras": Room(0, "which extra of the distribution brings a library", ""),
    "settings": Room(1, "frozen settings with named defaults", "errors"),
    "contract": Room(1, "rows, records, params, labels, and their JSON", "errors"),
    "hardware": Room(1, "processor, memory, GPUs and their drivers", ""),
    "storage": Room(1, "what a job writes: where it may, and whole or not at all", "errors"),
    "console": Room(1, "parser and exit codes of every command line", "errors extras"),
    "folder": Room(1, "a model folder: configuration, weights, names in MLflow", "errors extras"),
    "fetch": Room(2, "an image cell → bytes; the network's only door", "contract errors settings"),
    "images": Room(2, "bytes → RGB → pixels", "errors settings"),
    "texts": Room(2, "text → token ids", "contract errors extras folder"),
    "tables": Room(2, "CSV, parquet, pandas ↔ rows and records", "contract errors"),
    "model": Room(
        3,
        "pixels and token ids → vectors: towers, engines, probes",
        "contract errors extras folder hardware images settings storage texts",
    ),
    "entry": Room(3, "what Azure's entry scripts share", "contract extras fetch"),
    "core": Room(
        4,
        "rows → records: downloads, decoding and encoding side by side",
        "contract errors fetch folder hardware images model settings texts",
    ),
    "checkpoints": Room(
        4,
        "checkpoints as published → the canonical model folder",
        "console errors folder images model storage texts",
    ),
    "jobs": Room(
        5,
        "what the batch commands do: embed, label, split, merge",
        "contract core errors fetch images settings storage tables",
    ),
    "index": Room(
        5, "vectors in a folder, and the nearest to a query", "contract errors model storage"
    ),
    "serve": Room(5, "the model behind HTTP", "core errors"),
    "training": Room(
        5,
        "trains the embedded model",
        "checkpoints console errors folder hardware images model texts",
    ),
    "online": Room(6, "entry script of a real-time endpoint", "core entry errors folder settings"),
    "pyfunc": Room(6, "the MLflow model", "contract core errors settings tables"),
    "batch": Room(
        6, "entry script of a batch endpoint", "contract core errors folder jobs settings tables"
    ),
    "shards": Room(
        6,
        "entry script of jobs whose result is files",
        "contract core errors folder jobs settings tables",
    ),
    "spark": Room(6, "the same in Spark's workers", "contract core folder settings tables"),
    "evaluation": Room(
        6,
        "how right a model is: metrics, prompts, reports",
        "contract core errors folder images jobs model storage tables",
    ),
    "package": Room(
        7,
        "a checkpoint → a proven MLflow model folder",
        "checkpoints console contract core errors evaluation extras folder hardware images jobs "
        "model settings storage texts",
    ),
    "deploy": Room(
        8,
        "Azure ML: sizes, plans, YAML, checks, and a stand-in for Azure",
        "checkpoints console contract errors fetch folder hardware package settings storage tables",
    ),
    "cli": Room(
        9,
        "the verbs of the command line, a file each",
        "checkpoints console contract core deploy errors evaluation folder index jobs package "
        "serve settings storage tables",
    ),
    "__main__": Room(10, "`python -m score`", "cli console"),
}
"""Rooms of one floor never meet."""

# Who may use what: a room, or a module. NumPy is everybody's.
DOORS = {
    "torch": "model.engines model.towers folder.weights checkpoints package.reference "
    "training.train",
    "transformers": "package.reference training.train",
    "huggingface_hub": "checkpoints.hub",
    "h5py": "checkpoints.hdf5",
    "safetensors": "folder.weights checkpoints.canonical",
    "tokenizers": "texts.added_tokens texts.tokenizer training.train",
    "ftfy": "texts.cleaning",
    "open_clip": "",  # its tokenizer's file alone is loaded, by package.reference
    "PIL": "images checkpoints.kerashub checkpoints.openclip package.build package.probe_set "
    "package.reference training.train evaluation.webpage",
    "urllib3": "fetch deploy.harness",
    "brotli": "fetch.codings",
    "backports": "fetch.codings",
    "certifi": "fetch.connections",
    "ipaddress": "fetch.addresses settings",
    "socket": "fetch.connections serve deploy.front deploy.harness",
    "ssl": "fetch",
    "http": "fetch deploy.front",
    "pandas": "tables.frames pyfunc batch spark entry.collector deploy.nocode_batch "
    "deploy.nocode_online",
    "pyarrow": "tables jobs.merge index",
    "pyspark": "spark",
    "csv": "tables jobs.split jobs.merge",
    "mlflow": "pyfunc folder.registry package.register deploy.nocode_batch deploy.nocode_online",
    "azure": "deploy.rules.schemas",
    "marshmallow": "deploy.rules.schemas",
    "packaging": "deploy.rules.packages",
    "fcntl": "hardware.gpus folder.registry",
    "openvino": "model.engines.openvino",
    "nncf": "package.int8",
    "azureml": "entry.collector",
    "azureml_inference_server_http": "online",
    "starlette": "serve",
    "anyio": "serve",
    "uvicorn": "serve",
    "tqdm": "cli.progress",
    "matplotlib": "evaluation.charts",
    "argparse": "__main__ cli console shards spark deploy.cli deploy.flags deploy.harness "
    "deploy.running deploy.scripts",
    "emoji": "training.train",
    "yaml": "checkpoints.provenance evaluation.report deploy.cli deploy.harness deploy.skus "
    "deploy.rules.contents deploy.rules.documents",
    "pickle": "",
    "subprocess": "deploy.harness deploy.image deploy.simulate",
}

ENVIRONMENT = "pyfunc online batch shards spark __main__ deploy.harness deploy.image \
deploy.simulate deploy.nocode_batch deploy.nocode_online"
"""Who reads `os.environ`: the surfaces, and what starts processes."""

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


def ours(module: str) -> set[str]:
    """The modules of `score` that a module imports."""
    names = (name.partition(".")[2] for name in imports(module) if name.startswith("score."))
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in MODULES and name != module}


def room(module: str) -> str:
    return module.partition(".")[0]


def within(module: str, doors: str) -> bool:
    return any(module == door or module.startswith(f"{door}.") for door in doors.split())


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_what_they_say(module: str) -> None:
    allowed = {room(module), *ROOMS[room(module)].imports.split()}
    for other in ours(module):
        assert room(other) in allowed, f"{module} imports {other}"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_from_lower_floors(name: str) -> None:
    used = {room(other) for module in MODULES if room(module) == name for other in ours(module)}
    assert set(ROOMS[name].imports.split()) == used - {name}
    for other in ROOMS[name].imports.split():
        assert ROOMS[other].floor < ROOMS[name].floor, f"{name} imports {other}"


def test_no_room_is_without_a_description() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS)
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert folders == {name for name in ROOMS if (PACKAGE / name).is_dir()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter({module: ours(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_libraries_come_in_by_their_doors(module: str) -> None:
    for name in imports(module):
        library = name.split(".")[0]
        assert within(module, DOORS.get(library, module)), f"{module} imports {library}"


def test_only_surfaces_read_the_environment() -> None:
    readers = {name for name, file in MODULES.items() if "os.environ" in file.read_text()}
    assert readers <= set(ENVIRONMENT.split())


def test_the_core_needs_no_extras() -> None:
    extras = {"pandas", "pyarrow", "mlflow", "starlette", "uvicorn"}
    for module in MODULES:
        if ROOMS[room(module)].floor < 5 and room(module) not in ("tables", "entry", "checkpoints"):
            names = {name.split(".")[0] for name in imports(module)}
            assert not extras & names or module == "folder.registry", module


def test_the_root_holds_only_what_outsiders_name() -> None:
    assert len([file for file in PACKAGE.iterdir() if file.is_file()]) <= 12
