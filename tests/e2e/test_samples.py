"""What the docs say of the samples is so, and the samples work."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from benchmarks.embedded import sheet
from samples import page
from samples.draw import THINGS, file_of
from score.core import endpoint
from score.core.embedder import Embedder
from score.errors import ROW_CODES
from score.pages import webpage
from score.settings import names
from score.training.pictograms import FONT, pictograms
from tests.support.pages import pages
from tests.support.surfaces import ROOT

DOCS = "".join(page.read_text(encoding="utf-8") for page in pages())


@pytest.mark.parametrize("name", ["image", "text", "both", "mixed", "labels"])
def test_the_request_bodies_are_answered(embedder: Embedder, name: str) -> None:
    answer = endpoint.score(embedder, (ROOT / f"samples/requests/{name}.json").read_bytes())
    assert answer.status == 200, answer.body
    records = json.loads(answer.body)
    wanted = {"image": {"image_features"}, "text": {"text_features"}}
    wanted["both"] = wanted["image"] | wanted["text"]
    wanted["labels"] = wanted["image"] | {"labels", "probs"}
    if name == "mixed":
        assert [record["error"]["code"] for record in records if "error" in record][-2:] == [
            "empty_row",
            "bad_base64",
        ]
    else:
        assert [set(record) for record in records] == [wanted[name]] * 2


@pytest.mark.parametrize("name", ["image", "both", "mixed", "labels"])
def test_a_request_whose_rows_may_fail_asks_for_a_report(name: str) -> None:
    """At Azure, one image that fails would else make a 424 of the whole answer."""
    body = json.loads((ROOT / f"samples/requests/{name}.json").read_bytes())
    assert body["params"]["on_error"] == "report"


@pytest.mark.process
def test_the_tables_are_what_their_script_writes(tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "samples/draw.py", tmp_path)
    shutil.copytree(ROOT / "samples/images", tmp_path / "images")
    subprocess.run([sys.executable, script], check=True)
    made = [*tmp_path.glob("*.csv"), *tmp_path.rglob("*.json")]
    assert len(made) == 9
    for path in made:
        name = path.relative_to(tmp_path)
        assert path.read_bytes() == (ROOT / "samples" / name).read_bytes(), name


def has_the_font() -> bool:
    """The very version that the samples were drawn with; another has other glyphs."""
    return (
        FONT.is_file()
        and features.check("raqm")
        and hashlib.sha256(FONT.read_bytes()).hexdigest()
        == "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"
    )


@pytest.mark.process
@pytest.mark.skipif(not has_the_font(), reason="needs Debian 12's fonts-noto-color-emoji")
def test_the_images_are_what_their_script_draws(tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "samples/draw.py", tmp_path)
    subprocess.run([sys.executable, script, "--images"], check=True)
    made = sorted((tmp_path / "images").iterdir())
    here = sorted((ROOT / "samples/images").iterdir())
    assert [path.name for path in made] == [path.name for path in here]
    assert len(made) == 67
    for one, other in zip(made, here, strict=True):
        assert_alike(one, other)
    assert (tmp_path / "emoji.csv").read_bytes() == (ROOT / "samples/emoji.csv").read_bytes()


@pytest.mark.skipif(not has_the_font(), reason="needs Debian 12's fonts-noto-color-emoji")
def test_the_sheet_is_what_the_benchmark_draws(tmp_path: Path) -> None:
    sheet(pictograms(), tmp_path / "held_out.jpg")
    assert_alike(tmp_path / "held_out.jpg", ROOT / "tests/data/held_out.jpg")
    names = (ROOT / "tests/data/held_out.json").read_bytes()
    assert (tmp_path / "held_out.json").read_bytes() == names


def assert_alike(one: Path, other: Path) -> None:
    """The same file but for what codecs round."""
    with Image.open(one) as drawn, Image.open(other) as kept:
        for image in (drawn, kept):
            image.load()
        traits = [
            (
                image.format,
                image.mode,
                image.size,
                getattr(image, "n_frames", 1),
                image.getexif().get(0x0112),
                bool(image.info.get("progressive")),
            )
            for image in (drawn, kept)
        ]
        assert traits[0] == traits[1], one.name
        mode = "RGBA" if drawn.mode == "RGBA" else "RGB"
        pixels = [np.asarray(image.convert(mode), float) for image in (drawn, kept)]
    assert abs(pixels[0] - pixels[1]).mean() < 1, one.name


def test_the_page_escapes_every_text() -> None:
    foul, safe = '<script>"&', "&lt;script&gt;&quot;&amp;"
    sample = ROOT / "samples/images/owl.jpg"
    story = page.Story(
        foul, 1, [foul], {foul: [page.Hit(sample, foul, 1.0)]}, (sample, {foul: 1.0}),
        [foul], [sample], np.eye(1),
    )  # fmt: skip
    made = page.as_html(story)
    assert "<script" not in made
    assert made.count(safe) == 7


def test_the_maps_colours_are_of_what_is_not_common() -> None:
    noise = np.random.default_rng(0)
    own = np.eye(6) * 0.3
    common = noise.uniform(-0.4, 0.4, (6, 1)) + noise.uniform(-0.4, 0.4, (1, 6))
    found = page.relative(own + common)
    assert found == pytest.approx(page.relative(own))
    assert np.diag(found).min() > 0.99
    assert (found - np.diag(np.diag(found))).max() <= 0
    assert (page.relative(np.full((3, 4), 0.7)) == 0).all()


def test_the_maps_numbers_are_legible_in_light_and_dark() -> None:
    """WCAG 2.1's contrast of 4.5 of the ink on the strongest colours."""

    def parts(colour: str) -> np.ndarray:
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        return np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255

    def luminance(colour: np.ndarray) -> float:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for theme in webpage.page("", "", "").partition("prefers-color-scheme: dark")[::2]:
        colours = {
            name: parts(value) for name, value in re.findall(r"--(\w+): (#[0-9a-f]+)", theme)
        }
        for name in ("accent", "low"):
            share = page._STRONGEST / 100
            cell = share * colours[name] + (1 - share) * colours["page"]
            pair = sorted(luminance(colour) for colour in (cell, colours["ink"]))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_there_are_photographs_too(embedder: Embedder) -> None:
    photos = sorted((ROOT / "samples/photos").glob("*.jpg"))
    listed = (ROOT / "samples/photos/README.md").read_text()
    assert len(photos) >= 4
    for photo in photos:
        assert f"`{photo.name}`" in listed
        assert np.isfinite(embedder.embed_image(photo)).all()


@pytest.fixture(scope="module")
def demo() -> str:
    """What the demo prints."""
    command = [sys.executable, "samples/demo.py"]
    with ExitStack() as others:
        for port in (5001, 5002, 8800):  # which somebody else has, here or elsewhere
            with suppress(OSError):
                others.enter_context(socket.create_server(("127.0.0.1", port)))
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.process
def test_the_demo_finds_what_is_asked_for(demo: str) -> None:
    ranked = re.findall(r"“(.+)”\n +[\d.-]+ █* +(\S+)", demo)
    assert [query for query, _ in ranked] == [
        "a red apple",
        "a fruit",
        "eine Eule",
    ]
    assert ranked[0][1] == "apple.png"
    kinds = demo.partition("“a fruit”")[2].partition("“")[0]
    found = re.findall(r"\S+\.(?:jpg|png)", kinds)
    assert len(found) == 4
    assert set(found) <= {file_of(name) for name in THINGS["fruit"].values()}
    assert ranked[2][1] == "owl.jpg"
    labels = re.findall(r"[\d.]+% █* +(a\w? \w+)$", demo, re.MULTILINE)
    assert labels[0] == "an owl"
    assert len(labels) == 4
    assert "gone.jpg" in demo  # the row that fails


@pytest.mark.process
def test_the_demo_asks_in_four_ways(demo: str) -> None:
    (apart,) = re.findall(r"They differ by (\S+) at most", demo)
    assert float(apart) < 1e-5
    (body,) = re.findall(r"curl http://127.0.0.1:5001/score .* -d @(\S+)", demo)
    assert (ROOT / body).is_file()


@pytest.mark.process
def test_the_demos_page_needs_nothing_from_elsewhere(demo: str) -> None:
    page = (ROOT / "out/demo.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 3 * 5 + 1 + 20
    assert not re.search(r"(src|href)=\"(?!data:)|https?://(?!127\.0\.0\.1)|<script|@import", page)
    assert page.count("<td style=") == 20 * 20
    for word in ("a red apple", "a fruit", "eine Eule", "a penguin", "gone.jpg"):
        assert word in page


@pytest.mark.process
def test_the_docs_name_every_code_setting_and_command() -> None:
    for name in ROW_CODES:
        assert f"`{name}`" in DOCS, name
    for name in names():
        assert f"`{name}`" in DOCS or f"`SCORE_{name.upper()}`" in DOCS, name
    verbs = subprocess.run(
        [sys.executable, "-m", "score", "--help"], capture_output=True, text=True, check=True
    )
    for verb in re.findall(r"^    (\w+)  ", verbs.stdout, re.MULTILINE):
        assert f"score {verb}" in DOCS, verb


def test_the_samples_that_the_docs_name_exist() -> None:
    for target in re.findall(r"samples/[\w/]+\.\w+", DOCS):
        assert (ROOT / target).exists(), target


def test_the_docs_excerpt_of_labels_is_what_is_answered(embedder: Embedder) -> None:
    (block,) = re.findall(r'```json\n(.*"probs".*)\n```', DOCS)
    (excerpt,) = json.loads(block.replace(", …", ""))
    answer = endpoint.score(embedder, (ROOT / "samples/requests/labels.json").read_bytes())
    first = json.loads(answer.body)[0]
    assert set(excerpt) == set(first)
    assert excerpt["labels"] == first["labels"]
    features = excerpt["image_features"]
    assert features == pytest.approx(first["image_features"][: len(features)], abs=0.01)
    assert excerpt["probs"] == pytest.approx(first["probs"], abs=0.01)
