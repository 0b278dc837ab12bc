"""A table cut into shards, what a job leaves of each, and what comes out of it all."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from score import shards as script
from score.__main__ import main
from score.contract.params import Params
from score.core.embedder import Embedder
from score.errors import RequestError
from score.index.build import build_index
from score.index.index import Index
from score.jobs.embed import embed_file
from score.jobs.merge import merge
from score.jobs.split import split
from tests.support.images import in_base64, random_image
from tests.support.surfaces import ROOT


def table(file: Path, *rows: list[str], columns: tuple[str, ...] = ("id", "text")) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def numbered(file: Path, count: int) -> Path:
    return table(file, *[[str(n), f"thing {n}"] for n in range(count)])


@pytest.fixture
def job(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The entry script, as if it had begun; where its results go."""
    output = tmp_path / "results"
    output.mkdir()
    monkeypatch.setattr(script, "_embedder", embedder, raising=False)
    monkeypatch.setattr(script, "_output", output, raising=False)
    return output


def run(folder: Path) -> list[str]:
    return script.run([str(file) for file in sorted(folder.iterdir())])


# -- split -------------------------------------------------------------------------------------


def test_rows_come_in_order_each_once_with_the_header(tmp_path: Path) -> None:
    made = split(numbered(tmp_path / "my.table.csv", 7), tmp_path / "shards", 3)
    assert [file.name for file in made] == [f"my-00000{n}.csv" for n in range(3)]
    read = [list(csv.reader(file.read_text().splitlines())) for file in made]
    assert [rows[0] for rows in read] == [["id", "text"]] * 3
    assert [row[0] for rows in read for row in rows[1:]] == [str(n) for n in range(7)]


def test_cells_are_kept_as_they_are(tmp_path: Path) -> None:
    cells = ["a,b", 'say "x"', "one\ntwo", "one\rtwo", "one\r\ntwo", " spaces ", "", "ü猫"]
    source = table(tmp_path / "in.csv", *[[str(n), cell] for n, cell in enumerate(cells)])
    with source.open("ab") as stream:
        stream.write(b"8,\xff\xfe\r\n9,ragged,more\r\n")
    (made,) = split(source, tmp_path / "shards", 100)
    with made.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert [row[1] for row in rows[:8]] == cells
    assert rows[8][1].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert rows[9] == ["9", "ragged", "more"]  # for whoever embeds it to complain of


def test_packed_tables_are_read(tmp_path: Path) -> None:
    plain = numbered(tmp_path / "in.csv", 5).read_bytes()
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(plain))
    assert len(split(tmp_path / "in.csv.gz", tmp_path / "shards", 2)) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"url\nx\n", "no column"),
        (b"id,text\n", "has no rows"),
        (b'id,text\n1,"open\n2,b\n', "a quote is left open"),
        (b"id,image\n1,in.csv\n", "row 0: in.csv is a file here"),
    ],
)
def test_what_cannot_be_split_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(RequestError, match=said):
        split(tmp_path / "in.csv", tmp_path / "shards", 10)


def test_shards_of_another_table_are_not_mixed_with(tmp_path: Path) -> None:
    split(numbered(tmp_path / "in.csv", 3), tmp_path / "shards", 10)
    with pytest.raises(RequestError, match="shards is there already"):
        split(tmp_path / "in.csv", tmp_path / "shards", 10)
    assert main(["split", str(tmp_path / "in.csv"), "--output", str(tmp_path / "shards")]) == 2


def test_a_table_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    rows = [[str(n), "https://example.org/a.jpg"] for n in range(5)] + [["5", "in.csv"]]
    (tmp_path / "in.csv").write_text("id,image\n" + "".join(f"{a},{b}\n" for a, b in rows))
    with pytest.raises(RequestError, match=r"row 5: in\.csv is a file here"):
        split(tmp_path / "in.csv", tmp_path / "shards", 2)
    assert not (tmp_path / "shards").exists()


def test_a_broken_archive_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = bytearray(gzip.compress(numbered(tmp_path / "in.csv", 5000).read_bytes()))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "in.csv.gz").write_bytes(packed)
    shards = str(tmp_path / "shards")
    assert main(["split", str(tmp_path / "in.csv.gz"), "--output", shards]) == 2
    assert "in.csv.gz cannot be read" in capsys.readouterr().err


# -- the entry script --------------------------------------------------------------------------


def test_a_machines_failure_is_not_the_files(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no poisoned file: Azure is told, and tries again."""
    split(numbered(tmp_path / "in.csv", 3), tmp_path / "shards", 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script, "embed_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "shards")
    assert not (job / "unreadable").exists()
    monkeypatch.setattr(script, "embed_file", embed_file)
    assert len(run(tmp_path / "shards")) == 1


def test_a_file_that_has_gone_is_reported(job: Path, tmp_path: Path) -> None:
    assert script.run([str(tmp_path / "gone.csv")]) == []
    (report,) = (job / "unreadable").iterdir()
    assert json.loads(report.read_text())["file"] == "gone.csv"


def test_files_of_one_name_and_of_one_content_have_each_a_result(job: Path, tmp_path: Path) -> None:
    for folder, name, count in (("a", "x", 2), ("b", "x", 3), ("c", "y", 3)):
        (tmp_path / folder).mkdir()
        numbered(tmp_path / folder / f"{name}.csv", count)
    files = [str(tmp_path / path) for path in ("a/x.csv", "b/x.csv", "c/y.csv")]
    assert len(script.run(files)) == 3
    assert len(list(job.glob("*.parquet"))) == 3


def test_an_output_that_cannot_be_written_is_the_machines_failure(
    embedder: Embedder, tmp_path: Path
) -> None:
    """Were it a RequestError, Azure would take the input for poisoned, and not try it again."""
    source = numbered(tmp_path / "in.csv", 3)
    with pytest.raises(OSError, match=r"in\.csv"):
        embed_file(embedder, source, source / "x.parquet", Params(on_error="report"))


# -- merge -------------------------------------------------------------------------------------


def test_every_row_is_accounted_for(job: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", *[[str(n), "x" if n % 2 else ""] for n in range(7)])
    split(source, tmp_path / "shards", 3)
    run(tmp_path / "shards")
    account = merge(tmp_path / "shards", job, tmp_path / "deep" / "all.parquet")
    assert (account.shards, account.rows, account.good) == (3, 7, 3)
    assert account.failed == {"empty_row": 4}
    assert account.complete
    ids = pq.read_table(tmp_path / "deep/all.parquet")["id"].to_pylist()
    assert ids == [str(n) for n in range(7)]
    assert "3 shards, 7 rows: 3 good, 4 failed (empty_row 4)" in str(account)


def test_older_results_of_other_contents_do_no_harm(job: Path, tmp_path: Path) -> None:
    for count in (3, 4):
        shards = tmp_path / f"shards{count}"
        split(numbered(tmp_path / "in.csv", count), shards, 10)
        run(shards)
    assert len(list(job.glob("*.parquet"))) == 2
    assert merge(tmp_path / "shards4", job).rows == 4


def test_a_broken_result_is_a_missing_one(job: Path, tmp_path: Path) -> None:
    split(numbered(tmp_path / "in.csv", 6), tmp_path / "shards", 2)
    run(tmp_path / "shards")
    one, two, _ = sorted(job.glob("*.parquet"))
    one.write_bytes(one.read_bytes()[:100])
    pq.write_table(pq.read_table(two).slice(0, 1), two)
    account = merge(tmp_path / "shards", job)
    assert account.missing == ["in-000000.csv", "in-000001.csv"]
    assert (account.rows, account.complete) == (2, False)


def test_a_shard_that_is_no_table_is_named(job: Path, tmp_path: Path) -> None:
    split(numbered(tmp_path / "in.csv", 2), tmp_path / "shards", 2)
    (tmp_path / "shards/poisoned.csv").write_bytes(b"\x00\x01")
    run(tmp_path / "shards")
    account = merge(tmp_path / "shards", job)
    assert list(account.unreadable) == ["poisoned.csv"]
    assert not account.complete


@pytest.mark.process
def test_long_cells_are_counted_in_a_process_of_its_own(job: Path, tmp_path: Path) -> None:
    """Python's own limit of a cell is shorter than an image."""
    photo = in_base64(random_image(size=(300, 300)))
    assert len(photo) > 200_000
    columns = ("id", "image")
    split(table(tmp_path / "in.csv", ["1", photo], columns=columns), tmp_path / "shards", 2)
    run(tmp_path / "shards")
    command = [sys.executable, "-m", "score", "merge", str(tmp_path / "shards"), str(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 rows: 1 good" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "results"], "nothing holds no shards"),
        (["shards", "results", "--output", "all.csv"], "the table is a .parquet file"),
        (["shards", "empty", "--output", "all.parquet"], "no shard has a result"),
    ],
)
def test_what_cannot_be_merged_is_a_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    split(numbered(tmp_path / "in.csv", 2), tmp_path / "shards", 2)
    for name in ("nothing", "results", "empty"):
        (tmp_path / name).mkdir()
    assert main(["merge", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("all.*"))


# -- index -------------------------------------------------------------------------------------


@pytest.fixture
def vectors(embedder: Embedder, tmp_path: Path) -> Path:
    rows = [["1", "a red apple"], ["2", ""], ["3", "a violin"], ["4", "an owl"]]
    file = tmp_path / "vectors.parquet"
    embed_file(embedder, table(tmp_path / "in.csv", *rows), file, Params(on_error="report"))
    return file


def test_the_nearest_are_found_exactly(vectors: Path, embedder: Embedder, tmp_path: Path) -> None:
    assert build_index(vectors, tmp_path / "index", "text_features") == 3
    index = Index(tmp_path / "index")
    assert (len(index), index.dimension) == (3, 512)
    query = embedder.embed_text("a violin")
    hits = index.search(7 * query, top=10)
    assert hits[0].row == {"id": "3", "text": "a violin"}
    texts = [embedder.embed_text(hit.row["text"]) for hit in hits]
    cosines = [text @ query / np.linalg.norm(text) / np.linalg.norm(query) for text in texts]
    assert [hit.score for hit in hits] == pytest.approx(cosines, abs=2e-3)
    assert cosines == sorted(cosines, reverse=True)


def test_an_index_that_cannot_be_is_refused(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no row with image_features"):
        build_index(vectors, tmp_path / "index")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(RequestError, match="full is there already"):
        build_index(vectors, tmp_path / "full", "text_features")
    with pytest.raises(RequestError, match="is not a parquet file"):
        build_index(tmp_path / "in.csv", tmp_path / "other", "text_features")
    with pytest.raises(RequestError, match="holds no index"):
        Index(tmp_path / "nothing")


def test_vectors_of_another_model_are_refused(vectors: Path, tmp_path: Path) -> None:
    build_index(vectors, tmp_path / "index", "text_features")
    with pytest.raises(RequestError, match="holds vectors of 512 numbers, the query has 3"):
        Index(tmp_path / "index").search(np.ones(3, np.float32))


def test_images_are_found_by_text_and_by_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("images.parquet", "index")]
    assert main(["embed", str(ROOT / "samples/paths.csv"), "--output", files[0], "--quiet"]) == 0
    assert main(["index", files[0], "--output", files[1]]) == 0
    capsys.readouterr()
    assert main(["search", files[1], "a red apple", "--top", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == "images/apple.png"
    owl = ROOT / "samples/images/owl.jpg"
    inline = in_base64(owl.read_bytes())
    for given in (str(owl), inline, f"data:image/jpeg;base64,{inline}"):
        assert main(["search", files[1], "--image", given, "--top", "1"]) == 0
        hit = json.loads(capsys.readouterr().out)
        assert hit["image"] == "images/owl.jpg"
        assert hit["score"] == pytest.approx(1, abs=2e-3)


def test_nothing_is_left_open(tmp_path: Path, vectors: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        build_index(vectors, tmp_path / f"index{number}", "text_features")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_every_file_is_accounted_for_whatever_its_name_and_columns(
    job: Path, tmp_path: Path
) -> None:
    """What a job is given is all files; images and texts may lie in different ones."""
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "a.csv").write_text("text,id\na cat,1\n")
    (folder / "b.CSV").write_text(f"id,image\n2,{in_base64(random_image(1))}\n")
    (folder / "c.csv.gz").write_bytes(gzip.compress(b"image,text\n,an owl\n"))
    (folder / "d").write_text("id,text\n4,\n")
    (folder / "notes.json").write_text("{}")
    (folder / ".hidden").write_text("")
    os.mkfifo(folder / "pipe.csv")
    given = [str(file) for file in sorted(folder.glob("[!.]*")) if file.is_file()]
    assert len(script.run(given)) == 4
    account = merge(folder, job, tmp_path / "all.parquet")
    assert (account.shards, account.rows, account.good) == (5, 4, 3)
    assert list(account.unreadable) == ["notes.json"]
    assert not account.complete
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["1", "2", None, "4"]
    assert [len(row["image_features"] or ()) for row in rows] == [0, 512, 0, 0]
    assert [len(row["text_features"] or ()) for row in rows] == [512, 0, 512, 0]
