"""The closing report of a job."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from score.__main__ import main
from score.cli import embed as embed_verb
from score.job_folder import embed as embed_module
from score.job_report import report as report_module
from score.job_report.page import as_html
from score.job_report.report import Report
from score.jobs.summary import Summary
from tests.support.images import random_image
from tests.support.job_folders import entries

ROWS = 60
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Images below the table's folder, of which some are copies; URLs of no host; hostile cells."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(random_image(number))
    (tmp_path / "images" / "<i>.png").write_bytes(b"<html>not found</html>")
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as stream:
        written = csv.writer(stream)
        written.writerow(["id", "image", "text"])
        for number in range(ROWS):
            image = f"images/{number % 4}.png" if number % 2 else ""
            if number % 10 == 4:
                image = f"https://u:SECRET@h{number % 3}.invalid/{HOSTILE}/{number}?sig=SECRET"
            if number % 10 == 6:
                image = "images/<i>.png"
            if number == 50:
                image = f"nothing {HOSTILE}\u202e"
            written.writerow([number, image, f"text {number}"] if number != 33 else [number])
    return file


@pytest.fixture
def folder(table: Path) -> Path:
    output = table.parent / "job"
    assert embed(table, output) == 0
    return output


def embed(table: Path, output: Path, *flags: str) -> int:
    words = ["embed", str(table), "--output", str(output), "--quiet", "--shard-rows", "7"]
    return main([*words, *flags])


def told(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name != "src" or (value or "").startswith("data:image/jpeg;base64,")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_counts_what_the_ledger_counts(folder: Path) -> None:
    content = told(folder)
    failed = sum((entry.failed.total() for entry in entries(folder)), 0)
    assert (content["state"], content["rows"], content["good"]) == ("complete", ROWS, ROWS - failed)
    assert {error["code"]: error["rows"] for error in content["errors"]} == {
        "bad_url": 6,
        "not_an_image": 6,
        "bad_type": 1,
        "bad_base64": 1,
    }
    assert content["shards"] == len(entries(folder)) == 9
    assert content["bytes"] == sum(entry.bytes for entry in entries(folder))
    assert content["model"]["precision"] == "fp32"
    assert content["inputs"][0]["name"] == "in.csv"
    done = sum((r["end"] - r["begin"]) * r["rows_per_second"] for r in content["rates"])
    assert done == pytest.approx(ROWS, rel=0.2)


def test_each_error_has_examples_from_all_over_the_job(folder: Path) -> None:
    errors = {error["code"]: error["examples"] for error in told(folder)["errors"]}
    assert len(errors["not_an_image"]) == 5
    rows = [example["row"] for example in errors["not_an_image"]]
    assert rows == sorted(rows)
    assert all(row % 10 == 6 for row in rows)
    assert rows[-1] - rows[0] > ROWS / 2
    assert errors["not_an_image"][0]["cell"] == "images/<i>.png"
    assert "an HTML page" in errors["not_an_image"][0]["message"]
    assert errors["bad_type"][0]["row"] == 33


def test_hosts_have_examples_too(folder: Path) -> None:
    hosts = {host["host"]: host for host in told(folder)["hosts"]}
    assert hosts.keys() == {"h0.invalid", "h1.invalid", "h2.invalid"}
    assert sum(host["rows"] for host in hosts.values()) == 6
    for name, host in hosts.items():
        assert len(host["examples"]) == host["rows"]
        assert all(name in example["cell"] for example in host["examples"])


def test_copies_are_counted_and_the_first_of_each_is_named(folder: Path) -> None:
    copies = told(folder)["copies"]
    assert copies["is_exact"]
    assert copies["files_read"] == 9
    assert copies["different"] == 2  # which odd rows name; the page that is none is not counted
    largest = copies["groups"][0]
    assert largest["rows"] == largest["at_most"] >= 14
    assert largest["cell"] in ("images/1.png", "images/3.png")
    assert largest["first_row"] in (1, 3)


def test_nothing_hostile_or_secret_is_in_a_report(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    record = (folder / "report.json").read_text()
    tags = Tags(page)
    assert {"script", "i", "iframe", "link", "a"}.isdisjoint(tags.names)
    assert HOSTILE in tags.text
    assert "images/<i>.png" in tags.text
    for text in (page, record):
        assert "SECRET" not in text
        assert "\u202e" not in text
        assert "\\u202e" not in text
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', page)
    assert policy
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_thumbnails_are_of_files_below_the_root_alone(folder: Path, table: Path) -> None:
    assert "img" in Tags((folder / "report.html").read_text()).names  # `embed` knows the folder
    assert main(["status", str(folder), "--report"]) == 0
    assert "img" not in Tags((folder / "report.html").read_text()).names
    other = table.parent / "other"
    other.mkdir()
    assert main(["status", str(folder), "--report", "--root", str(other)]) == 0
    assert "img" not in Tags((folder / "report.html").read_text()).names
    shutil.copytree(table.parent / "images", other / "images")
    (other / "images" / "1.png").unlink()
    (other / "images" / "1.png").symlink_to(table.parent / "images" / "1.png")
    report = Report.of(folder, other)
    assert {shown.cell for shown in report.images} == {"images/3.png"}


def test_a_report_of_a_job_that_stopped(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "_ENOUGH", 10)
    folder = tmp_path / "job"
    assert embed(table, folder, "--max-error-rate", "0.01") == 1
    content = told(folder)
    assert content["state"] == "stopped"
    assert 10 <= content["rows"] < ROWS
    page = (folder / "report.html").read_text()
    assert "of the input is done; the same command goes on with it" in page


@pytest.mark.parametrize("number", [1, 20])
def test_a_report_of_a_job_that_was_interrupted(
    number: int, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    count = embed_module.count

    def counting(summary: Summary, *others: Any) -> None:
        count(summary, *others)
        if summary.rows == number:
            raise KeyboardInterrupt

    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr(embed_module, "count", counting)
    embed(table, tmp_path / "job")
    assert codes[:1] == [130]
    assert told(tmp_path / "job")["rows"] == number
    assert told(tmp_path / "job")["state"] == "stopped"


def test_a_report_that_cannot_be_written_fails_no_job(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "job"
    embed(table, folder)
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    capsys.readouterr()
    assert embed(table, folder) == 0
    assert "there is no report of this run: " in capsys.readouterr().err
    assert main(["status", str(folder), "--report"]) == 2
    assert not [file for file in folder.iterdir() if file.name.endswith(".part")]


def test_damaged_shards_are_left_out_and_told(folder: Path) -> None:
    files = [folder / entry.file for entry in entries(folder)]
    files[0].unlink()
    files[1].write_bytes(b"PAR1 nothing PAR1")
    data = bytearray(files[2].read_bytes())
    data[10:2000] = bytes(1990)
    files[2].write_bytes(data)
    assert main(["status", str(folder), "--report"]) == 0
    content = told(folder)
    assert content["rows"] == ROWS
    assert content["copies"]["files_read"] == 6
    assert content["files_unread"] >= 3
    assert "files were damaged or not there" in (folder / "report.html").read_text()


def test_few_of_many_shards_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    hashes = report_module.image_hashes
    monkeypatch.setattr(
        report_module, "image_hashes", lambda file: (read.append(file), hashes(file))[1]
    )
    report = Report.of(folder, most_files=3)
    assert len(read) == report.files_read == 3
    assert [file.name for file in read] == [Path(entries(folder)[at].file).name for at in (1, 4, 7)]
    assert "That is of 3 of the 9 files, evenly chosen" in as_html(report)


def test_a_job_that_has_just_begun(folder: Path) -> None:
    (folder / "ledger.jsonl").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "rows": None}))
    assert main(["status", str(folder), "--report"]) == 0
    content = told(folder)
    assert (content["rows"], content["errors"], content["rates"]) == (0, [], [])


def test_a_job_that_starts_anew_has_no_old_report(
    table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_verb, "_report", lambda *_: None)
    assert (folder / "report.json").is_file()
    assert embed(table, folder) == 0
    assert (folder / "report.json").is_file()
    assert embed(table, folder, "--force-new") == 0
    assert not list(folder.glob("report.*"))


def test_root_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(folder), "--root", str(folder)]) == 2
    assert "--root is for --report" in capsys.readouterr().err
    assert main(["status", str(folder), "--report", "--root", str(folder / "no")]) == 2
    assert "no such folder" in capsys.readouterr().err
