"""`score evaluate`: the figures of open_clip and CLIP_benchmark, and all around them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from score.__main__ import main
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.errors import EmptyRow, RequestError
from score.evaluation import charts, page, prompts, report, results
from score.evaluation.metrics import (
    Captions,
    Tally,
    ranks,
    ranks_of_images,
    ranks_of_texts,
    recalls,
)
from score.evaluation.retrieval import retrieval
from score.evaluation.zeroshot import class_vectors, zeroshot
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.jobs.image_folder_reader import EXTENSIONS, ClassFolders
from score.model.zeroshot import label_vectors, unit
from tests.support import reference_evaluation as reference
from tests.support.images import SAMPLES, in_base64, random_image
from tests.support.surfaces import ROOT

TOLERANCE = 1e-6
MODEL = report.Model(
    name="a model",
    fingerprint="0123456789ab",
    date="2026-01-02T03:04:05+00:00",
    precision="fp32",
    engine="torch",
    device="cpu",
    decoding="exact",
    exif_orientation=False,
)


# -- images on disk ------------------------------------------------------------------------------


def drawn(kind: int, seed: int) -> Image.Image:
    """One of six shapes, placed and coloured by chance."""
    chance = np.random.default_rng([kind, seed])
    colours = [tuple(int(c) for c in chance.integers(0, 256, 3)) for _ in range(2)]
    image = Image.new(
        "RGB", (int(chance.integers(60, 200)), int(chance.integers(60, 200))), colours[0]
    )
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in chance.integers(5, 25, 2))
    box = (x, y, x + 30, y + 30)
    if kind == 0:
        draw.ellipse(box, fill=colours[1])
    elif kind == 1:
        draw.rectangle(box, fill=colours[1])
    elif kind == 2:
        draw.polygon(((x, y + 30), (x + 15, y), (x + 30, y + 30)), fill=colours[1])
    elif kind == 3:
        for step in range(0, 200, 12):
            draw.line((0, step, 200, step), fill=colours[1], width=5)
    elif kind == 4:
        for step in range(0, 200, 12):
            draw.line((step, 0, step, 200), fill=colours[1], width=5)
    else:
        noise = chance.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
    return image


# Named so that sorting by bytes, by case and by nature differ.
SHAPES = ("Zebra_stripes", "a10_circle", "a9_rectangle", "b_triangle", "blinds", "c_noise")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: several endings, depths and numbers of images."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    for kind, name in enumerate(SHAPES):
        for seed in range(4 + 3 * kind):
            ending = (".png", ".JPG", ".webp", ".Bmp")[seed % 4]
            folder = root / name / ("deeper/still" if seed % 3 else "")
            folder.mkdir(parents=True, exist_ok=True)
            drawn(kind, seed).save(folder / f"{seed}{ending}", quality=95)
        (root / name / "notes.txt").write_text("no image")
        (root / name / "moving.gif").write_bytes(random_image(1, format="GIF"))
    (root / "readme.png").write_bytes(random_image(2))  # in no class
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(random_image(3))
    return root


@pytest.fixture(scope="session")
def own_model() -> reference.Reference:
    return reference.Reference()


def table(path: Path, *lines: Sequence[object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    return path


# -- the figures: zero-shot ------------------------------------------------------------------------


def random_scores(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores without ties that are right now and then, more so for classes that come often."""
    chance = np.random.default_rng(seed)
    scores = chance.standard_normal((images, classes)).astype(np.float32)
    targets = (classes * chance.random(images) ** 2).astype(np.intp)
    targets[:classes] = np.arange(classes)
    scores[np.arange(images), targets] += (4 * (1 - targets / classes)).astype(np.float32)
    return scores, targets


@pytest.mark.parametrize(("images", "classes"), [(50, 5), (400, 7), (3000, 120)])
def test_accuracies_and_recall_are_those_of_open_clip_and_clip_benchmark(
    images: int, classes: int
) -> None:
    scores, targets = random_scores(images, classes)
    tally = Tally(classes)
    for start in range(0, images, 37):
        tally.add(scores[start : start + 37], targets[start : start + 37])
    theirs = reference.CLASSIFICATION.accuracy(
        torch.from_numpy(scores), torch.from_numpy(targets), (1, 5)
    )
    counted = reference.TRAIN.accuracy(torch.from_numpy(scores), torch.from_numpy(targets), (1, 5))
    assert 0 < theirs[0] < 1
    assert tally.accuracy(1) == pytest.approx(theirs[0], abs=TOLERANCE)
    assert tally.accuracy(5) == pytest.approx(theirs[1], abs=TOLERANCE)
    assert [sum(tally.right[k]) for k in (1, 5)] == counted
    balanced = reference.CLASSIFICATION.balanced_accuracy_score(targets, scores.argmax(axis=1))
    assert tally.mean_recall() == pytest.approx(balanced, abs=TOLERANCE)
    assert abs(balanced - theirs[0]) > 1e-3  # else the one could stand for the other
    for number, recall in enumerate(tally.recall()):
        own = scores[targets == number].argmax(axis=1)
        assert recall == pytest.approx((own == number).mean())


def test_mistakes_are_counted() -> None:
    tally = Tally(3)
    scores = np.array([[3, 2, 1], [3, 2, 1], [1, 2, 3], [3, 2, 1]], dtype=np.float32)
    tally.add(scores, np.array([0, 1, 1, 1]))
    assert tally.mistakes.most_common() == [((1, 0), 2), ((1, 2), 1)]


def test_ties_go_to_the_earlier_item_and_nan_to_nobody() -> None:
    scores = np.array([[1, 1, 1, 0]] * 4, dtype=np.float32)
    assert ranks(scores, np.arange(4)).tolist() == [0, 1, 2, 3]
    # Chance level, neither 0 nor 1, for a model that finds everything alike.
    tally = Tally(10)
    tally.add(np.zeros((10, 10), dtype=np.float32), np.arange(10))
    assert (tally.accuracy(1), tally.accuracy(5)) == (0.1, 0.5)
    broken = np.array([[np.nan, 1, 2], [np.nan] * 3], dtype=np.float32)
    assert ranks(broken, np.array([0, 0])).tolist() == [2, 2]


def test_fewer_than_five_classes_are_all_within_the_top_five() -> None:
    tally = Tally(3)
    tally.add(np.eye(3, dtype=np.float32)[[1, 2, 0]], np.arange(3))
    assert (tally.accuracy(1), tally.accuracy(5)) == (0.0, 1.0)


def test_nothing_evaluated_is_no_figure() -> None:
    tally = Tally(2)
    assert (tally.accuracy(1), tally.mean_recall(), tally.recall()) == (None, None, [None, None])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "simple"])
def test_label_vectors_are_open_clips_classifier(
    embedder: Embedder, own_model: reference.Reference, name: str
) -> None:
    theirs_by_name = {
        "openai": reference.METADATA.OPENAI_IMAGENET_TEMPLATES,
        "simple": reference.METADATA.SIMPLE_IMAGENET_TEMPLATES,
    }
    names = [*reference.METADATA.IMAGENET_CLASSNAMES[:12], "Straße", "a 'quoted' thing"]
    ours = class_vectors(embedder, names, prompts.load_templates(name))
    theirs = reference.BUILDER.build_zero_shot_classifier(
        own_model, own_model.tokenizer, names, theirs_by_name[name]
    )
    assert ours.shape == (len(names), embedder.dimension)
    np.testing.assert_allclose(ours, theirs.numpy().T, atol=TOLERANCE)
    # A mean of vectors that were not made unit first is another one, by far more than that.
    alike = class_vectors(embedder, names[:1], prompts.load_templates(name)[:1])
    assert np.abs(alike[0] - ours[0]).max() > 100 * TOLERANCE


def test_prompts_are_made_unit_before_their_mean() -> None:
    """As a short vector beside a long one shows, where a model's are all about as long."""
    given = np.array([[100, 0], [0, 1], [3, 4]], dtype=np.float32)
    theirs = reference.BUILDER.build_zero_shot_classifier(
        reference.Identity(), lambda _: torch.from_numpy(given), ["one"], ["{}"] * 3
    )
    np.testing.assert_allclose(label_vectors(given, [3])[0], theirs.numpy()[:, 0], atol=TOLERANCE)


def sorted_images(root: Path) -> list[tuple[int, Path]]:
    """What torchvision's ImageFolder lists: its `make_dataset`, written down anew."""
    classes = sorted(e.name for e in os.scandir(root) if e.is_dir() and e.name[0] != ".")
    return [
        (number, Path(where) / file)
        for number, name in enumerate(classes)
        for where, _, files in sorted(os.walk(root / name, followlinks=True))
        for file in sorted(files)
        if file.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tiff"))
    ]


def test_zeroshot_on_images_is_clip_benchmarks(
    embedder: Embedder, own_model: reference.Reference, shapes: Path
) -> None:
    listed = sorted_images(shapes)
    batches = [
        (torch.stack([own_model.pixels(file)]), torch.tensor([number])) for number, file in listed
    ]
    names = [name.replace("_", " ") for name in SHAPES]
    templates = ["a photo of a {}.", "art of the {}.", "{}", "a {} in a video game."]
    theirs = reference.CLASSIFICATION.evaluate(
        own_model,
        reference.Loader(batches, SHAPES),
        own_model.tokenizer,
        names,
        [template.replace("{}", "{c}") for template in templates],
        "cpu",
        amp=False,
    )
    folder = ClassFolders.open(shapes)
    ours = zeroshot(embedder, folder, names, templates)
    assert set(ours.metrics) == set(theirs)
    for name, value in theirs.items():
        assert ours.metrics[name] == pytest.approx(value, abs=TOLERANCE), name
    assert 0 < theirs["acc1"] < theirs["acc5"] < 1
    assert ours.counts == {"images": len(listed), "classes": len(SHAPES)}
    assert [c.images for c in ours.classes] == [4 + 3 * kind for kind in range(len(SHAPES))]
    wrong = sum(mistake.images for mistake in ours.mistakes)
    assert wrong == round((1 - theirs["acc1"]) * len(listed))
    assert not ours.failures.total


def test_folders_of_one_name_tie_and_the_first_is_answered(
    embedder: Embedder, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for seed in range(3):
            (tmp_path / name / f"{seed}.png").write_bytes(random_image(seed))
    folder = ClassFolders.open(tmp_path)
    result = zeroshot(embedder, folder, ["missile", "missile"], ["a {}"])
    assert [c.recall for c in result.classes] == [1.0, 0.0]
    assert any("(missile)" in note for note in result.notes)
    assert list(report.labels(result.classes).values()) == ["missile (a)", "missile (b)"]


def test_images_are_not_all_in_memory(
    embedder: Embedder, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for when the embedder wants it, and forgotten when it is counted."""
    pulled = given = most = 0

    def lazy(rows: Iterator[Row], *_: object, **__: object) -> Iterator[Record]:
        nonlocal pulled, given, most
        vector = np.ones(embedder.dimension, dtype=np.float32)
        for row in rows:
            if row.image is None:
                yield Record(text_features=vector)
                continue
            pulled += 1
            most = max(most, pulled - given)
            yield Record(image_features=vector)
            given += 1

    blocks = []
    add = Tally.add

    def counted(self: Tally, scores: np.ndarray, targets: np.ndarray) -> None:
        blocks.append(len(scores))
        add(self, scores, targets)

    monkeypatch.setattr(embedder, "embed", lazy)
    monkeypatch.setattr("score.evaluation.zeroshot._IMAGES_AT_ONCE", 5)
    monkeypatch.setattr(Tally, "add", counted)
    result = zeroshot(embedder, ClassFolders.open(shapes), SHAPES, ["{}"])
    assert pulled == result.counts["images"] == 69
    assert most == 1
    assert blocks == [5] * 13 + [4]


# -- the figures: retrieval ------------------------------------------------------------------------


def random_pairs(
    images: int, captions: int, dimension: int = 24, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of images and captions, each caption near its image; captions in any order."""
    chance = np.random.default_rng(seed)
    image_vectors = chance.standard_normal((images, dimension)).astype(np.float32)
    image_of = np.concatenate([np.arange(images), chance.integers(0, images, captions - images)])
    chance.shuffle(image_of)
    noise = chance.standard_normal((captions, dimension)).astype(np.float32)
    return unit(image_vectors), unit(image_vectors[image_of] + 2.5 * noise), image_of


@pytest.mark.parametrize(("images", "captions"), [(60, 60), (30, 150), (200, 611)])
@pytest.mark.parametrize("at_once", [1, 500, 2**22])
def test_recalls_are_clip_benchmarks_whatever_the_block(
    images: int, captions: int, at_once: int
) -> None:
    image_vectors, texts, image_of = random_pairs(images, captions)
    pairs = Captions(np.arange(captions), image_of)
    theirs = reference.retrieval_of(image_vectors, texts, image_of.tolist(), (1, 2, 5, 10))
    ours = {
        "image": recalls(ranks_of_images(texts, image_vectors, pairs, at_once), (1, 2, 5, 10)),
        "text": recalls(ranks_of_texts(texts, image_vectors, pairs, at_once), (1, 2, 5, 10)),
    }
    assert len(set(theirs.values())) >= 6  # a k or a way mistaken for another would show
    for name, value in theirs.items():
        way, k = re.fullmatch(r"(image|text)_retrieval_recall@(\d+)", name).groups()  # type: ignore[union-attr]
        assert ours[way][int(k)] == pytest.approx(value, abs=TOLERANCE), name


def test_blocks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    image_vectors, texts, image_of = random_pairs(40, 90)
    pairs = Captions(np.arange(90), image_of)
    shapes_seen = []
    monkeypatch.setattr(
        "score.evaluation.metrics.ranks",
        lambda scores, targets: (shapes_seen.append(scores.shape), ranks(scores, targets))[1],
    )
    ranks_of_images(texts, image_vectors, pairs, at_once=130)
    ranks_of_texts(texts, image_vectors, pairs, at_once=130)
    assert max(rows * columns for rows, columns in shapes_seen) <= 130


def test_equal_scores_go_to_the_earlier_in_retrieval() -> None:
    """Whole numbers: equal scores are equal to the last bit, however they are computed."""
    image_vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    words = np.array([[1, 0], [0, 1]], dtype=np.float32)  # two texts
    # Captions 0 and 1 say the same of images 1 and 0; caption 2 is image 2's.
    captions = Captions(np.array([0, 0, 1]), np.array([1, 0, 2]))
    for at_once in (1, 100):
        assert ranks_of_images(words, image_vectors, captions, at_once).tolist() == [1, 0, 0]
        assert ranks_of_texts(words, image_vectors, captions, at_once).tolist() == [1, 0, 0]
    # The best of an image's own captions counts: 2 is image 0's, 0 has the same words as 3.
    captions = Captions(np.array([1, 0, 0, 1]), np.array([0, 1, 0, 2]))
    assert ranks_of_texts(words, image_vectors, captions).tolist() == [1, 0, 1]


def test_a_model_that_finds_all_alike_has_chance_level() -> None:
    same = np.ones((40, 3), dtype=np.float32)
    pairs = Captions(np.arange(40), np.arange(40))
    assert recalls(ranks_of_images(same, same, pairs)) == {1: 1 / 40, 5: 5 / 40, 10: 10 / 40}
    assert recalls(ranks_of_texts(same, same, pairs)) == {1: 1 / 40, 5: 5 / 40, 10: 10 / 40}


@pytest.fixture(scope="session")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images, two to four captions each, their rows mixed; paths and base64."""
    folder = tmp_path_factory.mktemp("captions")
    (folder / "images").mkdir()
    lines = []
    for number in range(24):
        file = folder / "images" / f"{number}.png"
        drawn(number % 6, number).save(file)
        cell = in_base64(file.read_bytes()) if number % 5 == 0 else f"images/{number}.png"
        lines += [
            [told, cell, f"{SHAPES[number % 6]} {number * 7} told {'again ' * told}"]
            for told in range(2 + number % 3)
        ]
    np.random.default_rng(3).shuffle(lines)
    return table(folder / "captions.csv", ["told", "image", "text"], *lines)


def read(source: Path) -> list[dict[str, str]]:
    csv.field_size_limit(10**8)
    with source.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_retrieval_on_images_is_clip_benchmarks(
    embedder: Embedder, own_model: reference.Reference, captions: Path
) -> None:
    rows = read(captions)
    images = list(dict.fromkeys(row["image"] for row in rows))
    files = [
        captions.parent / cell
        if cell.startswith("images/")
        else captions.parent / "images" / f"{_number(captions, cell)}.png"
        for cell in images
    ]
    image_vectors = own_model.encode_image(torch.stack([own_model.pixels(file) for file in files]))
    texts = own_model.encode_text(own_model.tokenizer([row["text"] for row in rows]))
    image_of = [images.index(row["image"]) for row in rows]
    theirs = reference.retrieval_of(image_vectors.numpy(), texts.numpy(), image_of, (1, 5, 10))
    ours = retrieval(embedder, captions)
    assert ours.metrics == pytest.approx(theirs, abs=TOLERANCE)
    assert len(set(theirs.values())) >= 4
    assert ours.counts == {"images": 24, "captions": len(rows)}
    assert ours.notes == ()


def _number(captions: Path, cell: str) -> int:
    return next(
        number
        for number in range(24)
        if in_base64((captions.parent / "images" / f"{number}.png").read_bytes()) == cell
    )


def test_each_image_and_text_is_embedded_once(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [in_base64(random_image(seed)) for seed in range(3)]
    long = "a very long caption, " * 10
    source = table(
        tmp_path / "in.csv",
        ["image", "text"],
        *[
            (cell + " " * place, text)  # blanks around a cell make it no other image
            for number, cell in enumerate(cells)
            for place, text in enumerate(("the same words", long, f"only {number}"))
        ],
    )
    asked: list[Row] = []
    embed = embedder.embed

    def watched(rows: Iterator[Row], *args: Any, **named: Any) -> Iterator[Record]:
        return embed((asked.append(row) or row for row in rows), *args, **named)  # type: ignore[func-returns-value]

    monkeypatch.setattr(embedder, "embed", watched)
    result = retrieval(embedder, source)
    assert [row.image for row in asked if row.image] == cells
    assert len([row for row in asked if row.text]) == 2 + 3
    assert result.counts == {"images": 3, "captions": 9}
    assert any("4 captions repeating the words" in note for note in result.notes)
    assert any("With 3 images, the first 10 are all" in note for note in result.notes)


def test_what_fails_is_left_out_with_what_depends_on_it(embedder: Embedder, captions: Path) -> None:
    whole = retrieval(embedder, captions)
    rows = [(row["image"], row["text"]) for row in read(captions)]
    source = table(
        captions.parent / "failing.csv",
        ["image", "text"],
        *rows[:10],
        ["images/gone.png", "a cat"],
        ["", "a dog"],
        *rows[10:],
        ["images/gone.png", "another cat"],
        ["images/1.png", " "],
        ["images/1.png"],
    )
    result = retrieval(embedder, source)
    assert result.metrics == whole.metrics
    assert result.counts == whole.counts
    assert dict(result.failures.by_code) == {"bad_base64": 1, "empty_row": 2, "bad_type": 1}
    messages = {failure.item: failure.message for failure in result.failures.examples}
    assert messages["row 11"] == "has no image"
    assert "no such file below" in messages["row 10, image"]
    last = len(rows) + 3
    assert messages[f"row {last}"] == "has no text"
    assert "1 cells, not 2" in messages[f"row {last + 1}"]
    assert f"5 rows of {len(rows) + 5} left out" in result.notes[0]


def test_an_image_whose_captions_all_fail_is_gone_with_them(
    embedder: Embedder, captions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrieval(embedder, captions)
    (captions.parent / "more.png").write_bytes(random_image(99))
    rows = [(row["image"], row["text"]) for row in read(captions)]
    source = captions.parent / "more.csv"
    table(source, ["image", "text"], ["more.png", "unreadable"], *rows, ["more.png", "unreadable"])
    embed = embedder.embed

    def failing(rows: Iterator[Row], *args: Any, **named: Any) -> Iterator[Record]:
        asked = []
        for record in embed((asked.append(row) or row for row in rows), *args, **named):  # type: ignore[func-returns-value]
            unreadable = asked.pop(0).text == "unreadable"
            yield Record(error=EmptyRow("cannot be read")) if unreadable else record

    monkeypatch.setattr(embedder, "embed", failing)
    result = retrieval(embedder, source)
    assert result.metrics == whole.metrics
    assert result.counts == whole.counts
    assert [f.item for f in result.failures.examples] == ["row 0, text"]
    assert f"2 rows of {len(rows) + 2} left out" in result.notes[0]


# -- names and templates ---------------------------------------------------------------------------


def test_the_shipped_names_and_templates_are_open_clips() -> None:
    data = Path(prompts.__file__).parent / "data"
    names = json.loads((data / "imagenet.json").read_text(encoding="utf-8"))
    assert tuple(names["names"].values()) == reference.METADATA.IMAGENET_CLASSNAMES
    assert list(names["names"]) == sorted(names["names"])
    assert len(names["names"]) == 1000
    templates = json.loads((data / "templates.json").read_text(encoding="utf-8"))
    for name, theirs in (
        ("openai", reference.METADATA.OPENAI_IMAGENET_TEMPLATES),
        ("simple", reference.METADATA.SIMPLE_IMAGENET_TEMPLATES),
    ):
        filled = prompts.fill(prompts.load_templates(name), "{odd} name")
        assert filled == [template("{odd} name") for template in theirs]
    for file in (names, templates):
        assert "open_clip" in file["source"]
        assert file["licence"].startswith("MIT")


def test_imagenets_names_go_by_wordnet_id_or_number() -> None:
    ids = list(
        json.loads((Path(prompts.__file__).parent / "data/imagenet.json").read_text())["names"]
    )
    theirs = reference.METADATA.IMAGENET_CLASSNAMES
    assert prompts.class_names("imagenet", ids) == theirs
    # A part, as in ImageNet-A and -R, and known pairs from elsewhere than our data.
    assert prompts.class_names("imagenet", ["n01440764", "n02123045", "n15075141"]) == (
        "tench", "tabby cat", "toilet paper",
    )  # fmt: skip
    # Numbered folders sort as texts: 0, 1, 10, 100 …
    numbers = sorted(map(str, range(1000)))
    assert prompts.class_names("imagenet", numbers)[:4] == (
        theirs[0], theirs[1], theirs[10], theirs[100],
    )  # fmt: skip
    with pytest.raises(RequestError, match="no name for 1 of 2 class folders, such as 'tench'"):
        prompts.class_names("imagenet", ["n01440764", "tench"])


def test_names_come_from_folders_and_files(tmp_path: Path) -> None:
    folders = ("great_white_shark", "tench")
    assert prompts.class_names(None, folders) == ("great white shark", "tench")
    for name, content in (
        ("a.json", '{"tench": "a fish", "great_white_shark": "{shark}", "other": 5}'),
        ("b.json", '["{shark}", "a fish"]'),
        ("c.txt", "\ufeff{shark}\na fish\n\n"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert prompts.class_names(str(tmp_path / name), folders) == ("{shark}", "a fish"), name


def test_templates_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one {}\r\n{} two {}\n")
    (tmp_path / "b.json").write_text('["a {c}."]')
    templates = prompts.load_templates(str(tmp_path / "a.txt"))
    assert prompts.fill(templates, "{}x") == ["one {}x", "{}x two {}x"]
    assert prompts.load_templates(str(tmp_path / "b.json")) == ("a {}.",)


# -- folders ---------------------------------------------------------------------------------------


def test_folders_are_read_as_torchvision_reads_them(shapes: Path) -> None:
    folder = ClassFolders.open(shapes)
    assert folder.classes == SHAPES == tuple(sorted(SHAPES))
    assert sorted(folder.images()) == sorted(sorted_images(shapes))
    numbers = [number for number, _ in folder.images()]
    assert numbers == sorted(numbers)
    assert EXTENSIONS == (
        ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    )  # fmt: skip


def test_images_that_torchvision_passes_over_are_told(
    embedder: Embedder, shapes: Path, tmp_path: Path
) -> None:
    folder = ClassFolders.open(shapes)
    assert folder.passed_over == {".gif": len(SHAPES)}
    result = zeroshot(embedder, folder, SHAPES, ["{}"])
    assert result.notes[0] == (
        "Passed over, since torchvision's ImageFolder does not read them: 6 .gif."
    )
    (tmp_path / "only" / "deep").mkdir(parents=True)
    for name in ("a.gif", "b.GIF", "deep/c.avif", "d.txt"):
        (tmp_path / "only" / name).write_bytes(b"")
    with pytest.raises(RequestError, match=r"torchvision does not read 1 \.avif, 2 \.gif$"):
        ClassFolders.open(tmp_path)


def test_links_are_followed_and_empty_classes_told(embedder: Embedder, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "x.png").write_bytes(random_image(1))
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "a").mkdir()
    (root / "a" / "deep").symlink_to(store)
    (root / "c").mkdir()
    (root / "b" / "link.png").symlink_to(store / "x.png")
    (root / "b" / "nowhere.png").symlink_to(store / "y.png")
    result = zeroshot(embedder, ClassFolders.open(root), ["a", "b", "c"], ["{}"])
    assert [c.images for c in result.classes] == [1, 1, 0]
    assert [(f.item, f.code) for f in result.failures.examples] == [
        ("b/nowhere.png", "fetch_failed")
    ]
    assert result.classes[2].recall is None
    assert sum(c.recall or 0 for c in result.classes) / 2 == result.metrics["mean_per_class_recall"]
    assert result.notes == (
        "1 class without images: possible answers, but not part of the mean per-class recall (c).",
        "With 3 classes, the top 5 are all of them.",
    )


def test_what_cannot_be_listed_does_not_count_as_empty(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("still"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="still"):
        ClassFolders.open(shapes)


# -- the command line ------------------------------------------------------------------------------


def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "score", "evaluate", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        timeout=300,
    )


class Tags(HTMLParser):
    """A page's tags, its text, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.fetched: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "action", "srcset")
            and not (value or "").startswith(("#", "data:image/jpeg;base64,"))
        ]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.process
def test_zeroshot_from_the_command_line(shapes: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    listed = ["<b>bold</b>", "$x$ & co", "日本の犬", "line", "quo\"te'", "noise"]
    names.write_text(json.dumps(listed))
    output = tmp_path / "new" / "result.json"
    result = run(
        "zeroshot", shapes, "--classnames", names, "--templates", "simple", "--output", output
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    record = json.loads(output.read_text(encoding="utf-8"))
    assert record["task"] == "zeroshot"
    assert record["data"] == "shapes"
    fingerprint = ModelFolder.open(EMBEDDED).fingerprint()
    assert record["model"] == {"name": "clip-endpoints-emoji", "fingerprint": fingerprint}
    assert f"model clip-endpoints-emoji, {fingerprint} (fp32, torch, cpu)" in result.stdout
    age = datetime.now(UTC) - datetime.fromisoformat(record["date"])
    assert timedelta() <= age < timedelta(hours=1)
    assert record["settings"] == {
        "precision": "fp32",
        "engine": "torch",
        "device": "cpu",
        "decoding": "exact",
        "exif_orientation": False,
    }
    assert record["counts"] == {"images": 69, "classes": 6, "failed": 0}
    assert record["templates"] == list(prompts.load_templates("simple"))
    assert record["seconds"] > 0
    assert [c["folder"] for c in record["classes"]] == list(SHAPES)
    assert [c["name"] for c in record["classes"]] == listed
    right = sum(c["recall"] * c["images"] for c in record["classes"])
    assert record["metrics"]["acc1"] == pytest.approx(right / 69)
    assert f"top-1{100 * record['metrics']['acc1']:>25.2f} %" in result.stdout
    assert "69 images, 6 classes" in result.stdout
    text = output.with_suffix(".html").read_text(encoding="utf-8")
    seen = Tags(text)
    assert not seen.fetched
    assert not re.search(r"url\((?!#)|@import", text)
    assert {"script", "link", "iframe", "b bold"}.isdisjoint(seen.tags)
    assert seen.tags.count("img") == len(record["worst_mistakes"])
    for said in (record["date"], fingerprint, "clip-endpoints-emoji", "exact"):  # as the JSON does
        assert said in seen.words
    assert seen.tags.count("b") == 3  # the three figures, none of a class's name
    assert seen.tags.count("svg") == 1
    for name in listed:
        assert seen.words.count(name) >= 2, name  # in the chart and in a table
    assert sorted(file.name for file in output.parent.iterdir()) == ["result.html", "result.json"]


@pytest.mark.process
def test_retrieval_from_the_command_line(captions: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    result = run("retrieval", captions, "--output", output, "--precision", "bf16")
    assert result.returncode == 0, result.stderr
    record = json.loads(output.read_text())
    assert (record["task"], record["data"]) == ("retrieval", "captions.csv")
    assert record["settings"]["precision"] == "bf16"
    assert list(record["metrics"]) == [
        f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)
    ]
    assert "text → image R@10" in result.stdout
    assert "24 images, 72 captions" in result.stdout
    assert "templates" not in record
    assert "svg" in Tags(output.with_suffix(".html").read_text(encoding="utf-8")).tags


def test_failed_images_are_listed_and_decide_the_exit_code(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "some"
    root.mkdir()
    for name in SHAPES[:2]:
        (root / name).symlink_to(shapes / name)
    (root / "bad").mkdir()
    (root / "bad" / "one.png").write_bytes(b"no image at all")
    (root / "bad" / "two.png").write_bytes(random_image(1)[:-2000])
    output = tmp_path / "some.json"
    command = ["evaluate", "zeroshot", str(root), "--templates", "simple", "--output", str(output)]
    command.append("--overwrite")  # it is run twice
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 failed and left out (not_an_image 1, truncated_image 1)" in printed
    assert "bad/one.png: " in printed
    assert main([*command, "--max-errors", "2"]) == 0
    assert main([*command, "--max-errors", "1"]) == 1
    record = json.loads(output.read_text())
    assert record["counts"] == {"images": 11, "classes": 3, "failed": 2}
    assert record["failed"]["by_code"] == {"not_an_image": 1, "truncated_image": 1}
    assert [f["item"] for f in record["failed"]["examples"]] == ["bad/one.png", "bad/two.png"]
    assert [c["recall"] for c in record["classes"]][2] is None or record["classes"][0]["recall"]
    assert "bad/two.png" in Tags(output.with_suffix(".html").read_text()).words


def test_nothing_but_failures_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(b"no image")
    source = table(tmp_path / "in.csv", ["image", "text"], ["gone.png", "a"], ["", "b"])
    for task, data in (("zeroshot", tmp_path), ("retrieval", source)):
        output = tmp_path / f"{task}.json"
        command = ["evaluate", task, str(data), "--output", str(output), "--max-errors", "9"]
        assert main(command) == 1
        record = json.loads(output.read_text())
        assert set(record["metrics"].values()) == {None}
        assert record["counts"]["failed"] > 0
        assert "–" in capsys.readouterr().out
        assert "svg" not in Tags(output.with_suffix(".html").read_text(encoding="utf-8")).tags


def test_charts_say_what_they_are_given() -> None:
    names = ["$a$ & <b>", "日本", "c_{1}$"]
    words = re.findall(r"<text[^>]*>([^<]+)</text>", charts.class_recalls(names, [0.2, 0.9, 0.4]))
    assert [unescape(word) for word in words if not word.endswith("%")] == [
        "日本", "c_{1}$", "$a$ & <b>",
    ]  # fmt: skip
    assert words[-4:] == ["90.0%", "40.0%", "20.0%", "mean 50.0%"]
    pair = charts.grouped(["R@1", "R@5"], {"one": [0.1, 0.2], "other": [0.3, 0.4]})
    words = re.findall(r"<text[^>]*>([^<]+)</text>", pair)
    assert words[:2] == ["R@1", "R@5"]
    assert words[-6:] == ["10.0%", "20.0%", "30.0%", "40.0%", "one", "other"]


def test_many_classes_are_a_curve_and_long_lists_are_cut() -> None:
    classes = tuple(
        results.ClassResult(f"n{i}", f"class {i}", 50, (i % 50) / 49) for i in range(1000)
    )
    failures = results.Failures()
    for i in range(2000):
        failures.add(f"<b>image {i}", EmptyRow("<b>empty"))
    assert (failures.total, len(failures.examples)) == (2000, 1000)
    result = results.ZeroShot(
        data="<b>val ${title}",
        metrics={"acc1": 0.5, "acc5": 0.7, "mean_per_class_recall": 0.5},
        counts={"images": 50_000, "classes": 1000},
        failures=failures,
        notes=("<b>a note",),
        seconds=1.0,
        classes=classes,
        mistakes=tuple(results.Mistake("n1", f"n{i}", 99 - i) for i in range(2, 99)),
        templates=("<b>{}",),
    )
    text = page.as_html(result, MODEL._replace(name="<b>model"))
    seen = Tags(text)
    assert seen.tags.count("b") == 3  # the figures
    for words in ("val ${title}", "a note", "{}", "model", "image 0", "empty"):
        assert f"<b>{words}" in seen.words
    assert "classes, best first" in seen.words
    assert "2,000 failed and left out, the first 20" in seen.words
    assert seen.tags.count("tr") == 3 * 21 + 3 + len(MODEL.settings)
    assert len(text) < 400_000
    again = page.as_html(result, MODEL._replace(name="<b>model"))
    assert text == again  # the same figures, the same page
    assert len(report.as_text(result, MODEL).splitlines()) < 25


def test_the_worst_mistakes_are_shown(embedder: Embedder, tmp_path: Path) -> None:
    """Each image is of what its folder is called, but those in the folder `<b>owl`."""
    names = ["<b>owl", "castle", "octopus"]
    for name in names:
        (tmp_path / name).mkdir()
    for number in range(15):
        kind = names[1 + number % 2]
        file = SAMPLES / "images" / f"{kind}.jpg"
        shutil.copyfile(file, tmp_path / names[0] / f'{number} <i>"of a {kind}.jpg')
        shutil.copyfile(file, tmp_path / kind / f"{number}.jpg")
    result = zeroshot(embedder, ClassFolders.open(tmp_path), ["an owl", *names[1:]], ["{}"])
    assert result.counts["images"] == 30
    assert len(result.worst) == 12  # of 15: no more are kept, however many there are
    assert {mistake.true for mistake in result.worst} == {names[0]}
    for mistake in result.worst:
        assert mistake.predicted in mistake.image
        assert mistake.file == tmp_path / mistake.image
    margins = [mistake.margin for mistake in result.worst]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] > 0

    output = tmp_path / "out.json"
    page.write(result, MODEL, output)
    told = json.loads(output.read_text())["worst_mistakes"]
    assert told[0] == {
        "image": result.worst[0].image,
        "true": names[0],
        "predicted": result.worst[0].predicted,
        "margin": pytest.approx(margins[0]),
    }
    text = output.with_suffix(".html").read_text(encoding="utf-8")
    seen = Tags(text)
    assert not seen.fetched
    assert seen.tags.count("img") == 12
    assert "i" not in seen.tags
    assert "an owl, taken for" in seen.words
    assert len(text) < 250_000
    worst = seen.words.partition("Worst classes")[2].partition("Most frequent mistakes")[0]
    assert "an owl" in worst
    assert "castle" not in worst  # all right, and so is octopus
    assert "octopus" not in worst

    result.worst[0].file.unlink()
    result.worst[1].file.write_bytes(b"no image any more")
    assert Tags(page.as_html(result, MODEL)).tags.count("img") == 10


def test_classes_that_are_all_right_are_not_the_worst() -> None:
    result = results.ZeroShot(
        data="all right",
        metrics={"acc1": 1.0, "acc5": 1.0, "mean_per_class_recall": 1.0},
        counts={"images": 9, "classes": 1},
        failures=results.Failures(),
        notes=(),
        seconds=1.0,
        classes=(results.ClassResult("a", "a", 9, 1.0), results.ClassResult("b", "b", 0, None)),
        mistakes=(),
        templates=("{}",),
    )
    words = Tags(page.as_html(result, MODEL)).words
    assert "Recall of each class" in words
    assert "orst" not in words


def test_a_report_names_the_model_as_its_package_does(embedder: Embedder, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(EMBEDDED, tmp_path / "plain" / "renamed"))
    package = tmp_path / "package"
    shutil.copytree(EMBEDDED, package / "model")
    shutil.copyfile(ROOT / "MLmodel", package / "MLmodel")
    shutil.copytree(EMBEDDED, package / "other")
    named = {
        EMBEDDED: "clip-endpoints-emoji",
        package / "model": "clip-endpoints-emoji",
        package / "other": "other",  # its MLmodel names another folder as data
        plain: "renamed",
    }
    for folder, name in named.items():
        assert report.Model.of(embedder, folder).name == name
    for spoilt in ("[", "- a", "metadata: 5", "flavors: {python_function: {data: model}}", "\0"):
        (package / "MLmodel").write_text(spoilt)
        assert report.Model.of(embedder, package / "model").name == "model"


def test_a_fingerprint_is_the_models_own(tmp_path: Path) -> None:
    ours = ModelFolder.open(EMBEDDED).fingerprint()
    assert re.fullmatch("[0-9a-f]{12}", ours)
    copy = Path(shutil.copytree(EMBEDDED, tmp_path / "another name"))
    (copy / "probes.json").unlink()
    (copy / "README.md").write_text("other words")
    (copy / "int8").mkdir()
    assert ModelFolder.open(copy).fingerprint() == ours
    for name in ("model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" ")
        assert ModelFolder.open(copy).fingerprint() != ours
        (copy / name).write_bytes(content)
    assert ModelFolder.open(copy).fingerprint() == ours


def test_names_that_are_no_text_do_not_stop_a_report(embedder: Embedder, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb") as stream:
        stream.write(b"no image")
    with open(folder + b"/good \xfe.png", "wb") as stream:
        stream.write(random_image(1))
    result = zeroshot(embedder, ClassFolders.open(tmp_path), ["coffee"], ["{}"])
    assert result.counts["images"] == 1
    assert [f.item for f in result.failures.examples] == ["caf\ufffd/\ufffd.png"]
    page.write(result, MODEL, tmp_path / "out.json")
    report.as_text(result, MODEL).encode()


def test_progress_is_told(embedder: Embedder, shapes: Path, captions: Path) -> None:
    told: list[tuple[str, int, int]] = []
    zeroshot(embedder, ClassFolders.open(shapes), SHAPES, ["{}", "a {}"], lambda *a: told.append(a))
    assert told[0] == ("prompts", 2, 12)
    assert told[5:7] == [("prompts", 12, 12), ("images", 1, 69)]
    assert told[-1] == ("images", 69, 69)
    told.clear()
    retrieval(embedder, captions, lambda *a: told.append(a))
    size = captions.stat().st_size
    assert told[-1] == ("rows", size, size)
    assert 0 < told[0][1] <= size


@pytest.mark.process
def test_without_matplotlib_only_the_report_is_missing(shapes: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None\nfrom score.__main__ import main\n"
    command = ["evaluate", "zeroshot", str(shapes), "--templates", "simple"]
    for more, exit_code in (([], 0), (["--output", str(tmp_path / "o.json")], 2)):
        result = subprocess.run(
            [sys.executable, "-c", f"{code}sys.exit(main({[*command, *more]!r}))"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.returncode == exit_code, result.stderr
    assert "matplotlib" in result.stderr
    assert "pip install -e '.[evaluate]' in the clone" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


FILES = {
    "short.txt": "one\ntwo\n",
    "blank.txt": "one\n\nthree\nfour\nfive\nsix\n",
    "partial.json": '{"blinds": "x"}',
    "number.json": "5",
    "numbers.json": "[1, 2, 3, 4, 5, 6]",
    "broken.json": "{",
    "latin.txt": b"caf\xe9\n",
    "plain.txt": "a photo of a {}.\na photo\n",
    "none.json": "[]",
    "long.txt": "a {} " + "red " * 90 + "\n",
    "image.csv": "image,caption\nx.png,a\n",
    "text.csv": "text\na\n",
    "empty.csv": "",
    "header.csv": "image,text\n",
    "nothing/notes.txt": "no classes here",
    "blank/class/notes.txt": "no images here",
}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("zeroshot gone", "no such folder: gone"),
        ("zeroshot image.csv", "no such folder: image.csv"),
        ("zeroshot nothing", "nothing has no class folders"),
        ("zeroshot blank", "the class folders of blank hold no images (.jpg, "),
        ("zeroshot loop", "loop/class/again is a link to a folder that it is in"),
        ("zeroshot SHAPES --classnames short.txt", "short.txt has 2 names for 6 class folders"),
        ("zeroshot SHAPES --classnames blank.txt", "blank.txt, entry 2: must be a text, not ''"),
        (
            "zeroshot SHAPES --classnames partial.json",
            "partial.json has no name for 5 of 6 class folders, such as 'Zebra_stripes'",
        ),
        ("zeroshot SHAPES --classnames number.json", "number.json must hold a JSON list"),
        ("zeroshot SHAPES --classnames numbers.json", "entry 1: must be a text, not 1"),
        ("zeroshot SHAPES --classnames broken.json", "broken.json is not JSON"),
        ("zeroshot SHAPES --classnames latin.txt", "latin.txt is not UTF-8 text"),
        ("zeroshot SHAPES --classnames gone.txt", "'gone.txt': neither imagenet nor a file"),
        ("zeroshot SHAPES --classnames imagenet", "imagenet has no name for 6 of 6 class folders"),
        ("zeroshot SHAPES --templates plain.txt", "plain.txt: the template 'a photo' has no {}"),
        ("zeroshot SHAPES --templates none.json", "none.json holds no template"),
        ("zeroshot SHAPES --templates openia", "'openia': neither openai nor simple nor a file"),
        ("zeroshot SHAPES --templates long.txt", "96 tokens; the model's context is 77"),
        ("zeroshot SHAPES --model gone", "no model folder at gone"),
        ("zeroshot SHAPES --output out.txt", "out.txt must end in .json"),
        ("zeroshot SHAPES --output folder.json", "folder.json is a folder"),
        (
            "zeroshot SHAPES --classnames partial.json --output partial.json",
            "the output would replace the input partial.json",
        ),
        ("zeroshot SHAPES --device tpu9", "no device 'tpu9' here"),
        ("retrieval gone.csv", "no such file: gone.csv"),
        ("retrieval nothing", "no such file: nothing"),
        ("retrieval image.csv", "image.csv has no column 'text'; its columns are 'image', 'capt"),
        ("retrieval text.csv", "text.csv has no column 'image'; its columns are 'text'"),
        ("retrieval empty.csv", "empty.csv is empty"),
        ("retrieval header.csv", "header.csv has no rows"),
        ("retrieval blank/class/notes.txt", "no column 'image' or 'text'"),
    ],
)
def test_unusable_input_is_a_sentence_and_exit_code_2(
    arguments: str,
    says: str,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop" / "class").mkdir(parents=True)
    (tmp_path / "loop" / "class" / "again").symlink_to("../class")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    words = [str(shapes) if word == "SHAPES" else word for word in arguments.split()]
    assert main(["evaluate", *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("score: ")
    assert says in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert shown.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_task_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["evaluate"])
    assert exit.value.code == 2
    assert "TASK" in capsys.readouterr().err
