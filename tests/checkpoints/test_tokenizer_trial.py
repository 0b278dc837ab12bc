"""A stranger's tokenizer is tried in a child process: what never ends, or ends the process."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from score.checkpoints import tokenizer_trial
from score.checkpoints.architectures import CLIP_TOKENIZER
from score.errors import ModelError
from score.folder.model_folder import EMBEDDED
from score.package.build import package
from score.texts.tokenizer import Tokenizer, longest
from tests.texts.test_tokenizer_limits import CONTEXT, Change, split, written

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("tokenizers_are_tried")]


def long_piece(content: dict) -> None:
    """A piece that makes a Unigram tokenizer take the square of a text's length."""
    content["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a" * 10**5, 1]]}
    content["pre_tokenizer"] = content["normalizer"] = None


def blank_backtracking(content: dict[str, Any]) -> None:
    """An expression that backtracks over blanks, in a tokenizer that keeps all but the first."""
    split(r"(\s+\s+)+$")(content)
    content["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (split(r"(x+x+)+y"), "fails on a text of 'x' alone: the model's tokenizer fails on it"),
        (split(r"(x+x+)+$"), "fails on a text of 'x' alone: the model's tokenizer fails on it"),
        (blank_backtracking, "a text of ' ' alone"),
        (split(r"q*q*[^q]q"), "a text of 'q' alone"),
        (long_piece, "a text of 'a' alone"),
        (
            lambda c: c.update(model={"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "?"}),
            "fails on a text of 'a' alone",
        ),
        (lambda c: c.pop("model"), "cannot read the tokenizer in"),
    ],
)
def test_a_tokenizer_that_takes_forever_or_fails_is_refused(
    change: Change, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelError) as caught:
        tokenizer_trial.check(written(tmp_path, change), CONTEXT)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.monotonic() - begun < 300
    assert not capfd.readouterr().err, "what Rust prints of a panic stays in the child process"


@pytest.mark.parametrize(
    ("child", "says"),
    [
        (
            "print('it', flush=True); import os; os.abort()",
            r"ends the process that reads it \(SIGABRT\)",
        ),
        ("import a_module_that_is_not_there", r"\(an error\): .*No module named 'a_module_that"),
    ],
)
def test_one_that_ends_its_process_is_refused_with_what_is_known(
    child: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_trial, "_CHILD", child)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=says):
        tokenizer_trial.check(tmp_path, CONTEXT)


def test_a_system_without_limits_goes_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(signal, "SIGVTALRM")
    (tmp_path / "tokenizer.json").write_text("{}")
    tokenizer_trial.check(tmp_path, CONTEXT)
    tokenizer_trial.check(tmp_path, CONTEXT)
    (line,) = caplog.messages
    assert line.startswith(f"the tokenizer in {tmp_path} is not tried first")


def test_probes_are_as_long_as_what_is_read_of_a_text() -> None:
    for context in (CONTEXT, 4096):
        texts = Tokenizer.of(EMBEDDED, context)
        probes = [probe for _, probe in tokenizer_trial._probes(texts)]
        assert max(map(len, probes)) == longest(context)
        assert not any(probe[0].isspace() for probe in probes)


def test_an_honest_one_passes_and_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, lambda content: content.update(version="1.0"))
    tokenizer_trial.check(tmp_path, CONTEXT)
    monkeypatch.setattr(tokenizer_trial, "_CHILD", "raise SystemExit(1)")
    tokenizer_trial.check(tmp_path, CONTEXT)
    tokenizer_trial.check(CLIP_TOKENIZER, CONTEXT)  # ours
    with (tmp_path / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(ModelError, match="ends the process that reads"):
        tokenizer_trial.check(tmp_path, CONTEXT)


def test_packaging_tries_it_first(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    split(r"(x+x+)+y")(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="fails on a text of 'x' alone"):
        package(tmp_path, tmp_path / "p")
    assert EMBEDDED.is_dir()


def test_other_files_may_be_of_any_size(tmp_path: Path) -> None:
    written(tmp_path, lambda content: content.update(version="1.0"))
    with (tmp_path / "training_log.json").open("wb") as stream:
        stream.truncate(2**32)
    tokenizer_trial.check(tmp_path, CONTEXT)


def test_files_that_only_the_reference_reads_have_a_size(tmp_path: Path) -> None:
    written(tmp_path, lambda content: None)
    with (tmp_path / "chat_template.jinja").open("wb") as stream:
        stream.truncate(2**32)
    with pytest.raises(ModelError, match=r"chat_template\.jinja is larger than 134,217,728 bytes"):
        tokenizer_trial.check(tmp_path, CONTEXT)


def test_the_files_that_are_read_are_those_that_are_tried(tmp_path: Path) -> None:
    """Of a model whose texts are padded, `spiece.model` comes before a tokenizer that is known."""
    shutil.copy(CLIP_TOKENIZER / "tokenizer.json", tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"\n\x05damaged")
    tokenizer_trial.check(tmp_path, CONTEXT)
    with pytest.raises(ModelError, match="SentencePiece vocabulary"):
        tokenizer_trial.check(tmp_path, CONTEXT, pads=True)
