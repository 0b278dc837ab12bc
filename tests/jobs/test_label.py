"""`score label`: a data set labelled, into a CSV or into a folder for each label."""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import importlib
import importlib.util
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from score.__main__ import main
from score.contract.labels import Labels
from score.core.embedder import Embedder, parts_of
from score.errors import BadColumns, BadParams, RequestError, RequestTooLarge
from score.fetch.fetcher import Fetcher
from score.images.decode import decode, ending
from score.images.formats import ENDINGS
from score.jobs import image_folder_writer
from score.jobs.image_folder_reader import ClassFolders
from score.jobs.image_source import open_images
from score.jobs.label import (
    LabelSummary,
    check_output,
    encode_ontology,
    label,
    read_ontology,
)
from score.settings import Settings, WidePixels
from tests.support.bad_images import FILES, encoded, whole
from tests.support.images import ALBUM, SAMPLES, in_base64, random_image
from tests.support.processes import started
from tests.support.surfaces import ROOT

PNG, JPEG = random_image(1), random_image(2, format="JPEG")
ONTOLOGY = ALBUM / "ontology.json"
LABELS = Labels.parse(json.loads(ONTOLOGY.read_text()))
assert LABELS is not None

BY_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}

Lines = list[dict[str, str]]


def write(path: Path, *lines: list[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    return path


def read(path: Path) -> Lines:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def labelled(
    embedder: Embedder, source: Path, output: Path, labels: object = LABELS, **options: Any
) -> LabelSummary:
    parsed = labels if isinstance(labels, Labels) else Labels.parse(labels)
    assert parsed is not None
    with open_images(source) as images:
        summary = label(embedder, images, parsed, output, **options)
        assert summary.position == (images.size if summary.rows else 0)  # the bar is full
    return summary


def tree(folder: Path) -> set[str]:
    """Every file below a folder, and every empty folder with a slash."""
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    empty = {
        f"{p.relative_to(folder).as_posix()}/"
        for p in folder.rglob("*")
        if p.is_dir() and not any(p.iterdir())
    }
    return files | empty


class Counting(SimpleHTTPRequestHandler):
    """A file server that counts what it was asked; `/slow/…` answers late."""

    asked: Counter[str]

    def do_GET(self) -> None:
        type(self).asked[self.path] += 1
        if self.path.startswith("/slow/"):
            time.sleep(0.3)
            self.path = self.path.removeprefix("/slow")
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[tuple[str, Counter[str]]]:
    """Where the sample images are served, and how often each was asked for."""
    handler = type("Handler", (Counting,), {"asked": Counter()})
    serve = functools.partial(handler, directory=str(ALBUM / "images"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


# -- into a CSV --------------------------------------------------------------------------------


def test_a_folder_becomes_a_line_for_each_image(embedder: Embedder, tmp_path: Path) -> None:
    summary = labelled(embedder, ALBUM / "images", tmp_path / "out.csv")
    lines = read(tmp_path / "out.csv")
    assert list(lines[0]) == [
        "image", "label", "confidence", "error_code", "error_message", "error_retryable",
    ]  # fmt: skip
    names = sorted(path.name for path in (ALBUM / "images").iterdir())
    assert [line["image"] for line in lines] == names
    for line in lines:
        verdict = embedder.classify(ALBUM / "images" / line["image"], LABELS)  # type: ignore[arg-type]
        best = next(iter(verdict))
        assert line["label"] == best
        assert float(line["confidence"]) == pytest.approx(verdict[best], abs=1e-5)
        assert line["error_code"] == ""
    assert summary.labels.total() == summary.good == summary.rows == 6
    assert set(summary.labels) == set(LABELS.names)  # type: ignore[union-attr]
    assert summary.labels == Counter({**dict.fromkeys(summary.labels, 0), **counts(lines)})


def counts(lines: Lines) -> Counter[str]:
    return Counter(line["label"] for line in lines if line["label"])


def test_a_csv_keeps_its_columns_and_its_failures(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    source = write(
        tmp_path / "below" / "in.csv",
        ["id", "image", "text"],
        ["1", in_base64(PNG), "not asked"],
        ["2", "", "a text is no image"],
        ["3", in_base64(b"<html>")],
        ["4", in_base64(b"no image"), ""],
        ["5", "a.png", ""],
        ["6", "../secret.png", ""],
        ["7", in_base64(JPEG[:-300]), ""],
        ["8", "data:image/png;base64," + in_base64(PNG), ""],
    )
    with source.open("ab") as stream:
        stream.write(b"9,a.png,caf\xe9\n")  # the text is not what is asked
    summary = labelled(embedder, source, tmp_path / "out.csv")
    lines = read(tmp_path / "out.csv")
    assert [line["id"] for line in lines] == list("123456789")
    assert [line["error_code"] for line in lines] == [
        "", "empty_row", "bad_type", "not_an_image", "", "bad_base64", "truncated_image", "", "",
    ]  # fmt: skip
    for line in lines:
        assert bool(line["label"]) == bool(line["confidence"]) == (line["error_code"] == "")
    assert lines[1]["error_message"] == "image: is empty"
    assert "has 2 cells, not 3" in lines[2]["error_message"]
    assert lines[1]["text"] == "a text is no image"
    probs = [float(line["confidence"]) for line in lines if line["label"]]
    assert probs == pytest.approx([probs[0]] * 4, abs=1e-5)  # of one image
    assert (summary.rows, summary.good) == (9, 4)
    assert "9 rows: 4 good, 5 failed" in str(summary)


def test_a_label_below_the_confidence_is_left_out_and_its_probability_kept(
    embedder: Embedder, tmp_path: Path
) -> None:
    every = read_after(embedder, tmp_path / "every.csv")
    # Between two, since an image's last bits depend on the company it keeps.
    middle = sum(sorted(float(line["confidence"]) for line in every)[2:4]) / 2
    some = read_after(embedder, tmp_path / "some.csv", confidence=middle)
    for one, other in zip(every, some, strict=True):
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-5)
        enough = float(one["confidence"]) >= middle
        assert other["label"] == (one["label"] if enough else "")
    assert counts(some).total() == 3
    summary = labelled(embedder, ALBUM / "images", tmp_path / "x.csv", confidence=middle)
    assert (summary.unlabelled, summary.good, summary.labels.total()) == (3, 6, 3)
    assert "        3  below the confidence asked for, unlabelled" in str(summary)


def test_a_label_as_probable_as_asked_is_enough(embedder: Embedder, tmp_path: Path) -> None:
    summary = labelled(embedder, ALBUM / "images", tmp_path / "a.csv", ["only"], confidence=1)
    assert summary.labels == {"only": 6}
    assert {line["label"] for line in read(tmp_path / "a.csv")} == {"only"}


def read_after(embedder: Embedder, output: Path, **options: Any) -> Lines:
    labelled(embedder, ALBUM / "images", output, **options)
    return read(output)


def test_top_names_further_labels(embedder: Embedder, tmp_path: Path) -> None:
    lines = read_after(embedder, tmp_path / "out.csv", top=3)
    assert [name for name in lines[0] if "label" in name or "confidence" in name] == [
        "label", "confidence", "label_2", "confidence_2", "label_3", "confidence_3",
    ]  # fmt: skip
    for line in lines:
        verdict = embedder.classify(ALBUM / "images" / line["image"], LABELS)  # type: ignore[arg-type]
        wanted = list(verdict.items())[:3]
        got = [(line[f"label{n}"], float(line[f"confidence{n}"])) for n in ("", "_2", "_3")]
        assert [name for name, _ in got] == [name for name, _ in wanted]
        assert [p for _, p in got] == pytest.approx([p for _, p in wanted], abs=1e-5)
    second = float(lines[0]["confidence_2"])
    first = float(lines[0]["confidence"])
    strict = read_after(embedder, tmp_path / "b.csv", top=2, confidence=(first + second) / 2)[0]
    assert strict["label"]
    assert strict["label_2"] == ""
    assert float(strict["confidence_2"]) == pytest.approx(second, abs=1e-5)
    wide = read_after(embedder, tmp_path / "c.csv", top=8)[0]
    assert wide["label_6"]
    assert wide["label_7"] == wide["confidence_8"] == ""


def test_a_csv_appears_only_when_complete(embedder: Embedder, tmp_path: Path) -> None:
    def stop(summary: LabelSummary) -> None:
        if summary.rows == 3:
            raise KeyboardInterrupt

    for output in ("out.csv", "out"):
        with pytest.raises(KeyboardInterrupt):
            labelled(embedder, ALBUM / "images", tmp_path / output, progress=stop)
        assert tree(tmp_path) == set()


# -- folders of images -----------------------------------------------------------------------


def test_a_folder_is_searched_in_order(embedder: Embedder, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("b.png", "a/z.PNG", "a/b/c.jpg", "a-b/x.png", "Z.jpeg", "a.png", "data:x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    for name in (".hidden.png", ".git/a.png", "notes.txt", "a/in.csv", "png", "a/.b/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    labelled(embedder, root, tmp_path / "out.csv")
    lines = read(tmp_path / "out.csv")
    names = [line["image"] for line in lines]
    assert names == [
        "Z.jpeg", "a/b/c.jpg", "a/z.PNG", "a-b/x.png", "a.png", "b.png", "data:x.png",
    ]  # fmt: skip
    assert sorted(names, key=lambda name: name.split("/")) == names
    assert {line["error_code"] for line in lines} == {""}


def test_links_lead_nowhere_but_below_the_folder(embedder: Embedder, tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.png").write_bytes(PNG)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(PNG)
    (root / "inner.png").symlink_to("sub/a.png")
    (root / "outer.png").symlink_to("../outside/secret.png")
    (root / "dead.png").symlink_to("gone.png")
    (root / "self.png").symlink_to("self.png")
    (root / "loop").symlink_to(".")
    (root / "elsewhere").symlink_to(tmp_path / "outside")
    (root / "elsewhere.png").symlink_to(tmp_path / "outside")
    (tmp_path / "linked").symlink_to(root)
    for source, output in ((root, "one"), (tmp_path / "linked", "two")):
        labelled(embedder, source, tmp_path / output)
        lines = {line["image"]: line for line in read(tmp_path / output / "labels.csv")}
        assert list(lines) == ["dead.png", "inner.png", "outer.png", "self.png", "sub/a.png"]
        messages = {name: line["error_message"] for name, line in lines.items()}
        assert messages["inner.png"] == messages["sub/a.png"] == ""
        assert messages["outer.png"] == "image: is a link that leads out of the folder"
        assert "is a link that leads nowhere" in messages["dead.png"]
        assert "is a link that leads nowhere" in messages["self.png"]
        assert lines["outer.png"]["file"] == ""
        assert len(tree(tmp_path / output)) == 3
        assert not any(path.is_symlink() for path in (tmp_path / output).rglob("*"))


def test_names_that_are_not_unicode(embedder: Embedder, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png")).write_bytes(PNG)
    labelled(embedder, root, tmp_path / "out.csv")
    labelled(embedder, root, tmp_path / "out")
    (line,) = read(tmp_path / "out.csv")
    assert (line["image"], line["error_code"]) == ("caf\ufffd.png", "")
    (line,) = read(tmp_path / "out" / "labels.csv")
    assert (tmp_path / "out" / line["file"]).read_bytes() == PNG


@pytest.mark.process
def test_a_deep_folder_is_no_deep_stack(embedder: Embedder, tmp_path: Path) -> None:
    root = tmp_path / "in"
    here = os.getcwd()
    root.mkdir()
    (root / "top.png").write_bytes(PNG)
    os.chdir(root)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.png").write_bytes(PNG)
    finally:
        os.chdir(here)
    try:
        summary = labelled(embedder, root, tmp_path / "out.csv")
    finally:
        # pytest's own way of removing it is a deep stack.
        subprocess.run(["rm", "-rf", str(root)], check=True)
    assert summary.rows == 2
    assert [line["error_code"] for line in read(tmp_path / "out.csv")] == ["bad_base64", ""]


def test_every_format_has_its_ending() -> None:
    for format, wanted in (("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif"), ("WEBP", ".webp"),
                           ("BMP", ".bmp"), ("TIFF", ".tif"), ("PPM", ".ppm"), ("AVIF", ".avif"),
                           ("JPEG2000", ".jp2"), ("MPO", ".jpg")):  # fmt: skip
        assert ending(random_image(1, format=format)) == wanted
        assert wanted in ENDINGS
    several = io.BytesIO()
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    frames[0].save(several, "MPO", save_all=True, append_images=frames[1:])
    assert ending(several.getvalue()) == ".jpg"  # a phone's JPEG


# -- into an image folder ----------------------------------------------------------------------


def placed_as(name: str) -> str:
    """A sample image's name in an image folder, where a GIF is a PNG."""
    return name.replace(".gif", ".png")


def assert_same_image(placed: Path, original: Path) -> None:
    """The very bytes, or for what torchvision does not read, the same pixels."""
    if original.suffix == ".gif":
        assert ending(placed.read_bytes()) == ".png"
        ours, theirs = (decode(file.read_bytes(), 10**6) for file in (placed, original))
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert placed.read_bytes() == original.read_bytes()


def test_images_are_sorted_into_their_labels(embedder: Embedder, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    labelled(embedder, ALBUM / "images", output)
    lines = read(output / "labels.csv")
    assert list(lines[0])[:4] == ["image", "label", "confidence", "file"]
    for line in lines:
        assert line["file"] == f"{line['label']}/{placed_as(line['image'])}"
        assert_same_image(output / line["file"], ALBUM / "images" / line["image"])
    assert tree(output) == {"labels.csv", *(line["file"] for line in lines)}
    assert tree(tmp_path) == {f"deep/out/{name}" for name in tree(output)}  # nothing beside it
    assert len(list((ALBUM / "images").iterdir())) == 6  # copied, not moved


def test_the_two_outputs_say_the_same(embedder: Embedder, tmp_path: Path) -> None:
    every = sorted(
        float(line["confidence"]) for line in read_after(embedder, tmp_path / "every.csv")
    )
    options: dict[str, Any] = {"confidence": sum(every[2:4]) / 2, "top": 2}
    first = labelled(embedder, ALBUM / "images", tmp_path / "out.csv", **options)
    second = labelled(embedder, ALBUM / "images", tmp_path / "out", **options)
    assert first.labels == second.labels
    sorted_lines = read(tmp_path / "out" / "labels.csv")
    assert {bool(line["file"]) for line in sorted_lines} == {True, False}
    for one, other in zip(read(tmp_path / "out.csv"), sorted_lines, strict=True):
        assert bool(other.pop("file")) == bool(one["label"])
        for name in ("confidence", "confidence_2"):
            assert float(one.pop(name)) == pytest.approx(float(other.pop(name)), abs=1e-5)
        assert one == other


# torchvision/datasets/folder.py
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def as_torchvision(folder: Path) -> dict[str, Image.Image]:
    """Path below the folder → image, as `ImageFolder(folder)` finds and loads them."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    loaded = {}
    for name in classes:
        found = [p for p in (folder / name).rglob("*") if p.name.lower().endswith(IMG_EXTENSIONS)]
        assert found, f"torchvision refuses a class without images: {name}"
        for path in sorted(found):
            with path.open("rb") as stream:
                loaded[path.relative_to(folder).as_posix()] = Image.open(stream).convert("RGB")
    return loaded


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "PNG", exif=exif)


def every_format() -> dict[str, bytes]:
    """A file of each ending that is read, and others that torchvision shows otherwise than we."""
    formats = {ending: format for format, endings in BY_FORMAT.items() for ending in endings}
    files = {f"whole{ending}": encoded(whole(7), format) for ending, format in formats.items()}
    files["phone.mpo"] = FILES["MPO"]()
    files["moving.gif"] = FILES["GIF animated"]()
    files["clear.gif"] = encoded(whole(3).convert("P"), "GIF", transparency=3)
    files["moving.avif"] = encoded(whole(5), "AVIF", save_all=True, append_images=[whole(6)])
    files["deep.png"] = FILES["PNG 16 bit"]()
    files["deep.tif"] = FILES["TIFF float"]()
    files["disguised.png"] = FILES["GIF"]()
    files["UPPER.GIF"] = FILES["GIF"]()
    files["no ending"] = FILES["GIF"]()
    return files


@pytest.mark.parametrize("upright", [False, True])
def test_torchvision_finds_every_image_as_the_model_saw_it(
    embedder: Embedder, tmp_path: Path, upright: bool
) -> None:
    files = every_format()
    files["turned.gif"] = turned(whole(8))  # a PNG by another name
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    source = write(tmp_path / "in" / "t.csv", ["image"], *[[f"./{name}"] for name in files])
    settings = Settings(exif_orientation=upright)
    model = Embedder(*parts_of(embedder), settings)
    summary = labelled(model, source, tmp_path / "out")
    lines = read(tmp_path / "out" / "labels.csv")
    assert [line["error_code"] for line in lines] == [""] * len(files)
    loaded = as_torchvision(tmp_path / "out")
    assert set(loaded) == {line["file"] for line in lines}
    for line in lines:
        original = files[line["image"].removeprefix("./")]
        seen = decode(original, 10**6, exif_orientation=upright)
        theirs = loaded[line["file"]]
        if "turned" in line["image"] and upright:
            continue  # keeps its bytes and its tag, which torchvision ignores
        if (tmp_path / "out" / line["file"]).read_bytes() == original:
            seen = Image.open(io.BytesIO(original)).convert("RGB")
        assert theirs.size == seen.size, line
        assert theirs.tobytes() == seen.tobytes(), line
    changed = {
        line["image"].removeprefix("./")
        for line in lines
        if (tmp_path / "out" / line["file"]).read_bytes() != files[line["image"].removeprefix("./")]
    }
    assert changed == {
        "whole.gif", "whole.avif", "whole.jp2", "whole.j2k", "whole.jpx", "moving.gif", "clear.gif",
        "moving.avif", "deep.png", "deep.tif", "UPPER.GIF", "no ending",
    }  # fmt: skip
    assert summary.converted == len(changed)
    assert f"       {len(changed)}  converted to PNG, for torchvision's ImageFolder" in str(summary)
    in_place = {line["image"]: Path(line["file"]).name for line in lines}
    assert in_place["./whole.jfif"].endswith(".jpg")
    assert in_place["./phone.mpo"] == "phone.jpg"
    assert in_place["./moving.gif"] == "moving.png"
    assert in_place["./no ending"] == "no ending.png"


@pytest.fixture
def torchvision_folder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision/datasets/folder.py by itself: its compiled parts may be another torch's."""
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torchvision is not installed")
    root = Path(found.submodule_search_locations[0])
    for name, parts in {
        "torchvision": {"__path__": [str(root)], "get_image_backend": lambda: "PIL"},
        "torchvision.datasets": {"__path__": [str(root / "datasets")]},
        "torchvision.utils": {"_log_api_usage_once": lambda *_: None},
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("torchvision.datasets.folder")
    for name in ("torchvision.datasets.folder", "torchvision.datasets.vision"):
        sys.modules.pop(name, None)


def test_torchvisions_own_image_folder_finds_them(
    embedder: Embedder, tmp_path: Path, torchvision_folder: Any
) -> None:
    assert torchvision_folder.IMG_EXTENSIONS == IMG_EXTENSIONS
    (tmp_path / "in").mkdir()
    for name, data in every_format().items():
        (tmp_path / "in" / name).write_bytes(data)
    summary = labelled(embedder, tmp_path / "in", tmp_path / "out")
    found = torchvision_folder.ImageFolder(tmp_path / "out")
    assert len(found) == summary.good == len(every_format()) - 1  # one has no ending
    assert {Path(path).relative_to(tmp_path / "out").as_posix() for path, _ in found.samples} == {
        line["file"] for line in read(tmp_path / "out" / "labels.csv")
    }
    for image, _ in found:
        assert image.mode == "RGB"


@pytest.mark.parametrize("wide", ["scale", "reference"])
def test_wide_images_are_labelled_and_kept_as_they_are_seen(
    embedder: Embedder, tmp_path: Path, wide: WidePixels
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "deep.png").write_bytes(FILES["PNG 16 bit"]())
    (tmp_path / "in" / "far.tif").write_bytes(encoded(Image.new("F", (9, 9), 300), "TIFF"))
    settings = Settings(wide_pixels=wide)
    model = Embedder(*parts_of(embedder), settings)
    labelled(model, tmp_path / "in", tmp_path / "out")
    deep, far = read(tmp_path / "out" / "labels.csv")
    assert far["error_code"] == ("not_an_image" if wide == "scale" else "")
    kept = (tmp_path / "out" / deep["file"]).read_bytes()
    assert (kept == FILES["PNG 16 bit"]()) == (wide == "reference")
    strict = Settings(wide_pixels="error")
    model = Embedder(*parts_of(embedder), strict)
    labelled(model, tmp_path / "in", tmp_path / "strict")
    assert tree(tmp_path / "strict") == {"labels.csv"}


def test_each_url_is_fetched_once(
    embedder: Embedder, tmp_path: Path, web: tuple[str, Counter[str]]
) -> None:
    url, asked = web
    names = [path.name for path in sorted((ALBUM / "images").iterdir())]
    cells = [f"{url}/slow/{names[0]}", *(f"{url}/{name}?size=1#x" for name in names)]
    cells += [f"{url}/gone.png", f"{url}/", "http://10.0.0.1/a.png"]
    source = write(tmp_path / "in.csv", ["image"], *[[cell] for cell in cells])
    summary = labelled(embedder, source, tmp_path / "out")
    assert set(asked.values()) == {1}
    assert len(asked) == len(cells) - 1
    lines = read(tmp_path / "out" / "labels.csv")
    assert [line["image"] for line in lines] == cells
    assert [line["error_code"] for line in lines][-3:] == [
        "fetch_failed", "not_an_image", "blocked_host",
    ]  # fmt: skip
    assert summary.good == 7
    for line, name in zip(lines, [names[0], *names], strict=False):
        file = tmp_path / "out" / line["file"]
        assert_same_image(file, ALBUM / "images" / name)
        assert file.name in (placed_as(name), placed_as(name).replace(".", "-2."))
    assert len(tree(tmp_path / "out")) == 8


def test_names_come_from_paths_urls_or_rows(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = {
        "photo": PNG,
        "photo.jpeg": PNG,  # a name keeps its ending, even where it is wrong
        "photo.php": JPEG,
        ".png": PNG,
        "a b%20c.PNG": PNG,
        "con.png": JPEG,
        "x" * 250 + ".png": PNG,
    }
    for name, data in images.items():
        (tmp_path / "in" / name).write_bytes(data)
    cells = [*images, in_base64(JPEG), "data:;base64," + in_base64(PNG), f"  {in_base64(PNG)}\n"]
    source = write(tmp_path / "in" / "t.csv", ["image"], *[[cell] for cell in cells])
    labelled(embedder, source, tmp_path / "out", ["only"])
    files = [line["file"] for line in read(tmp_path / "out" / "labels.csv")]
    assert files[:6] == [
        "only/photo.png", "only/photo.jpeg", "only/photo.php.jpg", "only/_png.png",
        "only/a b%20c.PNG", "only/con_.png",
    ]  # fmt: skip
    assert files[6].startswith("only/xxx")
    assert files[7:] == ["only/row-7.jpg", "only/row-8.png", "only/row-9.png"]
    assert tree(tmp_path / "out") == {"labels.csv", *files}
    assert all(len(os.fsencode(Path(file).name)) <= 255 for file in files)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/moon.png", "moon.png"),
        ("/..%2f..%2fmoon.png", "moon.png"),
        ("/%2e%2e", "_.png"),
        ("/a%00b%0a.png", "a_b_.png"),
        ("/", "row-0.png"),
        ("", "row-0.png"),
        ("/%ff.png", "\ufffd.png"),
        ("/a/b/c?x=/y.png", "c.png"),
    ],
)
def test_a_urls_name_is_no_path(
    embedder: Embedder, tmp_path: Path, path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Fetcher, "fetch", lambda *_, **__: (ALBUM / "images" / "moon.png").read_bytes()
    )
    source = write(tmp_path / "in.csv", ["image"], [f"https://example.org{path}"])
    labelled(embedder, source, tmp_path / "out", ["only"])
    assert tree(tmp_path / "out") == {"labels.csv", f"only/{name}"}


def test_files_of_one_name_get_numbers(embedder: Embedder, tmp_path: Path) -> None:
    for folder in "abcdefg":
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x.png").write_bytes(random_image(ord(folder)))
    (tmp_path / "in" / "a" / "x-2.png").write_bytes(PNG)
    labelled(embedder, tmp_path / "in", tmp_path / "out", ["only"])
    lines = read(tmp_path / "out" / "labels.csv")
    files = {line["file"] for line in lines}
    assert files == {"only/x.png", *(f"only/x-{n}.png" for n in range(2, 9))}
    for line in lines:
        wanted = (tmp_path / "in" / line["image"]).read_bytes()
        assert (tmp_path / "out" / line["file"]).read_bytes() == wanted


def test_hostile_labels_stay_in_the_folder(embedder: Embedder, tmp_path: Path) -> None:
    names = [
        "../../escape", "/abs", "..", ".", "a\0b", "CON", "labels.csv", "Cat", "cat", "CAT",
        "x" * 400, "x" * 401, "dot.", "a\nb", "=cmd()", 'quote"d, comma', "猫",
    ]  # fmt: skip
    (tmp_path / "in").mkdir()
    with (SAMPLES / "paths.csv").open(encoding="utf-8", newline="") as stream:
        samples = list(csv.DictReader(stream))[: len(names)]
    for sample in samples:
        shutil.copy(SAMPLES / sample["image"], tmp_path / "in")
    ontology = {name: sample["text"] for name, sample in zip(names, samples, strict=True)}
    output = tmp_path / "out" / "x"
    labelled(embedder, tmp_path / "in", output, ontology)
    lines = read(output / "labels.csv")
    seen = {line["label"]: line["file"].partition("/")[0] for line in lines}
    assert len(set(seen.values())) == len(seen)
    assert {path.name for path in output.iterdir()} == {"labels.csv", *seen.values()}
    assert [path.name for path in output.parent.iterdir()] == ["x"]
    for line in lines:
        assert line["file"].count("/") == 1
        assert (output / line["file"]).is_file()
    assert len(seen) > 14  # else this has tried little


def test_each_label_alone_is_a_folder_of_its_own(embedder: Embedder, tmp_path: Path) -> None:
    for number, name in enumerate(["../../escape", "..", "a\0b", "CON", "labels.csv", "x" * 400]):
        output = tmp_path / str(number) / "out"
        labelled(embedder, ALBUM / "images", output, [name])
        (folder,) = {line["file"].partition("/")[0] for line in read(output / "labels.csv")}
        assert {line["label"] for line in read(output / "labels.csv")} == {name}
        assert tree(output) == {
            "labels.csv",
            *(f"{folder}/{placed_as(p.name)}" for p in (ALBUM / "images").iterdir()),
        }  # fmt: skip
        assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_nothing_labelled_is_a_table_alone(embedder: Embedder, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ["image"], ["%"], [in_base64(b"no image")])
    labelled(embedder, source, tmp_path / "failed")
    assert tree(tmp_path / "failed") == {"labels.csv"}
    labelled(embedder, ALBUM / "images", tmp_path / "unsure", confidence=1)
    assert tree(tmp_path / "unsure") == {"labels.csv"}
    empty = write(tmp_path / "empty.csv", ["image"])
    assert labelled(embedder, empty, tmp_path / "empty").rows == 0
    assert read(tmp_path / "empty" / "labels.csv") == []


@pytest.mark.slow
def test_failed_and_unlabelled_bytes_do_not_stay_on_the_disk(
    embedder: Embedder, tmp_path: Path
) -> None:
    most = 0

    def look(summary: LabelSummary) -> None:
        nonlocal most
        staged = list(tmp_path.glob(".out.*/staged/*"))
        most = max(most, len(staged))
        assert not any(int(path.name) < summary.rows for path in staged)

    cells = [in_base64(PNG if number % 2 else b"no image") for number in range(600)]
    source = write(tmp_path / "in.csv", ["image"], *[[cell] for cell in cells])
    for confidence in (0.0, 1.0):
        labelled(embedder, source, tmp_path / "out", confidence=confidence, progress=look)
        shutil.rmtree(tmp_path / "out")
    assert 0 < most < 300  # a bounded look-ahead


def test_an_output_that_is_there_must_be_empty(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    labelled(embedder, ALBUM / "images", tmp_path / "empty")
    with pytest.raises(RequestError, match="is there already"):
        labelled(embedder, ALBUM / "images", tmp_path / "empty")
    (tmp_path / "v1.0").mkdir()
    check_output(tmp_path / "v1.0", ALBUM)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="is a file"):
        labelled(embedder, ALBUM / "images", tmp_path / "file")
    monkeypatch.setattr(Path, "is_mount", lambda _: True)  # a container's volume
    with pytest.raises(RequestError, match="cannot be replaced: name a folder below it"):
        check_output(tmp_path / "v1.0", ALBUM)


def test_a_linked_output_is_written_where_it_leads(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    labelled(embedder, ALBUM / "images", tmp_path / "link")
    assert "labels.csv" in tree(tmp_path / "real")
    assert (tmp_path / "link").is_symlink()


def test_columns_of_ours_are_refused_and_leave_nothing(embedder: Embedder, tmp_path: Path) -> None:
    for column in ("label", "confidence", "error_code", "label_2", "file"):
        source = write(tmp_path / "in.csv", ["image", column], ["%", "x"])
        with pytest.raises(BadColumns, match=f"already has a column '{column}'"):
            labelled(embedder, source, tmp_path / "out", top=2)
        assert tree(tmp_path) == {"in.csv"}
    labelled(embedder, source, tmp_path / "out.csv")  # `file` is only the image folder's


def test_a_full_disk_is_the_jobs_end(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_folder_writer.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        labelled(embedder, ALBUM / "images", tmp_path / "out")
    assert tree(tmp_path) == set()


def test_a_source_that_breaks_leaves_nothing(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    text = "image\n" + f"{in_base64(PNG)}\n" * 50
    source.write_bytes(gzip.compress(text.encode())[:-20])
    for output in ("out", "out.csv"):
        with pytest.raises(RequestError, match="cannot be read"):
            labelled(embedder, source, tmp_path / output)
        assert tree(tmp_path) == {"in.csv.gz"}


# -- the ontology ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "is not JSON"),
        (b"cat, dog", "is not JSON"),
        (b"[]", "holds no label"),
        (b"null", "must be a JSON list"),
        (b'"cat"', "must be a JSON list"),
        (b'["cat", "cat"]', "has 'cat' twice"),
        (b'{"cat": "a", "cat": "b"}', "has 'cat' twice"),
        (b'["cat", 3]', "a label must be a text, not 3"),
        (b'{"cat": []}', "has no prompt for 'cat'"),
        (b'{"cat": ""}', "a prompt of 'cat' must be a text"),
        (b'["\\ud83d"]', "half a character"),
        (b'["caf\xe9"]', "is not UTF-8"),
        (json.dumps([str(n) for n in range(2001)]).encode(), "has 2,001 prompts; at most 2,000"),
        (b'{"param \'labels\'": ""}', "a prompt of \"param 'labels'\" must be a text"),
    ],
)
def test_a_bad_ontology_is_named(
    embedder: Embedder, tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "ontology.json"
    file.write_bytes(content)
    with pytest.raises(BadParams) as caught:
        encode_ontology(read_ontology(file), file, embedder)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert says in message
    assert message.count("param 'labels'") == content.count(b"param 'labels'")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(["x" * 4001]), "a label may have 4,000 characters at most"),
        (json.dumps({"x": ["a", "y" * 4001]}), "a prompt of 'x' may have 4,000 characters"),
        (json.dumps({str(n): "y" * 990 for n in range(4300)}), "together may have 4,194,304"),
        ("[" + " " * 2**23 + "]", "its JSON may have 8,388,608 characters at most"),
    ],
)
def test_an_ontology_is_of_bounded_size(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "ontology.json"
    file.write_text(content)
    with pytest.raises(RequestTooLarge, match=says) as caught:
        read_ontology(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_an_endless_ontology_is_not_read_to_its_end() -> None:
    with pytest.raises(RequestTooLarge, match="its JSON may have"):
        read_ontology(Path("/dev/zero"))


def test_an_ontology_is_a_list_an_object_or_lists_of_prompts(
    embedder: Embedder, tmp_path: Path
) -> None:
    file = tmp_path / "o.json"
    file.write_text('\ufeff{"cat": ["a cat", "gatto"], "Straße": "🐈"}', encoding="utf-8")
    assert read_ontology(file).prompts == (("a cat", "gatto"), ("🐈",))
    file.write_text('["a", "b"]')
    assert read_ontology(file).names == ("a", "b")


def test_the_summary_counts_every_label() -> None:
    summary = LabelSummary(rows=9, seconds=3)
    summary.failed.update(["fetch_failed"])
    summary.labels.update({"cat": 5, "a\nb\x1b[31m": 2, "never": 0})
    summary.unlabelled = 1
    assert str(summary).splitlines() == [
        "9 rows: 8 good, 1 failed (fetch_failed 1); 3.0 s, 3.0 rows/s",
        "        5  cat",
        "        2  a�b�[31m",
        "        0  never",
        "        1  below the confidence asked for, unlabelled",
    ]
    summary.labels.update({f"label {number}": 1 for number in range(100)})
    assert len(str(summary).splitlines()) == 53
    assert "in 53 more labels" in str(summary)


# -- the command line --------------------------------------------------------------------------


def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "score", "label", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "SCORE_LOG_LEVEL": "warning", **environ},
        timeout=120,
    )


@pytest.mark.process
def test_the_command_labels_the_samples(tmp_path: Path, web: tuple[str, Counter[str]]) -> None:
    done = run(ALBUM / "images", "--ontology", ONTOLOGY, "--output", tmp_path / "a.csv", "--top", 2)
    assert done.returncode == 0, done.stderr
    assert "6 rows: 6 good, 0 failed" in done.stderr
    assert {line.split()[1] for line in done.stderr.splitlines()[1:]} == set(LABELS.names)  # type: ignore[union-attr]
    assert done.stdout == ""
    url, asked = web
    source = tmp_path / "urls.csv"
    source.write_text((ALBUM / "urls.csv").read_text().replace("http://127.0.0.1:8800", url))
    arguments = [source, "--ontology", ONTOLOGY, "--allow-hosts", "127.0.0.1", "--quiet"]
    done = run(*arguments, "--output", tmp_path / "b", "--max-errors", 0)
    assert done.returncode == 1, done.stderr
    assert "7 rows: 6 good, 1 failed (fetch_failed 1)" in done.stderr
    assert len(tree(tmp_path / "b")) == 7
    assert all(asked[f"/{path.name}"] == 1 for path in (ALBUM / "images").iterdir())


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--allow-hosts", "127.0.0.1"], 0),
        (["--allow-hosts", "127.0.0.1", "--max-errors", "1"], 0),
        (["--allow-hosts", "127.0.0.1", "--max-errors", "0"], 1),
        ([], 1),  # nothing but errors
    ],
)
def test_exit_codes(tmp_path: Path, images_url: str, flags: list[str], code: int) -> None:
    source = tmp_path / "urls.csv"
    text = (ALBUM / "urls.csv").read_text()
    source.write_text(text.replace("http://127.0.0.1:8800", images_url))
    output = tmp_path / "out"
    arguments = ["label", str(source), "--ontology", str(ONTOLOGY), "--output", str(output)]
    before = signal.getsignal(signal.SIGTERM)
    assert in_process([*arguments, *flags])[0] == code
    codes = [line["error_code"] for line in read(output / "labels.csv")]
    assert codes == ([""] * 6 + ["fetch_failed"] if flags else ["blocked_host"] * 7)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.process
def test_unusable_arguments_are_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    images, o, out = ALBUM / "images", ["--ontology", str(ONTOLOGY)], str(tmp_path / "out")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "bad.json").write_text("{")
    table = write(tmp_path / "text.csv", ["text"], ["a"])
    own = write(tmp_path / "own.csv", ["image"], ["%"])
    cases: list[tuple[list[object], str]] = [
        ([tmp_path / "gone", *o, "--output", out], "no such file or folder"),
        ([tmp_path / "nothing", *o, "--output", out], "no image below"),
        ([images, "--ontology", tmp_path / "no.json", "--output", out], "no such file: "),
        ([images, "--ontology", tmp_path, "--output", out], "Is a directory"),
        ([images, "--ontology", tmp_path / "bad.json", "--output", out], "bad.json is not JSON"),
        ([images, *o, "--output", tmp_path / "full"], "full is there already: name another"),
        ([images, *o, "--output", tmp_path / "bad.json"], "must end in .csv"),
        ([images, *o, "--output", tmp_path / "out.parquet"], "must end in .csv"),
        ([images, *o, "--output", tmp_path / "own.csv" / "x"], "own.csv is not a folder"),
        ([own, *o, "--output", own], "would replace the input"),
        ([table, *o, "--output", out], "text.csv has no column 'image'"),
        (["README.md", *o, "--output", out], "no column"),
        ([images, *o, "--output", out, "--model", "/gone"], "no model folder"),
        ([images, *o, "--output", out, "--max-prompts", "3"], "has 7 prompts; at most 3"),
        ([images, *o, "--output", out, "--max-pixels", "x"], "--max-pixels must be"),
    ]
    before = tree(tmp_path)
    for arguments, says in cases:
        code, message = in_process(["label", *map(str, arguments)])
        assert code == 2, arguments
        assert message.startswith("score: "), message
        assert says in message, message
        assert message.count("\n") == 1
    for flag, value in (("--confidence", "2"), ("--confidence", "x"), ("--confidence", "nan"),
                        ("--top", "0"), ("--top", "x"), ("--max-errors", "x")):  # fmt: skip
        code, message = in_process(["label", str(images), *o, "--output", out, flag, value])
        assert code == 2
        assert f"argument {flag}" in message
    assert tree(tmp_path) == before
    done = run(images, "--ontology", tmp_path / "bad.json", "--output", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"score: {tmp_path}/bad.json is not JSON: ")
    assert done.stderr.count("\n") == 1


def in_process(arguments: list[str]) -> tuple[object, str]:
    """Exit code and stderr of a command, without the seconds that a process takes to start."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            return main(arguments), errors.getvalue()
        except SystemExit as ended:
            return ended.code, errors.getvalue()


@pytest.mark.process
@pytest.mark.parametrize("name", ["out", "out.csv"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_job_leaves_no_output(
    tmp_path: Path, number: signal.Signals, name: str, web: tuple[str, Counter[str]]
) -> None:
    url, asked = web
    source = tmp_path / "in.csv"
    source.write_text("image\n" + f"{url}/moon.png\n{url}/slow/sun.gif\n" * 5000)
    command = [sys.executable, "-m", "score", "label", str(source), "--ontology", str(ONTOLOGY)]
    command += ["--output", str(tmp_path / name), "--allow-hosts", "127.0.0.1"]
    with started(command, stderr=subprocess.PIPE) as job:
        wait_until(lambda: asked.total() > 40)
        job.send_signal(number)
        _, errors = job.communicate(timeout=30)
    assert job.returncode not in (0, 1, 2)
    assert not (tmp_path / name).exists()
    if number != signal.SIGKILL:
        assert job.returncode == 128 + number
        assert "interrupted, nothing written" in errors
        assert "Traceback" not in errors
        assert tree(tmp_path) == {"in.csv"}
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    pytest.fail("it did not come to that")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out.csv"])
def test_memory_does_not_grow_with_the_rows(
    embedder: Embedder, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows that failed wait for the images before them, up to this many; 1,700 would not show.
    monkeypatch.setattr("score.core.stream._WINDOW", 400)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PNG)
    source = tmp_path / "in" / "t.csv"
    rows, cells = 1700, ["a.png", *["gone.png"] * 9]
    with source.open("w") as stream:
        stream.write("note,image\n")
        stream.writelines(f"{number:020000},{cells[number % 10]}\n" for number in range(rows))
    held: list[int] = []

    def look(_: LabelSummary) -> None:
        held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        labelled(embedder, source, tmp_path / name, progress=look)
    finally:
        tracemalloc.stop()
    early, late = (statistics.median(part) for part in (held[500:900], held[1400:]))
    assert late < early + 4 * 2**20  # the notes of the rows between are 17 MB


def test_a_data_set_is_not_put_into_the_folder_it_is_made_of(tmp_path: Path) -> None:
    from score.jobs.label import check_output

    (tmp_path / "in").mkdir()
    with pytest.raises(RequestError, match="would be labelled the next time"):
        check_output(tmp_path / "in" / "out", tmp_path / "in")
    check_output(tmp_path / "out", tmp_path / "in")


def test_folders_that_link_to_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image would be counted again for each way to it."""
    dog, other = tmp_path / "loop" / "dog", tmp_path / "other"
    for folder, leads in ((dog, other), (other, dog)):
        folder.mkdir(parents=True)
        (folder / "link").symlink_to(leads)
    with pytest.raises(RequestError, match=r"dog/link/link is a link to a folder that it is in"):
        ClassFolders.open(tmp_path / "loop")
    for number in range(30):  # without a loop, and with a billion ways to the last
        folder = tmp_path / "double" / f"{number:02}"
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / name).symlink_to(folder.with_name(f"{number + 1:02}"))
    (tmp_path / "double" / "30").mkdir()
    monkeypatch.setattr("score.jobs.image_folder_reader._MAX_LINKS", 100)
    with pytest.raises(RequestError, match=r"double/00 has more than 100 linked folders"):
        ClassFolders.open(tmp_path / "double")
