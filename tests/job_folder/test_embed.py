"""Jobs whose output is a folder: what it holds, and how they go on."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score import __version__
from score.__main__ import main
from score.contract.params import Params
from score.core.embedder import Embedder, fingerprint_of
from score.executors.local import Local
from score.hardware.locks import hold
from score.job_folder import embed as embed_module
from score.job_folder.embed import JobOptions, embed_into
from score.job_folder.ledger import read
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary
from tests.support.images import random_image
from tests.support.job_folders import assert_same, content, entries
from tests.support.processes import started
from tests.support.surfaces import ROOT

ROWS = 95
IMAGES = [random_image(seed) for seed in range(5)]


def rows() -> Iterator[list[str]]:
    """Texts, images, both, and rows that fail in several ways."""
    for number in range(ROWS):
        image = "" if number % 5 else base64.b64encode(IMAGES[number % 25 // 5]).decode()
        text = "" if number % 10 == 5 else f"a photo of\n{number} cats, №{number}"
        if number % 17 == 3:
            image = "no image"
        if number % 31 == 7:
            yield [str(number), image]  # too few cells
        else:
            yield [str(number), image, text]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "in.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "image", "text"], *rows()])
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "job"


def embed(
    table: Path,
    folder: Path,
    *flags: str,
) -> int:
    """`score embed` with shards of 20 rows."""
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows", "20"]
    return main([*words, *flags])


def stop_after(number: int, error: BaseException) -> Callable[[Summary], None]:
    """Raises an error in the progress of a job, after so many rows of its own."""

    def progress(summary: Summary) -> None:
        if summary.rows - summary.earlier == number:
            raise error

    return progress


def run(
    embedder: Embedder,
    table: Path,
    folder: Path,
    progress: Callable[[Summary], None] | None = None,
    **options: Any,
) -> Summary:
    chosen = JobOptions(**{"shard_rows": 20, **options})
    with open_lines(table) as lines:
        params = Params(on_error="report")
        return embed_into(embedder, lines, folder, params, chosen, progress)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the rows that reach a shard."""
    numbers: list[int] = []
    take = embed_module._Run._take

    def noted(self: Any, item: Any, record: Any) -> None:
        numbers.append(item.number)
        take(self, item, record)

    monkeypatch.setattr(embed_module._Run, "_take", noted)
    return numbers


def test_a_folder_holds_the_rows_as_a_file_does(table: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    assert main(["embed", str(table), "--output", str(file), "--quiet"]) == 0
    assert embed(table, folder) == 0
    whole, shards = pq.read_table(file), content(folder)
    assert shards["row_id"].to_pylist() == list(range(ROWS))
    for name in whole.column_names:
        wanted, found = whole[name].to_pylist(), shards[name].to_pylist()
        if name.endswith("_features"):
            for one, other in zip(wanted, found, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        else:
            assert wanted == found, name
    failed = [code is not None for code in shards["error_code"].to_pylist()]
    assert shards["row_status"].to_pylist() == ["failed" if one else "ok" for one in failed]
    assert 0 < sum(failed) < ROWS


def test_a_shard_tells_the_hash_of_each_image(table: Path, folder: Path) -> None:
    embed(table, folder)
    hashes = [hashlib.sha256(image).hexdigest() for image in IMAGES]
    shards = content(folder)
    found = shards["image_sha256"].to_pylist()
    for number, features in enumerate(shards["image_features"].to_pylist()):
        if features is not None:
            assert found[number] == hashes[number % 25 // 5]
    assert found[3] == hashlib.sha256(base64.b64decode("noimage=")).hexdigest()  # it is no image
    assert found[1] is found[4] is None


def test_a_folder_is_read_by_other_libraries(table: Path, folder: Path) -> None:
    embed(table, folder, "--vectors", "float16")
    frame = pd.read_parquet(folder / "shards")
    assert len(frame) == ROWS
    schema = pq.read_schema(folder / "shards" / "part-000000000000.parquet")
    assert schema.field("text_features").type == pa.list_(pa.float16())
    assert schema.field("row_id").type == pa.int64()


def test_the_manifest_tells_what_was_computed(
    table: Path, folder: Path, embedder: Embedder
) -> None:
    embed(table, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"] == ROWS
    assert manifest["model"]["fingerprint"] == fingerprint_of(embedder)
    assert manifest["model"]["version"] == __version__
    assert manifest["model"]["precision"] == "fp32"
    assert manifest["columns"] == ["id", "image", "text"]
    assert manifest["options"]["vectors"] == "float32"
    assert manifest["inputs"][0]["name"] == "in.csv"
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    metadata = pq.read_schema(folder / entries(folder)[0].file).metadata
    assert metadata[b"score.fingerprint"].decode() == fingerprint_of(embedder)


def test_the_ledger_accounts_for_every_row(table: Path, folder: Path) -> None:
    embed(table, folder)
    assert [(entry.first, entry.rows) for entry in entries(folder)] == [
        (0, 20),
        (20, 20),
        (40, 20),
        (60, 20),
        (80, 15),
    ]
    shards = content(folder).to_pandas()
    for entry in entries(folder):
        part = shards[(shards.row_id >= entry.first) & (shards.row_id < entry.end)]
        assert entry.failed == part.error_code.value_counts().to_dict()
        assert entry.bytes == (folder / entry.file).stat().st_size
    assert not list((folder / "shards").glob(".*"))


def test_the_same_command_again_computes_nothing(
    table: Path, folder: Path, embedded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    embed(table, folder)
    others = ("lock", "report.json", "report.html")
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.name not in others}
    assert before
    embedded.clear()
    assert embed(table, folder) == 0
    assert embedded == []
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert f"{ROWS} rows ({ROWS} of earlier runs)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError("gone")])
@pytest.mark.parametrize("number", [1, 19, 20, 21, 50, ROWS])
def test_what_is_embedded_is_kept_when_a_job_is_interrupted(
    number: int,
    error: BaseException,
    table: Path,
    folder: Path,
    tmp_path: Path,
    embedder: Embedder,
    embedded: list[int],
) -> None:
    with pytest.raises(type(error)):
        run(embedder, table, folder, stop_after(number, error))
    assert sum(entry.rows for entry in entries(folder)) == number
    summary = run(embedder, table, folder)
    assert (summary.rows, summary.earlier) == (ROWS, number)
    assert embedded == list(range(ROWS))
    run(embedder, table, tmp_path / "other")
    assert_same(content(folder), content(tmp_path / "other"))


def damaged(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
        return
    if how == "empty":
        data.clear()
    if how == "cut":
        del data[-100:]
    if how == "end":
        data[-1] ^= 1
    if how == "inside":
        data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "end", "inside"])
@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_broken_shard_is_computed_again_and_no_other(
    number: int, how: str, table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    run(embedder, table, folder)
    whole = content(folder)
    entry = entries(folder)[number]
    damaged(folder / entry.file, how)
    embedded.clear()
    summary = run(embedder, table, folder)
    assert embedded == list(range(entry.first, entry.end))
    assert summary.rows == ROWS
    assert_same(content(folder), whole)


def test_a_broken_shard_and_the_end_are_computed_in_one_run(
    table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(embedder, table, folder, stop_after(70, KeyboardInterrupt()))
    damaged(folder / entries(folder)[1].file, "cut")
    embedded.clear()
    with pytest.raises(KeyboardInterrupt):  # in the middle of the broken shard
        run(embedder, table, folder, stop_after(5, KeyboardInterrupt()))
    run(embedder, table, folder)
    assert embedded == [*range(20, 40), *range(70, ROWS)]
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))


def test_a_shard_that_is_damaged_inside_and_the_end_are_computed_in_one_run(
    table: Path, folder: Path, tmp_path: Path, embedder: Embedder, embedded: list[int]
) -> None:
    """The damage is found beside the work, which comes first."""
    with pytest.raises(KeyboardInterrupt):
        run(embedder, table, folder, stop_after(70, KeyboardInterrupt()))
    damaged(folder / entries(folder)[1].file, "inside")
    embedded.clear()
    summary = run(embedder, table, folder)
    assert embedded == [*range(70, ROWS), *range(20, 40)]
    assert (summary.rows, summary.earlier) == (ROWS, 50)
    whole = run(embedder, table, tmp_path / "other")
    assert summary.failed == whole.failed
    assert_same(content(folder), content(tmp_path / "other"))


def test_a_ledger_of_an_earlier_version_is_gone_on_with(
    table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    """It has no hashes, nor statuses and times."""
    with pytest.raises(KeyboardInterrupt):
        run(embedder, table, folder, stop_after(60, KeyboardInterrupt()))
    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        assert len(line.pop("sha256")) == 64
        del line["statuses"], line["slowest"]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    embedded.clear()
    run(embedder, table, folder)
    assert embedded == list(range(60, ROWS))


def test_a_ledger_line_that_was_cut_is_dropped(
    table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    run(embedder, table, folder)
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-30])
    embedded.clear()
    run(embedder, table, folder)
    assert embedded == list(range(80, ROWS))
    assert all(json.loads(line) for line in ledger.read_text().splitlines())


def test_without_its_ledger_a_job_begins_again(
    table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    run(embedder, table, folder, shard_rows=7)
    (folder / "ledger.jsonl").unlink()
    embedded.clear()
    run(embedder, table, folder)
    assert embedded == list(range(ROWS))
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))  # none of the older shards


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("manifest.json", "{", "manifest.json is damaged: it is no JSON (Expecting"),
        ("manifest.json", "[]", "manifest.json is damaged: a value in it is of another type"),
        ("manifest.json", b"\xff", "manifest.json is damaged: it is not UTF-8 text"),
        ("manifest.json", None, "without its manifest.json, and cannot go on with it: copy that b"),
        ("manifest.json", '{"format": 7}', "another version of this program wrote it"),
        ("ledger.jsonl", "{}\n", "ledger.jsonl, line 1, is damaged: it has no 'seconds'. Remove"),
        ("ledger.jsonl", '{"seconds": NaN}\n', "line 1, is damaged: seconds: nan. Remove that li"),
        ("ledger.jsonl", '{"seconds": -1}\n', "line 1, is damaged: seconds: -1.0. Remove that l"),
        ("ledger.jsonl", '{"a\0": 1}\n', "line 1, is damaged: it is no JSON (Invalid control ch"),
        ("ledger.jsonl", "[" * 50_000 + "\n", "line 1, is damaged: it is nested too deep. Remov"),
    ],
)
def test_a_damaged_folder_is_refused_by_a_sentence(
    file: str,
    text: str | bytes | None,
    says: str,
    table: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed(table, folder)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(text.encode() if isinstance(text, str) else text)
    capsys.readouterr()
    assert embed(table, folder) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "--force-new starts anew" in said
    assert main(["status", str(folder)]) == 2
    assert says in capsys.readouterr().err
    assert embed(table, folder, "--force-new") == 0
    assert len(content(folder)) == ROWS


def test_without_a_line_of_its_ledger_a_job_does_those_rows_again(
    table: Path, folder: Path, embedder: Embedder, embedded: list[int]
) -> None:
    """As the message on a damaged line says."""
    run(embedder, table, folder, shard_rows=7)
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(lines[:1] + lines[2:]))
    embedded.clear()
    run(embedder, table, folder, shard_rows=7)
    assert embedded == list(range(7, 14))
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))


def test_a_folder_that_holds_more_than_a_job_without_a_manifest_stays(
    table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(table, folder)
    (folder / "manifest.json").unlink()
    (folder / "notes.txt").write_text("mine")
    assert embed(table, folder, "--force-new") == 2
    assert "holds what no such job wrote, and is not overwritten" in capsys.readouterr().err
    assert (folder / "shards").is_dir()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("file", file) for file in ("../a", "/a", "shards/../../a", "shards/", "a", "shards/\0")),
        *(
            ("file", file)
            for file in ("shards/\ud800", "shards/a/b", "shards/..", 7, "../table.csv")
        ),
        *(
            (name, value)
            for name in ("first", "rows", "bytes", "position")
            for value in (-1, 2**64)
        ),
        *(("rows", value) for value in (1e400, 0.5, "7", True, 10**400)),
        *(("mark", [-1]), ("failed", {"a": 10**30}), ("hosts", {"a": -1})),
    ],
    ids=str,
)
def test_a_ledger_names_files_of_its_own_folder_and_counts(
    name: str, value: object, table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard that is not as its line says is removed: it must not be a file of anybody else."""
    embed(table, folder)
    line = json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])
    (folder / "ledger.jsonl").write_text(json.dumps(line | {name: value}) + "\n")
    capsys.readouterr()
    assert embed(table, folder) == 2
    assert "ledger.jsonl, line 1, is damaged: " in capsys.readouterr().err
    assert table.exists()


@pytest.mark.parametrize("name", ["rows", "size", "dimension"])
def test_a_manifest_holds_counts(
    name: str, table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(table, folder)
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | {name: 10**400}))
    capsys.readouterr()
    assert embed(table, folder) == 2
    assert "manifest.json is damaged: int is no count. Without it" in capsys.readouterr().err


def test_shards_that_are_a_link_are_refused(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not in the ledger is removed from there."""
    embed(table, folder)
    others = tmp_path / "others"
    (folder / "shards").rename(others)
    (others / "part-of-another.parquet").touch()
    (folder / "shards").symlink_to(others)
    assert embed(table, folder) == 2
    assert "is a link" in capsys.readouterr().err
    assert (others / "part-of-another.parquet").exists()


def test_a_job_of_another_kind_is_refused(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal names the difference; the folder stays as it was."""
    embed(table, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    other = tmp_path / "other"
    other.mkdir()
    renamed = shutil.copy2(table, other / "renamed.csv")
    grown = shutil.copy2(table, other / "in.csv")
    with grown.open("a") as stream:
        stream.write("more,,a text\r\n")
    (tmp_path / "same").mkdir()
    edited = tmp_path / "same" / "in.csv"
    edited.write_bytes(table.read_bytes().replace(b"of\n1 cats", b"of\n1 dogs"))
    (tmp_path / "columns").mkdir()
    columns = tmp_path / "columns" / "in.csv"
    columns.write_bytes(table.read_bytes().replace(b"id,", b"ID,", 1))
    for source, flags, says in (
        (table, ["--normalize"], "normalize was false, and is true now"),
        (table, ["--truncate", "error"], "truncate was 'end', and is 'error' now"),
        (table, ["--vectors", "float16"], "vectors was 'float32', and is 'float16' now"),
        (table, ["--precision", "bf16"], "the precision was fp32, and is bf16 now"),
        (table, ["--exif-orientation"], "exif_orientation was false, and is true now"),
        (renamed, [], "the input was 'in.csv', and is 'renamed.csv' now"),
        (grown, [], "the input 'in.csv' had"),
        (edited, [], "the input 'in.csv' has another content now"),
        (columns, [], "the input's columns were 'id', 'image', 'text', and are 'ID'"),
    ):
        capsys.readouterr()
        assert embed(source, folder, *flags) == 2
        said = capsys.readouterr().err
        assert f"holds another job: {says}" in said
        assert "--force-new starts anew" in said
    assert {file: file.read_bytes() for file in before} == before


def test_images_of_another_folder_are_another_job(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same names are other images there. What lies beside its table may be moved with it."""
    for number, name in enumerate(("here", "there", "beside")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(random_image(number))
    table = tmp_path / "beside" / "in.csv"
    table.write_text("image\na.png\n")
    assert embed(table, folder, "--root", str(tmp_path / "here")) == 0
    capsys.readouterr()
    for flags, now in (
        (["--root", str(tmp_path / "there")], "there' now"),
        ([], "that of the input now"),
    ):
        assert embed(table, folder, *flags) == 2
        said = capsys.readouterr().err
        assert "holds another job: root was" in said
        assert now in said
    assert embed(table, folder, "--root", str(tmp_path / "here")) == 0
    assert embed(table, folder, "--force-new") == 0
    (tmp_path / "beside").rename(tmp_path / "moved")
    assert embed(tmp_path / "moved" / "in.csv", folder) == 0
    assert embed(tmp_path / "moved" / "in.csv", folder, "--root", str(tmp_path / "moved")) == 0


def test_a_changed_model_is_refused(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(table, folder)
    other = tmp_path / "model"
    shutil.copytree(ROOT / "model", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "logit_scale_init_value": 2.0}))
    assert embed(table, folder, "--model", str(other)) == 2
    assert "holds another job: the model was" in capsys.readouterr().err


def test_force_new_starts_anew_and_leaves_other_files(
    table: Path, folder: Path, embedded: list[int]
) -> None:
    embed(table, folder)
    (folder / "notes.txt").write_text("mine")
    embedded.clear()
    assert embed(table, folder, "--normalize", "--force-new") == 0
    assert embedded == list(range(ROWS))
    lengths = [np.linalg.norm(v) for v in content(folder)["text_features"].to_pylist() if v]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_refused(
    table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    for flags in ([], ["--force-new"]):
        assert embed(table, folder, *flags) == 2
        assert "holds what no such job wrote" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["precious.txt"]


def test_inputs_are_never_in_the_jobs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder whose content only looks like what a job leaves is somebody's, and stays."""
    shards = tmp_path / "data" / "shards"
    shards.mkdir(parents=True)
    file = shards / "part-000000000000.parquet"
    pq.write_table(pa.table({"text": ["a text"]}), file)
    before = file.read_bytes()
    for source in (str(file), str(shards / "*.parquet")):
        assert main(["embed", source, "--output", str(tmp_path / "data")]) == 2
        assert "holds what no such job wrote" in capsys.readouterr().err
        assert main(["embed", source, "--output", str(shards), "--force-new"]) == 2
    job = tmp_path / "job"
    assert embed(file, job) == 0
    inside = job / "shards" / "part-000000000000.parquet"
    capsys.readouterr()
    assert embed(inside, job, "--force-new") == 2
    assert "is in the job's folder" in capsys.readouterr().err
    assert inside.exists()
    assert file.read_bytes() == before


def test_other_columns_are_another_job(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "in.csv"
    table.write_text("caption,title\n" + "a cat,a dog\n" * 30)
    assert embed(table, folder, "--columns", "text=caption") == 0
    capsys.readouterr()
    assert embed(table, folder, "--columns", "text=title") == 2
    says = "holds another job: columns was 'text=caption', and is 'text=title' now"
    assert says in capsys.readouterr().err


def test_files_of_one_name_in_other_folders_are_another_input(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for year in (2023, 2024):
        (tmp_path / f"data/year={year}").mkdir(parents=True)
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / f"data/year={year}/part.parquet")
    assert embed(tmp_path / "data", folder) == 0
    (tmp_path / "data/year=2023").rename(tmp_path / "data/year=2025")
    assert embed(tmp_path / "data", folder) == 2
    says = "the input was 'year=2023/part.parquet', and is 'year=2024/part.parquet' now"
    assert says in capsys.readouterr().err


def test_hosts_are_counted_by_the_column_that_is_named(tmp_path: Path, folder: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("url,image\nhttp://10.0.0.1/a.png,http://wrong.example/\n")
    embed(table, folder, "--columns", "image=url")
    assert entries(folder)[0].hosts == {"10.0.0.1": 1}
    report = json.loads((folder / "report.json").read_text())
    assert "wrong.example" not in json.dumps(report)


def test_flags_of_folders_are_refused_for_files_and_the_reverse(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "out.parquet")
    for flags in (["--retry-failed"], ["--force-new"], ["--max-error-rate", "0"]):
        assert main(["embed", str(table), "--output", file, *flags]) == 2
        said = capsys.readouterr().err
        assert f"{flags[0]} is for an output that is a folder" in said
        assert f"with a slash at its end: {file}/" in said
    assert embed(table, folder, "--overwrite") == 2
    assert "--overwrite is for files" in capsys.readouterr().err


def test_a_job_with_too_many_errors_stops_early(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(embed_module, "_ENOUGH", 30)
    table = tmp_path / "in.csv"
    table.write_text("text\n" + "a text\n" * 50 + '""\n' * 5000)
    assert embed(table, folder, "--max-error-rate", "0.1") == 1
    assert "stopped: more than 10.00% of the rows failed" in capsys.readouterr().err
    done = sum(entry.rows for entry in entries(folder))
    assert 50 < done < 100
    assert json.loads((folder / "manifest.json").read_text())["rows"] is None
    assert embed(table, folder) == 0  # as far as it goes, from there on
    assert content(folder)["row_id"].to_pylist() == list(range(5050))
    assert embed(table, folder, "--max-error-rate", "0.5") == 1
    assert embed(table, folder, "--max-error-rate", "1") == 0


def test_a_job_that_stopped_early_goes_on_when_the_cause_is_mended(
    embedder: Embedder, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "_ENOUGH", 30)
    table = tmp_path / "in.csv"
    table.write_text("text\n" + '""\n' * 32 + "a text\n" * 408)
    first = run(embedder, table, folder, max_error_rate=0.1)
    assert first.stopped
    second = run(embedder, table, folder, max_error_rate=0.1)
    assert not second.stopped
    assert second.rows == 440


@pytest.mark.process
def test_a_second_job_on_a_folder_is_refused(table: Path, folder: Path, embedder: Embedder) -> None:
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(folder)]
    seen: list[subprocess.CompletedProcess[str]] = []

    def progress(summary: Summary) -> None:
        if not seen:
            seen.append(subprocess.run(command, capture_output=True, text=True, cwd=ROOT))

    run(embedder, table, folder, progress)
    assert seen[0].returncode == 2
    assert f"another job is writing into {folder}: process {os.getpid()} on" in seen[0].stderr
    assert "Traceback" not in seen[0].stderr
    assert len(content(folder)) == ROWS


def long_table(tmp_path: Path, rows: int) -> Path:
    file = tmp_path / "long.csv"
    with file.open("w") as stream:
        stream.write("text,n\n")
        stream.writelines(
            f"text number {number % 997} of many,{number}\n" for number in range(rows)
        )
    return file


def wait_for_rows(process: subprocess.Popen[str], folder: Path, number: int) -> None:
    """Waits until a running job has so many rows in its ledger."""
    for _ in range(1200):
        if process.poll() is not None or sum(entry.rows for entry in entries(folder)) >= number:
            return
        time.sleep(0.05)
    raise AssertionError("no progress for a minute")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_a_process_that_is_ended_loses_no_shard(
    number: signal.Signals, code: int, tmp_path: Path, folder: Path
) -> None:
    table = long_table(tmp_path, 20_000)
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(folder)]
    command += ["--quiet", "--shard-rows", "500"]
    done = 0
    for _ in range(3):
        with started(command, stderr=subprocess.PIPE) as process:
            wait_for_rows(process, folder, done + 1000)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        assert "Traceback" not in said
        assert code < 0 or "interrupted, what is done is kept, and the same command goes" in said
        now = sum(entry.rows for entry in entries(folder))
        assert now >= done + 1000
        done = now
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    shards = content(folder)
    assert shards["row_id"].to_pylist() == list(range(20_000))
    assert shards["n"].to_pylist() == [str(number) for number in range(20_000)]
    vectors = np.array(shards["text_features"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, vectors[np.arange(20_000) % 997], rtol=1e-3, atol=1e-4)
    # Each row was written once, but for those of the shard that a kill cut.
    assert sum(entry.rows for entry in read(folder)) == 20_000


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from score.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.process
def test_a_disk_that_is_full_ends_a_job_by_a_sentence(tmp_path: Path, folder: Path) -> None:
    """The system refuses larger files, as a full disk does, with another word."""
    table = long_table(tmp_path, 600)
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows"]
    command = [sys.executable, "-c", LIMITED, *words]
    small = subprocess.run([*command, "50"], cwd=ROOT, capture_output=True, text=True)
    assert small.returncode == 0, small.stderr
    shutil.rmtree(folder)
    large = subprocess.run([*command, "400"], cwd=ROOT, capture_output=True, text=True)
    assert large.returncode == 2
    assert "Traceback" not in large.stderr
    said = large.stderr.splitlines()[-1]
    assert "job: File too large; what is done is kept, and the same command goes on" in said
    assert not list((folder / "shards").iterdir())
    assert main([*words, "400"]) == 0
    assert len(content(folder)) == 600


def test_several_inputs_and_names_of_columns(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        lines = "".join(f'"caption {name} {n}",{n}\n' for n in range(30))
        (tmp_path / f"{name}.csv").write_text("caption,n\n" + lines)
    words = ["embed", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--output", str(folder)]
    words += ["--columns", "text=caption", "--shard-rows", "20", "--quiet"]
    assert main(words) == 0
    shards = content(folder)
    assert shards["caption"].to_pylist() == [f"caption {s} {n}" for s in "ab" for n in range(30)]
    assert None not in shards["text_features"].to_pylist()
    files = json.loads((folder / "manifest.json").read_text())["inputs"]
    assert [file["name"] for file in files] == ["a.csv", "b.csv"]
    damaged(folder / entries(folder)[1].file, "cut")  # rows of both files
    assert main(words) == 0
    assert content(folder)["caption"].equals(shards["caption"])
    capsys.readouterr()
    for value in ("caption", "text=", "label=x", "text=a,text=b"):
        with pytest.raises(SystemExit):
            main(["embed", "x.csv", "--output", str(folder), "--columns", value])
        assert "is not of the form image=NAME,text=NAME" in capsys.readouterr().err


def test_a_job_that_is_embedded_into_a_file_leaves_its_verdicts_behind(
    table: Path, folder: Path, tmp_path: Path
) -> None:
    assert embed(table, folder) == 0
    output = tmp_path / "again.parquet"
    assert main(["embed", str(folder / "shards"), "--output", str(output), "--quiet"]) == 0
    names = pq.read_schema(output).names
    assert names.count("error_code") == names.count("row_id") == 1
    assert "row_status" not in names
    assert "image_sha256" not in names


def test_what_is_known_is_kept_where_a_flag_says_or_nowhere(
    table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(table, folder, "--vector-cache-size", "0") == 0
    assert len(content(folder)) == ROWS
    assert embed(table, folder, "--vector-cache", str(table)) == 2
    assert f"{table} is a file, not a folder" in capsys.readouterr().err
    flags = ("--vector-cache-size", "0", "--vector-cache", str(folder.with_name("cache")))
    assert embed(table, folder, *flags) == 2
    assert "--vector-cache-size 0 keeps no vectors: leave out --vector-cache" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "bf16"], "the precision was fp32, and is bf16 now"),
        (["--normalize"], "normalize was false, and is true now"),
        (["--vectors", "float16"], "vectors was 'float32', and is 'float16' now"),
        (["--model", "another"], "the model was 'clip-"),
        (["--columns", "text=id"], "columns was"),
    ],
    ids=["precision", "normalize", "vectors", "model", "columns"],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_another_job_is_refused_before_the_model_is_loaded(
    workers: str,
    flags: list[str],
    message: str,
    table: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed(table, folder)
    if "another" in flags:
        shutil.copytree(ROOT / "model", tmp_path / "another")
        weights = tmp_path / "another" / "preprocessor_config.json"
        weights.write_bytes(weights.read_bytes() + b"\n")
        flags = ["--model", str(tmp_path / "another")]
    loads_nothing(monkeypatch)
    capsys.readouterr()
    assert embed(table, folder, "--workers", workers, *flags) == 2
    said = capsys.readouterr().err
    assert f"{folder} holds another job: {message}" in said
    assert "--force-new" in said


def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(Embedder, "load", load)
    monkeypatch.setattr(Local, "begin", load)


def test_a_folder_that_is_taken_or_not_writable_is_refused_before_the_model_is_loaded(
    table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(table, folder)
    loads_nothing(monkeypatch)
    lock = hold(folder / "lock")
    assert lock is not None
    assert embed(table, folder, "--force-new") == 2
    assert f"another job is writing into {folder}: process {os.getpid()}" in capsys.readouterr().err
    os.close(lock)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert embed(table, folder) == 2
    assert f"cannot write to {folder}: {folder} is not writable" in capsys.readouterr().err
