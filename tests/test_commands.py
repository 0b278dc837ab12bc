"""`python -m …` and libraries that are missing: a sentence that says what installs them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from score.extras import EXTRAS, install, missing
from tests.surfaces import ROOT

# Import names that are not their distribution's; what comes with another library.
DISTRIBUTIONS = {
    "azure": "azure-ai-ml",
    "azureml": "azureml-ai-monitoring",
    "azureml_inference_server_http": "azureml-inference-server-http",
    "marshmallow": "azure-ai-ml",
    "yaml": "pyyaml",
}


def test_every_library_is_in_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for library, extra in EXTRAS.items():
        listed = [
            re.split(r"[<>=~\[;]", item)[0] for item in project["optional-dependencies"][extra]
        ]
        assert DISTRIBUTIONS.get(library, library) in listed, library


def test_hints_are_made_in_one_place() -> None:
    """Wherever it says "pip install", the table has been asked."""
    files = [*(ROOT / "score").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    saying = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if re.search(r"pip install [^i…]", file.read_text(encoding="utf-8"))
    }
    assert saying <= {"score/extras.py", "score/deploy/simulate/image.py"}


def test_what_a_hint_says() -> None:
    error = ImportError("No module named 'transformers'", name="transformers.models")
    assert missing(error) == (
        "No module named 'transformers': pip install -e '.[package]' in the clone"
    )
    assert install("torch") == "pip install -e . in the clone"


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
        (["score", "serve"], "uvicorn", "serve"),
        (["score", "serve"], "starlette", "serve"),
        (["score", "package", "model", "--output", "o"], "transformers", "package"),
        (["score", "azure", "plan"], "yaml", "package"),
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
@pytest.mark.parametrize("module", ["bench", "memory", "scaling", "profile", "embedded"])
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
