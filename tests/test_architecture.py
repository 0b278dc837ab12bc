"""The rooms of `score/`: imports go down only, and each outside library has its doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.no_cover  # reads our modules and calls none

PACKAGE = Path(__file__).parent.parent / "score"


class Room(NamedTuple):
    """What lives there, its floor, and the rooms that it imports from, all of lower floors."""

    floor: int
    what: str
    imports: str


ROOMS = {
    "errors": Room(0, "every error, and what it means for the caller", ""),
    "type_aliases": Room(0, "names of types that rooms share and public signatures mention", ""),
    "extras": Room(0, "which extra of the distribution brings a library", ""),
    "wording": Room(0, "values in messages, and what was meant by an unknown word", ""),
    "hardware": Room(0, "processor, memory, GPUs and their drivers, locks", ""),
    "validation": Room(
        0, "what is wrong with a text that somebody has configured, and what `~` is", ""
    ),
    "pages": Room(0, "self-contained pages of HTML, and what they are made of", ""),
    "settings": Room(1, "frozen settings with named defaults", "errors validation"),
    "contract": Room(1, "rows, records, params, labels, and their JSON", "errors"),
    "concurrency": Room(1, "threads: the end of a call, and turns among calls", "errors"),
    "storage": Room(
        1, "where a job may write; files that appear when they are complete", "errors validation"
    ),
    "console": Room(1, "parser and exit codes of every command line", "errors extras"),
    "folder": Room(
        1, "a model folder: configuration, weights, names in MLflow", "errors extras hardware"
    ),
    "fetch": Room(
        2,
        "an image cell → bytes; the network's only door",
        "concurrency contract errors settings storage validation",
    ),
    "images": Room(2, "bytes → RGB → pixels", "errors settings"),
    "texts": Room(2, "text → token ids", "errors extras folder"),
    "tables": Room(
        2, "CSV, JSON, parquet, tar, pandas ↔ rows and records", "contract errors storage"
    ),
    "model": Room(
        3,
        "pixels and token ids → vectors: towers, engines, probes",
        "concurrency errors extras folder hardware images settings storage texts",
    ),
    "dialects": Room(
        3,
        "requests and answers in the shapes of other servers, as rows and records",
        "contract errors tables",
    ),
    "core": Room(
        4,
        "rows → records: downloads, decoding and encoding side by side",
        "concurrency contract dialects errors fetch folder hardware images model settings texts",
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
    "job_folder": Room(
        6,
        "the folder of a long job, which goes on where it stopped",
        "contract core errors fetch folder hardware jobs settings storage tables",
    ),
    "executors": Room(
        7,
        "a job's shards, made by several processes: of this machine, or of many",
        "console contract core errors hardware job_folder jobs settings spark tables",
    ),
    "job_report": Room(
        7,
        "the closing report of a long job",
        "contract errors fetch images job_folder pages storage tables",
    ),
    "entry": Room(
        5,
        "what the entry scripts of Azure, MLflow and Spark share",
        "concurrency contract core errors extras fetch folder hardware settings tables",
    ),
    "serve": Room(
        5,
        "the model behind HTTP",
        "concurrency console contract core dialects errors extras hardware settings storage "
        "validation",
    ),
    "training": Room(
        5,
        "trains the embedded model",
        "checkpoints console errors folder hardware images model texts",
    ),
    "online": Room(6, "entry script of a real-time endpoint", "core entry errors"),
    "pyfunc": Room(6, "the MLflow model", "contract core entry settings tables"),
    "batch": Room(6, "entry script of a batch endpoint", "contract core entry errors jobs tables"),
    "shards": Room(
        6,
        "entry script of jobs whose result is files",
        "contract core entry errors jobs storage",
    ),
    "spark": Room(6, "the same in Spark's workers", "contract core entry folder tables"),
    "evaluation": Room(
        6,
        "how right a model is: metrics, prompts, reports",
        "contract core errors folder images jobs model pages storage tables",
    ),
    "index": Room(
        7,
        "vectors in a folder, the nearest to a query, near-duplicates, clusters",
        "contract errors extras fetch hardware images model pages storage tables",
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
        "checkpoints console contract core deploy errors evaluation executors folder index "
        "job_folder job_report jobs model package serve settings storage tables validation",
    ),
    "__main__": Room(10, "`python -m score`", "cli console settings"),
}
"""Rooms of one floor never meet."""

SHARED = {
    *("type_aliases", "wording.durations", "wording.json_faults", "wording.quoting"),
    *("wording.suggestions", "wording.system_errors"),
}
"""Names of types, and words of messages, which every room may import."""

# Who may use what: a room, or a module. NumPy is everybody's.
DOORS = {
    "torch": "model.engines model.heads model.image_tower model.text_tower model.transformer "
    "folder.weights checkpoints package.reference training",
    "transformers": "package.reference training",
    "sentencepiece": "package.reference",
    "google": "package.reference",  # protobuf
    "huggingface_hub": "checkpoints.hub",
    "h5py": "checkpoints.hdf5",
    "safetensors": "folder.weights checkpoints.canonical",
    "tokenizers": "texts training",
    "ftfy": "texts.cleaning",
    "open_clip": "",  # its tokenizer's file alone is loaded, by package.reference
    "PIL": "images checkpoints.kerashub checkpoints.openclip package.build package.probe_set "
    "package.reference training pages.webpage",
    "urllib3": "fetch index.azure_search deploy.simulate.client",
    "brotli": "fetch.content_encoding",
    "orjson": "contract.wire",
    "backports": "fetch.content_encoding storage.byte_source",
    "certifi": "fetch.connections",
    "requests": "serve.spans",
    "ipaddress": "fetch.address_rule serve.local_only validation.hosts",
    "socket": "fetch.connections fetch.look_up serve deploy.simulate.front deploy.simulate.ports",
    "ssl": "fetch serve.tls",
    "http": "fetch deploy.simulate.front",
    "pandas": "tables.frames pyfunc batch spark entry deploy.simulate.nocode_batch "
    "deploy.simulate.nocode_online",
    "pyarrow": "tables job_folder.stored jobs.merge index",
    "pyspark": "spark executors.spark",
    "ray": "executors.ray",
    "sqlite3": "storage.blob_store",
    "lancedb": "index.lance",
    "sklearn": "index.clusters",
    "csv": "tables jobs.split jobs.merge",
    "fsspec": "storage.remote",
    "s3fs": "storage.remote",
    "adlfs": "storage.remote",
    "gcsfs": "storage.remote",
    "aiohttp": "storage.remote",
    "mlflow": "entry folder.registry package.register deploy.simulate.nocode_batch "
    "deploy.simulate.nocode_online",
    "azure": "deploy.rules.schemas",
    "marshmallow": "deploy.rules.schemas",
    "packaging": "deploy.rules.packages",
    "fcntl": "hardware.locks",
    "openvino": "model.engines.openvino_conversion model.engines.openvino_towers",
    "nncf": "package.int8",
    "azureml": "entry.collector",
    "azureml_inference_server_http": "online",
    "starlette": "serve",
    "anyio": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve.metrics",
    "h11": "serve.connection",
    "opentelemetry": "serve.spans",
    "tqdm": "console.progress",
    "matplotlib": "evaluation.charts",
    "argparse": "__main__ cli console shards spark deploy.cli deploy.simulate.parallel",
    "emoji": "training.pictograms",
    "yaml": "folder.mlmodel deploy.card deploy.skus "
    "deploy.simulate.definition deploy.rules.environment_definition deploy.rules.documents",
    "pickle": "",
    "subprocess": "checkpoints.tokenizer_trial images.decoder_process deploy.simulate.client "
    "deploy.simulate.dockerfile deploy.simulate.online deploy.simulate.runner",
}

ENVIRONMENT = "pyfunc online batch shards spark __main__ hardware.processor deploy.simulate.online \
deploy.simulate.dockerfile deploy.simulate.runner deploy.simulate.nocode_batch \
deploy.simulate.nocode_online serve.tracing cli.index"
"""Who reads `os.environ`: the surfaces, what starts processes, OpenTelemetry's door, what asks how
many threads libraries use, and the key of a search service."""

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
    names = [
        name.partition(".")[2] for name in imports(module) if name.partition(".")[0] == "score"
    ]
    for name in names:
        assert "." in name or name == "__version__", f"{module}: `score.{name}` bypasses the floors"
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in MODULES and name != module} - SHARED


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


@pytest.mark.parametrize("line", ["from score import Embedder", "from score import cli"])
def test_the_public_door_is_not_for_rooms(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module.py").write_text(f"{line}\n")
    monkeypatch.setitem(MODULES, "module", tmp_path / "module.py")
    with pytest.raises(AssertionError, match="bypasses the floors"):
        ours("module")


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


def test_parquet_is_read_with_its_checksums() -> None:
    """Footers alone are read elsewhere: they have none."""
    readers = ("pq.ParquetFile(", "pq.read_table(", "pq.ParquetDataset(")
    found = {
        name for name, file in MODULES.items() if any(map(file.read_text().__contains__, readers))
    }
    assert found == {"tables.checked_parquet"}


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


MOST_LINES_OF_A_MODULE, MOST_LINES_OF_A_FUNCTION = 450, 60


def functions(module: str) -> Iterator[tuple[str, int]]:
    """Every function of a module, methods and inner ones too, with its lines, decorators apart."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{module}.{node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module: str) -> None:
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES_OF_A_MODULE, f"{lines} lines"
    long = {name: size for name, size in functions(module) if size > MOST_LINES_OF_A_FUNCTION}
    assert not long, long


@pytest.mark.parametrize("door", ["online", "batch", "shards", "spark", "pyfunc"])
def test_front_doors_are_thin(door: str) -> None:
    assert len(MODULES[door].read_text(encoding="utf-8").splitlines()) <= 120


def test_outputs_are_written_by_storage() -> None:
    """Whatever else makes temporary folders makes them for what is no output."""
    temporary = {
        name for name in MODULES if any(part.startswith("tempfile") for part in imports(name))
    }
    others = {
        "deploy.simulate.folders",
        "folder.registry",
        "hardware.gpus",
        "index.build",
        "package.register",
        "spark",
    }
    assert temporary == others
    replacing = {name for name, file in MODULES.items() if '".part' in file.read_text()}
    assert not replacing


def test_files_are_hashed_by_storage() -> None:
    hashing = {name for name, file in MODULES.items() if "file_digest" in file.read_text()}
    assert hashing == {"storage.digest"}


def test_items_are_paired_with_records_in_one_place() -> None:
    queues = {name for name in MODULES if "collections.deque" in imports(name)}
    assert {room(name) for name in queues} == {"core"}
