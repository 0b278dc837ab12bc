"""The main job, end to end, on this machine alone: pictures and texts become vectors in each of the
four ways there are to ask. `make demo` runs it.

A picture server on 127.0.0.1 stands in for the web, so that URLs really are fetched. Addresses like
that one are refused by default; the demo allows it with `--allow-hosts 127.0.0.1`.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import requests

from score.__main__ import main as score  # what the console command `score` runs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "out"
BIN = Path(sys.executable).parent
PICTURES = 8800  # the port that samples/urls.csv names
BODY = HERE / "requests" / "both.json"
QUIET = {"MLFLOW_LOGGING_LEVEL": "ERROR", "SCORE_LOG_LEVEL": "warning"}


class Pictures(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def pictures(port: int) -> Iterator[None]:
    handler = functools.partial(Pictures, directory=str(HERE / "images"))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def free_port(wanted: int) -> int:
    """The port wanted, or another where somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = sock.getsockname()[1]
            return found
    raise SystemExit("no free port on 127.0.0.1")


def table(port: int) -> str:
    """samples/urls.csv, or a copy that names another port."""
    if port == PICTURES:
        return "samples/urls.csv"
    copy = OUT / "urls.csv"
    text = (HERE / "urls.csv").read_text(encoding="utf-8")
    copy.write_text(text.replace(f":{PICTURES}/", f":{port}/"), encoding="utf-8")
    return str(copy.relative_to(ROOT))


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environ, **quiet)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        try:
            if requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise SystemExit(f"{process.args} did not come up")


def heading(number: int, title: str, command: str) -> None:
    print(f"\n\033[1m{number}. {title}\033[0m\n   $ {command}", flush=True)


def shown(vector: Any) -> str:
    start = ", ".join(f"{value:+.3f}" for value in vector[:4])
    return f"[{start}, …] {len(vector)} floats"


def batch(source: str) -> np.ndarray:
    output = OUT / "vectors.parquet"
    arguments = [source, "--output", str(output.relative_to(ROOT))]
    command = ["embed", *arguments, "--allow-hosts", "127.0.0.1"]
    heading(1, "A CSV of URLs → parquet (batch)", " ".join(["score", *command]))
    if score(command) != 0:
        raise SystemExit("the batch job failed")
    for row in pq.read_table(output).to_pylist():
        answer = row["error_message"] or shown(row["image_features"])
        print(f"     {row['id']:10} {row['image']:35} {answer}")
    first = pq.read_table(output).to_pylist()[0]
    return np.array(first["text_features"])


def python() -> np.ndarray:
    heading(2, "From Python (MLflow)", 'mlflow.pyfunc.load_model(".").predict(frame)')
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(ROOT))
    frame = pd.DataFrame({"image": [None], "text": ["a red apple"]})
    (record,) = model.predict(frame)
    print(f"     a red apple  {shown(record['text_features'])}")
    return np.array(record["text_features"])


def post(number: int, title: str, port: int, path: str) -> np.ndarray:
    url = f"http://127.0.0.1:{port}{path}"
    body = BODY.relative_to(ROOT)
    heading(number, title, f"curl {url} -H 'Content-Type: application/json' -d @{body}")
    response = requests.post(url, json=json.loads(BODY.read_text()), timeout=60)
    response.raise_for_status()
    answer = response.json()
    records = answer["predictions"] if isinstance(answer, dict) else answer
    for record in records:
        for name, vector in record.items():
            print(f"     {name:15} {shown(vector)}")
    return np.array(records[0]["text_features"])


def main() -> None:
    OUT.mkdir(exist_ok=True)
    os.chdir(ROOT)
    os.environ.update(QUIET)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    began = time.perf_counter()
    images, server, scoring = (free_port(port) for port in (PICTURES, 5001, 5002))
    serve = [sys.executable, "-m", "score", "serve", "--port", str(server)]
    mlflow = [str(BIN / "mlflow"), "models", "serve", "-m", ".", "--env-manager", "local"]
    # Both servers start while the batch job runs.
    with pictures(images), started(*serve) as own, started(*mlflow, "-p", str(scoring)) as theirs:
        vectors = [batch(table(images)), python()]
        wait_for(server, own)
        vectors.append(post(3, "The real-time endpoint (score serve)", server, "/score"))
        wait_for(scoring, theirs)
        vectors.append(post(4, "mlflow models serve -m .", scoring, "/invocations"))
    apart = max(float(np.abs(vector - vectors[0]).max()) for vector in vectors)
    largest = float(np.abs(vectors[0]).max())
    print(
        f"\nFour ways, one vector for 'a red apple': they differ by {apart / largest:.1e} at most."
    )
    print(f"That took {time.perf_counter() - began:.0f} s. The vectors are in out/vectors.parquet.")
    print("The embedded model's weights are random: its vectors have the right shape, no meaning.")
    print("Next: README.md, 'curl'.")
    if apart > 1e-5 * largest:
        raise SystemExit("the four ways disagree")


if __name__ == "__main__":
    main()
