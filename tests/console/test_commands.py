"""Command lines that cannot be used, and libraries that are missing: what is said of them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from score import extras
from score.__main__ import main
from score.cli import serve
from score.cli.arguments import settings as settings_of
from score.console.commands import Parser
from score.extras import EXTRAS, install, missing
from score.settings import setting_fields
from tests.support.surfaces import ROOT
from tests.test_architecture import MODULES, imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import names that are not their distribution's; what comes with another library.
DISTRIBUTIONS = {
    "azure": "azure-ai-ml",
    "azureml": "azureml-ai-monitoring",
    "azureml_inference_server_http": "azureml-inference-server-http",
    "google": "protobuf",
    "marshmallow": "azure-ai-ml",
    "opentelemetry": "opentelemetry-sdk",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def distribution(library: str) -> str:
    return canonicalize_name(DISTRIBUTIONS.get(library, library))


def brought(extra: str) -> set[str]:
    """The distributions that an extra names, and those of the extras that it names."""
    names: set[str] = set()
    for item in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if item.name == PROJECT["name"]:
            names |= {name for other in item.extras for name in brought(other)}
        else:
            names.add(canonicalize_name(item.name))
    return names


@pytest.mark.parametrize(("library", "extra"), EXTRAS.items())
def test_every_library_is_brought_by_its_extra(library: str, extra: str) -> None:
    assert distribution(library) in brought(extra)


def test_every_import_is_a_dependency_or_in_the_table() -> None:
    needed = {canonicalize_name(Requirement(item).name) for item in PROJECT["dependencies"]}
    needed = {name.partition("-")[0] for name in needed} | {"PIL", "typing_extensions"}
    imported = {
        name.partition(".")[0] for module in MODULES for name in imports(module) if name != "score"
    }
    standard = {*sys.stdlib_module_names, "compression"}  # Python 3.14's
    foreign = imported - standard - {"score"} - needed - set(extras._ALONE)
    assert foreign == set(EXTRAS) - {"resvg_py"}  # of benchmarks/


def test_hints_are_made_in_one_place() -> None:
    """Wherever it says "pip install", the table has been asked."""
    files = [*(ROOT / "score").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    saying = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if re.search(r"pip install [^i…]", file.read_text(encoding="utf-8"))
    }
    assert saying <= {"score/extras.py", "score/deploy/simulate/dockerfile.py"}


def test_what_a_hint_says() -> None:
    error = ImportError("No module named 'transformers'", name="transformers.models")
    assert missing(error) == (
        "No module named 'transformers': pip install -e '.[package]' in the clone"
    )
    assert install("torch") == "pip install -e . in the clone"


def test_what_a_hint_says_outside_a_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "_CLONE", tmp_path / "pyproject.toml")
    assert install("pyarrow.parquet") == "pip install 'clip-endpoints[batch]'"
    assert install("torch") == "pip install clip-endpoints"
    assert install("ftfy") == "pip install ftfy==6.3.1"


def ended(*arguments: str, without: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and stderr of `python -m …` where some libraries are not installed."""
    code = "import runpy, sys\n"
    code += f"for name in {without!r}: sys.modules[name] = None\n"
    code += f"sys.argv = {list(arguments)!r}\n"
    code += f"runpy.run_module({arguments[0]!r}, run_name='__main__', alter_sys=True)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "library", "extra"),
    [
        (["score", "embed", "samples/paths.csv", "--output", "o.csv"], "pyarrow", "batch"),
        (["score", "embed", "s3://bucket/in.csv", "--output", "o.csv"], "s3fs", "s3"),
        (["score", "embed", "gs://bucket/in.csv", "--output", "o.csv"], "gcsfs", "gcs"),
        (["score", "serve"], "uvicorn", "serve"),
        (["score", "serve"], "starlette", "serve"),
        (["score", "package", "model", "--output", "o"], "transformers", "package"),
        (["score", "azure", "plan"], "yaml", "plan"),
        (["score", "index", "x.parquet", "--output", "o"], "lancedb", "search"),
        (["score", "search", "index", "a cat"], "lancedb", "search"),
        (["score.training", "o"], "emoji", "train"),
        (["score.training", "o"], "transformers", "package"),
        (["score.package.default_model", "o"], "transformers", "package"),
        (["benchmarks.bench"], "pandas", "batch"),
        (["benchmarks.contenders", "x", "model"], "pandas", "batch"),
        (["benchmarks.embedded"], "emoji", "train"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    arguments: list[str], library: str, extra: str
) -> None:
    code, message = ended(*arguments, without=(library,))
    assert code == 2
    assert f"pip install -e '.[{extra}]' in the clone" in message
    assert library in message


@pytest.mark.process
@pytest.mark.parametrize("module", ["bench", "memory", "scaling", "profile", "embedded", "server"])
def test_a_model_that_is_none_is_a_sentence(module: str, tmp_path: Path) -> None:
    font = ["--font", __file__] if module == "embedded" else []
    code, message = ended(f"benchmarks.{module}", "--model", "nope", *font)
    assert code == 2
    assert message.startswith("score: ")


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("score.checkpoints.random_checkpoint", "did you mean --seed?"),
        ("score.training", "did you mean --seed?"),
    ],
)
def test_modules_name_what_was_meant_too(module: str, said: str) -> None:
    code, message = ended(module, "tiny", "out", "--sed", "1")
    assert (code, said in message) == (2, True)


@pytest.mark.process
def test_a_checkpoint_is_not_overwritten() -> None:
    code, message = ended("score.checkpoints.random_checkpoint", "tiny", "model")
    assert (code, "model/config.json is there already" in message) == (2, True)


EXAMPLES = tomllib.loads((ROOT / "docs/generator/examples.toml").read_text(encoding="utf-8"))
VERBS = [line for line in EXAMPLES.values() if line.startswith("score ")]


@pytest.mark.parametrize("command", VERBS)
def test_an_unexpected_argument_is_answered_with_the_verbs_own_usage(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *words = shlex.split(command)
    with pytest.raises(SystemExit) as ended:
        main([*words, "-Z"])
    assert ended.value.code == 2
    (name,) = [name for name, line in EXAMPLES.items() if line == command]
    said = capsys.readouterr().err
    assert said.startswith(f"usage: {name} [-h]")
    assert said.endswith(f"{name}: error: unexpected argument '-Z'; see `{name} --help`\n")
    assert len(said.splitlines()) < 15, "settings are not listed"


def test_a_surplus_word_is_unexpected_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["azure", "plan", "ex"])
    assert "usage: score azure plan" in (said := capsys.readouterr().err)
    assert "unexpected argument 'ex'" in said


@pytest.mark.parametrize("words", [[], ["azure"], ["azure", "simulate"], ["evaluate"]])
def test_a_missing_verb_is_told_which_there_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr().err
    assert re.search(r"error: name one of \w+, \w+", said)
    assert said.startswith(f"usage: {' '.join(['score', *words])} [-h]")


@pytest.mark.parametrize("command", VERBS)
def test_the_help_of_a_verb_says_what_it_does(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = [name for name, line in EXAMPLES.items() if line == command]
    with pytest.raises(SystemExit):
        main([*name.split()[1:], "--help"])
    usage, about, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: {name} ")
    assert re.fullmatch(r"[A-Z][^?]+\.", about, re.DOTALL)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ([], False)),
        (["--load-on-first-use"], ([], True)),
        (["--load-on-first-use", "a", "b"], (["a", "b"], True)),
        (["a", "b", "--load-on-first-use"], (["a", "b"], True)),
        (["--load-on-first-use", "--port", "1"], ([], True)),
        (["--no-load-on-first-use", "a"], (["a"], False)),
        (["--load-on-first-use", "--no-load-on-first-use"], ([], False)),
        (["--load-on-first-use", "true", "a"], (["a"], True)),
        (["--load-on-first-use", "No", "a"], (["a"], False)),
        (["--load-on-first-use=1", "a"], (["a"], True)),
        (["--load-on-first-use=false"], ([], False)),
        (["--load-on-first-use", "--", "true"], (["true"], True)),
        (["--", "--load-on-first-use"], (["--load-on-first-use"], False)),
    ],
)
def test_a_boolean_setting_is_a_flag_with_or_without_a_value(
    words: list[str], wanted: tuple[list[str], bool]
) -> None:
    parser = Parser()
    serve.add(parser)
    options = parser.parse_args(words)
    chosen = settings_of(options, {"SCORE_EXIF_ORIENTATION": "true"})
    assert (options.models, chosen.load_on_first_use) == wanted
    assert chosen.exif_orientation is True, "as the variable says"


def test_every_boolean_setting_can_be_switched_off() -> None:
    parser = Parser()
    serve.add(parser)
    for field in setting_fields():
        if isinstance(field.default, bool):
            flag = "--no-" + field.name.replace("_", "-")
            environment = {f"SCORE_{field.name.upper()}": "true"}
            chosen = settings_of(parser.parse_args([flag]), environment)
            assert getattr(chosen, field.name) is False


def test_a_switch_takes_no_other_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--load-on-first-use=maybe"]) == 2
    said = "--load-on-first-use must be true or false, not 'maybe'"
    assert said in capsys.readouterr().err


NEVER_ENDING = """
import atexit, sys, threading
import lancedb
from score.__main__ import main
atexit.register(print, "cleaned up")
threading.Thread(target=threading.Event().wait).start()  # as one of Lance's, in Rust
sys.argv[0] = "score"
sys.exit(main())
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "line",
    [
        "index none --output out",
        "search none cat",
        "dedupe none --output out",
        "cluster none --output out",
    ],
)
def test_a_command_that_uses_lance_ends_whatever_its_threads_do(line: str) -> None:
    """One that called Python while the interpreter was taken down would abort."""
    words = line.split()
    command = [sys.executable, "-c", NEVER_ENDING, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "cleaned up\n"
    assert done.stderr.startswith("score: ")


@pytest.mark.process
def test_output_that_cannot_be_written_is_told() -> None:
    """Though Python keeps it in memory up to the end."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "score", "catalog"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("score: [Errno 28] No space left on device")
    assert done.stderr.count("\n") == 1
