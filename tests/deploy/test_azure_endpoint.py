"""`score azure simulate online`: a deployment of ours behind the front end of an endpoint."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
import yaml

from score.__main__ import main
from score.cli.azure import add
from score.deploy.simulate import client
from score.deploy.simulate.front import Limits
from score.deploy.simulate.launch import read
from score.deploy.simulate.online import endpoint, limits
from score.deploy.simulate.ports import free_port
from score.errors import AzureError
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

ONLINE = ROOT / "components/online"


def ask(body: object, folder: Path, *more: str) -> int:
    """The exit code of the simulator, asked one request."""
    file = folder / "0.json"
    file.write_text(json.dumps(body))
    command = ["azure", "simulate", "online", str(ONLINE / "deployment-cpu.yml")]
    return main([*command, "--port", str(free_port()), "--request", str(file), *more])


def test_the_container_alone_answers_with_its_own_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = {"input_data": {"columns": ["image"], "data": [["no image"]]}}
    assert ask(bad, tmp_path, "--container")
    assert "0.json: 422 {" in capfd.readouterr().out


def test_a_key_is_sent_where_one_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}
    assert ask(good, tmp_path, "--key", "k") == 0
    assert "0.json: 200 [{" in capfd.readouterr().out
    assert ask(good, tmp_path, "--key", "k", "--container") == 2
    assert "--key is checked by the front end" in capfd.readouterr().err


def test_a_body_that_the_container_refuses_unread_is_told(tmp_path: Path) -> None:
    """Azure's server, behind the front end, refuses it by its length and closes the connection."""
    content = yaml.safe_load((ONLINE / "deployment-cpu.yml").read_text())
    content["code_configuration"]["code"] = str(ROOT)
    content["environment_variables"]["SCORE_MAX_REQUEST_BYTES"] = "1000"
    file, body = tmp_path / "deployment.yml", tmp_path / "body.json"
    file.write_text(yaml.safe_dump(content))
    body.write_text(json.dumps({"input_data": {"columns": ["text"], "data": [["a" * 5_000_000]]}}))
    port = free_port()
    with endpoint(read(file), model=ROOT, port=port):
        answer = client.ask(f"http://127.0.0.1:{port}/score", body)
        assert (answer.status, answer.container) == (424, "413")
        assert json.loads(answer.body)["error"]["code"] == "too_large"


def test_a_container_that_does_not_start_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ready", lambda *_: False)
    for more in ((), ("--container",)):
        port = str(free_port())
        command = ["azure", "simulate", "online", str(ONLINE / "deployment-cpu.yml"), *more]
        assert main([*command, "--port", port]) == 2
        assert "the container did not start: its log, above, says why" in capfd.readouterr().err


def test_the_guides_commands_are_taken() -> None:
    guide = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    lines = re.findall(r"^score (azure simulate (?!image)[^|\n]+)", guide, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        parser = argparse.ArgumentParser()
        add(parser)
        options = parser.parse_args(line.split()[1:])
        assert (ROOT / options.yaml).is_file()


def test_requests_have_the_limits_of_the_yaml(tmp_path: Path) -> None:
    rendered = limits(read(ONLINE / "deployment-cpu.yml"))
    assert (rendered.seconds, rendered.concurrency, rendered.instances) == (90, 1, 1)
    file = tmp_path / "deployment.yml"
    schema = (
        "$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json\n"
    )
    file.write_text(schema)
    assert limits(read(file)) == Limits(5.0, 1, 1)
    file.write_text(
        f"{schema}instance_count: 3\nrequest_settings:\n  request_timeout_ms: 1500\n"
        "  max_concurrent_requests_per_instance: 4\n"
    )
    assert limits(read(file)) == Limits(1.5, 4, 3)
    assert limits(read(file)).most == 24
    file.write_text(f"{schema}request_settings:\n  request_timeout_ms: soon\n")
    with pytest.raises(AzureError, match="request_timeout_ms"):
        limits(read(file))
