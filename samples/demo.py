"""An end-to-end demo on this machine. `make demo` runs it.

It embeds images by URL, searches them by text, classifies one of them, and writes a page of HTML
with the results. Then it embeds the same text through each of the four interfaces, and compares the
vectors.

The images are served from 127.0.0.1, so that URLs really are fetched. Loopback addresses are
refused by default; the demo allows this one with `--allow-hosts 127.0.0.1`. All ports are free.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
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

from score import Embedder, Settings, cosine
from score.__main__ import main as score  # what the console command `score` runs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
IMAGES = HERE / "images"
OUT = ROOT / "out"
BIN = Path(sys.executable).parent
IMAGE_PORT = 8800  # in samples/urls.csv; the demo replaces it with a free port
BODY = HERE / "requests" / "text.json"
LABELLED = HERE / "requests" / "labels.json"
QUERIES = ("a red apple", "a fruit", "eine Eule")  # an object, a category, "an owl" in German
LABELS = ("an owl", "a penguin", "an eagle", "a castle")
CLASSIFIED = IMAGES / "owl.jpg"
ON_THE_MAP = 20
QUIET = {"MLFLOW_LOGGING_LEVEL": "ERROR", "SCORE_LOG_LEVEL": "warning"}


class Images(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def image_server() -> Iterator[int]:
    """Serves the images; yields the port."""
    handler = functools.partial(Images, directory=str(IMAGES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def table(port: int) -> str:
    """Writes a copy of samples/urls.csv with another port; its path, relative to the clone."""
    copy = OUT / "urls.csv"
    text = (HERE / "urls.csv").read_text(encoding="utf-8")
    copy.write_text(text.replace(f":{IMAGE_PORT}/", f":{port}/"), encoding="utf-8")
    return str(copy.relative_to(ROOT))


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in its own process group, which is terminated on leaving the context."""
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
            raise SystemExit(f"{process.args} exited with status {process.returncode}")
        try:
            if requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{process.args} did not become ready within 3 minutes")


def heading(number: int, title: str, how: str) -> None:
    print(f"\n\033[1m{number}. {title}\033[0m\n   {how}", flush=True)


class Album(NamedTuple):
    """N embedded images, their captions, and the error messages of rows that failed."""

    files: list[Path]
    captions: list[str]
    image_vectors: np.ndarray  # [N, D], unit length
    text_vectors: np.ndarray  # [N, D], unit length
    failed: list[str]


def embed(source: str) -> Album:
    output = OUT / "demo.parquet"
    arguments = [source, "--output", str(output.relative_to(ROOT)), "--overwrite"]
    command = ["embed", *arguments, "--normalize", "--allow-hosts", "127.0.0.1"]
    heading(1, "Embed images by URL", " ".join(["$ score", *command]))
    if score(command) != 0:
        raise SystemExit("the batch job failed")
    rows = pq.read_table(output).to_pylist()
    good = [row for row in rows if not row["error_code"]]
    failed = [row["error_message"] for row in rows if row["error_code"]]
    for line in failed:
        print(f"   one row failed, which does not stop the others: {line}")
    return Album(
        [IMAGES / row["image"].rpartition("/")[2] for row in good],
        [row["text"] for row in good],
        *(np.array([row[f"{kind}_features"] for row in good]) for kind in ("image", "text")),
        failed,
    )


def search(model: Embedder, album: Album) -> dict[str, list[Hit]]:
    heading(2, "Search by text", "model.embed_text(query), then cosine similarity with each image")
    hits = {}
    for query in QUERIES:
        vector = model.embed_text(query)
        cosines = np.array([cosine(vector, image) for image in album.image_vectors])
        best = np.argsort(-cosines)[:5]
        hits[query] = [Hit(album.files[i], album.captions[i], float(cosines[i])) for i in best]
        print(f"   “{query}”")
        for hit in hits[query][:4]:
            print(f"     {hit.score:5.2f} {bar(hit.score):20} {hit.file.name:32} {hit.caption}")
    return hits


def classify(model: Embedder) -> dict[str, float]:
    file = CLASSIFIED.relative_to(ROOT)
    heading(3, "Classify by labels", f'model.classify(Path("{file}"), {list(LABELS)})')
    probabilities = model.classify(CLASSIFIED, list(LABELS))
    for label, probability in probabilities.items():
        print(f"     {probability:6.1%} {bar(probability):20} {label}")
    return probabilities


def bar(fraction: float) -> str:
    return "█" * round(20 * max(0.0, min(1.0, fraction)))


def draw(album: Album, searches: dict[str, list[Hit]], probabilities: dict[str, float]) -> Path:
    file = OUT / "demo.html"
    heading(4, "A page with the results", str(file.relative_to(ROOT)))
    shown = np.linspace(0, len(album.files) - 1, ON_THE_MAP).astype(int)
    story = Story(
        "The embedded model, a small CLIP trained on emoji alone",
        len(album.files),
        album.failed,
        searches,
        (CLASSIFIED, probabilities),
        [album.captions[i] for i in shown],
        [album.files[i] for i in shown],
        album.text_vectors[shown] @ album.image_vectors[shown].T,
    )
    file.write_text(page.as_html(story), encoding="utf-8")
    size = file.stat().st_size / 1024
    print(f"   {size:.0f} KB, thumbnails included; a browser opens it without a server")
    return file


def python() -> np.ndarray:
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(ROOT))
    (record,) = model.predict(pd.DataFrame({"image": [None], "text": [QUERIES[0]]}))
    show('mlflow.pyfunc.load_model(".").predict(frame)', record["text_features"])
    return np.array(record["text_features"])


def post(port: int, path: str, command: str) -> np.ndarray:
    url = f"http://127.0.0.1:{port}{path}"
    response = requests.post(url, json=json.loads(BODY.read_text()), timeout=60)
    response.raise_for_status()
    answer = response.json()
    records = answer["predictions"] if isinstance(answer, dict) else answer
    show(command, records[0]["text_features"])
    return np.array(records[0]["text_features"])


def show(how: str, vector: Any) -> None:
    start = ", ".join(f"{value:+.3f}" for value in vector[:4])
    print(f"     {how:46} [{start}, …] {len(vector)} floats")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    os.chdir(ROOT)
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the servers, too
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    start = time.perf_counter()
    server, scoring = free_port(), free_port()
    serve = [sys.executable, "-m", "score", "serve", "--port", str(server)]
    mlflow = [str(BIN / "mlflow"), "models", "serve", "-m", ".", "--env-manager", "local"]
    # Both servers start in the background, while the first four steps run.
    with (
        image_server() as image_port,
        started(*serve) as score_server,
        started(*mlflow, "-p", str(scoring)) as mlflow_server,
    ):
        album = embed(table(image_port))
        model = Embedder.load(settings=Settings.from_env(os.environ))  # the servers' settings
        page_file = draw(album, search(model, album), classify(model))
        heading(5, "The same vector from four interfaces", f"the text “{QUERIES[0]}”")
        vectors = [model.embed_text(QUERIES[0]), python()]
        show("Embedder.load().embed_text(…)", vectors[0])
        wait_for(server, score_server)
        vectors.append(post(server, "/score", "score serve"))
        wait_for(scoring, mlflow_server)
        vectors.append(post(scoring, "/invocations", "mlflow models serve -m ."))
    difference = max(float(np.abs(vector - vectors[0]).max()) for vector in vectors)
    largest = float(np.abs(vectors[0]).max())
    print(f"   They differ by {difference / largest:.1e} at most, relative to the largest value.")
    if difference > 1e-5 * largest:
        raise SystemExit("the four interfaces disagree")
    print(f"\nDone in {time.perf_counter() - start:.0f} s. Open {page_file}, and continue with:\n")
    print(f'  . "{BIN}/activate"')
    print("  score serve --port 5001 &")
    print("  curl --retry 30 --retry-connrefused --silent http://127.0.0.1:5001/ping")
    print(
        "  curl http://127.0.0.1:5001/score -H 'Content-Type: application/json' "
        f"-d @{LABELLED.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
