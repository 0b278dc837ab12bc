"""Inputs in object stores: fsspec's own within the process. `test_stores.py` tries the others."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from score.errors import FetchFailed, RequestError, TooManyBytes
from score.fetch.fetcher import Fetcher
from score.job_folder.input_files import InputFile, change
from score.jobs.line_source import open_lines
from score.settings import Settings
from score.storage import remote
from score.storage.remote import SCHEMES, RemoteFile, is_remote
from tests.support.tables import archive, check_marks, errors_of, lines_of, parquet

TABLES = {
    "in.csv": b'\xef\xbb\xbftext,id\na,1\n"b\nc",2\n',
    "in.csv.gz": gzip.compress(b"text,id\na,1\nb,2\n"),
    "in.tsv": b"text\tid\na\t1\nb\t2\n",
    "in.jsonl": b'{"text": "a"}\n{"text": "b"}\n',
    "in.parquet": parquet({"text": ["a"] * 100, "id": range(100)}, row_group_size=30),
    "in.tar": archive(("1.txt", b"a"), ("2.txt", b"b")),
    "data/year=2023/1.csv": b"text\na\n",
    "data/year=2024/2.csv": b"text\nb\n",
    "data/_SUCCESS": b"",
    "data/.hidden/3.csv": b"text\nc\n",
}


@pytest.fixture
def here() -> Iterator[str]:
    """A URL of a store within the process, which holds the tables."""
    url = f"memory://{uuid4().hex}"
    store = fsspec.filesystem("memory")
    for name, content in TABLES.items():
        store.pipe(f"{url}/{name}", content)
    yield url
    store.rm(url, recursive=True)


def check(url: str) -> None:
    """That each table is read and can be interrupted after each line."""
    for name in TABLES:
        if not name.startswith("data/"):
            with open_lines(f"{url}/{name}") as table:
                assert [str(file) for file in table.files] == [f"{url}/{name}"]
                assert table.root is None
                assert all(isinstance(file, RemoteFile) and file.version for file in table.files)
                assert table.size > 0
                lines = check_marks(table)
            assert len(lines) == (100 if name == "in.parquet" else 2), name
            assert not any(errors_of(lines))
    for source in ("data", "data/", "data/*/?.csv", "data/year=202[34]/*"):
        with open_lines(f"{url}/{source}") as table:
            assert table.columns == ["text", "year"]
            assert [line.kept for line in check_marks(table)] == [["a", "2023"], ["b", "2024"]]


def test_tables_in_a_store_are_read(here: str) -> None:
    check(here)


def test_stores_and_folders_follow_one_another(here: str, tmp_path: Path) -> None:
    """A table of a store names no file that is here, even below the folder of another input."""
    (tmp_path / "a.png").touch()
    (tmp_path / "in.csv").write_text("image\na.png\n")
    fsspec.filesystem("memory").pipe(f"{here}/names.csv", b"image\na.png\nhttps://h/x.png\n")
    lines = lines_of([tmp_path / "in.csv", f"{here}/names.csv"])
    assert [line.row.image for line in lines][::2] == ["a.png", "https://h/x.png"]
    assert errors_of(lines)[1] == "'a.png' is no file that a table in an object store may name"
    with pytest.raises(RequestError, match=r"the inputs name memory://.*/in\.csv 2 times"):
        open_lines([f"{here}/in.csv", f"{here}/in.cs?"])


SECRETS = [
    "s3://key:hidden@bucket/a.csv",
    "az://container/a.csv?sv=2024-01-01&sig=hidden",
    "abfs://c@account.dfs.core.windows.net/a.csv?se=1&sp=r&sig=hidden",
    "s3://bucket/a.csv?X-Amz-Signature=hidden",
    "s3://bucket/a.csv?aws_secret_access_key=hidden",
    "gs://bucket/a.csv?access_token=hidden&x=1",
    "https://account.blob.core.windows.net/c/a.csv?sv=2024&sig=hidden",
    "https://host.example/a.csv?hidden",
    "https://hidden@host.example/a.csv",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RequestError, match="give credentials by the environment") as caught:
        open_lines(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host.example/a.csv", "file:///etc/passwd", "x://a"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match=r"cannot be read from .*s3, s3a, az, abfs"):
        open_lines(url)


def test_a_folder_of_images_in_a_store(here: str) -> None:
    """As of a folder here: hidden files are left out, and tables beside images."""
    store = fsspec.filesystem("memory")
    for name in ("b/2.png", "a.PNG", ".hidden/3.png", "b/.4.jpg", "in.csv", "b/10.jpg"):
        store.pipe(f"{here}/images/{name}", name.encode())
    with open_lines(f"{here}/images/") as table:
        lines = check_marks(table)
        assert table.root is None
        assert table.columns == ["image"]
        assert table.size == 3
        before = InputFile.of(table.files[0])
    assert [line.kept for line in lines] == [["a.PNG"], ["b/10.jpg"], ["b/2.png"]]
    cells = [line.row.image for line in lines]
    assert [cell.read() for cell in cells if isinstance(cell, RemoteFile)] == [
        b"a.PNG",
        b"b/10.jpg",
        b"b/2.png",
    ]
    assert len(lines_of([f"{here}/images", f"{here}/images/b"])) == 5
    store.pipe(f"{here}/images/b/2.png", b"longer than it was")
    with open_lines(f"{here}/images") as table:
        assert "'images' had" in change([before], [InputFile.of(table.files[0])])


def test_an_image_of_a_store_is_fetched_within_bounds(here: str) -> None:
    fsspec.filesystem("memory").pipe(f"{here}/images/a.png", b"12345")
    (line,) = lines_of([f"{here}/images"])
    file = line.row.image
    assert Fetcher(Settings()).fetch(file) == b"12345"
    assert not Fetcher(Settings()).is_quick(file)
    with pytest.raises(TooManyBytes):
        Fetcher(Settings(max_image_bytes=4)).fetch(file)
    fsspec.filesystem("memory").rm(f"{here}/images/a.png")
    with pytest.raises(FetchFailed, match=r"^cannot be read: there is no such file") as caught:
        Fetcher(Settings()).fetch(file)
    assert caught.value.retryable


def test_what_is_not_there_is_said_to_be_missing(here: str) -> None:
    for name in ("gone.csv", "gone", "gone/*.csv", "data/_SUCCESS/x"):
        with pytest.raises(FileNotFoundError, match=f"{here}/{re.escape(name)}"):
            open_lines(f"{here}/{name}")


def test_a_path_is_no_url() -> None:
    assert not is_remote(Path("s3://a"))
    assert not is_remote("a/b://c")
    assert is_remote("S3://a")


class Failing:
    """A store that raises whatever a library might, with what it should not say."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self, *_: object, **__: object) -> Any:
        raise self.error

    read = seek = open


class NoCredentialsError(Exception):
    pass


class ServiceRequestError(Exception):
    """azure-core's, where no connection can be made."""


class ResponseError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("hidden")
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError("hidden"), "(NoCredentialsError); are credentials missing?"),
        (PermissionError("hidden"), "access is denied"),
        (ResponseError(403), "access is denied"),
        (ResponseError(503), "the server answers 503"),
        (ServiceRequestError("hidden"), "the server does not answer"),
        (FileNotFoundError("hidden"), "there is no such file"),
        (ValueError("hidden"), "the store cannot be read (ValueError)"),
        (OSError(5, "hidden"), "the store cannot be read (OSError)"),
    ],
)
def test_errors_of_a_store_do_not_say_what_was_signed(error: Exception, said: str) -> None:
    file = RemoteFile("s3://b/in.csv", 9, "", Failing(error), "b/in.csv")
    with pytest.raises(RequestError) as caught:
        file.open()
    assert str(caught.value).startswith("s3://b/in.csv cannot be read: ")
    assert said in str(caught.value)
    with pytest.raises(OSError, match=re.escape(said)) as later:
        remote._Stream(Failing(error)).read(1)
    assert "hidden" not in f"{caught.value}{later.value}"
    assert caught.value.__suppress_context__


def test_every_scheme_has_a_library() -> None:
    known = {*fsspec.available_protocols()} | {
        "abfss",
        "gcs",
    }  # named by adlfs and gcsfs themselves
    assert {*SCHEMES} <= known
