"""What the README and the samples show works as written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from azure.ai.ml import load_online_deployment

from score import endpoint
from score.embedder import Embedder
from score.errors import ROW_CODES
from score.settings import names
from tests.surfaces import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["image", "text", "both", "mixed", "labels"])
def test_the_request_bodies_are_answered(embedder: Embedder, name: str) -> None:
    answer = endpoint.score(embedder, (ROOT / f"samples/requests/{name}.json").read_bytes())
    assert answer.status == 200, answer.body
    records = json.loads(answer.body)
    wanted = {"image": {"image_features"}, "text": {"text_features"}}
    wanted["both"] = wanted["image"] | wanted["text"]
    wanted["labels"] = wanted["image"] | {"labels", "probs"}
    if name == "mixed":
        assert [record["error"]["code"] for record in records if "error" in record][-2:] == [
            "empty_row",
            "bad_base64",
        ]
    else:
        assert [set(record) for record in records] == [wanted[name]] * 2


def test_the_samples_are_what_their_script_writes(tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text((ROOT / "samples/draw.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True)
    for name in ("urls.csv", "paths.csv", "ontology.json", "requests/labels.json"):
        assert (tmp_path / name).read_text() == (ROOT / "samples" / name).read_text()
    drawn = {path.name for path in (tmp_path / "images").iterdir()}
    assert drawn == {path.name for path in (ROOT / "samples/images").iterdir()}


def test_the_demo_runs() -> None:
    demo = [sys.executable, "samples/demo.py"]
    result = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Four ways, one vector" in result.stdout


def test_the_readme_names_every_code_setting_and_command() -> None:
    for name in (*ROW_CODES, *names()):
        assert f"`{name}`" in README, name
    verbs = subprocess.run(
        [sys.executable, "-m", "score", "--help"], capture_output=True, text=True, check=True
    )
    for verb in re.findall(r"^    (\w+)  ", verbs.stdout, re.MULTILINE):
        assert f"score {verb}" in README, verb


def test_the_readmes_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"samples/[\w/]+\.\w+", README):
        assert (ROOT / target).exists(), target


def test_the_readmes_python_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readmes_excerpt_of_labels_is_what_is_answered(embedder: Embedder) -> None:
    (block,) = re.findall(r'```json\n(.*"probs".*)\n```', README)
    (excerpt,) = json.loads(block.replace("0.92, -0.13, …", "0.92"))
    answer = endpoint.score(embedder, (ROOT / "samples/requests/labels.json").read_bytes())
    first = json.loads(answer.body)[0]
    assert set(excerpt) == set(first)
    assert sorted(excerpt["labels"]) == sorted(first["labels"])
    assert sum(excerpt["probs"]) == pytest.approx(1)
    assert excerpt["probs"] == sorted(excerpt["probs"], reverse=True)


def test_azures_own_loader_takes_the_readmes_deployment(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    text = yaml.safe_load(block)
    assert (ROOT / text["code_configuration"]["scoring_script"]).is_file()
    for name in ("MLmodel", "conda.yaml", "model", "score"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "deployment.yml").write_text(block)
    deployment = load_online_deployment(tmp_path / "deployment.yml")
    assert deployment.request_settings.request_timeout_ms == 90000
