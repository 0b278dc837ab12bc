"""What the package is for, end to end, on this machine alone. `make demo` runs it.

Images behind URLs become vectors, are found by text, get labels, and become a page to look at;
then the same question is put in each of the four ways there are to ask.

An image server on 127.0.0.1 stands in for the web, so that URLs really are fetched. Addresses like
that one are refused by default; the demo allows it with `--allow-hosts 127.0.0.1`. Every port is
one that is free, so that nothing else which runs here is in the way.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import page
import pyarrow.parquet as pq
import requests
from page import Hit, Story

from score.__main__ import main as score  # what the console command `score` runs
from score.core.embedder import Embedder
from score.deploy.harness import free_port
from score.model.zeroshot import unit
from score.settings import Settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
IMAGES = HERE / "images"
OUT = ROOT / "out"
BIN = Path(sys.executable).parent
IMAGE_PORT = 8800  # the port that samples/urls.csv names; the demo's own is another
BODY = HERE / "requests" / "text.json"
LABELLED = HERE / "requests" / "labels.json"
QUERIES = ("a red apple", "a fruit", "eine Eule")  # a thing, a kind of thing, an owl in German
LABELS = ("an owl", "a penguin", "an eagle", "a castle")
ASKED = IMAGES / "owl.jpg"
ON_THE_MAP = 20
QUIET = {"MLFLOW_LOGGING_LEVEL": "ERROR", "SCORE_LOG_LEVEL": "warning"}


class Images(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def image_vectors() -> Iterator[int]:
    """Serves the images; yields the port."""
    handler = functools.partial(Images, directory=str(IMAGES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def table(port: int) -> str:
    """A copy of samples/urls.csv that names another port."""
    copy = OUT / "urls.csv"
    text = (HERE / "urls.csv").read_text(encoding="utf-8")
    copy.write_text(text.replace(f":{IMAGE_PORT}/", f":{port}/"), encoding="utf-8")
    return str(copy.relative_to(ROOT))


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in a process group of its own, which is ended with all that it started."""
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(900):
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        try:
            if requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise SystemExit(f"{process.args} did not come up")


def heading(number: int, title: str, how: str) -> None:
    print(f"\n\033[1m{number}. {title}\033[0m\n   {how}", flush=True)


class Album(NamedTuple):
    """Images that were embedded: files, captions, unit vectors of both [N, D]; what failed."""

    files: list[Path]
    captions: list[str]
    image_vectors: np.ndarray
    texts: np.ndarray
    failed: list[str]


def embed(source: str) -> Album:
    output = OUT / "demo.parquet"
    arguments = [source, "--output", str(output.relative_to(ROOT)), "--overwrite"]
    command = ["embed", *arguments, "--allow-hosts", "127.0.0.1"]
    heading(1, "Images behind URLs become vectors", " ".join(["$ score", *command]))
    if score(command) != 0:
        raise SystemExit("the batch job failed")
    rows = pq.read_table(output).to_pylist()
    good = [row for row in rows if not row["error_code"]]
    failed = [row["error_message"] for row in rows if row["error_code"]]
    for line in failed:
        print(f"   one row failed, and took nobody along: {line}")
    return Album(
        [IMAGES / row["image"].rpartition("/")[2] for row in good],
        [row["text"] for row in good],
        *(unit(np.array([row[f"{kind}_features"] for row in good])) for kind in ("image", "text")),
        failed,
    )


def search(model: Embedder, album: Album) -> dict[str, list[Hit]]:
    heading(2, "Found by text", "model.embed_text(query), cosine with every image")
    found = {}
    for query in QUERIES:
        cosines = album.image_vectors @ unit(model.embed_text(query))
        best = np.argsort(-cosines)[:5]
        found[query] = [
            Hit(album.files[place], album.captions[place], float(cosines[place])) for place in best
        ]
        print(f"   “{query}”")
        for hit in found[query][:4]:
            print(f"     {hit.score:5.2f} {bar(hit.score):20} {hit.file.name:32} {hit.caption}")
    return found


def classify(model: Embedder) -> dict[str, float]:
    file = ASKED.relative_to(ROOT)
    heading(3, "Named by labels", f'model.classify(Path("{file}"), {list(LABELS)})')
    answers = model.classify(ASKED, list(LABELS))
    for label, share in answers.items():
        print(f"     {share:6.1%} {bar(share):20} {label}")
    return answers


def bar(share: float) -> str:
    return "█" * round(20 * max(0.0, min(1.0, share)))


def draw(album: Album, searches: dict[str, list[Hit]], answers: dict[str, float]) -> Path:
    file = OUT / "demo.html"
    heading(4, "To look at", str(file.relative_to(ROOT)))
    some = np.linspace(0, len(album.files) - 1, ON_THE_MAP).astype(int)
    story = Story(
        "The embedded model, a small CLIP that knows emoji and nothing else",
        len(album.files),
        album.failed,
        searches,
        (ASKED, answers),
        [album.captions[place] for place in some],
        [album.files[place] for place in some],
        album.texts[some] @ album.image_vectors[some].T,
    )
    file.write_text(page.as_html(story), encoding="utf-8")
    print(f"   {file.stat().st_size / 1024:.0f} KB, thumbnails and all; it needs no server")
    return file


def python() -> np.ndarray:
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(ROOT))
    (record,) = model.predict(pd.DataFrame({"image": [None], "text": [QUERIES[0]]}))
    said('mlflow.pyfunc.load_model(".").predict(frame)', record["text_features"])
    return np.array(record["text_features"])


def post(port: int, path: str, command: str) -> np.ndarray:
    url = f"http://127.0.0.1:{port}{path}"
    response = requests.post(url, json=json.loads(BODY.read_text()), timeout=60)
    response.raise_for_status()
    answer = response.json()
    records = answer["predictions"] if isinstance(answer, dict) else answer
    said(command, records[0]["text_features"])
    return np.array(records[0]["text_features"])


def said(how: str, vector: Any) -> None:
    start = ", ".join(f"{value:+.3f}" for value in vector[:4])
    print(f"     {how:46} [{start}, …] {len(vector)} floats")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    os.chdir(ROOT)
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends, too
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    began = time.perf_counter()
    server, scoring = free_port(), free_port()
    serve = [sys.executable, "-m", "score", "serve", "--port", str(server)]
    mlflow = [str(BIN / "mlflow"), "models", "serve", "-m", ".", "--env-manager", "local"]
    # Both servers start while the story is told.
    with (
        image_vectors() as images,
        started(*serve) as own,
        started(*mlflow, "-p", str(scoring)) as theirs,
    ):
        album = embed(table(images))
        model = Embedder.load(settings=Settings.from_env(os.environ))  # as the servers have it
        page_file = draw(album, search(model, album), classify(model))
        heading(5, "Four ways to ask, one answer", f"“{QUERIES[0]}”, put in each")
        vectors = [model.embed_text(QUERIES[0]), python()]
        said("Embedder.load().embed_text(…)", vectors[0])
        wait_for(server, own)
        vectors.append(post(server, "/score", "score serve"))
        wait_for(scoring, theirs)
        vectors.append(post(scoring, "/invocations", "mlflow models serve -m ."))
    apart = max(float(np.abs(vector - vectors[0]).max()) for vector in vectors)
    largest = float(np.abs(vectors[0]).max())
    print(f"   They differ by {apart / largest:.1e} at most.")
    if apart > 1e-5 * largest:
        raise SystemExit("the four ways disagree")
    print(f"\nThat took {time.perf_counter() - began:.0f} s. Look at {page_file}, and go on with\n")
    print(f'  . "{BIN}/activate"')
    print("  score serve --port 5001 &")
    print("  curl --retry 30 --retry-connrefused --silent http://127.0.0.1:5001/ping")
    print(
        "  curl http://127.0.0.1:5001/score -H 'Content-Type: application/json' "
        f"-d @{LABELLED.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
