"""The troubleshooting page shows what our code really says.

A heading's first code span is the message, `…` standing for what differs. What can happen here is
made to happen; the messages of other programs, and symptoms without one, are listed as such.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from score import extras
from score.__main__ import main
from score.core import endpoint
from score.core.embedder import Embedder
from score.errors import ScoreError
from score.index.index import Index
from score.settings import Settings
from tests.support.pages import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (.+?)\n\n(.+?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))

Say = Callable[..., str]


def answered(body: object, **params: object) -> Say:
    """What the server says of a request."""

    def say(embedder: Embedder, **_: Any) -> str:
        raw = body if isinstance(body, bytes) else json.dumps({**_table(body), "params": params})
        return endpoint.score(embedder, raw.encode() if isinstance(raw, str) else raw).body.decode()

    return say


def _table(body: object) -> dict[str, Any]:
    return body if isinstance(body, dict) else {"input_data": body}


def image(data: bytes) -> Say:
    """What the server says of an image."""
    return answered([{"image": base64.b64encode(data).decode()}])


def large() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    return stream.getvalue()


def commanded(*arguments: str) -> Say:
    """What a command says; TMP is an empty folder."""

    def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], **_: Any) -> str:
        assert main([word.replace("TMP", str(tmp_path)) for word in arguments])
        return capsys.readouterr().err

    return say


def embedded(table: str, *more: str) -> Say:
    """What `score embed` says of a table."""

    def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], **_: Any) -> str:
        (tmp_path / "table.csv").write_text(table, encoding="utf-8")
        output = tmp_path / "out.jsonl"
        main(["embed", str(tmp_path / "table.csv"), "--output", str(output), *more])
        written = output.read_text(encoding="utf-8") if output.exists() else ""
        return capsys.readouterr().err + written

    return say


def _overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], **_: Any) -> str:
    (tmp_path / "out.csv").touch()
    captions = str(ROOT / "samples/captions.csv")
    main(["embed", captions, "--output", str(tmp_path / "out.csv")])
    return capsys.readouterr().err


def _taken(capsys: pytest.CaptureFixture[str], **_: Any) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        main(["serve", "--port", str(server.getsockname()[1])])
    return capsys.readouterr().err


def _unknown(caplog: pytest.LogCaptureFixture, **_: Any) -> str:
    with caplog.at_level(logging.WARNING):
        Settings.from_env({"SCORE_BACH_SIZE": "3"})
    return caplog.text


def _precision(**_: Any) -> str:
    with pytest.raises(ScoreError) as caught:
        Embedder.load(settings=Settings(precision="int8"))
    return str(caught.value)


def _device(**_: Any) -> str:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ScoreError) as caught:
        Embedder.load(settings=Settings(device="cuda"))
    return str(caught.value)


def _refusal(folder: Path) -> str:
    with pytest.raises(ScoreError) as caught:
        Embedder.load(folder)
    return str(caught.value)


def _without_tokenizer(tiny: Path, tmp_path: Path, **_: Any) -> str:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny / name)
    return _refusal(tmp_path)


def _exported(tmp_path: Path, **_: Any) -> str:
    for name in ("vectors.npy", "rows.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(ScoreError) as caught:
        Index(tmp_path)
    return str(caught.value)


def _packaged(name: str, content: object, *more: str) -> Say:
    """What `score package` says of a file of weights."""

    def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], **_: Any) -> str:
        torch.save(content, tmp_path / name)
        main(["package", str(tmp_path / name), "--output", str(tmp_path / "package"), *more])
        return capsys.readouterr().err

    return say


APPLE = (ROOT / "samples/images/apple.png").read_bytes()

HAPPENING: dict[str, Say] = {
    "`No module named": lambda **_: extras.missing(
        ModuleNotFoundError("No module named 'openvino'", name="openvino")
    ),
    "`Address already in use`": _taken,
    "`no device 'cuda' here: …`": _device,
    "`SCORE_… is no setting, and is ignored`": _unknown,
    "`the body needs the key": answered({"data": []}),
    "`the body is not JSON": answered(b"image,text"),
    "`the body is compressed": answered(gzip.compress(b"{}")),
    "`column '…' must be spelled": answered([{"Image": "x"}]),
    "`no column 'image' or 'text'": embedded("image;text\nx;y\n"),
    "`unknown param": answered([{"text": "a"}], normalise=True),
    "`param 'labels' is not JSON": answered([{"text": "a"}], labels="cat, dog"),
    "`neither an http(s) URL": answered([{"image": "photos/cat.jpg"}]),
    "`'nan' looks like": answered([{"image": "nan"}]),
    "`must be a URL, base64": answered([{"image": 3.5}]),
    "`… tokens; the model's context": answered([{"text": "word " * 90}], truncate="error"),
    "`… leads to no public address": embedded("image\nhttp://127.0.0.1:9/x.jpg\n"),
    "`only http and https": answered([{"image": "s3://bucket/x.jpg"}]),
    "`user name and password": answered([{"image": "https://me:secret@example.org/x.jpg"}]),
    "`an HTML page": image(b"<!DOCTYPE html><html><body>log in</body></html>"),
    "`… data end before": image(APPLE[:900]),
    "`… is more than 50,000,000 pixels`": image(large()),
    "`… lacks a tokenizer": _without_tokenizer,
    "`no config.json in": commanded("verify", "TMP"),
    "`… holds bare weights": _packaged("w.pt", {"visual.conv1.weight": torch.zeros(2, 2)}),
    "`… has no int8": _precision,
    "`… is there already": _overwritten,
    "`… holds no index": _exported,
    "`no such file below": embedded("image\nmissing/cat.jpg\n"),
}
"""How an entry's heading begins → what makes it happen."""

IN_CODE = {
    "`'score' is not a package`": "is loaded under the name of this project's package",
    "`this model does not compute": "this model does not compute here what its package promises",
    "`… answered 403": "{where} answered {named(status)}",
    "`… took more than": "took more than",
    "`the server did not answer": "times in a row, and is not asked {when}",
    "`… must not be used": "must not be used: its X-Robots-Tag says {directive}",
    "`TLS with": "TLS with {where} failed",
    "`the weights hold several": "the weights hold several models (",
    "`the tokenizer in … takes over": "seconds of processor time for ",
    "`cannot reach the Hub": "cannot reach the Hub for",
    "`no home folder for": "no home folder for",
    "`nothing is fetched from port": "nothing is fetched from port {port} of {shown}",
    "`… vectors of two models": "vectors of two models cannot be compared",
    "`… cannot be reached": "cannot be reached; the log says why",
}
"""How an entry's heading begins → its message in the code, where further tests make it happen."""


def entry(start: str) -> str:
    (heading,) = [heading for heading in ENTRIES if heading.startswith(start)]
    return heading


def parts(heading: str) -> list[str]:
    """What a message has whatever differs."""
    (message, *_) = re.findall(r"`([^`]+)`", heading)
    return [part.strip() for part in message.split("…") if part.strip()]


@pytest.mark.parametrize("start", HAPPENING)
def test_the_message_is_what_our_code_says(
    start: str,
    embedder: Embedder,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = HAPPENING[start](
        embedder=embedder, tiny=tiny, tmp_path=tmp_path, capsys=capsys, caplog=caplog
    )
    said = said.encode().decode("unicode_escape") if "\\u" in said else said
    for part in parts(entry(start)):
        assert part in said


@pytest.mark.parametrize("start", IN_CODE)
def test_the_message_is_in_our_code(start: str) -> None:
    assert entry(start)
    files = [file.read_text(encoding="utf-8") for file in ROOT.glob("score/**/*.py")]
    assert any(IN_CODE[start] in re.sub(r'"\s*f?"', "", file) for file in files)


def test_each_entry_has_a_cause_and_a_fix() -> None:
    assert len(ENTRIES) >= 20
    for heading, text in ENTRIES.items():
        assert re.fullmatch(r"\*\*Cause\.\*\* .+\n\n\*\*Fix\.\*\* .+\n*", text, re.DOTALL), heading


def test_each_message_of_ours_is_checked() -> None:
    """A heading that begins with a message is one of ours, unless it is another program's."""
    others = ["`mlflow models serve` wants", "`predict` refuses", "`predictions.csv` has"]
    for heading in ENTRIES:
        if heading.startswith("`") and not heading.startswith(("`AADSTS", *others)):
            assert heading.startswith((*HAPPENING, *IN_CODE)), heading
