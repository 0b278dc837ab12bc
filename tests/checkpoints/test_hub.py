"""Checkpoints from the Hub: a small server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from score.__main__ import main
from score.checkpoints import hub, random_checkpoint
from score.checkpoints.catalog import CATALOG
from tests.checkpoints.test_layouts import SMALL, write_open_clip
from tests.support.open_clip_reference import OpenClip
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


class Hub(BaseHTTPRequestHandler):
    """One repository, `owner/clip`, whose files are those of a folder."""

    folder: ClassVar[Path]
    log: ClassVar[list[tuple[str, str, str | None]]] = []
    breaks: ClassVar[Counter[str]] = Counter()  # file → how often its download breaks off
    head: ClassVar[str] = COMMIT
    moves: ClassVar[str | None] = None  # the file after whose download the head is another commit

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/clip"):
            self._answer_json(self._tree() if "/tree/" in path else self._info(path))
        elif path.startswith("/owner/clip/resolve/"):
            self._file(path.split("/", 5)[5])
        else:
            self._missing()

    do_HEAD = do_GET

    def _info(self, path: str) -> Any:
        revision = path.partition("/revision/")[2]
        commit = {"": self.head, "main": self.head, "other": OTHER}.get(revision, revision)
        files = [{"rfilename": name} for name in self._names()]
        return {"id": "owner/clip", "sha": commit, "siblings": files, "tags": [], "private": False}

    def _tree(self) -> Any:
        return [
            {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": "0"}
            for name in self._names()
        ]

    def _names(self) -> list[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def _file(self, name: str) -> None:
        file = self.folder / name
        if not file.is_file():
            self._missing()
            return
        data = file.read_bytes()
        asked = self.headers.get("Range")
        self.log.append((self.command, name, asked))
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        part = data[start:]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.path.split("/")[4])
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.breaks[name] > 0:
            self.breaks[name] -= 1
            part = part[:-100_000]  # late: the client writes down 10 MB at a time
            self.close_connection = True
        if name == self.moves:
            type(self).head = OTHER
        self.wfile.write(part)

    def _answer_json(self, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _missing(self) -> None:
        self.send_response(404)
        if self.path.startswith("/api"):
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the Hub holds: more than packaging needs."""
    folder = random_checkpoint.write(tmp_path / "hub", random_checkpoint.TINY)
    (folder / "pytorch_model.bin").write_bytes(b"never asked for")
    (folder / "tf_model.h5").write_bytes(b"never asked for")
    (folder / "modeling.py").write_text("raise SystemExit('executed')")
    (folder / "LICENSE").write_text("free as in tests")
    return folder


@pytest.fixture
def endpoint(repository: Path) -> Iterator[str]:
    handler = type("Handler", (Hub,), {"folder": repository, "log": [], "breaks": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    server.handler = handler  # type: ignore[attr-defined]
    _SERVERS.append(handler)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
    _SERVERS.clear()


_SERVERS: list[type[Hub]] = []


Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


def in_a_process(endpoint: str, cache: Path, *arguments: str) -> Result:
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "score", "package", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`score package` in this process: starting another takes longer than the command itself."""

    def run(endpoint: str, cache: Path, *arguments: str) -> Result:
        # What `in_a_process` sets by the environment, which the library reads when it is imported.
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        code = main(["package", *arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def test_a_hub_id_becomes_a_package(endpoint: str, repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "dist" / "clip"
    result = in_a_process(endpoint, tmp_path / "cache", "owner/clip", "--output", str(output))
    assert result.returncode == 0, result.stderr
    assert "owner/clip is not in the catalog" in result.stderr
    card = (output / "README.md").read_text()
    assert f"huggingface.co/owner/clip, revision `{COMMIT}`" in card
    assert f'revision: "{COMMIT}"' in (output / "MLmodel").read_text()
    assert (output / "model" / "LICENSE").read_text() == "free as in tests"
    asked = {name for method, name, _ in _SERVERS[0].log if method == "GET"}
    assert "model.safetensors" in asked
    assert not asked & {"pytorch_model.bin", "tf_model.h5", "modeling.py"}
    # Again, from the cache: no file is fetched twice, and none at all without a network.
    before = [entry for entry in _SERVERS[0].log if entry[0] == "GET"]
    again = tmp_path / "dist" / "again"
    result = in_a_process(endpoint, tmp_path / "cache", "owner/clip", "--output", str(again))
    assert result.returncode == 0, result.stderr
    assert [entry for entry in _SERVERS[0].log if entry[0] == "GET"] == before
    for file in (output / "model").iterdir():
        assert file.read_bytes() == (again / "model" / file.name).read_bytes()


def test_a_base_is_downloaded_without_its_weights(
    score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    bare, output = tmp_path / "tuned", tmp_path / "p"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(repository / name, bare)
    arguments = [str(bare), "--base", "owner/clip", "--output", str(output)]
    result = score(endpoint, tmp_path / "cache", *arguments)
    assert result.returncode == 0, result.stderr
    assert f'base: "huggingface.co/owner/clip@{COMMIT}"' in (output / "MLmodel").read_text()
    assert (output / "model" / "LICENSE.base").read_text() == "free as in tests"
    asked = {name for method, name, _ in _SERVERS[0].log if method == "GET"}
    assert {"tokenizer.json", "preprocessor_config.json"} <= asked
    assert not {name for name in asked if name.endswith((".safetensors", ".bin"))}
    # What is in the cache now is no whole checkpoint.
    offline = score("http://127.0.0.1:9", tmp_path / "cache", "owner/clip", "--output", "x")
    assert offline.returncode == 2
    assert "cannot reach the Hub for owner/clip" in offline.stderr


def test_a_revision_is_asked_for(score: Run, endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "p"
    result = score(endpoint, tmp_path / "cache", "owner/clip@other", "--output", str(output))
    assert result.returncode == 0, result.stderr
    assert f'revision: "{OTHER}"' in (output / "MLmodel").read_text()


def test_a_branch_that_moves_during_a_download(score: Run, endpoint: str, tmp_path: Path) -> None:
    """Configuration and weights are of one commit, which is found again without a network."""
    _SERVERS[0].moves = "config.json"
    for where in (endpoint, "http://127.0.0.1:9"):
        output = tmp_path / where[-4:]
        result = score(where, tmp_path / "cache", "owner/clip", "--output", str(output))
        assert result.returncode == 0, result.stderr
        assert f'revision: "{COMMIT}"' in (output / "MLmodel").read_text()


def test_a_download_that_breaks_off_is_resumed(
    score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    _SERVERS[0].breaks["model.safetensors"] = 1
    result = score(endpoint, tmp_path / "cache", "owner/clip", "--output", str(tmp_path / "p"))
    assert result.returncode == 0, result.stderr
    asked = [range_ for _, name, range_ in _SERVERS[0].log if name == "model.safetensors"]
    (resumed,) = filter(None, asked)
    assert int(resumed.removeprefix("bytes=").split("-")[0]) >= 10_000_000
    packaged = tmp_path / "p" / "model" / "model.safetensors"
    assert packaged.read_bytes() == (repository / "model.safetensors").read_bytes()


def test_an_openclip_repository(
    score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    """Such as LAION's ViT-B/16, which comes in no other layout."""
    shutil.rmtree(repository)
    write_open_clip(repository, OpenClip(SMALL), SMALL, {})
    (repository / "open_clip_pytorch_model.bin").write_bytes(b"never asked for")
    result = score(endpoint, tmp_path / "cache", "owner/clip", "--output", str(tmp_path / "p"))
    assert result.returncode == 0, result.stderr
    assert "OpenCLIP" in (tmp_path / "p" / "README.md").read_text()
    asked = {name for method, name, _ in _SERVERS[0].log if method == "GET"}
    assert "open_clip_pytorch_model.bin" not in asked


@pytest.mark.parametrize("where", ["on the Hub", "downloaded"])
def test_a_repository_of_timms(
    where: str, score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    """Its image tower alone, in timm's layout, beside OpenCLIP's files of the whole model."""
    shutil.rmtree(repository)
    write_open_clip(repository, OpenClip(SMALL), SMALL, {})
    (repository / "model.safetensors").write_bytes(b"never asked for")
    (repository / "config.json").write_text('{"architecture": "vit_small_patch16_clip_64"}')
    checkpoint = "owner/clip" if where == "on the Hub" else str(repository)
    result = score(endpoint, tmp_path / "cache", checkpoint, "--output", str(tmp_path / "p"))
    assert result.returncode == 0, result.stderr
    assert "OpenCLIP" in (tmp_path / "p" / "README.md").read_text()


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "vocab.txt"]
)
def test_a_file_of_a_tokenizer_is_asked_for(
    file: str, score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    (repository / file).write_bytes(b"?")
    score(endpoint, tmp_path / "cache", "owner/clip", "--output", str(tmp_path / "p"))
    assert file in {name for _, name, _ in _SERVERS[0].log}


@pytest.mark.parametrize("content", [[1], None, 0, "ViT-B-32"])
def test_an_openclip_configuration_that_describes_nothing(
    content: object, score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    (repository / "config.json").unlink()
    (repository / "open_clip_config.json").write_text(json.dumps({"model_cfg": content}))
    result = score(endpoint, tmp_path / "cache", "owner/clip", "--output", str(tmp_path / "p"))
    assert result.returncode == 2
    assert "cannot reach the Hub" not in result.stderr
    assert "model_cfg" in result.stderr or "vision_cfg" in result.stderr
    assert "model.safetensors" not in {name for _, name, _ in _SERVERS[0].log}


def test_a_repository_that_is_not_there(score: Run, endpoint: str, tmp_path: Path) -> None:
    result = score(endpoint, tmp_path / "cache", "owner/nothing", "--output", str(tmp_path / "p"))
    assert result.returncode == 2
    assert "score: the Hub does not give owner/nothing: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_repository_without_weights(
    score: Run, endpoint: str, repository: Path, tmp_path: Path
) -> None:
    (repository / "model.safetensors").unlink()
    (repository / "pytorch_model.bin").unlink()
    result = score(endpoint, tmp_path / "cache", "owner/clip", "--output", str(tmp_path / "p"))
    assert result.returncode == 2
    assert "holds no weights that can be packaged" in result.stderr


@pytest.mark.parametrize("name", ["openai-vit-b-32", "openai/clip-vit-base-patch32"])
def test_without_a_network_it_says_what_to_run_elsewhere(
    score: Run, name: str, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    result = score(nowhere, tmp_path / "cache", name, "--output", str(tmp_path / "p"))
    assert result.returncode == 2
    revision = CATALOG["openai-vit-b-32"].revision
    command = f"hf download openai/clip-vit-base-patch32 --revision {revision} --local-dir"
    assert "cannot reach the Hub for openai/clip-vit-base-patch32" in result.stderr
    assert command in result.stderr
    again = f"--source openai/clip-vit-base-patch32@{revision} --output"
    assert f"score package clip-vit-base-patch32 {again}" in result.stderr
    assert "Licence MIT" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("openai/clip-vit-base-patch32", True),
        ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", True),
        ("facebook/metaclip-b16-fullcc2.5b@main", True),
        ("openai", False),
        ("a/b/c", False),
        ("../clip", False),
        ("a/..", False),
        ("/etc/passwd", False),
        ("a/b c", False),
        ("https://huggingface.co/a/b", False),
    ],
)
def test_what_is_an_id(text: str, is_one: bool) -> None:
    assert hub.is_id(text) == is_one
    if is_one:
        validate_repo_id(text.partition("@")[0])


def test_the_catalogs_ids_are_ids() -> None:
    for entry in CATALOG.values():
        assert hub.is_id(entry.hub)
        try:
            validate_repo_id(entry.hub)
        except HFValidationError as error:
            pytest.fail(str(error))
        assert entry.revision is None or (len(entry.revision) == 40 and int(entry.revision, 16))
