"""Which names are MLflow's, and the folders they are downloaded to. (Models: test_mlflow.py.)"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from score.folder import registry
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

SCRIPT = """
import sys
from score.folder import registry
print(registry._folder(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("models:/clip/1", True),
        ("models:/clip@champion", True),
        (Path("models:/clip/1"), True),
        ("runs:/0123/model", True),
        ("model", False),
        ("models/clip", False),
        ("./models:/clip", False),
        (Path("/models/clip"), False),
    ],
)
def test_mlflows_names_are_told_from_folders(model: str | Path, named: bool) -> None:
    assert registry.is_uri(model) is named


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files, this process's and its children's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has downloaded something, and where to: below `temporary`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    assert temporary in folder.parents
    (folder / "weights").write_bytes(b"w")
    return process, folder


def test_a_download_goes_with_its_process(temporary: Path) -> None:
    process, folder = start(temporary)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not folder.exists()
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_download(temporary: Path) -> None:
    (temporary / "clip-endpoints-download-not-a-folder").write_text("mine")
    killed, left = start(temporary)
    living, kept = start(temporary)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
        assert left.exists()
        own = registry._folder()
        assert not left.exists()
        assert (kept / "weights").exists()
        assert (temporary / "clip-endpoints-download-not-a-folder").exists()
        assert own.is_dir()
        assert os.stat(own).st_mode & 0o077 == 0
    finally:
        living.communicate(timeout=60)
    assert not kept.exists()
