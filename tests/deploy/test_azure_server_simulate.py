"""The simulator runs deployments of `score serve` as Azure would: real processes, real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from score.__main__ import main
from score.deploy import smoke
from score.deploy.simulate import client, definition, online
from score.deploy.simulate.dockerfile import what_runs
from score.deploy.simulate.launch import launch, read
from score.deploy.simulate.ports import free_port
from score.errors import AzureError
from tests.support.images import random_image
from tests.support.surfaces import ROOT

ONLINE = ROOT / "components/online"
OURS, AZURES = ONLINE / "deployment-cpu-server.yml", ONLINE / "deployment-cpu.yml"
REQUESTS = [ROOT / f"samples/requests/{name}.json" for name in ("both", "image", "text", "labels")]
AT_ONCE = 8
Json = dict[str, Any]


def changed(tmp_path: Path, **changes: object) -> Path:
    """The deployment that is checked in, with other fields; a dict is added to a field's own."""
    content = yaml.safe_load(OURS.read_text(encoding="utf-8"))
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    file = tmp_path / "deployment.yml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


# -- what is run -------------------------------------------------------------------------------


def test_the_command_is_the_images_but_for_port_and_address() -> None:
    started = launch(read(OURS), 23456)
    variables, command = what_runs(ROOT / "environment/cpu/Dockerfile")
    assert [word.replace("23456", "5001") for word in started.command] == [
        word.replace("0.0.0.0", "127.0.0.1") for word in command
    ]
    assert "127.0.0.1 --port 23456 --without-keys" in started.command[-1]
    written = yaml.safe_load(OURS.read_text())["environment_variables"]
    assert started.variables == variables | {name: str(value) for name, value in written.items()}
    assert started.probes == ("/health/live", "/health/ready")
    assert launch(read(AZURES), 23456).probes == ("/",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": "azureml:elsewhere@latest"}, "'azureml:elsewhere@latest' is neither in"),
        ({"environment": None}, "None is neither in"),
        ({"environment": "azureml:clip-cpu-batch@latest"}, "no Dockerfile here that shows its"),
        ({"environment": {"build": {"path": "."}}}, "no inference_config.scoring_route with port"),
        (
            {"environment_variables": {"WORKER_COUNT": "none"}},
            "WORKER_COUNT: 'none' is not a whole",
        ),
    ],
)
def test_what_does_not_show_its_command_is_a_sentence(
    changes: Json, said: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text('FROM python:3.11\nCMD ["true"]\n')
    changes = {**changes}
    if isinstance(environment := changes.get("environment"), dict):
        content = yaml.safe_load(OURS.read_text(encoding="utf-8"))
        file = tmp_path / "deployment.yml"
        file.write_text(yaml.safe_dump(content | {"environment": environment}))
    else:
        file = changed(tmp_path, **changes)
    with pytest.raises(AzureError, match=said):
        launch(read(file), 23456)


def test_a_command_that_is_no_list_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nCMD score serve\n")
    with pytest.raises(AzureError, match="CMD score serve is no JSON list of words"):
        what_runs(tmp_path / "Dockerfile")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([str(AZURES), "--server"], "runs Azure's inference server: write it by `score azure"),
        ([str(OURS), "--no-server"], "runs `score serve`: write it by `score azure render online"),
    ],
)
def test_another_server_than_the_one_asked_for_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["azure", "simulate", "online", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_without_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At Azure its server would not start; here the installed package would run instead."""
    assert main(["azure", "simulate", "online", str(OURS), "--model", str(tmp_path)]) == 2
    assert f"{tmp_path} has no folder score/, whose code" in capsys.readouterr().err


def test_probes_are_asked_in_order_before_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(client, "wait", lambda address, process: asked.append(address))
    probes = launch(read(OURS), 5001).probes
    online.Container(None, 5001, probes).wait()  # type: ignore[arg-type]
    assert asked == [f"http://127.0.0.1:5001/health/{name}" for name in ("live", "ready")]


class ProcessOfNothing:
    """What `subprocess.Popen` would start."""

    pid = 0

    def __init__(self, *_: object, **__: object) -> None: ...

    def wait(self) -> int:
        return 0


@pytest.mark.parametrize("flags", [[], ["--container"], ["--server"]])
def test_the_yaml_is_read_once(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Edited meanwhile, it would start one deployment and wait for another."""
    read_files: list[Path] = []
    original = definition.read

    def counted(file: Path, *kinds: str) -> Json:
        read_files.append(file)
        return original(file, *kinds)

    monkeypatch.setattr(definition, "read", counted)
    monkeypatch.setattr(online.subprocess, "Popen", ProcessOfNothing)
    monkeypatch.setattr(online, "_stop", lambda process: None)
    monkeypatch.setattr(client, "wait", lambda address, process: None)
    port = ["--port", str(free_port())]
    assert main(["azure", "simulate", "online", str(OURS), *port, *flags]) == 0
    assert read_files == [OURS]


# -- answers -----------------------------------------------------------------------------------


def answers(deployment: Path, capfd: pytest.CaptureFixture[str]) -> list[list[Json]]:
    words = [word for file in REQUESTS for word in ("--request", str(file))]
    port = ["--port", str(free_port())]
    assert main(["azure", "simulate", "online", str(deployment), *port, *words]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if ".json: 200 " in line]
    assert len(lines) == len(REQUESTS)
    return [json.loads(line.partition(": 200 ")[2]) for line in lines]


@pytest.mark.process
@pytest.mark.slow
def test_both_servers_answer_with_the_same_vectors(capfd: pytest.CaptureFixture[str]) -> None:
    served = answers(OURS, capfd)
    both = json.loads(REQUESTS[0].read_text(encoding="utf-8"))
    assert smoke.problems(both, json.dumps(served[0]), 512) == []
    for ours, azures in zip(served, answers(AZURES, capfd), strict=True):
        assert len(ours) == len(azures) > 0
        for record, other in zip(ours, azures, strict=True):
            assert record.keys() == other.keys()
            for name, value in record.items():
                exact = name in ("labels", "error")
                assert value == (
                    other[name] if exact else pytest.approx(other[name], rel=1e-4, abs=1e-5)
                )


class Gate:
    """A server of one image, which it sends to nobody before `opened`."""

    def __init__(self) -> None:
        self.waiting, self.opened = threading.Semaphore(0), threading.Event()
        gate, image = self, random_image(1)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.waiting.release()
                gate.opened.wait(60)
                self.send_response(200)
                self.send_header("Content-Length", str(len(image)))
                self.end_headers()
                self.wfile.write(image)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def waits_for(self, number: int) -> bool:
        """Whether so many downloads wait at the gate, within a minute for each."""
        return all(self.waiting.acquire(timeout=60) for _ in range(number))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    threading.Thread(target=gate.server.serve_forever, daemon=True).start()
    yield gate
    gate.opened.set()
    gate.server.shutdown()
    gate.server.server_close()


@contextmanager
def asked(address: str, gate: Gate, tmp_path: Path) -> Iterator[list[Any]]:
    """So many requests under way, each with an image that waits at the gate: their answers."""
    files = []
    for number in range(AT_ONCE):
        url = f"http://127.0.0.1:{gate.server.server_port}/{number}.png"
        body = {"input_data": {"columns": ["image"], "data": [[url]]}}
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(body))
        files.append(file)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield [pool.submit(client.ask, f"{address}/score", file) for file in files]


@pytest.mark.process
@pytest.mark.slow
def test_requests_are_answered_side_by_side_and_to_the_end_after_sigterm(
    gate: Gate, tmp_path: Path
) -> None:
    """All are under way at once, behind the front end, when the container gets SIGTERM."""
    file = changed(tmp_path, environment_variables={"SCORE_ALLOW_HOSTS": "127.0.0.1"})
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (
        online.endpoint(read(file), model=ROOT, port=port) as container,
        asked(address, gate, tmp_path) as pending,
    ):
        assert gate.waits_for(AT_ONCE)
        container.process.terminate()
        while urllib3.request("GET", f"{address}/health/ready", retries=False).status == 200:
            pass  # until the container says that it stops: a 424 of the front end
        assert not any(one.done() for one in pending)
        gate.opened.set()
        assert [one.result().status for one in pending] == [200] * AT_ONCE
        # Leaving the block sends SIGTERM again, which would end at once what still stops.
        assert container.process.wait(timeout=60) == 0
