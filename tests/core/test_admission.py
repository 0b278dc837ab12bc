"""Which requests are taken on, and what those that are not are told."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from score.contract.params import Params
from score.contract.rows import Row
from score.core import pace
from score.core.admission import Admission, Load, Paces
from score.core.embedder import Embedder, parts_of
from score.core.pace import Pace
from score.errors import Overloaded, RequestTooLarge
from score.settings import Settings
from tests.support.images import random_image

TEXT, IMAGE = Row(text="a cat"), Row(image="https://example.org/cat.jpg")


def admission(image: float = 0, token: float = 0, **settings: Any) -> Admission:
    return Admission(Settings(**settings), lambda: Paces(image, token), 77)


@pytest.fixture
def under_way() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_load_is_what_its_rows_have() -> None:
    rows = [Row("data:,1234", "word"), Row(b"12345678"), Row(text="x" * 4000), Row(None, 3)]
    load = Load.of(rows, 77)
    assert (load.rows, load.images, load.tokens) == (4, 2, 3 + 77)
    assert load.size == 10 + 4 + 8 + 4000


@pytest.mark.parametrize(
    ("settings", "rows", "full"),
    [
        ({"max_pending_requests": 2}, [TEXT], r"max_pending_requests \(2\) is reached"),
        ({"max_pending_rows": 10}, [TEXT] * 4, r"max_pending_rows \(10\) would be exceeded"),
        (
            {"max_pending_bytes": 50},
            [Row(text="x" * 25)],
            r"max_pending_bytes \(50\) would be exceeded",
        ),
    ],
)
def test_what_does_not_fit_beside_others_may_come_later(
    under_way: ExitStack, settings: dict[str, int], rows: list[Row], full: str
) -> None:
    taking = admission(**settings)
    first = taking.admitted(rows)
    first.__enter__()
    under_way.enter_context(taking.admitted(rows))
    with pytest.raises(Overloaded, match=full) as caught, taking.admitted(rows):
        pass
    assert caught.value.status == 429
    assert caught.value.retry_after == 1
    first.__exit__(None, None, None)
    with taking.admitted(rows):
        pass


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"max_pending_rows": 10}, [TEXT] * 11),
        ({"max_pending_bytes": 50}, [Row(b"x" * 51)]),
    ],
)
def test_what_never_fits_is_too_large(settings: dict[str, int], rows: list[Row]) -> None:
    with (
        pytest.raises(RequestTooLarge, match=next(iter(settings))),
        admission(**settings).admitted(rows),
    ):
        pass


def test_a_quarter_of_the_requests_is_for_texts(under_way: ExitStack) -> None:
    taking = admission(max_pending_requests=8)
    for _ in range(6):
        under_way.enter_context(taking.admitted([TEXT, IMAGE]))
    with pytest.raises(Overloaded, match="three quarters"), taking.admitted([IMAGE]):
        pass
    for _ in range(2):
        under_way.enter_context(taking.admitted([TEXT]))


def test_without_limits_everything_is_taken(under_way: ExitStack) -> None:
    limits = ("max_pending_requests", "max_pending_rows", "max_pending_bytes", "max_wait")
    taking = admission(image=1000, token=1000, **dict.fromkeys(limits, 0))
    for _ in range(1000):
        under_way.enter_context(taking.admitted([TEXT, IMAGE] * 100))


def test_a_request_waits_for_as_many_rows_of_each_other_as_it_has(under_way: ExitStack) -> None:
    """A large request under way refuses other large ones, and no small one."""
    taking = admission(image=1 / 8, max_wait=5)
    large = under_way.enter_context(taking.admitted([IMAGE] * 1000))
    for _ in range(40):
        under_way.enter_context(taking.admitted([IMAGE]))
    with pytest.raises(Overloaded, match="about 11 s, more than max_wait, 5 s") as caught:
        under_way.enter_context(taking.admitted([IMAGE] * 50))
    assert caught.value.retry_after == 7
    large.answered = 999
    for other in list(taking._under_way.loads)[:10]:
        other.answered = other.rows
    under_way.enter_context(taking.admitted([IMAGE] * 50))


def test_prompts_are_work_until_they_are_encoded(under_way: ExitStack) -> None:
    """As rows: a request waits for no more of them than it has rows."""
    taking = admission(token=1 / 16, max_wait=5)
    labelled = under_way.enter_context(taking.admitted([TEXT], ["a photo of a cat"] * 100))
    with taking.admitted([TEXT]):
        pass
    with pytest.raises(Overloaded, match="about 19 s"), taking.admitted([TEXT] * 50):
        pass
    labelled.answered = 1
    with taking.admitted([TEXT] * 50):
        pass


def test_five_times_the_load_leaves_a_bounded_wait(under_way: ExitStack) -> None:
    taking, admitted = admission(image=1 / 64, max_wait=2, max_pending_requests=0), 0
    for _ in range(500):
        try:
            under_way.enter_context(taking.admitted([IMAGE]))
            admitted += 1
        except Overloaded:
            pass
    assert admitted == 129, "those that wait for up to 2 s, at 64 images a second"


def test_a_single_request_is_not_refused_for_its_own_size() -> None:
    with admission(image=1, max_wait=1).admitted([IMAGE] * 10_000):
        pass


def test_a_refused_request_leaves_nothing_behind(under_way: ExitStack) -> None:
    taking = admission(max_pending_rows=10)
    under_way.enter_context(taking.admitted([TEXT] * 10))
    for _ in range(5):
        with pytest.raises(Overloaded), taking.admitted([TEXT]):
            pass
    assert len(taking._under_way.loads) == 1


# -- the pace ------------------------------------------------------------------------------------


def test_a_pace_is_the_median_of_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    measured = Pace()

    def compute(inputs: Any) -> Any:
        clock[0] += 100 if len(inputs) == 1 else 0.5 * len(inputs)
        return np.zeros((len(inputs), 2))

    compute = measured.of(compute, lambda _: 2)
    compute([1])
    for _ in range(3):
        compute([1, 2])
        assert measured.seconds == 0, "not known yet"
    compute([1, 2, 3])
    assert measured.seconds == 0.25, "a single pass that took long does not count"
    for _ in range(15):
        compute([1])
    assert measured.seconds == 50


def test_work_that_fails_is_not_measured() -> None:
    measured = Pace()
    for _ in range(10):
        with pytest.raises(ValueError, match="no image"), measured.measuring():
            raise ValueError("no image")
    assert not measured._latest


# -- in the embedder -----------------------------------------------------------------------------


def small(embedder: Embedder, **settings: Any) -> Embedder:
    return Embedder(*parts_of(embedder), Settings(**settings))


def test_answers_are_admitted_and_streams_are_not(embedder: Embedder) -> None:
    model = small(embedder, max_pending_rows=2)
    assert len(model.answer([TEXT] * 2)) == 2
    with pytest.raises(RequestTooLarge):
        model.answer([TEXT] * 3)
    assert len(list(model.embed([TEXT] * 100))) == 100
    with model._pipeline.admission.admitted([TEXT]) as load:
        with pytest.raises(Overloaded):
            model.answer([TEXT] * 2)
        assert len(model.answer([TEXT])) == 1
        assert load.answered == 0


def test_labels_that_are_kept_are_no_work(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counts = small(embedder), list[int]()
    admitted = model._pipeline.admission.admitted

    def counting(rows: Sequence[Row], prompts: Sequence[str]) -> Any:
        counts.append(len(prompts))
        return admitted(rows, prompts)

    monkeypatch.setattr(model._pipeline.admission, "admitted", counting)
    for labels in ({"cat": ["a cat", "a kitten"], "boat": "a boat"}, None):
        for _ in range(2):
            model.answer([TEXT], Params.parse({"labels": labels}))
    assert counts == [3, 0, 0, 0]


def test_the_work_of_an_image_and_of_a_token_is_measured(embedder: Embedder) -> None:
    model = small(embedder)
    assert model._pipeline.paces() == Paces(0, 0)
    for seed in range(8):
        model.answer([Row(text=f"text {seed}")])
    assert not model._pipeline._image_pace._latest, "texts are no passes of images"
    assert model._pipeline.paces().token > 0
    for seed in range(8):
        model.answer([Row(random_image(seed), f"text {seed}")])
    assert model._pipeline.paces().image > 0


def test_the_images_of_a_request_are_bounded_together(embedder: Embedder) -> None:
    model = small(embedder, max_request_pixels=5 * 64 * 48)
    rows = [Row(random_image(seed)) for seed in range(8)]
    records = model.answer(rows, Params(on_error="report"))
    errors = [record.error for record in records if record.error]
    assert [(error.code, error.column) for error in errors] == [("too_many_pixels", "image")] * 3
    assert "its 3,072 pixels are more than are left of the 15,360" in errors[0].message
    assert not any(record.error for record in model.answer(rows[:5])), "each request has its own"
    assert not any(record.error for record in model.embed(rows)), "streams have no such limit"


def test_a_jpeg_2000_counts_as_many_pixels_as_take_as_long(embedder: Embedder) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(stream, "JPEG2000")
    model = small(embedder, max_request_pixels=5 * 64 * 48)
    (record,) = model.answer([Row(stream.getvalue())], Params(on_error="report"))
    assert record.error is not None
    assert record.error.code == "too_many_pixels"
    assert "those of a JPEG 2000 count sixfold" in str(record.error)


def test_an_image_that_is_refused_is_not_decoded(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: object) -> None:
        raise AssertionError("decoded")

    data = random_image(1)
    monkeypatch.setattr(PngImageFile, "load", load)
    (record,) = small(embedder, max_request_pixels=1).answer([Row(data)], Params(on_error="report"))
    assert record.error is not None
    assert record.error.code == "too_many_pixels"
