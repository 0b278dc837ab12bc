"""What the pages name is there: files, modules, public names, tests, settings, extras."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from score.settings import names
from tests.support import pages
from tests.support.pages import ROOT
from tests.test_architecture import MODULES, ROOMS

pytestmark = pytest.mark.no_cover  # reads pages

PAGES = [*pages.pages(), ROOT / "samples/photos/README.md"]
ARCHITECTURE = ROOT / "docs/architecture.md"
SECURITY = ROOT / "docs/security.md"

_FOLDERS = "score|tests|docs|samples|components|environment|benchmarks|model"
# In a code span, or a command: a path below one of the folders. `my-…` is the reader's.
_PATH = re.compile(rf"(?:`|^|[\s@])((?:{_FOLDERS})/(?!\S*\bmy-)[\w/.-]*\w)/?(?=[`\s,;:]|$)", re.M)
IN_PACKAGES = {"model/int8/agreement.json"}
"""Files that the clone does not have."""
MISTAKES = {"BACH_SIZE"}
"""Settings that a page shows to be refused."""
_MODULE = re.compile(r"python -m ((?:score|benchmarks|docs)[\w.]*\w)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    paths = set(_PATH.findall(text_of(page))) - IN_PACKAGES
    gone = sorted(path for path in paths if not (ROOT / path).exists())
    assert not gone, f"{pages.name(page)} names {', '.join(gone)}"


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_commands_that_a_page_names_are_modules(page: Path) -> None:
    for module in _MODULE.findall(text_of(page)):
        spec = find_spec(module)
        assert spec, module
        if spec.submodule_search_locations:
            assert find_spec(f"{module}.__main__"), module


def imported(page: Path) -> Iterator[tuple[str, str]]:
    """Module and name of what a page's Python imports from `score`."""
    for block in pages.blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("score"):
                    yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_python_imports_public_names(page: Path) -> None:
    for module, name in imported(page):
        assert module in ("score", "score.errors", "score.settings", "score.spark"), module
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_pages_name_much() -> None:
    """Else the tests above could pass by finding nothing."""
    assert len({path for page in PAGES for path in _PATH.findall(text_of(page))}) > 100
    assert len({name for page in PAGES for name in _MODULE.findall(text_of(page))}) >= 9
    assert {name for page in PAGES for name in imported(page)} >= {
        ("score", "Embedder"),
        ("score", "cosine"),
    }


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", text_of(page)))
    assert named <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert page != SECURITY or len(named) > 10


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`SCORE_([A-Z_]+)\b", text_of(page)))
    assert named - MISTAKES <= {one.upper() for one in names()}


def test_the_architecture_lists_every_room_on_its_floor() -> None:
    listed = {}
    for floor, rooms in re.findall(r"^\| (\d+) \| (`score/.*?) \|", text_of(ARCHITECTURE), re.M):
        for room in re.findall(r"`score/(\w+)(?:/|\.py)`", rooms):
            assert room not in listed
            listed[room] = int(floor)
    assert listed == {name: room.floor for name, room in ROOMS.items()}


def test_names_that_the_architecture_explains_are_in_the_code() -> None:
    spans = re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", text_of(ARCHITECTURE))
    named = {span.rpartition(".")[2] for span in spans}
    marked = {name for name in named if name.startswith("_") or name.isupper()}
    assert len(marked) > 20
    tests = [ROOT / "tests/test_architecture.py", ROOT / "tests/contract/test_contract.py"]
    code = "\n".join(text_of(file) for file in [*MODULES.values(), *tests])
    known = {*re.findall(r"\w+", code), *(f"SCORE_{name.upper()}" for name in names())}
    assert named <= known


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("score/fetch/retries.py", "with_retries"),
        ("score/contract/wire.py", "render"),
        ("score/checkpoints/openclip.py", "NAMES"),
    ],
)
def test_where_a_newcomer_looks(file: str, name: str) -> None:
    assert f"`{file}`" in text_of(ARCHITECTURE)
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert name in defined


def test_the_drawing_names_modules() -> None:
    drawing = (ROOT / "docs/architecture.svg").read_text(encoding="utf-8")
    named = re.findall(r"[\w/]+\.py\b|\b\w+/(?=[\s<])", drawing)
    assert len(named) >= 12
    for path in named:
        assert (ROOT / "score" / path).exists(), path


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_extras_that_a_page_installs_exist(page: Path) -> None:
    installed = re.findall(r"(?:'\.|\.whl\)|clip-endpoints)\[([\w,]+)\]", text_of(page))
    assert {extra for extras in installed for extra in extras.split(",")} <= set(EXTRAS)
    assert page.name != "install.md" or installed


def test_the_page_on_installation_lists_every_extra() -> None:
    rows = re.findall(r"^\| (`.*?) \|", text_of(ROOT / "docs/install.md"), re.M)
    listed = [extra for row in rows for extra in re.findall(r"`([\w-]+)`", row)]
    assert sorted(listed) == sorted({*EXTRAS} - {"demo", "docs", "dev"})


def test_every_cell_of_the_readmes_tables_says_something() -> None:
    rows = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "|" in line]
    tables = [line for line in rows if line.startswith("|") and not re.match(r"\|[-|]+$", line)]
    assert len(tables) > 10
    for line in tables:
        label, *cells = line.strip("|").split("|")
        for cell in cells:
            assert re.search(r"\w\w", cell), f"{label}: {cell!r}"


@pytest.mark.parametrize("words", ["pipx install", "uvx --from", "whl/cpu", "UV_TORCH_BACKEND=cpu"])
def test_the_page_on_installing_names_each_way(words: str) -> None:
    """And how to get PyTorch without CUDA by each."""
    assert words in (ROOT / "docs/install.md").read_text("utf-8")
