"""CSV in, files of vectors out: the writers, Azure's entry script, the command line."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import gzip
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score import __version__, batch
from score.__main__ import main
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.errors import BadColumns, RequestError
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.index.build import build_index
from score.index.index import Index
from score.jobs import merge as merge_module
from score.jobs.embed import embed_file
from score.jobs.summary import Summary
from score.tables.csv_reader import CsvTable
from score.tables.writers import writer_for
from tests.support.images import SAMPLES, in_base64, random_image, served
from tests.support.processes import started
from tests.support.surfaces import ROOT

PNG = random_image(5)


def write(path: Path, *lines: list[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV with an index column as pandas writes it, other columns, and rows that fail."""
    return write(
        tmp_path / "in.csv",
        ["", "id", "image", "text", "price"],
        [0, "a", in_base64(PNG), "a cat", "1.50"],
        [1, "b", "", "line one\nline two, quoted", ""],
        [2, "c", "%%%", "", "NA"],
        [3, "d", "", "", "x"],
    )


def embed(embedder: Embedder, source: Path, output: Path, **params: Any) -> Summary:
    return embed_file(embedder, source, output, Params(on_error="report", **params))


def test_parquet_keeps_columns_and_types(embedder: Embedder, table: Path, tmp_path: Path) -> None:
    summary = embed(embedder, table, tmp_path / "out.parquet")
    assert (summary.rows, summary.good) == (4, 2)
    assert dict(summary.failed) == {"bad_base64": 1, "empty_row": 1}
    assert "4 rows: 2 good, 2 failed (bad_base64 1, empty_row 1)" in str(summary)
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.column_names == [
        "Unnamed: 0", "id", "image", "text", "price",
        "image_features", "text_features", "error_code", "error_message", "error_retryable",
    ]  # fmt: skip
    assert written.schema.field("image_features").type == pa.list_(pa.float32())
    chunks = pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0)
    dictionaries = {
        chunk.path_in_schema.split(".")[0]: chunk.has_dictionary_page
        for chunk in map(chunks.column, range(chunks.num_columns))
    }
    assert dictionaries["id"]
    assert not dictionaries["image_features"]
    rows = written.to_pylist()
    assert [row["price"] for row in rows] == ["1.50", "", "NA", "x"]  # nothing guessed
    assert rows[1]["text"] == "line one\nline two, quoted"
    (alone,) = embedder.embed([Row(PNG, "a cat")])
    np.testing.assert_allclose(
        rows[0]["image_features"], alone.image_features, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(rows[0]["text_features"], alone.text_features, rtol=1e-4, atol=1e-5)
    assert rows[1]["image_features"] is None
    assert rows[2]["error_code"] == "bad_base64"
    assert rows[2]["error_message"].startswith("image: ")
    assert rows[0]["error_code"] is None


def test_parquet_says_which_model_made_it(embedder: Embedder, table: Path, tmp_path: Path) -> None:
    for number in range(2):
        embed(embedder, table, tmp_path / "results" / f"{number}.parquet")
    said = pq.read_schema(tmp_path / "results" / "0.parquet").metadata
    assert said == {
        b"score.version": __version__.encode(),
        b"score.model": embedder.name.encode(),
        b"score.fingerprint": ModelFolder.open(EMBEDDED).fingerprint().encode(),
        b"score.engine": b"torch",
        b"score.precision": b"fp32",
        b"score.device": b"cpu",
    }
    results = sorted((tmp_path / "results").glob("*.parquet"))
    assert merge_module._schema(results).metadata == said
    other = pa.schema([("text", pa.string())], metadata={"score.fingerprint": "other"})
    pq.write_table(other.empty_table(), tmp_path / "results" / "2.parquet")
    assert not merge_module._schema([*results, tmp_path / "results" / "2.parquet"]).metadata


def test_the_formats_say_the_same(embedder: Embedder, table: Path, tmp_path: Path) -> None:
    for ending in ("parquet", "csv", "jsonl", "npy"):
        embed(embedder, table, tmp_path / f"out.{ending}", normalize=True)
    parquet = pq.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    images = np.load(tmp_path / "out.image_features.npy")
    texts = np.load(tmp_path / "out.text_features.npy")
    assert images.shape == texts.shape == (4, 512)
    assert images.dtype == np.float32
    side = pd.read_csv(tmp_path / "out.rows.csv", dtype=str, keep_default_na=False)
    assert list(side["error_code"]) == ["", "", "bad_base64", "empty_row"]
    for row, line, image, text in zip(parquet, lines, images, texts, strict=True):
        assert line["id"] == row["id"]
        assert ("error" in line) == (row["error_code"] is not None)
        for name, vector in (("image_features", image), ("text_features", text)):
            if row[name] is None:
                assert name not in line
                assert np.isnan(vector).all()
            else:
                np.testing.assert_allclose(row[name], vector, atol=1e-6)
                np.testing.assert_allclose(line[name], vector, atol=1e-6)
    flat = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    np.testing.assert_allclose(json.loads(flat["text_features"][1]), texts[1], atol=1e-6)


def test_paths_may_be_strings(embedder: Embedder, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.parquet"
    rows = embed_file(embedder, str(table), str(output)).rows
    assert pq.read_table(output).num_rows == rows
    indexed = build_index(str(output), str(tmp_path / "index"), "text_features")
    assert len(Index(str(tmp_path / "index"))) == indexed > 0


@pytest.mark.parametrize(("name", "output"), [("a.csv", "a.csv"), ("a.rows.csv", "a.npy")])
def test_the_input_is_never_written_over(
    embedder: Embedder, tmp_path: Path, name: str, output: str
) -> None:
    source = write(tmp_path / name, ["text"], ["a"])
    with pytest.raises(RequestError, match="replace the input"):
        embed(embedder, source, tmp_path / output)
    assert source.read_text().split() == ["text", "a"]


def test_npy_has_no_file_for_vectors_that_nobody_asked_for(
    embedder: Embedder, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.csv", ["text"], ["a"], ["b"])
    embed(embedder, source, tmp_path / "out.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.csv", "out.rows.csv", "out.text_features.npy",
    ]  # fmt: skip


def test_a_table_without_rows_is_an_empty_file(embedder: Embedder, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ["image", "text"])
    for ending in ("parquet", "csv", "jsonl", "npy"):
        assert embed(embedder, source, tmp_path / f"out-{ending}.{ending}").rows == 0
    assert pq.read_table(tmp_path / "out-parquet.parquet").num_rows == 0


def test_inline_images_are_not_repeated_but_urls_are(
    embedder: Embedder, tmp_path: Path, images_url: str
) -> None:
    big = in_base64(random_image(1, (200, 200)))
    uri = "data:image/png;base64," + in_base64(PNG)
    source = write(tmp_path / "in.csv", ["image"], [big], [uri], [f"{images_url}/moon.png"])
    embed(embedder, source, tmp_path / "out.parquet")
    kept = pq.read_table(tmp_path / "out.parquet")["image"].to_pylist()
    assert kept == [None, None, f"{images_url}/moon.png"]


def test_cells_may_name_files_below_the_csv_but_not_above(
    embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "below" / "deep").mkdir(parents=True)
    (tmp_path / "above.png").write_bytes(PNG)
    (tmp_path / "below" / "deep" / "a.png").write_bytes(PNG)
    (tmp_path / "below" / "link.png").symlink_to(tmp_path / "above.png")
    cells = ["deep/a.png", "../above.png", str(tmp_path / "above.png"), "link.png", "gone.png"]
    source = write(tmp_path / "below" / "in.csv", ["image"], *[[cell] for cell in cells])
    embed(embedder, source, tmp_path / "out.parquet")
    codes = pq.read_table(tmp_path / "out.parquet")["error_code"].to_pylist()
    assert codes == [None, *["bad_base64"] * 4]


def test_a_ragged_line_fails_alone(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n1,a\n2,b,unquoted comma\n3\n\n4,d\n")
    embed(embedder, source, tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["error_code"] for row in rows] == [None, "bad_type", "bad_type", None]
    assert "line 3 has 3 cells, not 2" in rows[1]["error_message"]


@pytest.mark.parametrize("ending", ["", "\n"])
def test_an_open_quote_is_an_error_not_a_row(
    embedder: Embedder, tmp_path: Path, ending: str
) -> None:
    source = tmp_path / "in.csv"
    source.write_text('id,text\n1,"a ""cat"""\n2,"unclosed\n3,b\n4,c' + ending)
    embed(embedder, source, tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["error_code"] for row in rows] == [None, "bad_type"]
    assert "a quote is left open" in rows[1]["error_message"]
    assert rows[0]["text"] == 'a "cat"'


def test_an_image_is_no_table(embedder: Embedder) -> None:
    with pytest.raises(BadColumns, match="not UTF-8"):
        embed(embedder, SAMPLES / "images" / "apple.png", Path("out.parquet"))


def test_bytes_that_are_not_utf8_fail_their_row(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"name,text\nok,a\ncaf\xe9,caf\xe9\ncaf\xe9,b\n")
    for ending in ("parquet", "csv", "jsonl", "npy"):
        summary = embed(embedder, source, tmp_path / f"out.{ending}")
        assert dict(summary.failed) == {"bad_type": 1}


def test_a_byte_order_mark_and_gzip_are_understood(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress("\ufefftext\nä\n".encode()))
    assert embed(embedder, source, tmp_path / "out.parquet").good == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", BadColumns),
        ("Text\na\n", BadColumns),
        ("url,caption\na,b\n", BadColumns),
        ("text,text\na,b\n", BadColumns),
        ("text,error_code\na,b\n", BadColumns),
    ],
)
def test_a_file_that_is_no_table_is_refused_and_leaves_nothing(
    embedder: Embedder, tmp_path: Path, content: str, error: type[Exception]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text(content)
    with pytest.raises(error):
        embed(embedder, source, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_gzip_that_breaks_off_or_is_damaged(embedder: Embedder, tmp_path: Path) -> None:
    whole = gzip.compress(b"text\n" + bytes(range(97, 123)) * 3000)
    for number, content in enumerate((whole[:-30], whole[:40] + b"\xff" * 20 + whole[60:])):
        source = tmp_path / f"{number}.csv.gz"
        source.write_bytes(content)
        with pytest.raises(RequestError, match="cannot be read"):
            embed(embedder, source, tmp_path / "out.parquet")


def test_a_column_named_error_survives(embedder: Embedder, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ["text", "error"], ["a", "mine"])
    embed(embedder, source, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["error"].to_pylist() == ["mine"]
    with pytest.raises(BadColumns, match="already has a column 'error'"):
        embed(embedder, source, tmp_path / "out.jsonl")


def test_an_output_that_is_a_folder_is_refused_at_once(embedder: Embedder, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ["text"], ["a"])
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        embed(embedder, source, tmp_path / "out.parquet")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "npy"])
def test_what_goes_wrong_while_writing_is_what_is_raised(
    embedder: Embedder, tmp_path: Path, ending: str
) -> None:
    source = write(tmp_path / "in.csv", ["text"], ["a"])
    with pytest.raises(KeyboardInterrupt), CsvTable(source) as table:
        output = tmp_path / f"out.{ending}"
        with writer_for(output)(output, table.columns, 512) as writer:
            (record,) = embedder.embed([Row(text="a")])
            writer.write(["a"], record)
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_long_cells_make_small_row_groups(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    with writer_for(output)(output, ["html"], 512) as writer:
        for _ in range(100):
            writer.write(["x" * 2**20], Record())
    assert pq.ParquetFile(output).num_row_groups >= 3


def test_a_broken_gzip_leaves_nothing(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress(b"text\n" + b"a\n" * 5000)[:-20])
    with pytest.raises(RequestError, match="cannot be read"):
        embed(embedder, source, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv.gz"]


# -- Azure's batch entry script ----------------------------------------------------------------


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Azure starts it: the model folder's parent in AZUREML_MODEL_DIR."""
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    batch.init()


@pytest.mark.usefixtures("azure")
def test_a_mini_batch_is_a_row_for_each_row(table: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", ["text"], ["a"])
    poisoned = write(tmp_path / "poisoned.csv", ["url"], ["x"])
    result = batch.run([str(table), str(poisoned), str(tmp_path / "gone.csv"), str(other)])
    assert list(result.columns) == batch.RESULT_COLUMNS
    files = [Path(file).name for file in result["file"]]
    assert files == [*["in.csv"] * 4, "poisoned.csv", "gone.csv", "other.csv"]
    assert result["file"][0] == str(table)  # two files may share a name
    assert list(result["error_code"].fillna("")) == [
        "", "", "bad_base64", "empty_row", "bad_columns", "unreadable_file", "",
    ]  # fmt: skip
    assert len(json.loads(result["text_features"].iloc[-1])) == 512
    # What Azure's append_row does to it.
    lines = result.to_csv(header=False, index=False, sep=" ")
    assert lines.count("\n") >= 7


def test_the_model_may_be_below_the_folder_azure_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(ROOT))
    batch.init()
    assert len(batch.run([str(SAMPLES / "paths.csv")])) == 67


# -- the command line --------------------------------------------------------------------------


def test_the_command_embeds_a_csv_of_urls(
    tmp_path: Path, images_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "urls.csv"
    text = (SAMPLES / "urls.csv").read_text()
    source.write_text(text.replace("http://127.0.0.1:8800", images_url))
    output = tmp_path / "deep" / "out.parquet"
    arguments = ["embed", str(source), "--output", str(output), "--allow-hosts", "127.0.0.1"]
    assert main(arguments) == 0
    assert "68 rows: 67 good, 1 failed (fetch_failed 1)" in capsys.readouterr().err
    assert pq.read_table(output).num_rows == 68
    assert main([*arguments, "--overwrite", "--max-errors", "0"]) == 1
    assert main([*arguments, "--overwrite", "--max-errors", "1"]) == 0


def test_loopback_is_refused_unless_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The output may go to whoever sent the table; the log, on stderr, is for who runs the job."""
    with served(SAMPLES / "images") as url:
        source = write(tmp_path / "in.csv", ["image"], [f"{url}/moon.png"])
        assert main(["embed", str(source), "--output", str(tmp_path / "out.jsonl")]) == 1
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["error"]["code"] == "blocked_host"
    assert "leads to no public address" in json.loads(line)["error"]["message"]
    assert f"{url}/moon.png: 127.0.0.1, which is not public" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["embed", "gone.csv", "--output", "out.parquet"], "no such file"),
        (["embed", "samples/urls.csv", "--output", "out.xlsx"], "must end in .parquet"),
        (["embed", "README.md", "--output", "out.csv"], "no column"),
        (
            ["embed", "samples/urls.csv", "--output", "out.csv", "--model", "/gone"],
            "no model folder",
        ),
        (
            ["embed", "samples/urls.csv", "--output", "out.csv", "--model", "samples"],
            "no config.json",
        ),
        (
            ["embed", "samples/urls.csv", "--output", "out.csv", "--max-pixels", "x"],
            "--max-pixels must be",
        ),
        (["embed", "samples/urls.csv", "--output", "out.csv", "--device", "tpu9"], "no device"),
        (["package", "samples", "--output", "/tmp/never"], "no config.json"),
    ],
)
def test_unusable_arguments_are_a_sentence_and_exit_code_2(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("score: ")
    assert says in message
    assert "Traceback" not in message
    assert not Path("out.csv").exists()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_job_leaves_no_finished_file(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "out.parquet"
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "a cat\n" * 2_000_000)
    command = [sys.executable, "-m", "score", "embed", str(source), "--output", str(output)]
    with started(command, stderr=subprocess.PIPE) as job:
        begun(tmp_path)
        job.send_signal(number)
        _, errors = job.communicate(timeout=30)
    assert job.returncode != 0
    assert not output.exists()
    if number == signal.SIGINT:
        assert job.returncode == 130
        assert "interrupted" in errors
        assert "Traceback" not in errors


def begun(folder: Path) -> None:
    """Waits until a job is at its rows."""
    for _ in range(1200):
        if [*folder.glob(".out.parquet.*.part")]:
            break
        time.sleep(0.1)
    time.sleep(1)


@pytest.mark.process
def test_a_job_in_the_background_ignores_interrupts_and_stops_when_it_is_ended(
    tmp_path: Path,
) -> None:
    """`score … &` in a script: the shell has SIGINT ignored, and ^C is for somebody else."""
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "a cat\n" * 2_000_000)
    command = [sys.executable, "-m", "score", "embed", str(source)]
    command += ["--output", str(tmp_path / "out.parquet")]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    with started(ignoring, stderr=subprocess.PIPE) as job:
        begun(tmp_path)
        job.send_signal(signal.SIGINT)
        time.sleep(1)
        assert job.poll() is None
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate(timeout=30)
    assert job.returncode == 143
    assert "interrupted, nothing written" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.process
def test_a_terminal_sees_rows_rate_errors_and_time_left(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + 'a cat\n""\n' * 3000)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [sys.executable, "-m", "score", "embed", str(source)]
    with subprocess.Popen(
        [*command, "--output", str(tmp_path / "out.parquet")], cwd=ROOT, stderr=theirs
    ) as job:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
    assert job.returncode == 0
    assert re.search(r"100%\|█+\| 6,000 rows, [\d.]+ rows/s, 3,000 errors \[\d+", shown.decode())


@pytest.mark.process
def test_the_last_batch_is_not_lost_on_the_way_out(tmp_path: Path) -> None:
    """As many rows out as in, whatever the row groups' size."""
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{i},a\n" for i in range(4097)))
    output = tmp_path / "out.parquet"
    environ = {**os.environ, "SCORE_BATCH_SIZE": "5"}
    command = [sys.executable, "-m", "score", "embed", str(source), "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, env=environ, stderr=subprocess.DEVNULL)
    assert pq.read_table(output)["id"].to_pylist() == [str(i) for i in range(4097)]
