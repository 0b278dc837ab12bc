"""Training the embedded model, on a small scale: eight signs, two thin towers, no font."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, features
from transformers import CLIPImageProcessorPil, CLIPModel

from score.contract.rows import Row
from score.core.embedder import Embedder
from score.errors import ModelError
from score.model.zeroshot import unit
from score.training import __main__ as command
from score.training import loop
from score.training.backgrounds import HELD_OUT, TRAINING, background
from score.training.batches import LookAlikes, batches
from score.training.captions import article, phrase, plural
from score.training.colours import COLOURS
from score.training.config import Config
from score.training.drawing import draw
from score.training.loop import train
from score.training.loss import classify, contrast
from score.training.model import build, centre, embed_images, embed_texts
from score.training.optimizers import orthogonal, rate
from score.training.pictograms import FONT, GROUPS, Pictogram, pictograms
from score.training.samples import Batch, Samples
from score.training.saving import save
from score.training.vocabulary import vocabulary
from tests.support.images import as_png
from tests.support.surfaces import ROOT

SMALL = Config(
    steps=250,
    batch=7,
    warmup=5,
    image=48,
    patch=12,
    width=64,
    layers=1,
    keep=1.0,
    text_width=64,
    text_layers=1,
    vocabulary=1024,
)


def sign(name: str, colour: str, shape: str) -> Pictogram:
    glyph = Image.new("RGBA", (136, 128))
    pen = ImageDraw.Draw(glyph)
    getattr(pen, shape)((20, 16, 116, 112), fill=COLOURS[colour])
    return Pictogram("x", name, (f"{name} sign",), (), None, glyph)


SIGNS = [
    sign(name, colour, shape)
    for name, colour, shape in (
        ("sun", "yellow", "ellipse"),
        ("tomato", "red", "ellipse"),
        ("pea", "green", "ellipse"),
        ("coal", "black", "ellipse"),
        ("brick", "brown", "rectangle"),
        ("snow", "white", "rectangle"),
        ("lilac", "purple", "rectangle"),
        ("sea", "blue", "rectangle"),
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short run leaves."""
    tokenizer = vocabulary(SIGNS, SMALL.vocabulary)
    model = train(SMALL, SIGNS, tokenizer)
    return save(model, tokenizer, SMALL, tmp_path_factory.mktemp("trained") / "model")


def accuracy(model: Embedder) -> float:
    """Over four fresh images of each sign."""
    rows, right = [], []
    for place, thing in enumerate(SIGNS):
        for seed in range(4):
            random = np.random.default_rng((99, place, seed))
            image = draw(random, [thing.glyph], 64, strength=0.3, backgrounds=HELD_OUT)
            rows.append(Row(image=as_png(image)))
            right.append(place)
    said = unit(np.stack([model.embed_text(thing.name) for thing in SIGNS]))
    seen = unit(np.stack([record.image_features for record in model.embed(rows)]))
    return float(((seen @ said.T).argmax(1) == np.array(right)).mean())


@pytest.mark.slow
def test_a_short_run_learns(folder: Path, tmp_path: Path) -> None:
    untrained = save(build(SMALL), vocabulary(SIGNS, SMALL.vocabulary), SMALL, tmp_path / "m")
    assert accuracy(Embedder.load(folder)) >= 0.7
    assert accuracy(Embedder.load(untrained)) <= 0.4


@pytest.mark.slow
def test_a_run_is_the_same_every_time() -> None:
    config = dataclasses.replace(SMALL, steps=4, keep=0.5, whole=0.5)
    tokenizer = vocabulary(SIGNS, config.vocabulary)
    one, two = (train(config, SIGNS, tokenizer).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    wide = dataclasses.replace(config, width=192, image=96, patch=8)  # work for several threads
    first, second = (train(wide, SIGNS, tokenizer).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(dataclasses.replace(config, seed=1), SIGNS, tokenizer).state_dict()
    assert not torch.equal(one["visual_projection.weight"], other["visual_projection.weight"])


@pytest.mark.process
def test_the_vocabulary_is_the_same_in_every_process() -> None:
    code = (
        "from tests.training.test_train import SIGNS, SMALL, vocabulary;"
        "print(vocabulary(SIGNS, SMALL.vocabulary).to_str())"
    )
    here = vocabulary(SIGNS, SMALL.vocabulary).to_str()
    # Sets have another order there: this process's seed is random, or 0.
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, cwd=ROOT, env=environ, text=True, timeout=120, check=True
    )
    assert done.stdout == here + "\n"


@pytest.mark.process
def test_who_draws_makes_no_difference() -> None:
    config = dataclasses.replace(SMALL, batch=3)  # two batches an epoch, and one of a second
    samples = Samples(SIGNS, config, vocabulary(SIGNS, config.vocabulary))
    some, same = (LookAlikes(len(SIGNS), config) for _ in range(2))
    for one, two in zip(batches(samples, some, 3, 2), batches(samples, same, 3, 0), strict=True):
        assert all((mine == other).all() for mine, other in zip(one, two, strict=True))


@pytest.mark.slow
def test_a_run_does_all_that_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the patches but at the end; centred once; masks, and what is remembered; saved."""
    config = dataclasses.replace(SMALL, steps=10, keep=0.5, whole=0.3)
    twins = [*SIGNS[:4], *(dataclasses.replace(one, name=f"{one.name} again") for one in SIGNS[:4])]
    drawn: list[Batch] = []
    seen: dict[str, list[Any]] = {"keep": [], "unclear": [], "centre": [], "update": [], "save": []}

    def spy(name: str, note: str, of: Callable[..., Any]) -> None:
        before = getattr(loop, name)

        def called(*arguments: Any) -> Any:
            seen[note].append(of(*arguments))
            return before(*arguments)

        monkeypatch.setattr(loop, name, called)

    def keep(samples: Samples, step: int, classes: np.ndarray) -> Batch:
        drawn.append(draw_batch(samples, step, classes))
        return drawn[-1]

    draw_batch = Samples.batch
    monkeypatch.setattr(Samples, "batch", keep)
    monkeypatch.setattr(LookAlikes, "update", lambda self, *of: seen["update"].append(of))
    monkeypatch.setattr(loop, "SAVE_EVERY", 4)
    spy("embed_images", "keep", lambda _model, _images, keep: keep)
    seen["classify"] = []
    spy("classify", "classify", lambda _vectors, targets, also, *_: (targets, also))
    spy("contrast", "unclear", lambda _seen, _said, unclear, _scale: unclear.numpy())
    spy("centre", "centre", lambda *_: len(seen["keep"]))
    spy("save", "save", lambda *_: len(seen["keep"]))
    train(config, twins, vocabulary(twins, config.vocabulary), tmp_path)
    assert seen["keep"] == [0.5] * 7 + [1.0] * 3
    assert seen["centre"] == [0]  # before anything is embedded
    assert seen["save"] == [4, 8]
    assert sum(mask.sum() for mask in seen["unclear"]) > 0
    for batch, mask, (classes, vectors) in zip(drawn, seen["unclear"], seen["update"], strict=True):
        assert (mask == batch.unclear).all()
        assert (classes == batch.classes[batch.plain]).all()
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    asked = iter(seen["classify"])  # images, then the texts that name what they show
    for batch, images, texts in zip(drawn, asked, asked, strict=True):
        for (targets, also), rows in ((images, slice(None)), (texts, batch.plain)):
            assert (targets.numpy() == batch.classes[rows]).all()
            assert (also.numpy() == batch.true_of[rows]).all()
            assert also.numpy()[np.arange(len(targets)), targets].all()


@pytest.mark.slow
def test_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    tokenizer = vocabulary(SIGNS, SMALL.vocabulary)
    model = build(SMALL).eval()
    made = Embedder.load(save(model, tokenizer, SMALL, tmp_path / "model"))
    ids = tokenizer.encode("a red tomato").ids
    assert (ids[0], ids[-1]) == (SMALL.vocabulary - 2, SMALL.vocabulary - 1)
    with torch.no_grad():
        wanted = model.get_text_features(torch.tensor([ids])).pooler_output[0].numpy()
    found = made.embed_text("a red tomato")
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.9999
    image = draw(np.random.default_rng(0), [SIGNS[0].glyph], SMALL.image)
    with torch.no_grad():
        seen = embed_images(model, torch.from_numpy(np.array(image))[None], 1.0)[0].numpy()
        again = CLIPModel.from_pretrained(tmp_path / "model")
        processor = CLIPImageProcessorPil.from_pretrained(tmp_path / "model")
        theirs = again.get_image_features(**processor(image, return_tensors="pt"))
    for vector in (made.embed_image(as_png(image)), theirs.pooler_output[0].numpy()):
        assert unit(vector) @ seen > 0.9999


# -- the loss ----------------------------------------------------------------------------------


def unit_rows(*rows: Sequence[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float), dim=-1)


def test_the_loss_is_clips() -> None:
    seen, said = unit_rows([1, 2], [3, -1], [0, 1]), unit_rows([1, 1], [2, -1], [-1, 1])
    scale = torch.tensor(5.0)
    logits = scale * seen @ said.T
    target = torch.arange(3)
    cross = torch.nn.functional.cross_entropy
    wanted = (cross(logits, target) + cross(logits.T, target)) / 2
    clear = torch.zeros(3, 3, dtype=torch.bool)
    assert contrast(seen, said, clear, scale).item() == pytest.approx(wanted.item())


def test_what_is_true_of_another_is_no_mistake() -> None:
    """An image of a fruit, said to be a fruit, is not wrong beside an apple."""
    seen = said = unit_rows([1, 0], [1, 0.01])
    scale = torch.tensor(10.0)
    other = ~torch.eye(2, dtype=torch.bool)
    assert contrast(seen, said, other & False, scale) > 0.5
    assert contrast(seen, said, other, scale) == 0


def test_everything_is_a_wrong_answer_but_what_may_be_right() -> None:
    """Softmax over all learned vectors, of any length; what is true besides has no say."""
    known, seen = torch.tensor([[2.0, 0], [0, 3], [1, 1]]), unit_rows([1, 2], [3, -1])
    scale, targets = torch.tensor(4.0), torch.tensor([1, 0])
    logits = scale * seen @ torch.nn.functional.normalize(known, dim=-1).T
    wanted = torch.nn.functional.cross_entropy(logits, targets)
    own = torch.tensor([[False, True, False], [True, False, False]])
    assert classify(seen, targets, own, known, scale).item() == pytest.approx(wanted.item())
    also = own | torch.tensor([False, False, True])
    wanted = torch.nn.functional.cross_entropy(logits[:, :2], targets)
    assert classify(seen, targets, also, known, scale).item() == pytest.approx(wanted.item())


def test_a_tower_sees_the_patches_that_it_is_shown() -> None:
    """Half of them: a change of one patch is seen in about half of the images."""
    model = build(SMALL)
    images = torch.randint(0, 256, (64, 48, 48, 3), dtype=torch.uint8)
    changed = images.clone()
    changed[:, 12:24, 24:36] = 255 - changed[:, 12:24, 24:36]
    with torch.no_grad():
        for keep, low, high in ((1.0, 1, 1), (0.5, 0.25, 0.75)):
            torch.manual_seed(0)
            one = embed_images(model, images, keep)
            torch.manual_seed(0)
            other = embed_images(model, changed, keep)
            share = float((one - other).abs().amax(1).gt(1e-6).float().mean())
            assert low <= share <= high


def test_vectors_begin_apart() -> None:
    samples = Samples(SIGNS, SMALL, vocabulary(SIGNS, SMALL.vocabulary))
    batch = samples.batch(0, np.arange(7))
    images, ids = torch.from_numpy(batch.images), torch.from_numpy(batch.ids)
    model = build(SMALL)

    def likeness() -> list[float]:
        with torch.no_grad():
            vectors = embed_images(model, images, 1.0), embed_texts(model, ids)
        return [float((some @ some.T).mean()) for some in vectors]

    assert min(likeness()) > 0.5
    centre(model, images, ids)
    assert max(likeness()) < 0.3


def test_matrices_are_made_orthogonal() -> None:
    random = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 40), (2, 40, 16), (1, 8, 8)):
        made = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=random)))
        assert made.min() > 0.3
        assert made.max() < 1.3


# -- the data ----------------------------------------------------------------------------------


def test_a_batch_has_each_once_and_an_epoch_none_twice() -> None:
    config = dataclasses.replace(SMALL, batch=3, steps=10, mixed=0.5, group=2)
    alike = LookAlikes(len(SIGNS), config)
    for first in (0, 2, 4, 6, 8):  # of any, then of look-alikes
        epoch = alike.epoch(first)
        assert [len(classes) for classes in epoch] == [3, 3]
        assert len(set(np.concatenate(epoch).tolist())) == 6
    orders = {tuple(np.concatenate(alike.epoch(first)).tolist()) for first in (0, 2, 4, 6, 8)}
    assert len(orders) > 1


@pytest.mark.parametrize("known", [False, True])
def test_groups_that_do_not_come_out_even_leave_nobody_out(known: bool) -> None:
    config = dataclasses.replace(SMALL, batch=4, steps=100, mixed=0, group=3)
    alike = LookAlikes(len(SIGNS), config)
    if known:  # two of them just alike
        alike.update(np.arange(8), np.eye(7, 512, dtype=np.float32)[[0, 0, 1, 2, 3, 4, 5, 6]])
    for first in range(20):
        assert sorted(np.concatenate(alike.epoch(first)).tolist()) == list(range(8))


def test_look_alikes_come_together_once_they_are_known() -> None:
    """Eight signs of four kinds, two of each, which nothing but their vectors tells."""
    config = dataclasses.replace(SMALL, batch=4, steps=100, mixed=0.5, group=2)
    alike = LookAlikes(len(SIGNS), config)
    alike.update(np.arange(8), np.eye(4, 512, dtype=np.float32)[np.arange(8) % 4])

    def together(first: int) -> float:
        """Share of the signs whose like is in the same batch."""
        epoch = [classes.tolist() for classes in alike.epoch(first)]
        return sum((one + 4) % 8 in classes for classes in epoch for one in classes) / 8

    assert {together(first) for first in range(50, 100)} == {1.0}
    assert np.mean([together(first) for first in range(50)]) < 0.8


def test_a_batch_says_what_goes_with_what() -> None:
    twin = dataclasses.replace(SIGNS[1], name="love apple", synonyms=())  # looks like a tomato
    things = [*SIGNS, twin]
    samples = Samples(things, SMALL, vocabulary(things, SMALL.vocabulary))
    batch = samples.batch(0, np.array([8, 0, 1]))
    assert batch.images.shape == (3, 48, 48, 3)
    assert batch.unclear.tolist() == [[False, False, True], [False] * 3, [True, False, False]]
    assert (batch.ids[:, 0] == SMALL.vocabulary - 2).all()
    assert (batch.ids[:, -1] == SMALL.vocabulary - 1).all()


def test_a_kind_is_true_of_its_kind_whoever_says_so() -> None:
    """ "a fruit" goes with a tomato and a pea; "pea" with one of them: unclear, both ways."""
    things = [dataclasses.replace(thing, group="fruit") for thing in SIGNS[:2]] + SIGNS[2:]
    samples = Samples(things, SMALL, vocabulary(things, SMALL.vocabulary))
    for step in range(200):
        batch = samples.batch(step, np.array([0, 1]))
        assert (batch.unclear == batch.unclear.T).all()
        if batch.unclear.any():
            return
    raise AssertionError("no caption was of a kind")


def test_a_batch_that_leaves_nothing_out_is_refused() -> None:
    config = dataclasses.replace(SMALL, batch=8)
    with pytest.raises(ModelError, match="a batch of 8 needs more than 8 pictograms"):
        train(config, SIGNS, vocabulary(SIGNS, config.vocabulary))


def test_a_caption_is_true_of_all_that_it_says() -> None:
    """Over many samples of the tomato: a fruit as the pea is, and a "love apple" as the sea."""
    things = [
        dataclasses.replace(
            thing,
            group="fruit" if thing.name in ("tomato", "pea") else None,
            synonyms=("love apple",) if thing.name in ("tomato", "sea") else (),
        )
        for thing in SIGNS
    ]
    samples = Samples(things, SMALL, vocabulary(things, SMALL.vocabulary))
    tomato, pea, sea, other = (place(name) for name in ("tomato", "pea", "sea", "coal"))
    seen = set()
    for seed in range(400):
        sample = samples.sample(np.random.default_rng(seed), tomato, other, 0.5)
        kinds = {
            "two": "coal" in sample.caption,
            "fruit": re.search("^(?!.*(tomato|apple)).*fruit", sample.caption),
            "shared": "love apple" in sample.caption,
            "counted": sample.caption.startswith(("two", "three", "four")),
            "coloured": re.match(f"(a |an )?({'|'.join(COLOURS)}) tomato", sample.caption),
        }
        wanted = {tomato} | ({other} if kinds["two"] else set())
        wanted |= {pea} if kinds["fruit"] else set()
        wanted |= {sea} if kinds["shared"] else set()
        assert set(sample.true_of) == wanted, sample.caption
        named = any(kinds[kind] for kind in ("two", "fruit", "counted", "coloured"))
        assert sample.plain is not named, sample.caption
        seen |= {kind for kind, is_it in kinds.items() if is_it}
    assert seen == {"two", "fruit", "shared", "counted", "coloured"}


@pytest.mark.slow
def test_a_colour_may_make_it_anothers_name() -> None:
    things = [*SIGNS[:7], dataclasses.replace(SIGNS[7], name="blue tomato", synonyms=())]
    samples = Samples(things, SMALL, vocabulary(things, SMALL.vocabulary))
    said = [
        samples.sample(np.random.default_rng(seed), place("tomato"), place("coal"), 0.5)
        for seed in range(2000)
    ]
    found = [set(sample.true_of) for sample in said if sample.caption == "blue tomato"]
    assert found
    assert all(true_of == {place("tomato"), 7} for true_of in found)


def place(name: str) -> int:
    return next(number for number, thing in enumerate(SIGNS) if thing.name == name)


@pytest.mark.parametrize("kind", sorted({*TRAINING, *HELD_OUT}))
def test_every_background_is_drawn_and_repeats(kind: str) -> None:
    one, two, other = (
        np.asarray(background(np.random.default_rng(seed), kind, 32)) for seed in (1, 1, 2)
    )
    assert one.shape == (32, 32, 3)
    assert (one == two).all()
    assert kind == "white" or (one != other).any()


def test_most_backgrounds_are_held_out() -> None:
    assert set(TRAINING) & set(HELD_OUT) == {"plain"}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("tint", [None, *COLOURS])
def test_images_are_drawn_at_any_strength(count: int, tint: str | None) -> None:
    for strength in (0.0, 0.5, 1.0):
        random = np.random.default_rng(count)
        image = draw(random, [SIGNS[0].glyph] * count, 40, strength=strength, tint=tint)
        assert (image.size, image.mode) == ((40, 40), "RGB")


def test_a_colour_has_its_word() -> None:
    assert [thing.colour for thing in SIGNS[:4]] == ["yellow", "red", "green", "black"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("apple", "apples"),
        ("box", "boxes"),
        ("cherry", "cherries"),
        ("key", "keys"),
        ("slice of pizza", "slices of pizza"),
        ("cat with wry smile", "cats with wry smile"),
        ("a button (blood type)", "a buttons (blood type)"),
    ],
)
def test_plurals(name: str, wanted: str) -> None:
    assert plural(name) == wanted


def test_phrases() -> None:
    for name in ("an owl", "a unicorn", "an hourglass", "a cat"):
        assert article(name.partition(" ")[2]) == name
    assert phrase("a photo of {a}", "cat") == "a photo of a cat"
    assert phrase("{names}", "cat") == "cats"


def test_a_font_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"apt install fonts-noto-color-emoji"):
        pictograms(tmp_path / "none.ttf")


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_a_run_of_no_steps_is_refused(tmp_path: Path, steps: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path / "m"), "--steps", steps])
    assert not (tmp_path / "m").exists()


@pytest.mark.process
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "score.training", str(tmp_path / "m")]
    command += ["--font", str(tmp_path / "none.ttf")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.strip().endswith("apt install fonts-noto-color-emoji")
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(
    not (FONT.is_file() and features.check("raqm")), reason="needs fonts-noto-color-emoji"
)
def test_the_font_has_them_all() -> None:
    things = pictograms()
    assert len(things) > 1850
    assert len({thing.name for thing in things}) == len(things)
    by_name = {thing.name: thing for thing in things}
    assert by_name["banana"].colour == "yellow"
    assert by_name["turkey"].group == "bird"
    assert "france flag" in by_name["flag of france"].synonyms
    assert by_name["dog face"].foreign[2] == "tête de chien"
    assert {thing.group for thing in things} == {None, *GROUPS}
    for thing in things:
        left, top, right, bottom = thing.glyph.getbbox()
        width, height = thing.glyph.size
        assert width == height
        assert min(left + width - right, top + height - bottom) <= 12  # it fills its square


def test_the_rate_rises_and_falls() -> None:
    rates = [rate(Config(), step) for step in range(Config.steps)]
    assert rates[0] < rates[50] < rates[Config.warmup] == 1
    assert rates[-1] < 1e-5
    assert math.isclose(max(rates), 1)
