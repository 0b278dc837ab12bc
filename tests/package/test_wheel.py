"""The wheel and the sdist: what is in them, and that the wheel works alone, from anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from score import __version__
from score.package.contents import PARTS
from tests.support.bare_environment import BareEnvironment
from tests.support.clone import code
from tests.support.surfaces import ROOT, Served, free_port

pytestmark = pytest.mark.process

BODY = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone's files, as Git lists them: a build leaves its own beside them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder = tmp_path_factory.mktemp("source") / "clone"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("samples/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def built(source: Path, target: Path) -> Path:
    """The wheel of a source folder, built with this environment's setuptools."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run(
        [*pip, "--no-index", "--wheel-dir", str(target), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=source, check=True, capture_output=True
    )
    (file,) = target.glob("*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stale = source / "build/lib/score/stale.py"  # a build before this one
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_text("", encoding="utf-8")
    return built(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> BareEnvironment:
    return BareEnvironment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def files(wheel: Path) -> dict[str, bytes]:
    """Name → content, without the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(("/", "/RECORD"))]
        return {name: archive.read(name) for name in names}


def test_a_wheel_has_the_code_the_embedded_model_and_the_licences(wheel: Path) -> None:
    found = files(wheel)
    inside = {name.removeprefix("score/embedded/") for name in found if "/embedded/" in name}
    model = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("model/*")}
    parts = {name for name in PARTS if (ROOT / name).is_file()}
    assert inside == model | parts
    info = f"clip_endpoints-{__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(found)
    assert {name for name in found if not name.startswith(("score/embedded/", info))} == code()
    for name in inside:
        assert found[f"score/embedded/{name}"] == (ROOT / name).read_bytes(), name


def test_an_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md"} <= {f.name for f in folder.iterdir()}
    again = files(built(folder, tmp_path / "wheel"))
    assert again == files(wheel)


def test_the_version_stands_once(installed: BareEnvironment, tmp_path: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert __version__ not in re.findall(r'^version = "(.*)"', project, re.MULTILINE)
    done = installed.run("score", "--version", cwd=tmp_path, python=False)
    assert done.stdout == f"score {__version__}\n"
    show = "from importlib.metadata import version; print(version('clip-endpoints'))"
    assert installed.run("-c", show, cwd=tmp_path).stdout == f"{__version__}\n"


def test_the_embedded_model_loads_from_anywhere(
    installed: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    show = (
        "import json, score; from score.core.embedder import Embedder\n"
        "from score.settings import Settings; settings = Settings(precision='fp32')\n"
        "assert '/site-packages/score/' in score.__file__, score.__file__\n"
        "print(json.dumps(Embedder.load(settings=settings).embed_text('a cat').tolist()))\n"
    )
    done = installed.run("-c", show, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), wanted, rtol=1e-4, atol=1e-5)


def score(
    installed: BareEnvironment, folder: Path, *words: str | Path, code: int = 0
) -> tuple[str, str]:
    """stdout and stderr of the console command, run in a folder, which must exit with a code."""
    done = installed.run("score", *words, cwd=folder, python=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_a_table_is_embedded(
    installed: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    (tmp_path / "in.csv").write_text("text\na cat\n", encoding="utf-8")
    score(installed, tmp_path, "embed", "in.csv", "--output", "out.parquet")
    vector = pq.read_table(tmp_path / "out.parquet").column("text_features")[0].as_py()
    np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-5)


def test_the_model_is_served(
    installed: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["env", f"--chdir={tmp_path}", str(installed.bin / "score"), "serve"]
    environ = installed.environ()
    served = Served([*command, "--port", str(port)], f"{url}/score", f"{url}/ping", **environ)
    try:
        served.wait()
        (record,) = served.ask(BODY).records or []
    finally:
        served.stop()
    np.testing.assert_allclose(record["text_features"], wanted, rtol=1e-4, atol=1e-5)


def test_a_library_that_is_missing_is_named_as_a_user_installs_it(
    installed: BareEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\na cat\n", encoding="utf-8")
    for library, extra, words in (
        ("pyarrow", "batch", ["embed", "in.csv", "--output", "out.parquet"]),
        ("starlette", "serve", ["serve"]),
        ("yaml", "plan", ["azure", "plan"]),
        ("transformers", "package", ["package", "x", "--output", "y"]),
    ):
        start = f"import sys; sys.modules[{library!r}] = None; from score.__main__ import main\n"
        done = installed.run("-c", f"{start}sys.exit(main())", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.endswith(f": pip install 'clip-endpoints[{extra}]'\n"), done.stderr


def test_azure_is_planned_and_rendered(installed: BareEnvironment, tmp_path: Path) -> None:
    plan, _ = score(installed, tmp_path, "azure", "plan", "--sku", "Standard_F4s_v2")
    assert plan.startswith("the embedded model on Standard_F4s_v2")
    every, _ = score(installed, tmp_path, "azure", "plan", "--model", "openai-vit-b-32")
    assert "Standard_" in every
    words = ["azure", "render", "online", "--sku", "Standard_F4s_v2", "--output", "online.yml"]
    score(installed, tmp_path, *words)
    assert "code_configuration" in (tmp_path / "online.yml").read_text(encoding="utf-8")
    model, _ = score(installed, tmp_path, "azure", "render", "model", "--path", "emoji")
    assert "clip-endpoints-emoji" in model


def test_a_package_is_exported_verified_and_loaded(
    installed: BareEnvironment, tmp_path: Path
) -> None:
    score(installed, tmp_path, "export", "--output", "emoji")
    shown, _ = score(installed, tmp_path, "verify", "emoji")
    assert "as promised" in shown
    show = "import mlflow.pyfunc, pandas as pd\n"
    show += "model = mlflow.pyfunc.load_model('emoji')\n"
    show += "print(len(model.predict(pd.DataFrame({'text': ['a cat']}))))\n"
    assert installed.run("-c", show, cwd=tmp_path).stdout == "1\n"


def test_what_needs_a_clone_says_so(installed: BareEnvironment, tmp_path: Path) -> None:
    _, said = score(installed, tmp_path, "azure", "check", code=2)
    assert said.startswith("score: name the YAML file or folder to check: ")


def test_a_folder_of_ones_own_is_checked(installed: BareEnvironment, tmp_path: Path) -> None:
    words = ["azure", "render", "endpoint", "--name", "mine", "--output", "endpoint.yml"]
    score(installed, tmp_path, *words)
    _, said = score(installed, tmp_path, "azure", "check", "endpoint.yml")
    assert said.endswith("no problems in 1 file\n")


def test_an_exported_package_is_simulated(installed: BareEnvironment, tmp_path: Path) -> None:
    score(installed, tmp_path, "export", "--output", "emoji")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("text\na cat\n", encoding="utf-8")
    render = ["azure", "render", "batch", "--sku", "Standard_F4s_v2", "--code", "emoji"]
    score(installed, tmp_path, *render, "--output", "batch.yml")
    simulate = ["azure", "simulate", "batch", "batch.yml", "--input", "in", "--output", "out"]
    score(installed, tmp_path, *simulate)
    assert list((tmp_path / "out").rglob("*.parquet")) or list((tmp_path / "out").rglob("*.csv"))
