"""`score dedupe` and `score cluster`: what they write, print and refuse."""

from __future__ import annotations

import csv
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from score.__main__ import main
from score.core.embedder import Embedder, fingerprint_of
from score.storage.outputs import EXISTS
from tests.support.images import SAMPLES, random_image
from tests.support.indexes import indexed, unchecked

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
VECTORS = np.array([[1, 0, 0], [0, 1, 0], [1, 0.01, 0], [0, 0, 1], [0, 1, 0.01], [0, 1, 0]])


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Six rows: 1, 4 and 5 are alike, and 0 and 2; 3 is alone."""
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(random_image(1))
    columns = {"image": ["a.png"] * 5 + ["https://example.org/b.png"], "text": [EVIL] * 6}
    indexed(tmp_path, VECTORS, {"id": range(6), **columns})
    return "index"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.policies: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        of = {name: value or "" for name, value in attrs}
        self.sources += [of[name] for name in ("src", "href") if name in of]
        if of.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(of["content"])
        assert not any(name.startswith("on") for name in of)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    capsys.readouterr()
    try:
        code: Any = main(arguments)
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_dedupe_prints_rows_and_what_would_remain(
    index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, "dedupe", index)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["group"], line["id"]) for line in lines] == [
        *((1, 1), (1, 4), (1, 5), (2, 0), (2, 2)),
    ]
    assert [line["cosine"] for line in lines] == [1, 0.99995, 1, 1, 0.99995]
    assert (code, err) == (
        0,
        "index: 2 groups of 5 rows among 6 vectors of image_features, by cosines of 0.95 or more; "
        "3 rows would remain if one of each group were kept\n",
    )


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_dedupe_writes_a_row_for_each_row_of_a_group(ending: str, index: str) -> None:
    output = Path(f"deep/o{ending}")
    assert main(["dedupe", index, "--threshold", "1", "--output", str(output)]) == 0
    if ending == ".parquet":
        rows = pq.read_table(output).to_pylist()
    elif ending == ".csv":
        rows = [*csv.DictReader(io.StringIO(output.read_text()))]
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(int(row["group"]), int(row["id"]), float(row["cosine"])) for row in rows] == [
        *((1, 1, 1.0), (1, 5, 1.0)),
    ]
    assert list(rows[0]) == ["group", "id", "image", "text", "cosine"]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_no_group_is_a_file_without_rows(ending: str, tmp_path: Path) -> None:
    folder = indexed(tmp_path, np.eye(2))
    output = tmp_path / f"o{ending}"
    assert main(["dedupe", str(folder), "--output", str(output)]) == 0
    if ending == ".parquet":
        table = pq.read_table(output)
        assert (table.num_rows, table.schema.names) == (0, ["group", "id", "cosine"])
    elif ending == ".csv":
        assert [*csv.reader(io.StringIO(output.read_text()))] == [["group", "id", "cosine"]]
    else:
        assert output.read_text() == ""


@pytest.mark.parametrize("verb", ["dedupe", "cluster"])
def test_pages_are_self_contained_and_escaped(verb: str, index: str) -> None:
    more = ["--clusters", "3", "--names", "none"] if verb == "cluster" else []
    assert main([verb, index, *more, "--html", "o.html"]) == 0
    text = Path("o.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert page.policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert page.tags.count("section") == (3 if verb == "cluster" else 2)
    assert "no thumbnail" in text, "an image behind a URL is not fetched"


def test_a_page_of_no_groups_says_so(tmp_path: Path) -> None:
    folder, page = indexed(tmp_path, np.eye(2)), tmp_path / "o.html"
    assert main(["dedupe", str(folder), "--html", str(page)]) == 0
    assert "No two rows are that similar." in page.read_text("utf-8")


def test_cluster_writes_each_row_and_prints_a_table(
    index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cluster", index, "--clusters", "3", "--names", "none", "--output", "o.csv"]
    code, out, err = said(capsys, *arguments)
    assert (code, err) == (0, "index: 3 clusters of 6 vectors of image_features\n")
    assert [line.split()[:2] for line in out.splitlines()] == [
        *(["cluster", "size"], ["1", "3"], ["2", "2"], ["3", "1"]),
    ]
    assert "a.png" in out
    rows = [*csv.DictReader(io.StringIO(Path("o.csv").read_text()))]
    assert [(row["id"], row["cluster"]) for row in rows] == [
        *(("0", "2"), ("1", "1"), ("2", "2"), ("3", "3"), ("4", "1"), ("5", "1")),
    ]
    assert {row["name"] for row in rows} == {""}
    assert max(float(row["distance"]) for row in rows) < 0.001


def test_rows_of_no_cluster_have_no_number(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = np.repeat(np.eye(4)[:2], 8, axis=0) + 0.01 * random.standard_normal((16, 4))
    vectors = np.concatenate([vectors, [[-1, -1, 0, 0]]])
    folder, output = indexed(tmp_path, vectors), tmp_path / "o.jsonl"
    arguments = ["cluster", str(folder), "--hdbscan", "--names", "none", "--output", str(output)]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows[-1] == {"cluster": None, "name": None, "id": 16, "distance": None}
    assert {row["cluster"] for row in rows} == {1, 2, None}


@pytest.mark.slow
def test_clusters_of_emoji_have_their_names(
    embedder: Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three drawings, each in several sizes, by the embedded model and its own vocabulary."""
    wanted = {"apple.png": "red apple", "watermelon.jpg": "watermelon", "owl.jpg": "owl"}
    vectors, names = [], []
    for file, name in wanted.items():
        for side in (96, 150, 224):
            stream = io.BytesIO()
            with Image.open(SAMPLES / "images" / file) as image:
                paper = Image.new("RGBA", image.size, "white")
                paper.alpha_composite(image.convert("RGBA"))
                paper.convert("RGB").resize((side, side)).save(stream, "PNG")
            vectors.append(embedder.embed_image(stream.getvalue()))
            names.append(name)
    index = indexed(tmp_path, np.stack(vectors), {"wanted": names}, fingerprint_of(embedder))
    output = tmp_path / "o.parquet"
    arguments = ["cluster", str(index), "--clusters", "3", "--output", str(output)]
    code, out, _ = said(capsys, *arguments, "--html", str(tmp_path / "o.html"))
    assert code == 0
    table = pq.read_table(output)
    assert table.column("name").to_pylist() == table.column("wanted").to_pylist()
    assert all(name in out for name in wanted.values())
    assert "<h2>1: red apple</h2>" in (tmp_path / "o.html").read_text("utf-8")
    vocabulary = tmp_path / "names.txt"
    vocabulary.write_text("a bird\nfruit\n")
    assert main([*arguments, "--names", str(vocabulary), "--overwrite"]) == 0
    named = pq.read_table(output).column("name").to_pylist()
    assert set(named) <= {"a bird", "fruit"}
    assert named[0] == "fruit"


# -- refusals ----------------------------------------------------------------------------------

REFUSED = {
    "no index": (["dedupe", "gone"], "gone holds no index"),
    "no index to cluster": (["cluster", "gone"], "gone holds no index"),
    "zero": (["dedupe", "index", "--threshold", "0"], "a cosine above 0, and 1 at most, not 0"),
    "above one": (["dedupe", "index", "--threshold", "1.1"], "and 1 at most, not 1.1"),
    "NaN": (["dedupe", "index", "--threshold", "nan"], "and 1 at most, not nan"),
    "no number": (["dedupe", "index", "--threshold", "x"], "invalid float value: 'x'"),
    "an ending": (["dedupe", "index", "--output", "o.txt"], "o.txt must end in .csv, .parquet"),
    "an output that is there": (["dedupe", "index", "--output", "in.csv"], EXISTS),
    "a page that is there": (["cluster", "index", "--html", "in.csv"], EXISTS),
    "one file for both": (["dedupe", "index", "--output", "o.csv", "--html", "o.csv"], "same file"),
    "a folder": (["cluster", "index", "--output", "d.csv"], "d.csv is a folder"),
    "below a file": (["dedupe", "index", "--html", "in.csv/o"], "in.csv is not a folder"),
    "more clusters than rows": (
        ["cluster", "index", "--clusters", "7", "--names", "none"],
        "7 clusters of 6 rows cannot be made: ask for 6 at most",
    ),
    "no clusters": (["cluster", "index", "--clusters", "0"], "not a whole number from 1 to 4096"),
    "both kinds": (["cluster", "index", "--clusters", "2", "--hdbscan"], "not allowed with"),
    "no names": (["cluster", "other", "--names", "gone"], "neither imagenet nor emoji nor a file"),
    "blank names": (["cluster", "other", "--names", "in.csv"], "entry 1: must be a text"),
    "another dimension": (["cluster", "index"], "vectors of 3 numbers, the query has 512"),
    "another model": (["cluster", "foreign"], "vectors of the model 'clip' (fingerprint 0123"),
    "no rows": (["dedupe", "unchecked"], "the index holds no vectors"),
    "no rows to cluster": (["cluster", "unchecked", "--names", "none"], "holds no vectors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_refused_is_refused_by_a_sentence(
    case: str,
    index: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    arguments, message = REFUSED[case]
    Path("in.csv").write_text("")
    Path("d.csv").mkdir()
    if arguments[1] in ("other", "foreign"):
        fingerprint = "0123456789ab" if arguments[1] == "foreign" else ""
        (tmp_path / "x").mkdir()
        made = indexed(tmp_path / "x", np.eye(2, 512), fingerprint=fingerprint)
        made.rename(arguments[1])
    if arguments[1] == "unchecked":
        unchecked(tmp_path, [])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", ["dedupe", "cluster"])
def test_an_output_that_cannot_be_written_is_refused(
    verb: str, index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as tests may be, can write anywhere
    code, _, err = said(capsys, verb, index, "--output", "deep/o.csv")
    assert (code, "is not writable" in err) == (2, True)


@pytest.mark.parametrize("verb", ["dedupe", "cluster"])
def test_outputs_are_overwritten_when_asked(verb: str, index: str) -> None:
    more = ["--clusters", "3", "--names", "none"] if verb == "cluster" else []
    arguments = [verb, index, *more, "--output", "o.csv", "--html", "o.html"]
    assert main(arguments) == 0
    first = Path("o.csv").read_bytes(), Path("o.html").read_bytes()
    Path("o.csv").write_text("older")
    assert main(arguments) == 2
    assert Path("o.csv").read_text() == "older"
    assert main([*arguments, "--overwrite"]) == 0
    assert (Path("o.csv").read_bytes(), Path("o.html").read_bytes()) == first
    assert not [*Path().rglob("*.part")]
