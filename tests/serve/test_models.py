"""Several models behind one server: which answers, when it is loaded, and what it is told by."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch

from score.checkpoints import random_checkpoint
from score.cli.serve import folders_of
from score.concurrency.steps import NEEDS_A_THREAD
from score.core import served_model
from score.core.embedder import Embedder, parts_of
from score.core.loader import Loader
from score.core.model_source import Loaded, Source, source_of
from score.core.served_model import ServedModel, Watcher
from score.core.shared import Shared
from score.deploy.simulate.ports import free_port
from score.dialects.base import RED_SQUARE, ModelFacts
from score.errors import ModelError, ModelUnavailable
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.settings import Settings
from tests.dialects.asking import NAME, check_refusal
from tests.serve.test_metrics import samples
from tests.support.in_process import Running, running_models, until
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

SMALL = "small"
"""The name of a model whose vectors are shorter than the embedded one's."""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = replace(random_checkpoint.TINY, dimension=64)
    return random_checkpoint.write(tmp_path_factory.mktemp("models") / SMALL, architecture)


def sources(*folders: Path | str, **settings: Any) -> list[Source]:
    """As `score serve` makes them; each may be counted, held or broken by the test."""
    chosen = Settings(device="cpu", **settings)
    shared = Shared(chosen)
    opened = [ModelFolder.open(folder) for folder in folders]
    return [source_of(folder.name, folder, chosen, shared) for folder in opened]


@pytest.fixture(scope="module")
def server(small: Path) -> Iterator[Running]:
    with running_models(sources(EMBEDDED, small)) as server:
        yield server


def embed(server: Running, model: str | None = None, text: str = "a cat", **headers: str) -> Any:
    """The response to OpenAI's request."""
    body = {"input": [text], "normalized": False, **({"model": model} if model else {})}
    return requests.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=60)


def vector(response: requests.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["data"][0]["embedding"]


def ready(server: Running) -> requests.Response:
    return requests.get(f"{server.url}/health/ready", timeout=60)


class Held:
    """A source whose loading waits, and is counted."""

    def __init__(self, source: Source) -> None:
        self.go_on, self.loads, self._source = threading.Event(), 0, source

    @property
    def source(self) -> Source:
        return self._source._replace(load=self._load)

    def _load(self) -> Loaded:
        self.loads += 1
        assert self.go_on.wait(60)
        return self._source.load()


# -- which model answers -------------------------------------------------------------------------


def test_each_model_answers_with_its_own_vectors_and_says_so(server: Running, small: Path) -> None:
    for name, folder, length in ((NAME, EMBEDDED, 512), (SMALL, small, 64), (None, EMBEDDED, 512)):
        answer = embed(server, name)
        alone = Embedder.load(folder, Settings(device="cpu")).embed_text("a cat")
        assert len(vector(answer)) == length
        np.testing.assert_allclose(vector(answer), alone, rtol=1e-4, atol=1e-5)
        assert answer.json()["model"] == answer.headers["X-Model-Name"] == (name or NAME)
        fingerprint = ModelFolder.open(folder).fingerprint()
        assert answer.headers["X-Model-Fingerprint"] == fingerprint


def test_a_refusal_of_a_model_says_whose_it_is(server: Running) -> None:
    answer = embed(server, SMALL, text="word " * 200)
    assert (answer.status_code, answer.headers["X-Model-Name"]) == (400, SMALL)


def test_lists_and_pages_name_all_models(server: Running, small: Path) -> None:
    wanted = {NAME: ModelFolder.open(EMBEDDED), SMALL: ModelFolder.open(small)}
    listed = requests.get(f"{server.url}/v1/models", timeout=60).json()["data"]
    fingerprints = {name: folder.fingerprint() for name, folder in wanted.items()}
    assert {model["id"]: model["fingerprint"] for model in listed} == fingerprints
    version = requests.get(f"{server.url}/version", timeout=60).json()
    assert version["model"] == NAME
    assert [(one["model"], one["state"]) for one in version["models"]] == [
        (NAME, "loaded"),
        (SMALL, "loaded"),
    ]
    tensors = requests.get(f"{server.url}/v2/models/{SMALL}", timeout=60).json()
    assert tensors["outputs"][0]["shape"] == [-1, 64]
    assert SMALL in requests.get(f"{server.url}/docs", timeout=60).text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a", "model": "other"}),
        ("/v2/embed", {"texts": ["a"], "input_type": "search_query", "model": "other"}),
        ("/v1/classify", {"text": "a", "labels": ["b"], "model": "other"}),
        ("/v1/similarity", {"a": ["a"], "model": "other"}),
        (
            "/models/other",
            {"inputs": RED_SQUARE, "parameters": {"candidate_labels": ["red"]}},
        ),
        (
            "/v2/models/other/infer",
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]},
        ),
    ],
)
def test_another_name_is_a_404(server: Running, path: str, body: Any) -> None:
    refused = requests.post(server.url + path, json=body, timeout=60)
    assert refused.status_code == 404
    assert f"this server has '{NAME}', '{SMALL}'" in refused.text
    assert "X-Model-Name" not in refused.headers
    check_refusal(path, refused)


def test_a_body_without_a_name_is_for_the_first(server: Running) -> None:
    for path, body in (
        ("/score", {"input_data": [{"text": "a"}]}),
        ("/invocations", {"inputs": [{"text": "a"}]}),
        ("/vectorize", {"texts": ["a"]}),
    ):
        answer = requests.post(server.url + path, json=body, timeout=60)
        assert (answer.status_code, answer.headers["X-Model-Name"]) == (200, NAME)


def test_metrics_and_log_name_the_model(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "score.access")
    rows = "score_rows_total", frozenset({("code", "ok"), ("model", SMALL)})
    before = samples(server).get(rows, 0)
    embed(server, SMALL)
    assert samples(server)[rows] == before + 1
    until(lambda: "request" in caplog.messages)
    fields = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert [one["model"] for one in fields if one["path"] == "/v1/embeddings"] == [SMALL]


def test_a_poisoned_request_does_not_disturb_the_other_model(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = sources(EMBEDDED, small)
    loaded: list[Loaded] = []
    kept = models[1]._replace(load=lambda: loaded.append(models[1].load()) or loaded[0])
    with running_models([models[0], kept]) as server:

        def broken(ids: Any) -> Any:
            raise RuntimeError("poison")

        monkeypatch.setattr(parts_of(loaded[0].embedder).encoder.engine, "texts", broken)
        with ThreadPoolExecutor(8) as pool:
            names = [SMALL, NAME] * 8
            statuses = list(pool.map(lambda name: embed(server, name).status_code, names))
    assert statuses == [500, 200] * 8


# -- when it is loaded ---------------------------------------------------------------------------


def test_first_requests_that_come_together_load_a_model_once(small: Path) -> None:
    first, second = sources(EMBEDDED, small)
    held = Held(second)
    with (
        running_models([first, held.source], load_on_first_use=True) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        assert ready(server).status_code == 200, "it loads what is asked for"
        assert requests.get(f"{server.url}/v1/models/{SMALL}", timeout=60).json()["id"] == SMALL
        answers = [pool.submit(embed, server, SMALL) for _ in range(16)]
        until(lambda: server.server._models._loader._waiting == 16)  # type: ignore[union-attr]
        assert ready(server).status_code == 200
        held.go_on.set()
        assert {len(vector(answer.result())) for answer in answers} == {64}
        assert held.loads == 1
        assert ready(server).status_code == 200


def test_other_models_answer_while_one_is_loaded(small: Path) -> None:
    first, second = sources(EMBEDDED, small)
    held = Held(second)
    with (
        running_models([first, held.source], load_on_first_use=True) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        vector(embed(server))
        slow = pool.submit(embed, server, SMALL)
        until(lambda: held.loads)
        vector(embed(server))
        late = embed(server, SMALL, **{"X-Request-Timeout": "0.1"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
        assert not slow.done()
        held.go_on.set()
        vector(slow.result())


def test_a_model_that_cannot_be_loaded_is_refused_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_checkpoint.write(tmp_path / SMALL, random_checkpoint.TINY)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    clock = [0.0]
    monkeypatch.setattr(served_model, "_now", lambda: clock[0])
    with running_models(sources(EMBEDDED, folder), load_on_first_use=True) as server:
        for path, body in (
            ("/v1/embeddings", {"input": "a", "model": SMALL}),
            ("/v2/embed", {"texts": ["a"], "input_type": "search_query", "model": SMALL}),
        ):
            refused = requests.post(server.url + path, json=body, timeout=60)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert "cannot be loaded" in refused.text
            check_refusal(path, refused)
        vector(embed(server))
        assert ready(server).json()["reason"] == f"model '{SMALL}': it cannot be loaded"
        weights.write_bytes(content)
        assert embed(server, SMALL).status_code == 503, "not before its pause is over"
        clock[0] += 1.1
        vector(embed(server, SMALL))
        assert ready(server).status_code == 200


def test_a_damaged_model_is_refused_before_its_folder_is_read(tmp_path: Path) -> None:
    folder = random_checkpoint.write(tmp_path / SMALL, random_checkpoint.TINY)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with (folder / "large.txt").open("wb") as large:
        large.truncate(100 * 2**30)  # sparse; its digest takes a minute or more
    (source,) = sources(folder)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"not a complete safetensors file"):
        source.load()
    assert time.monotonic() - begun < 20


class Panic(BaseException):
    """What libraries in Rust raise."""


def test_a_library_that_panics_has_failed_to_load_a_model() -> None:
    def load() -> Loaded:
        raise Panic("it is all over")

    damaged = Source(ModelFacts("damaged", 8, 77), load)
    with running_models([*sources(EMBEDDED), damaged], load_on_first_use=True) as server:
        for _ in range(2):
            refused = embed(server, "damaged")
            assert (refused.status_code, "cannot be loaded" in refused.text) == (503, True)
        vector(embed(server))


def test_a_thread_that_the_system_does_not_start_is_started_by_the_next_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loader, loaded = Loader(), threading.Event()
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            loader.submit(lambda: None)
    loader.submit(loaded.set)
    assert loaded.wait(60)
    loader.close()


def test_a_model_that_fails_to_load_leaves_no_memory_behind() -> None:
    encoders: list[weakref.ref[Embedder]] = []

    class Refuses(Watcher):
        def model_loaded(self, name: str, loaded: Loaded) -> None:
            encoders.append(weakref.ref(loaded.embedder))
            raise ModelError("its probes differ")

    def load() -> Loaded:
        return Loaded(Embedder.load())

    loader = Loader()
    model = ServedModel(Source(ModelFacts("m", 512, 77), load), loader, Refuses())
    gc.disable()
    try:
        assert model.load().result(60) is False
    finally:
        gc.enable()
    assert encoders[0]() is None
    loader.close()


def test_whoever_asks_for_health_tries_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that gets no requests, since it is not ready, becomes ready all the same."""
    monkeypatch.setattr(served_model, "_LONGEST_PAUSE", 0.0)
    first, second = sources(EMBEDDED, small)
    is_broken = True

    def load() -> Loaded:
        if is_broken:
            raise ModelError("damaged")
        return second.load()

    models = [first, second._replace(load=load)]
    with running_models(models, load_on_first_use=True) as server:
        assert embed(server, SMALL).status_code == 503
        assert ready(server).status_code == 503
        is_broken = False
        until(lambda: ready(server).status_code == 200)
        vector(embed(server, SMALL))


def test_a_model_that_cannot_be_loaded_at_the_start_ends_the_server(small: Path) -> None:
    def load() -> Loaded:
        raise ModelError("damaged")

    models = [source._replace(load=load) for source in sources(EMBEDDED, small)]
    with running_models(models, wait=False) as server:
        until(lambda: server.server.should_exit)
        assert str(server.server.failure) == "damaged"


def test_requests_that_wait_for_a_model_leave_threads_to_others() -> None:
    waiting = Loader(2)
    one, two = waiting.waiting(), waiting.waiting()
    with one, two, pytest.raises(ModelUnavailable), waiting.waiting():
        pass
    with waiting.waiting():
        pass


# -- when it is unloaded -------------------------------------------------------------------------


def test_a_model_is_unloaded_when_it_is_idle_and_loaded_again(small: Path) -> None:
    models = sources(EMBEDDED, small)
    with running_models(models, load_on_first_use=True, unload_after=0.1) as server:
        before = vector(embed(server, SMALL))
        is_loaded = "score_model_loaded", frozenset({("model", SMALL)})
        until(lambda: samples(server)[is_loaded] == 0)
        assert ready(server).status_code == 200
        listed = requests.get(f"{server.url}/v1/models/{SMALL}", timeout=60).json()
        assert listed["fingerprint"], "it stays known"
        assert vector(embed(server, SMALL)) == before


def test_unloading_waits_for_requests_under_way(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, begun = threading.Event(), threading.Event()
    answering = Embedder._answering

    def slow(self: Embedder, *arguments: Any, **options: Any) -> Any:
        yield NEEDS_A_THREAD
        begun.set()
        assert released.wait(60)
        return (yield from answering(self, *arguments, **options))

    monkeypatch.setattr(Embedder, "_answering", slow)
    (source,) = sources(small)
    with (
        running_models([source], unload_after=0.05) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        under_way = pool.submit(embed, server)
        assert begun.wait(60)
        (model,) = server.server._models
        time.sleep(1.2)  # the server has looked twice
        assert model.state == "loaded"
        released.set()
        vector(under_way.result())
        until(lambda: model.state == "unloaded")


def test_a_gpus_memory_is_given_back_to_its_driver(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch caches what it has freed there; here with a stub of CUDA."""
    emptied: list[bool] = []
    models: list[weakref.ref[Embedder]] = []

    def load() -> Loaded:
        loaded = source.load()
        models.append(weakref.ref(loaded.embedder))
        emptied.clear()
        return loaded

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: emptied.append(not any(model() for model in models))
    )
    (source,) = sources(small)
    with running_models([source._replace(load=load)], unload_after=0.05):
        until(lambda: emptied)
    assert emptied == [True], "after the model is gone"


# -- what is of the process ----------------------------------------------------------------------


def test_the_bounds_are_of_all_models_together(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = sources(EMBEDDED, small, max_pending_rows=3)
    loaded = [source.load() for source in models]
    released, begun = threading.Event(), threading.Event()
    engine = parts_of(loaded[0].embedder).encoder.engine
    right = engine.texts

    def slow(ids: Any) -> Any:
        begun.set()
        assert released.wait(60)
        return right(ids)

    ready_made = [
        source._replace(load=partial_of(one)) for source, one in zip(models, loaded, strict=True)
    ]
    with running_models(ready_made) as server, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(engine, "texts", slow)
        body = {"input": ["a", "b", "c"], "model": NAME}
        url = f"{server.url}/v1/embeddings"
        large = pool.submit(requests.post, url, json=body, timeout=60)
        assert begun.wait(60)
        refused = embed(server, SMALL)
        assert (refused.status_code, "max_pending_rows" in refused.text) == (429, True)
        released.set()
        assert large.result().status_code == 200
        vector(embed(server, SMALL))


def partial_of(loaded: Loaded) -> Callable[[], Loaded]:
    return lambda: loaded


def test_models_share_downloads_decoders_and_the_thread_of_passes(small: Path) -> None:
    one, other = (source.load().embedder._pipeline for source in sources(EMBEDDED, small))
    assert one.batcher is other.batcher
    assert one.preparer._shared is other.preparer._shared
    assert one.streams is other.streams
    alone = Embedder.load(small, Settings(device="cpu"))._pipeline
    assert alone.batcher is not one.batcher


# -- the command line ----------------------------------------------------------------------------


def test_names_of_models(small: Path) -> None:
    assert list(folders_of([])) == [NAME]
    assert list(folders_of([str(EMBEDDED), str(small)])) == [NAME, SMALL]
    assert list(folders_of([f"first={small}", f"second={small}"])) == ["first", "second"]
    with pytest.raises(ModelError, match=rf"'{SMALL}'.*first={small} second={small}"):
        folders_of([str(small), str(small)])
    for wrong in (f"={small}", f"a\n={small}"):
        with pytest.raises(ModelError, match="goes before"):
            folders_of([wrong])


def test_a_folder_may_have_an_equals_sign(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "seed=1"
    folder.symlink_to(small)
    assert list(folders_of([str(folder)])) == [SMALL]


_STOPPED_WHILE_LOADING = """
import os, signal, sys, time
from score.core.embedder import Embedder
from score.__main__ import main
from score.serve import running

# An orderly end may abort inside a library that loads a model.
running.exit_within = lambda code: os._exit(9)

def load(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

Embedder._load = load
sys.argv = ["score", "serve", "--port", sys.argv[1]]
main()
"""


def test_sigterm_while_a_model_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_WHILE_LOADING, str(free_port())],
        cwd=ROOT,
        timeout=50,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
