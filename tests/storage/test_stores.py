"""Inputs in S3, Azure Blob Storage, Google Cloud Storage and on web servers, as stand-ins of this
machine answer for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.__main__ import main
from score.deploy.simulate.ports import free_port
from score.errors import RequestError
from score.index.build import build_index
from score.index.index import Index
from score.jobs.line_source import open_lines
from score.storage import remote
from tests.storage.test_remote import TABLES, check
from tests.support.hostile import Authority, Server, say_nothing
from tests.support.images import SAMPLES
from tests.support.job_folders import assert_same, content
from tests.support.object_stores import (
    CLEARED,
    SECRETS,
    STORES,
    azure_environment,
    lance_environment,
    s3_environment,
    web,
)
from tests.support.tables import check_marks

pytestmark = [pytest.mark.process, pytest.mark.slow]

IMAGES = sorted((SAMPLES / "images").glob("*.jpg"))[:7]


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a bucket that holds tables and images."""
    scheme = request.param
    with STORES[scheme]() as environment, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(CLEARED)]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        files = fsspec.filesystem(scheme, skip_instance_cache=True)
        files.mkdir("bucket")
        for name, data in TABLES.items():
            files.pipe(f"bucket/in/{name}", data)
        for image in IMAGES:
            files.pipe(f"bucket/images/{image.stem[0]}/{image.name}", image.read_bytes())
        yield f"{scheme}://bucket"
        type(files).clear_instance_cache()


def put(store: str, name: str, data: bytes) -> None:
    scheme, _, bucket = store.partition("://")
    fsspec.filesystem(scheme).pipe(f"{bucket}/{name}", data)


def assert_no_secret(*texts: str) -> None:
    assert not [secret for secret in SECRETS for text in texts if secret in text]


def embed(source: str, folder: Path, *options: str) -> int:
    return main(["embed", source, "--output", str(folder), "--progress", "none", *options])


def test_tables_are_read(store: str) -> None:
    check(f"{store}/in")


def test_a_job_goes_on_and_says_no_secret(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder of images as from here; what is missing is done again; what changed is refused."""
    here = tmp_path / "images"
    for image in IMAGES:
        (here / image.stem[0]).mkdir(parents=True, exist_ok=True)
        (here / image.stem[0] / image.name).write_bytes(image.read_bytes())
    rows = ("--shard-rows", "3")
    assert embed(str(here), tmp_path / "local", *rows) == 0
    job = tmp_path / "job"
    assert embed(f"{store}/images", job, *rows) == 0
    first, *others = sorted((job / "shards").iterdir())
    assert len(others) == 2
    others[0].unlink()
    written = first.stat().st_mtime_ns
    assert embed(f"{store}/images", job, *rows) == 0
    assert first.stat().st_mtime_ns == written
    assert_same(content(job), content(tmp_path / "local"))

    put(store, f"images/{IMAGES[0].stem[0]}/{IMAGES[0].name}", b"another image")
    assert embed(f"{store}/images", job, *rows) == 2
    said = "".join(capfd.readouterr())
    assert "the input 'images' had" in said
    assert "Traceback" not in said
    texts = [
        file.read_text() for file in job.rglob("*") if file.suffix in (".json", ".jsonl", ".html")
    ]
    assert len(texts) == 4
    assert_no_secret(said, *texts)
    put(store, f"images/{IMAGES[0].stem[0]}/{IMAGES[0].name}", IMAGES[0].read_bytes())


def test_a_table_that_changed_is_refused(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(store, "changing/in.csv", b"text\na\n")
    assert embed(f"{store}/changing/in.csv", tmp_path / "job") == 0
    put(store, "changing/in.csv", b"text\nb\n")
    assert embed(f"{store}/changing/in.csv", tmp_path / "job") == 2
    assert "the input 'in.csv' has another content now" in capfd.readouterr().err


def test_what_is_not_there_is_said_without_secrets(store: str) -> None:
    for url in (f"{store}/in/gone.csv", f"{store}/gone/*.csv", f"{store}-missing/a.csv"):
        with pytest.raises(FileNotFoundError) as missing:
            open_lines(url)
        assert url in str(missing.value)
        assert_no_secret(str(missing.value))


def test_azure_without_the_right_key(
    store: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not store.startswith("az"):
        pytest.skip("the other stand-ins take any key")
    right = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    port = int(right.rpartition(":")[2].partition("/")[0])
    wrong = azure_environment(port, "aGlkZGVu" * 11)["AZURE_STORAGE_CONNECTION_STRING"]
    for connection, said in {
        wrong: "access is denied",
        "AccountKey=hidden": "does not say how to sign in",
        "": "does not say how to sign in",
    }.items():
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        fsspec.get_filesystem_class("az").clear_instance_cache()
        with pytest.raises(RequestError, match=said) as caught:
            open_lines(f"{store}/in/in.csv")
        assert_no_secret(str(caught.value), *capfd.readouterr())
        assert "aGlk" not in str(caught.value)
    fsspec.get_filesystem_class("az").clear_instance_cache()


def test_s3_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    for name, value in s3_environment(free_port()).items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RequestError, match=r"a\.csv cannot be read: the server does not answer"):
        open_lines("s3://bucket/a.csv")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_index_is_written_and_searched_there(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.startswith("gs"):
        pytest.skip("Lance's reader asks Google's own servers")
    for name, value in lance_environment().items():
        monkeypatch.setenv(name, value)
    vectors = np.eye(3, 8, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), 8)
    table = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"image": ["a", "b", "c"], "image_features": column}), table)
    assert build_index(table, f"{store}/index") == 3
    index = Index(f"{store}/index/")
    assert [hit.row for hit in index.search(vectors[1], 1)] == [{"image": "b"}]
    assert index.duplicates(0.9) == []
    with pytest.raises(RequestError, match=r"index is there already: name another place"):
        build_index(table, f"{store}/index")
    with pytest.raises(RequestError, match=rf"{store}/none holds no index: "):
        Index(f"{store}/none")
    with pytest.raises(RequestError, match=r"-missing/index cannot be written: "):
        build_index(table, f"{store}-missing/index")


# -- Web servers -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("aiohttp")
    fsspec.get_filesystem_class("http").clear_instance_cache()
    for name, data in TABLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_tables_on_a_web_server_are_read(folder: Path) -> None:
    with web(folder) as url:
        for name in TABLES:
            if not name.startswith("data/"):
                with open_lines(f"{url}/{name}") as table:
                    assert [str(file) for file in table.files] == [f"{url}/{name}"]
                    assert len(check_marks(table)) == (100 if name == "in.parquet" else 2), name


def test_a_table_behind_tls_is_read(folder: Path) -> None:
    """In a process of its own: authorities are read when the library is loaded."""
    authority = Authority(folder)
    with web(folder, authority.certificate()) as url:
        for trusted, code in ((authority.file, 0), (authority.certificate(), 2)):
            output = str(folder / f"{code}.jsonl")
            done = subprocess.run(
                [sys.executable, "-m", "score", "embed", f"{url}/in.csv", "--output", output],
                env={**os.environ, "SSL_CERT_FILE": str(trusted)},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == code, done.stderr
    assert "in.csv cannot be read: its certificate is not trusted" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_web_server_that_says_nothing_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LONGEST_SILENCE", 0.2)
    with Server(says=say_nothing) as server, pytest.raises(RequestError, match="in time"):
        open_lines(server.url("/in.csv"))


def test_what_a_web_server_refuses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    statuses = {"/403.csv": 403, "/500.csv": 500}
    with web(folder, statuses=statuses) as url:
        for name, said in {
            "403.csv": "access is denied",
            "500.csv": "the server answers 500",
            "*.csv": "a web server lists no files",
        }.items():
            with pytest.raises(RequestError, match=said):
                open_lines(f"{url}/{name}")
        with pytest.raises(FileNotFoundError, match=r"gone\.csv: there is no such file"):
            open_lines(f"{url}/gone.csv")
        assert embed(f"{url}/in.csv", folder / "job") == 0
        (folder / "in.csv").write_bytes(TABLES["in.csv"].replace(b"a", b"z"))
        assert embed(f"{url}/in.csv", folder / "job") == 2
        assert "'in.csv' has another content now" in capfd.readouterr().err
    with pytest.raises(RequestError, match="the server does not answer"):
        open_lines(f"{url}/in.csv")
    with web(folder, parts=False) as url, pytest.raises(RequestError, match="range requests"):
        open_lines(f"{url}/in.csv")
