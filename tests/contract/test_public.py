"""The public interface: what `score` exports, and that its signatures name nothing private."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import contextlib
import dataclasses
import importlib
import inspect
import pathlib
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import score
from score.extras import EXTRAS
from score.folder.model_folder import EMBEDDED

ROOT = Path(__file__).parents[2]

SURFACE = """
Cancellation(seconds: float = 0) -> None
Cancellation.cancel(self) -> None
Cancellation.check(self) -> None
Cancellation.expire(self) -> None
Cancellation.interrupting(self, interrupt: Callable[[], object]) -> AbstractContextManager[None]
Cancellation.is_cancelled -> bool
Cancellation.left -> float | None
Cancellation.limit(self, seconds: float) -> None
Cancellation.sleep(self, seconds: float) -> None
Embedder
Embedder.answer(self, rows: Sequence[Row], params: Params | None = None, cancellation: Cancellation | None = None, *, classify_texts: bool = False) -> list[Record]
Embedder.classify(self, image: ImageInput, labels: Labels | Iterable[str] | Mapping[str, str | Sequence[str]], *, confidence: float = 0.0) -> dict[str, float]
Embedder.dimension -> int
Embedder.embed(self, rows: Iterable[Row], params: Params | None = None, *, root: Path | None = None, on_fetched: OnFetched | None = None) -> Iterator[Record]
Embedder.embed_image(self, image: ImageInput) -> Vector
Embedder.embed_text(self, text: str) -> Vector
Embedder.label_vectors(self, labels: Labels, truncate: Truncate = end) -> Matrix
Embedder.load(folder: str | Path = EMBEDDED, settings: Settings | None = None) -> Embedder
Embedder.precision -> str
Hit(score: float, row: dict[str, Any]) -> None
Index(folder: str | Path) -> None
Index.check(self, dimension: int, fingerprint: str = , model: str = ) -> None
Index.check_condition(self, where: str) -> None
Index.clusters(self, count: int = 20, *, hdbscan: bool = False, min_size: int = 5) -> list[list[Hit]]
Index.column -> str
Index.dimension -> int
Index.duplicates(self, threshold: float = 0.95) -> list[list[Hit]]
Index.fingerprint -> str
Index.search(self, query: Vector, top: int = 10, *, where: str | None = None, exact: bool = False) -> list[Hit]
Labels(names: tuple[str, ...], prompts: tuple[tuple[str, ...], ...]) -> None
Labels.from_prompts(ontology: Mapping[str, str]) -> Labels
Labels.parse(value: object) -> Labels | None
Params(normalize: bool = False, truncate: Truncate = end, on_error: OnError = raise, labels: Labels | None = None, confidence: float = 0.0) -> None
Params.parse(value: object, *, on_error: OnError = raise) -> Params
Params.wire(self) -> dict[str, Any]
Record(image_features: Vector | None = None, text_features: Vector | None = None, error: RowError | None = None, labels: tuple[str, ...] | None = None, probs: tuple[float, ...] | None = None, tokens: int = 0) -> None
Row(image: object = None, text: object = None) -> None
ScoreError
Settings(…)
Settings.from_env(environ: Mapping[str, str], otherwise: Mapping[str, object] | None = None) -> Settings
Settings.replace(self, texts: Mapping[str, str], *, spelled: Callable[[str], str] | None = None) -> Settings
Summary(rows: int = 0, earlier: int = 0, earlier_errors: int = 0, position: int = 0, failed: Counter[str] = <factory>, seconds: float = 0.0, retried: int = 0, recovered: int = 0, waiting: int = 0, stopped: bool = False) -> None
Summary.errors -> int
Summary.good -> int
Summary.hint -> str
Summary.rate -> float
build_index(table: str | Path | Sequence[str | Path], folder: str | Path, column: FeatureColumn = image_features, *, overwrite: bool = False, append: bool = False) -> int
cosine(a: Vector, b: Vector) -> float
embed_file(embedder: Embedder, source: str | Path, output: str | Path, params: Params | None = None, progress: Callable[[Summary], None] | None = None, summary: Summary | None = None) -> Summary
"""  # noqa: E501

MODULES = ("score.type_aliases", "score.errors", "score.settings", "score.spark")
"""Public modules beside `score` itself."""

MADE_BY_LOAD = {"Embedder"}
"""Classes whose constructors are not public: it takes the parts that `load` reads from a folder."""


def public() -> dict[str, Any]:
    return {name: getattr(score, name) for name in score.__all__}


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of ours defines."""
    for name, member in vars(owner).items():
        if not name.startswith("_") and isinstance(
            member, property | classmethod | types.FunctionType
        ):
            yield f"{owner.__name__}.{name}", member


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, method and property, and the constructors."""
    for name, thing in public().items():
        if isinstance(thing, types.FunctionType):
            yield name, thing
            continue
        if name not in MADE_BY_LOAD and "__init__" in vars(thing):
            yield f"{name}.__init__", thing.__init__
        for path, member in members(thing):
            if isinstance(member, property):
                assert member.fget
                yield path, member.fget
            else:
                yield path, getattr(member, "__func__", member)


def lines() -> Iterator[str]:
    """The surface as text."""
    for name, thing in sorted(public().items()):
        if name == "Settings":  # its fields are the settings
            yield f"{name}(…)"
        elif (isinstance(thing, type) and issubclass(thing, Exception)) or name in MADE_BY_LOAD:
            yield name
        else:
            yield f"{name}{shown(inspect.signature(thing))}"
        for path, member in sorted(members(thing)) if isinstance(thing, type) else ():
            if isinstance(member, property):
                yield f"{path} -> {inspect.signature(member.fget).return_annotation}"
            else:
                yield f"{path}{shown(inspect.signature(getattr(thing, path.split('.')[1])))}"


def shown(signature: inspect.Signature) -> str:
    return str(signature).replace("'", "").replace(repr(EMBEDDED).replace("'", ""), "EMBEDDED")


def named(annotation: Any) -> Iterator[type]:
    """The classes that an annotation is made of."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return
    if isinstance(annotation, list):  # a Callable's parameters
        inner = tuple(annotation)
    for part in inner:
        yield from named(part)
    if isinstance(annotation, types.UnionType) or origin in (typing.Union, types.UnionType):
        return
    thing = origin or annotation
    if isinstance(thing, type):
        yield thing


def annotations(function: Callable[..., Any]) -> Iterator[type]:
    for annotation in typing.get_type_hints(function).values():
        yield from named(annotation)


def reachable() -> set[Any]:
    """What a user can import by a public path."""
    things = set(public().values())
    for name in MODULES[:3]:
        module = importlib.import_module(name)
        things |= {
            thing
            for key, thing in vars(module).items()
            if isinstance(thing, type) and not key.startswith("_")
        }
    return things


def test_the_surface_is_what_is_listed() -> None:
    assert "\n".join(lines()) == SURFACE.strip()


@pytest.mark.parametrize(("path", "function"), [*functions()])
def test_a_public_signature_names_public_types_alone(
    path: str, function: Callable[..., Any]
) -> None:
    signature = inspect.signature(function)
    assert "_" not in {str(p.annotation)[:1] for p in signature.parameters.values()}
    known = reachable()
    for kind in annotations(function):
        where = f"{kind.__module__}.{kind.__qualname__}"
        assert not any(part.startswith("_") for part in where.split(".")), f"{path}: {where}"
        assert not kind.__module__.startswith("score") or kind in known, f"{path}: {where}"


def names(annotation: object) -> set[str]:
    """The names that an annotation is written with."""
    nodes = ast.walk(ast.parse(str(annotation)))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize(("path", "function"), [*functions()])
def test_a_public_signature_names_what_can_be_imported(
    path: str, function: Callable[..., Any]
) -> None:
    """Aliases, too: `typing.get_type_hints` shows what they stand for, not their names."""
    doors = (score, builtins, typing, collections, collections.abc, contextlib, pathlib)
    doors += tuple(map(importlib.import_module, MODULES[:3]))
    for annotation in inspect.get_annotations(function).values():
        for name in names(annotation):
            assert any(hasattr(door, name) for door in doors), f"{path}: {name}"


def test_an_embedder_shows_nothing_that_is_not_public(embedder: score.Embedder) -> None:
    """Its parts are for this package's own modules; see `score.core.embedder.parts_of`."""
    assert {name for name in vars(embedder) if not name.startswith("_")} == {"name", "settings"}


@pytest.mark.parametrize("name", score.__all__)
def test_a_public_field_names_public_types_alone(name: str) -> None:
    thing = public()[name]
    if not isinstance(thing, type) or not dataclasses.is_dataclass(thing):
        return
    for field, annotation in typing.get_type_hints(thing).items():
        for kind in named(annotation):
            assert kind in reachable() or not kind.__module__.startswith("score"), field


@pytest.mark.parametrize(("path", "function"), [*functions()])
def test_every_public_name_says_what_it_is(path: str, function: Callable[..., Any]) -> None:
    owner = public()[path.partition(".")[0]]
    assert owner.__doc__
    assert not owner.__doc__.startswith(f"{owner.__name__}("), "a dataclass's own signature"
    if not path.endswith("__init__"):
        assert function.__doc__


def test_an_unlisted_annotation_is_refused() -> None:
    """The check sees through unions, generics and callables."""

    class _Hidden: ...

    assert [*named(dict[str, list[_Hidden | None]])].count(_Hidden) == 1
    assert _Hidden in [*named(Callable[[_Hidden], int])]
    assert score.Embedder in [*named(typing.Optional[score.Embedder])]  # noqa: UP045


# -- lazily, and for type checkers -------------------------------------------------------------


def imported_for_type_checkers() -> dict[str, str]:
    """Name → module, of the imports that type checkers and editors see."""
    tree = ast.parse((ROOT / "score/__init__.py").read_text("utf-8"))
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(a.name in score.__all__ for a in node.names)
        for alias in node.names
    }


def test_type_checkers_see_what_programs_get() -> None:
    assert set(imported_for_type_checkers()) == set(score.__all__)
    for name, module in imported_for_type_checkers().items():
        assert getattr(importlib.import_module(module), name) is getattr(score, name)
    assert (ROOT / "score/py.typed").is_file()
    assert set(score.__all__) <= set(dir(score))
    assert sorted(score.__all__) == score.__all__


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'score' has no attribute 'Embeder'"):
        score.Embeder  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'embedd'"):
        exec("from score import embedd")


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.process
def test_importing_score_loads_nothing_else() -> None:
    script = "import sys; before = set(sys.modules); import score; dir(score); score.__version__"
    loaded = python(f"{script}; print(*(set(sys.modules) - before))").split()
    foreign = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"score"}


@pytest.mark.process
@pytest.mark.parametrize("name", ["Settings", "Labels", "Row", "ScoreError", "cosine"])
def test_a_light_name_comes_without_the_heavy_libraries(name: str) -> None:
    loaded = python(f"import sys; from score import {name}; print(*sys.modules)").split()
    assert not {"torch", "pandas", "pyarrow", "PIL", "transformers"} & set(loaded)


@pytest.mark.process
def test_a_library_that_is_missing_is_named_with_what_installs_it() -> None:
    script = """
import sys
sys.modules["pyarrow"] = None
try:
    from score import Index
except ImportError as error:
    print(error)
"""
    assert EXTRAS["pyarrow"] in python(script)
    assert "pip install" in python(script)
