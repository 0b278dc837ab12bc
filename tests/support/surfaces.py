"""The surfaces behind one small interface, each in a real process where users have one."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import requests
from mlflow.exceptions import MlflowException

from score.contract.params import Params
from score.core.embedder import Embedder
from score.deploy.simulate.ports import free_port
from score.errors import RequestError
from score.jobs.embed import embed_file

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Json = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Records, or the error body of a refused request."""

    records: list[Json] | None = None
    error: Json | None = None


class Surface(ABC):
    """A surface."""

    def takes(self, body: Any) -> bool:
        """Whether this surface accepts bodies of this kind."""
        return True

    @abstractmethod
    def ask(self, body: Any) -> Outcome: ...


class Pyfunc(Surface):
    """`mlflow.pyfunc.load_model(".").predict`, in this process."""

    def __init__(self) -> None:
        self._model = mlflow.pyfunc.load_model(str(ROOT))

    def takes(self, body: Any) -> bool:
        return isinstance(body, dict) and self._input(body) is not None

    def ask(self, body: Json) -> Outcome:
        return self.predict(self._input(body), body.get("params"))

    def _input(self, body: Json) -> Any:
        """The value of `inputs`, which Python users may also pass directly, or a frame."""
        return body["inputs"] if "inputs" in body else _frame(body)

    def predict(self, table: Any, params: Json | None = None) -> Outcome:
        try:
            records = self._model.predict(table, params=params)
        except MlflowException as error:
            if error.get_http_status_code() not in (400, 413):
                raise
            return Outcome(error=error.json_kwargs.get("error", {"code": "mlflow"}))
        # Every record has the same keys; HTTP bodies leave out those without a value.
        assert len({tuple(record) for record in records}) <= 1
        filled = [{k: v for k, v in record.items() if v is not None} for record in records]
        return Outcome(records=filled)


class BatchCsv(Surface):
    """A CSV file through the batch function."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder, self._folder, self._count = embedder, folder, 0

    def takes(self, body: Any) -> bool:
        if not isinstance(body, dict) or set(body) - {"input_data", "params"}:
            return False
        if {"labels", "confidence"} & set(body.get("params", {})):
            return False  # batch jobs embed only; `score label` classifies
        table = body.get("input_data")
        return _is_table(table) and all(
            cell is None or isinstance(cell, str) for row in table["data"] for cell in row
        )

    def ask(self, body: Json) -> Outcome:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(body["input_data"]["columns"])
        writer.writerows(body["input_data"]["data"])
        return self.ask_csv(stream.getvalue().encode(), **body.get("params", {}))

    def ask_csv(self, data: bytes, **params: Any) -> Outcome:
        """The outcome of a file with this content."""
        self._count += 1
        source = self._folder / f"{self._count}.csv"
        source.write_bytes(data)
        output = source.with_suffix(".jsonl")
        try:
            report = Params.parse({**params, "on_error": "report"})
            embed_file(self._embedder, source, output, report)
        except RequestError as error:
            return Outcome(error={"code": error.code, "message": str(error), "rows": []})
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        keys = ("image_features", "text_features", "error")
        return Outcome(records=[{k: line[k] for k in keys if k in line} for line in lines])


class Served(Surface):
    """A real server process on a local port."""

    def __init__(
        self, command: list[str], path: str, ready: str, log: Path | None = None, **environ: str
    ) -> None:
        """log: a file for what it prints."""
        written: Any = log.open("wb") if log else subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "SCORE_ALLOW_HOSTS": "127.0.0.1",
                **environ,
            },
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        if log:
            written.close()
        self.url, self._ready = path, ready
        self._trusts: Path | None = None

    def wait(self, seconds: float = 120) -> None:
        """Returns once the server answers."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._process.args} ended with {self._process.returncode}")
            try:
                if requests.get(self._ready, timeout=5, verify=self._verify).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
        raise TimeoutError(f"{self._process.args} did not come up")

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    @property
    def _verify(self) -> bool | str:
        """What `requests` calls so: the authorities to trust."""
        return str(self._trusts) if self._trusts else True

    def post(
        self, data: bytes | Iterator[bytes], kind: str | None = "application/json"
    ) -> requests.Response:
        """The response to a body; an iterator of bytes is sent in chunks, without a length."""
        headers = {"Content-Type": kind} if kind else {}
        return requests.post(self.url, data=data, headers=headers, timeout=60, verify=self._verify)

    def ask(self, body: Any, kind: str | None = "application/json") -> Outcome:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = self.post(data, kind)
        answer = response.json()
        if response.status_code == 200:
            return Outcome(records=self._records(answer))
        assert 400 <= response.status_code < 500, response.text
        assert "Traceback" not in response.text
        return Outcome(error=answer["error"])

    def _records(self, answer: Any) -> list[Json]:
        return answer

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class MlflowServe(Served):
    """`mlflow models serve -m . --env-manager local`."""

    def __init__(self, model: str = ".", **environ: str) -> None:
        port = free_port()
        command = [str(BIN / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
        command += ["-p", str(port)]
        url = f"http://127.0.0.1:{port}"
        super().__init__(command, f"{url}/invocations", f"{url}/ping", **environ)

    def _records(self, answer: Any) -> list[Json]:
        return answer["predictions"]


class Azure(Served):
    """azureml-inference-server-http with an entry script."""

    def __init__(self, script: str = "score/online.py", **environ: str) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(BIN / "azmlinfsrv"), "--entry_script", script, "--port", str(port)]
        super().__init__(command, f"{url}/score", f"{url}/", AML_APP_ROOT=str(ROOT), **environ)


class OwnServer(Served):
    """`score serve`."""

    def __init__(
        self,
        model: str = ".",
        arguments: Sequence[str] = (),
        log: Path | None = None,
        trusts: Path | None = None,
        **environ: str,
    ) -> None:
        """trusts: the authority of its certificate, where it has one."""
        port = free_port()
        url = f"{'https' if trusts else 'http'}://127.0.0.1:{port}"
        command = [sys.executable, "-m", "score", "serve", model, *arguments, "--port", str(port)]
        super().__init__(command, f"{url}/score", f"{url}/ping", log, **environ)
        self._trusts = trusts

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float) -> int:
        """The exit code, once the process has ended."""
        return self._process.wait(seconds)


def _frame(body: Json) -> pd.DataFrame | None:
    """A body as a Python user's frame; None for a body without a table."""
    table = body.get("input_data")
    if _is_table(table):
        return pd.DataFrame(table["data"], columns=table["columns"], index=table.get("index"))
    if isinstance(table, list) and all(isinstance(record, dict) for record in table):
        return pd.DataFrame(table)
    return None


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and isinstance(table.get("columns"), list)
        and isinstance(table.get("data"), list)
        and all(
            isinstance(row, list) and len(row) == len(table["columns"]) for row in table["data"]
        )
    )
