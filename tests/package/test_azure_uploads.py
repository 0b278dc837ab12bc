"""What Azure's SDK would upload for each `code:`, `path:` and `build:`: no less, and no secret."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_environment, load_model
from azure.ai.ml._utils._asset_utils import (
    get_ignore_file,
    get_object_hash,
    get_upload_files_from_folder,
)
from azure.ai.ml._utils._endpoint_utils import upload_dependencies
from azure.ai.ml.entities import Model
from azure.ai.ml.entities import _load_functions as loaders
from azure.ai.ml.entities._assets import Code

from score.checkpoints import random_checkpoint
from score.folder.model_folder import EMBEDDED
from score.package.build import package
from score.package.contents import CODE, IGNORE, SERVING, allow_list
from score.package.export import export
from tests.support.clone import code
from tests.support.surfaces import ROOT

STRAYS = (
    *(".env", "id_rsa", "credentials.json", "key.pem", "secrets.yml", "my.csv", "photo.jpg"),
    *("notes.ipynb", "out/vectors.parquet", ".git/config", ".venv/lib/score/stray.py"),
    *(".ssh/id_ed25519", "backup/model/model.safetensors", "__pycache__/stray.pyc"),
)
FOLDERS = ("score", "model", "components", "environment")
WHOLE = sorted(
    str(file.relative_to(ROOT))
    for folder in ("components", "environment")
    for file in (ROOT / folder).rglob("*.yml")
    if {"code", "code_configuration", "task", "build", "path"}
    & set(yaml.safe_load(file.read_text(encoding="utf-8")))
)


def plant(folder: Path) -> None:
    """Puts what is nobody's business beside what is there."""
    for name in STRAYS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_text("secret", encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository, with strays in every folder that is uploaded from."""
    root = tmp_path_factory.mktemp("strays") / "clone"
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", ".mypy_cache")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file() and file.name != ".git":  # of a worktree it is a file
            shutil.copyfile(file, root / file.name)
    contexts = ("environment/cpu", "environment/gpu", "components/spark/src")
    for folder in (".", "model", *CODE, *contexts):
        plant(root / folder)
    return root


def listed(artifact: Any) -> set[str]:
    """What goes up with an asset, as the SDK's `_check_and_upload_path` finds it."""
    path = Path(artifact.path)
    path = path if path.is_absolute() else Path(artifact.base_path, path)
    ignore = getattr(artifact, "_ignore_file", None) or get_ignore_file(path)
    return {name for _, name in get_upload_files_from_folder(path.resolve(), ignore_file=ignore)}


class Orchestrator:
    """Stands where a deployment's code is registered: keeps it."""

    def __init__(self) -> None:
        self.codes: list[Code] = []

    def get_asset_arm_id(self, asset: Any, azureml_type: str) -> str:
        """Any id."""
        self.codes += [asset] if isinstance(asset, Code) else []
        return "id"


def uploads(file: Path) -> Iterator[set[str]]:
    """For each folder that a YAML file has uploaded, what goes."""
    kind = yaml.safe_load(file.read_text(encoding="utf-8"))["$schema"].rpartition("/")[2]
    kind = kind.removesuffix(".schema.json")
    if kind.endswith("Component"):
        with loaders.load_component(file)._build_code() as code:
            yield listed(code)
    elif kind == "model":
        yield listed(load_model(file))
    elif kind == "environment":
        yield listed(load_environment(file))
    else:
        orchestrator = Orchestrator()
        online = kind == "managedOnlineDeployment"
        load = loaders.load_online_deployment if online else loaders.load_model_batch_deployment
        upload_dependencies(load(file), orchestrator)
        yield from map(listed, orchestrator.codes)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the embedded package, and all of the clone's code."""
    folder = export(EMBEDDED, tmp_path_factory.mktemp("parts") / "emoji")
    files = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    return {file.as_posix() for file in files if file.name != IGNORE} | code()


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_uploads_what_is_needed_and_nothing_else(
    name: str, clone: Path, parts: set[str]
) -> None:
    (found,) = uploads(clone / name)
    if name.startswith("environment/"):
        assert found == {"Dockerfile", "requirements.txt"}
    elif name.startswith("components/spark/"):
        assert found == {"embed.py", "score.zip"}
    else:
        assert found == parts


def test_files_with_something_to_upload_are_found() -> None:
    assert len(WHOLE) >= 12


def test_what_an_image_copies_is_uploaded(clone: Path) -> None:
    for device in ("cpu", "gpu"):
        text = (ROOT / "environment" / device / "Dockerfile").read_text(encoding="utf-8")
        copied = {line.split()[1] for line in text.splitlines() if line.startswith("COPY ")}
        (found,) = uploads(clone / f"environment/{device}.yml")
        assert copied <= found


@pytest.mark.process
def test_what_is_uploaded_is_enough(clone: Path, parts: set[str], tmp_path: Path) -> None:
    for name in parts:
        (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clone / name, tmp_path / "code" / name)
    (tmp_path / "in.csv").write_text("text\na cat\n", encoding="utf-8")
    for words in (
        ["split", "../in.csv", "--output", "../shards"],
        ["verify", "."],
        ["embed", "../in.csv", "--model", ".", "--output", "../vectors.parquet"],
    ):
        command = [sys.executable, "-m", "score", *words]
        subprocess.run(command, cwd=tmp_path / "code", check=True, capture_output=True)


def test_the_clones_list_is_what_the_builder_writes() -> None:
    assert (ROOT / IGNORE).read_text(encoding="utf-8") == allow_list(ROOT, CODE)


@pytest.mark.process
def test_all_code_is_on_the_list() -> None:
    """A new folder of the package, or a file of data, belongs into `contents.CODE`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "score"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert code() == {name for name in tracked.split("\0") if (ROOT / name).is_file()}


@pytest.mark.parametrize(
    "changed", ["model/config.json", "score/checkpoints/data/clip/LICENSE", "MLmodel"]
)
def test_a_model_that_changed_is_another_upload(clone: Path, changed: str, tmp_path: Path) -> None:
    """Azure's storage keeps a model under a hash, and takes what has it for the same."""
    copy = shutil.copytree(clone, tmp_path / "clone", ignore=shutil.ignore_patterns(".venv", "out"))
    before = get_object_hash(copy, get_ignore_file(copy))
    (copy / "score/.env").write_text("another", encoding="utf-8")
    assert get_object_hash(copy, get_ignore_file(copy)) == before
    (copy / changed).write_text("another", encoding="utf-8")
    assert get_object_hash(copy, get_ignore_file(copy)) != before


@pytest.mark.slow
def test_a_package_lists_its_own_files(tmp_path: Path) -> None:
    source = random_checkpoint.write(tmp_path / "tiny", random_checkpoint.TINY)
    (source / "LICENSE").write_text("free", encoding="utf-8")
    root = package(source, tmp_path / "package")
    written = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    assert listed(Model(name="clip", path=root)) == written - {IGNORE}
    for folder in (".", "model", *SERVING):
        plant(root / folder)
    assert listed(Model(name="clip", path=root)) == written - {IGNORE}


def test_what_lies_in_the_package_score_is_not_packaged(tmp_path: Path) -> None:
    from score.package.contents import copy_code

    shutil.copytree(ROOT / "score", tmp_path / "score")
    for folder in SERVING:
        plant(tmp_path / folder)
    copy_code(tmp_path / "score", tmp_path / "copy/score")
    copied = {
        file.relative_to(tmp_path / "copy").as_posix() for file in tmp_path.glob("copy/**/*.*")
    }
    assert not [
        name for name in copied if Path(name).name in {Path(stray).name for stray in STRAYS}
    ]
    assert "score/model/engines/pytorch.py" in copied


def test_spark_gets_the_package_in_a_zip(clone: Path, parts: set[str]) -> None:
    with loaders.load_component(clone / "components/spark/embed.yml")._build_code() as code:
        names = zipfile.ZipFile(Path(code.path) / "score.zip").namelist()
    files = {name for name in names if not name.endswith("/")}
    assert files == {name for name in parts if name.startswith("score/")}
