"""The pipeline: order, bounds, isolation of failures, threads."""

from __future__ import annotations

import base64
import gc
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of, pipeline_of
from score.core.preparation import FetchOptions
from score.core.stream import Stream
from score.errors import (
    BadBase64,
    BadType,
    BadUrl,
    FetchFailed,
    HostDown,
    ModelError,
    RowsFailed,
    TooManyPixels,
    TruncatedImage,
)
from score.fetch import fetcher
from score.fetch.byte_budget import ByteBudget
from score.fetch.download import Downloader
from score.images import decode
from score.settings import Settings
from tests.support.hostile import PNG, Server
from tests.support.images import SAMPLES, random_image

GOOD = random_image(1)


@pytest.mark.parametrize("name", ["nope.png", "photos/cat.jpg", "..\\cat", "example.org/cat.jpg"])
def test_a_file_given_as_a_string_is_told_to_be_a_path(name: str, embedder: Embedder) -> None:
    for use in (embedder.embed_image, lambda image: embedder.classify(image, ["a cat", "a dog"])):
        with pytest.raises(BadBase64) as caught:
            use(name)
        assert f"a file must be a pathlib.Path, as in Path({name!r})" in str(caught.value)
        assert caught.value.column == "image"


def test_other_strings_are_not_taken_for_files(embedder: Embedder) -> None:
    with pytest.raises(BadUrl):
        embedder.embed_image("s3://bucket/cat.png")
    encoded = base64.b64encode(GOOD).decode()
    for image in (encoded, f"data:image/x.y;base64,{encoded}", f"{encoded[:90]}\n{encoded[90:]}"):
        assert embedder.embed_image(image).shape == (embedder.dimension,)


class SlowFetcher:
    """Answers each image after the seconds before the colon; behind it stands which image."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self._lock = threading.Lock()
        self.holding = nullcontext

    def in_doubt(self) -> int:
        return 0

    def is_quick(self, *_: object) -> bool:
        return False

    def fetch(self, image: object, *_: object, **__: object) -> bytes:
        assert isinstance(image, str)
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        seconds, _, seed = image.partition(":")
        time.sleep(float(seconds))
        with self._lock:
            self.running -= 1
        return random_image(int(seed or 1))


@pytest.fixture
def slow(embedder: Embedder) -> Embedder:
    """The embedded model over a fetcher that takes its time."""
    settings = Settings(batch_size=4, fetch_workers=8)
    copy = Embedder(*parts_of(embedder), settings)
    copy._pipeline.preparer._shared.fetcher = SlowFetcher()  # type: ignore[assignment]
    return copy


def test_records_come_in_the_rows_order(slow: Embedder) -> None:
    waits = np.random.default_rng(0).uniform(0, 0.03, 100)
    rows = [Row(f"{wait}:", f"text {i}") for i, wait in enumerate(waits)]
    texts = slow.embed([Row(text=row.text) for row in rows])
    for record, alone in zip(slow.embed(rows), texts, strict=True):
        assert record.text_features is not None
        assert alone.text_features is not None
        np.testing.assert_allclose(record.text_features, alone.text_features, atol=1e-4)


@pytest.mark.slow
def test_a_stalled_row_holds_up_nobody_behind_it(slow: Embedder) -> None:
    encoded: list[int] = []
    pipeline = slow._pipeline
    encode = pipeline.encode_images

    def counting(images, call=None):  # type: ignore[no-untyped-def]
        encoded.append(len(images))
        return encode(images, call)

    pipeline.encode_images = counting
    try:
        rows = [Row("1.5:"), *(Row(f"0:{seed}") for seed in range(2, 42))]
        stream = slow.embed(rows)
        began = time.monotonic()
        next(stream)
        # The first record waited for its row; by then those behind it were encoded.
        assert sum(encoded) > 30
        list(stream)
        assert time.monotonic() - began < 10
    finally:
        pipeline.encode_images = encode


def test_threads_are_bounded_however_many_streams_there_are(embedder: Embedder) -> None:
    model = Embedder(*parts_of(embedder), Settings())
    alone = 2 * pipeline_of(model).batch_size + model.settings.fetch_workers
    streams = [Stream(model._pipeline, Params(), None, FetchOptions()) for _ in range(200)]
    assert streams[0]._most_images == alone
    assert streams[-1]._most_images == 1
    assert sum(stream._most_images for stream in streams) < 6 * alone


@pytest.mark.slow
def test_requests_that_come_together_share_the_threads(slow: Embedder) -> None:
    alone = 2 * pipeline_of(slow).batch_size + slow.settings.fetch_workers
    streams = [slow.embed([Row(f"0.1:{seed}") for seed in range(40)]) for _ in range(10)]
    with ThreadPoolExecutor(len(streams)) as pool:
        assert [len(records) for records in pool.map(list, streams)] == [40] * 10
    fetcher: Any = slow._pipeline.preparer._shared.fetcher
    assert fetcher.most < 4 * alone
    del streams
    gc.collect()
    fetcher.most = 0
    list(slow.embed([Row("0.5:")] * alone))
    assert fetcher.most > alone / 2, "what comes later has them for itself"


def test_rows_are_read_as_they_are_needed(slow: Embedder) -> None:
    pulled = 0

    def rows() -> Iterator[Row]:
        nonlocal pulled
        for _ in range(10_000):
            pulled += 1
            yield Row("0:")

    stream = slow.embed(rows())
    for count in range(1, 60):
        next(stream)
        bound = count + 8 * pipeline_of(slow).batch_size + slow.settings.fetch_workers
        assert pulled <= bound
    stream.close()  # type: ignore[attr-defined]


def test_downloads_run_side_by_side_but_not_without_bound(slow: Embedder) -> None:
    list(slow.embed([Row("0.02:")] * 64))
    fetcher = slow._pipeline.preparer._shared.fetcher
    assert isinstance(fetcher, SlowFetcher)
    bound = 2 * pipeline_of(slow).batch_size + slow.settings.fetch_workers
    assert 4 <= fetcher.most <= bound


class HeldFetcher(SlowFetcher):
    """Of a host that does not answer, until it is released: cells that begin with `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.held = self.answered = 0

    def in_doubt(self) -> int:
        return self.held

    def fetch(self, image: object, *_: object, **__: object) -> bytes:
        assert isinstance(image, str)
        with self._lock:
            self.held += image.startswith("held")
        if image.startswith("held"):
            self.released.wait(20)
        with self._lock:
            self.held -= image.startswith("held")
            self.answered += not image.startswith("held")
        return random_image(1)


@pytest.fixture
def held(embedder: Embedder) -> Iterator[tuple[Embedder, HeldFetcher]]:
    """A model with room for 10 images, and what its rows wait for."""
    model = Embedder(*parts_of(embedder), Settings(batch_size=4, fetch_workers=2))
    fetching = HeldFetcher()
    model._pipeline.preparer._shared.fetcher = fetching  # type: ignore[assignment]
    yield model, fetching
    fetching.released.set()


def test_rows_of_a_host_that_does_not_answer_take_no_room_from_others(
    held: tuple[Embedder, HeldFetcher],
) -> None:
    model, fetching = held
    rows = [*([Row("up")] * 5), *([Row("held"), Row("up")] * 100)]
    with ThreadPoolExecutor(1) as thread:
        records = thread.submit(lambda: list(model.embed(rows)))
        end = time.monotonic() + 20
        while fetching.answered < 105 and time.monotonic() < end:
            time.sleep(0.01)
        assert (fetching.answered, fetching.held) == (105, 100)
        fetching.released.set()
        assert len(records.result(20)) == 205


def test_they_are_not_without_bound(held: tuple[Embedder, HeldFetcher]) -> None:
    model, fetching = held
    pulled = 0

    def rows() -> Iterator[Row]:
        nonlocal pulled
        for _ in range(2000):
            pulled += 1
            yield Row("held")

    with ThreadPoolExecutor(1) as thread:
        records = thread.submit(lambda: sum(1 for _ in model.embed(rows())))
        end = time.monotonic() + 20
        while fetching.held < 522 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.6)  # it looks twice more
        assert pulled == fetching.held == 522
        fetching.released.set()
        assert records.result(60) == 2000


def test_requests_have_no_more_threads_for_them(held: tuple[Embedder, HeldFetcher]) -> None:
    model, fetching = held
    with ThreadPoolExecutor(1) as thread:
        records = thread.submit(model.answer, [Row("held")] * 50)
        end = time.monotonic() + 20
        while fetching.held < 10 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.6)
        assert fetching.held == 10
        fetching.released.set()
        assert len(records.result(20)) == 50


def test_rows_of_a_batch_do_not_wait_for_a_host_that_is_down(embedder: Embedder) -> None:
    """Those that have asked it have their own error; the last have HostDown, and none is lost."""
    settings = Settings(
        allow_hosts=("127.0.0.0/8",), read_timeout=0.2, retry_wait=0.01, batch_size=4
    )
    model = Embedder(*parts_of(embedder), settings)
    with Server() as server, Server("127.0.0.2") as down:
        good, silent = Row(server.url("/good.png")), Row(down.url("/silence"))
        rows = [good, *([silent, good, good, good] * 100)]
        records = list(model.embed(rows))
        assert [record.error is None for record in records] == [row is good for row in rows]
        errors = [record.error for record in records if record.error]
        assert all(error.retryable for error in errors)
        assert sum(isinstance(error, HostDown) for error in errors) > 50
        assert isinstance(errors[-1], HostDown)
        assert not isinstance(errors[0], HostDown)
        with pytest.raises(RowsFailed) as caught:
            model.answer([silent])
        assert "cannot be reached" in caught.value.rows[0]["message"], "a request asks it"
        for _ in range(3):
            with pytest.raises(FetchFailed) as alone:
                model.embed_image(down.url("/silence"))
            assert not isinstance(alone.value, HostDown), "as does a single image"


def test_an_abandoned_stream_leaves_no_threads(slow: Embedder) -> None:
    before = threading.active_count()
    stream = slow.embed([Row("0.05:")] * 1000)
    next(stream)
    del stream
    gc.collect()
    for _ in range(100):
        if threading.active_count() <= before:
            return
        time.sleep(0.05)
    pytest.fail("worker threads go on")


def test_a_bug_is_raised_not_swallowed(slow: Embedder) -> None:
    def crash(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError("a bug")

    slow._pipeline.preparer._shared.fetcher.fetch = crash  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        list(slow.embed([Row("0:"), Row(text="a")]))


def test_numbers_that_are_none_are_not_answered(embedder: Embedder) -> None:
    vectors = np.full((1, 512), np.nan, dtype=np.float32)
    real = parts_of(embedder).encoder.engine.texts
    parts_of(embedder).encoder.engine.texts = lambda texts: vectors  # type: ignore[method-assign, assignment]
    try:
        with pytest.raises(ModelError, match="NaN"):
            list(embedder.embed([Row(text="a")]))
    finally:
        parts_of(embedder).encoder.engine.texts = real  # type: ignore[method-assign]


def test_threads_share_a_model(embedder: Embedder) -> None:
    rows = [Row(random_image(seed), f"text {seed}") for seed in range(6)]
    alone = list(embedder.embed(rows))
    with ThreadPoolExecutor(8) as pool:
        for records in pool.map(lambda _: list(embedder.embed(rows)), range(16)):
            for record, wanted in zip(records, alone, strict=True):
                for name in ("image_features", "text_features"):
                    got, want = getattr(record, name), getattr(wanted, name)
                    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_raise_names_every_bad_row(embedder: Embedder) -> None:
    rows = [Row(text="a"), Row(), Row(image=3), Row(text="b"), Row(image="%"), Row(text=["x"])]
    with pytest.raises(RowsFailed) as caught:
        embedder.answer(rows)
    problems = [(row["index"], row["column"], row["code"]) for row in caught.value.rows]
    assert problems == [
        (1, None, "empty_row"),
        (2, "image", "bad_type"),
        (4, "image", "bad_base64"),
        (5, "text", "bad_type"),
    ]
    assert "4 of 6 rows failed" in str(caught.value)
    assert "and 1 more" in str(caught.value)


def test_a_cell_that_a_reader_could_not_read_is_its_rows_error(embedder: Embedder) -> None:
    (record,) = embedder.embed([Row(image=GOOD, text=BadType("line 3 has 5 cells, not 2"))])
    assert record.error is not None
    assert str(record.error) == "text: line 3 has 5 cells, not 2"


def test_normalized_vectors_have_length_one(embedder: Embedder) -> None:
    (record,) = embedder.embed([Row(GOOD, "a cat")], Params(normalize=True))
    for vector in (record.image_features, record.text_features):
        assert vector is not None
        assert vector.dtype == np.float32
        assert abs(np.linalg.norm(vector) - 1) < 1e-6


def test_exif_orientation_is_an_option(embedder: Embedder) -> None:
    image = Image.open(io.BytesIO(random_image(9, (80, 40))))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    tagged = stream.getvalue()
    turned = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_270).save(turned, "PNG")

    upright = Embedder(*parts_of(embedder), Settings(exif_orientation=True))

    def vector(model: Embedder, data: bytes) -> np.ndarray:
        (record,) = model.embed([Row(image=data)])
        assert record.image_features is not None
        return record.image_features

    np.testing.assert_allclose(
        vector(upright, tagged), vector(embedder, turned.getvalue()), atol=1e-5
    )
    assert np.abs(vector(embedder, tagged) - vector(upright, tagged)).max() > 1e-3


def test_a_source_that_breaks_has_first_its_rows_answered(embedder: Embedder) -> None:
    def rows() -> Iterator[Row]:
        for _ in range(50):
            yield Row(GOOD, "a")
        raise OSError("the disk is gone")

    answered = 0
    with pytest.raises(OSError, match="the disk is gone"):
        for record in embedder.embed(rows()):
            assert record.error is None
            answered += 1
    assert answered == 50


def test_a_failed_row_keeps_nothing_of_itself_alive(embedder: Embedder) -> None:
    """Traces hold frames, and frames hold the bytes of images that were none."""
    rows = [Row(image=b"no image"), Row(image=GOOD[:200]), Row(image="%"), Row(text=3)]
    for record in embedder.embed(rows):
        assert record.error is not None
        assert record.error.__traceback__ is None
        assert record.error.__cause__ is None
        assert record.error.__context__ is None


def test_an_empty_stream_is_an_empty_answer(embedder: Embedder) -> None:
    assert list(embedder.embed([])) == []


@pytest.mark.slow
def test_what_comes_again_is_computed_once(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {"images": 0, "texts": 0}
    pipeline = embedder._pipeline
    for kind in asked:
        compute = getattr(pipeline, f"encode_{kind}")

        def counted(inputs: Any, *call: Any, kind: str = kind, compute: Any = compute) -> Any:
            asked[kind] += len(inputs)
            return compute(inputs, *call)

        monkeypatch.setattr(pipeline, f"encode_{kind}", counted)
    images = [random_image(seed) for seed in range(3)]
    rows = [Row(image=images[i % 3], text=f"text {i % 5}") for i in range(150)]
    records = list(embedder.embed(rows))
    assert asked == {"images": 3, "texts": 5}
    for index, record in enumerate(records):
        assert np.array_equal(record.image_features, records[index % 3].image_features)
        assert np.array_equal(record.text_features, records[index % 5].text_features)
    assert not np.array_equal(records[0].image_features, records[1].image_features)
    assert records[0].image_features is not records[3].image_features
    many = [Row(text=f"text {i % 5000}") for i in range(10_000)]
    asked["texts"] = 0
    assert len(list(embedder.embed(many))) == 10_000
    assert asked["texts"] == 10_000  # too far apart to be remembered


PHOTOS = sorted((SAMPLES / "photos").glob("*.jpg"))


@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.stem)
@pytest.mark.parametrize("times", [1, 2, 5])
def test_fast_decoding_gives_nearly_the_same_vectors(
    file: Path, times: int, embedder: Embedder
) -> None:
    photo = Image.open(file)
    stream = io.BytesIO()
    photo.resize((photo.width * times, photo.height * times)).save(stream, "JPEG", quality=92)
    data = stream.getvalue()
    processor = parts_of(embedder).preprocessor
    exact, fast = (processor.read(data, 10**8, fast=fast) for fast in (False, True))
    assert exact.shape == fast.shape
    assert np.abs(exact.astype(int) - fast.astype(int)).mean() < 1
    one, two = parts_of(embedder).encoder.images([exact, fast])
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) > 0.9999


def test_fast_decoding_reads_less_of_a_large_jpeg_alone(embedder: Embedder) -> None:
    large = random_image(size=(1200, 900), format="JPEG")
    assert decode.decode(large, 10**8).size == (1200, 900)
    assert decode.decode(large, 10**8, draft=lambda size: (448, 336)).size == (600, 450)
    assert decode.decode(large, 10**8, draft=lambda size: (700, 525)).size == (1200, 900)
    png = random_image(size=(1200, 900))
    assert decode.decode(png, 10**8, draft=lambda size: (448, 336)).size == (1200, 900)
    processor = parts_of(embedder).preprocessor
    for size in ((40, 30), (3000, 20), (20, 3000), (96, 96), (97, 96)):
        data = random_image(size=size)
        exact, fast = (processor.read(data, 10**8, fast=fast) for fast in (False, True))
        assert exact.shape == fast.shape
        assert np.abs(exact.astype(int) - fast.astype(int)).mean() < 1
    with pytest.raises(TooManyPixels):
        processor.read(large, 1000, fast=True)
    with pytest.raises(TruncatedImage):
        processor.read(large[: len(large) // 2], 10**8, fast=True)


def test_decoding_is_a_setting(embedder: Embedder) -> None:
    data = random_image(size=(1200, 900), format="JPEG")
    settings = Settings(decoding="fast")
    fast = Embedder(*parts_of(embedder), settings)
    assert not np.array_equal(fast.embed_image(data), embedder.embed_image(data))


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_decodes_on(embedder: Embedder) -> None:
    """Threads do not survive a fork; what waits for them would wait for ever."""
    row = Row(random_image())
    preparer = embedder._pipeline.preparer
    preparer.inputs(row, "end", FetchOptions())
    child = os.fork()
    if not child:
        try:
            preparer.inputs(row, "end", FetchOptions())
            os._exit(0)
        finally:
            os._exit(1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child waits for threads that it has not")
    assert status == 0


def test_rows_of_a_host_that_does_not_answer_hold_up_no_other_hosts(embedder: Embedder) -> None:
    with Server() as slow_host, Server() as quick_host:
        settings = Settings(allow_hosts=("127.0.0.1",), per_host=2, fetch_workers=4, batch_size=16)
        copy = Embedder(*parts_of(embedder), settings)
        rows = [Row(slow_host.url("/held.png"))] * 20 + [Row(quick_host.url("/good.png"))] * 10
        with ThreadPoolExecutor(1) as pool:
            records = pool.submit(lambda: list(copy.embed(rows)))
            for _ in range(1000):
                if quick_host.requests["/good.png"] == 10:
                    break
                time.sleep(0.01)
            held = slow_host.requests["/held.png"]
            slow_host.release.set()
            assert not any(record.error for record in records.result(60))
        assert quick_host.requests["/good.png"] == 10
        assert held == 2, "the others were asked while the first rows were still held"


@pytest.mark.slow
def test_a_host_that_sheds_load_is_asked_less_and_loses_no_row(embedder: Embedder) -> None:
    with Server() as server:
        settings = Settings(allow_hosts=("127.0.0.1",), retry_wait=0.01)
        copy = Embedder(*parts_of(embedder), settings)
        records = list(copy.embed([Row(server.url("/crowded.png?most=4"))] * 60))
        assert not any(record.error for record in records), {str(r.error) for r in records}
        assert server.requests["/crowded.png"] < 120, "fewer refusals than images"


def test_the_bytes_of_images_in_memory_are_bounded(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many downloads there are, images are read when there is room for them."""
    monkeypatch.setattr(fetcher, "_BODIES", 2)
    with Server() as server:
        settings = Settings(allow_hosts=("127.0.0.1",), max_image_bytes=len(PNG))
        copy = Embedder(*parts_of(embedder), settings)
        held = most = 0
        lock = threading.Lock()
        preparer = copy._pipeline.preparer
        decode = preparer._decode

        def decoding(*arguments: Any) -> Any:
            time.sleep(0.02)
            return decode(*arguments)

        def reading(*arguments: Any) -> bytes:
            nonlocal held, most
            data = body(*arguments)
            with lock:
                held += 1
                most = max(most, held)
            return data

        def release(*arguments: Any) -> None:
            nonlocal held
            with lock:
                held -= arguments[1] == len(PNG)
            release_bytes(*arguments)

        body, release_bytes = Downloader._body, ByteBudget.release
        monkeypatch.setattr(Downloader, "_body", reading)
        monkeypatch.setattr(ByteBudget, "release", release)
        monkeypatch.setattr(preparer, "_decode", decoding)
        rows = [Row(server.url(f"/good.png?{number}")) for number in range(40)]
        assert not any(record.error for record in copy.embed(rows))
        assert most == 2


def test_records_count_the_tokens_of_texts(embedder: Embedder) -> None:
    rows = [Row(text="a red apple"), Row(image=random_image()), Row(text="a " * 200), Row(text=5)]
    counts = [record.tokens for record in embedder.embed(rows)]
    assert counts == [5, 0, parts_of(embedder).tokenizer.context, 0]


def test_a_name_that_happens_to_be_base64_is_told_to_be_no_file(
    embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"no image")
    cells = ["photos/cat", "/etc/passwd", "not an image", "file", "data:;base64,AAAA", "A" * 1200]
    rows = [Row(image=cell) for cell in cells]
    errors = [str(record.error) for record in embedder.embed(rows, root=tmp_path)]
    hint = f"the cell was read as base64, since no file below {tmp_path.resolve()} has that name"
    assert [hint in error for error in errors] == [True, True, True, False, False, False]
    (record,) = embedder.embed([Row(image="photos/cat")])
    assert "has that name" not in str(record.error)
