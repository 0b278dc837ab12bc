"""Tries a stranger's tokenizer in a process of its own, before this one loads it.

A `tokenizer.json` may hold regular expressions that take forever, tables that make the library
abort, and normalizers that fill the memory: none of these raises an exception that could be caught.
So packaging first loads it in a child process, which has limits of memory and of processor time,
and encodes texts with it that are long and monotonous.

Serving does not: a package's tokenizer has been tried, and its fingerprint shows a change. Nor does
packaging on Windows, whose processes have no such limits.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from score.checkpoints.architectures import CLIP_TOKENIZER
from score.errors import ModelError, RowError
from score.folder.model_folder import read_optional_json
from score.storage.digest import sha256_of
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import MOST_CHARACTERS, Tokenizer, longest
from score.texts.tokenizer_files import LARGEST, names_in
from score.wording.quoting import quoted

_log = logging.getLogger(__name__)

_FILES = (
    "tokenizer*.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.model",
    "chat_template.jinja",
)
_MEMORY = 3 * 2**30  # bytes of address space; XLM-V takes a third
_SECONDS = 2  # of processor time for a probe of `MOST_CHARACTERS`; loading has 30 times that
_MOST_NAMED = 32  # characters that expressions name, each with its own probes
_PLAIN = "a0. \n_-'Aé中\u0301ﷺ"  # ﷺ is the character that NFKC makes longest

_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from score.checkpoints.tokenizer_trial import _child
_child(sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))
"""
_ROOT = Path(__file__).resolve().parents[2]
_REFUSED = 3  # exit code; the message is the last line


def check(folder: Path, context: int, *, pads: bool = False) -> None:
    """Raises ModelError for a tokenizer in `folder` that fails, takes long, or ends the process.

    `context`, `pads`: as in `Tokenizer.of`.
    """
    # transformers, the reference, reads more of them than this package does.
    for file in (file for pattern in _FILES for file in folder.glob(pattern)):
        if file.is_file() and file.stat().st_size > LARGEST:
            raise ModelError(f"{file} is larger than {LARGEST:,} bytes")
    digest = _digest(folder, pads=pads)
    if digest not in (*_passed, _digest(CLIP_TOKENIZER)):
        _try(folder, context, pads)
        _passed.add(digest)


_passed: set[str] = set()
"""Digests of tokenizers that passed."""


def _digest(folder: Path, *, pads: bool = False) -> str:
    """Of the files that make a tokenizer's ids; what files beside them add takes no time."""
    digest = hashlib.sha256()
    for name in names_in(folder, read_optional_json(folder / CONFIG), pads=pads):
        digest.update(sha256_of(folder / name).encode())
    return digest.hexdigest()


def _try(folder: Path, context: int, pads: bool) -> None:
    """Starts the child process. Raises ModelError."""
    if not hasattr(signal, "SIGVTALRM") or not find_spec("resource"):
        _log.warning(
            "the tokenizer in %s is not tried first: this system cannot limit a process", folder
        )
        return
    arguments = [str(_ROOT), str(folder), str(context), str(int(pads))]
    result = subprocess.run(  # noqa: S603 - our own code; names of files are its arguments
        [sys.executable, "-X", "utf8", "-c", _CHILD, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    *_, last = result.stdout.splitlines() or [""]
    if result.returncode == _REFUSED:
        raise ModelError(last)
    if result.returncode == -signal.SIGVTALRM:
        raise ModelError(
            f"the tokenizer in {folder} takes over {_seconds(context)} seconds of processor time "
            f"for {last}: its expressions, or its pieces, are unfit for long texts"
        )
    if result.returncode:
        how = signal.Signals(-result.returncode).name if result.returncode < 0 else "an error"
        *_, why = result.stderr.splitlines() or [""]
        raise ModelError(
            f"the tokenizer in {folder} ends the process that reads {last} ({how})"
            + (f": {quoted(why)}" if why else "")
        )


def _seconds(context: int) -> int:
    """Of processor time for a probe, in proportion to its length."""
    return _SECONDS * longest(context) // MOST_CHARACTERS


def _child(folder: str, context: int, pads: bool) -> None:
    """What the child process does: prints each probe before it is tried."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _say("it", 30 * _SECONDS)
        texts = Tokenizer.of(Path(folder), context, pads=pads)
        texts.cleaning = Cleaning()  # another would strip the ends and the blanks of probes
        for name, probe in _probes(texts):
            _say(name, _seconds(context))
            (ids,) = texts.encode([probe], "end")
            if isinstance(ids, RowError):
                raise ModelError(f"the tokenizer in {folder} fails on {name}: {ids.message}")
    except (ModelError, MemoryError) as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(" ".join(str(error).split()) or "the tokenizer takes too much memory")
        sys.stdout.flush()
        sys.exit(_REFUSED)


def _say(what: str, seconds: int) -> None:
    """Names what comes next, and ends this process if it takes too long."""
    print(what, flush=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)


def _probes(texts: Tokenizer) -> Iterator[tuple[str, str]]:
    """Long texts in which expressions and pieces match at every position, but not at the end.

    None is longer than what is read of a text; none is blank from its first character.
    """
    length = longest(texts.context) - 1
    named = [c for c in texts.expressions() if c.isprintable() and c not in _PLAIN]
    for character in _PLAIN + "".join(dict.fromkeys(named))[:_MOST_NAMED]:
        first = "a" if character.isspace() else character
        yield f"a text of {character!r} alone", first + character * (length - 1) + "\x00"
        yield f"a text of {character!r} and spaces", first + f" {character}" * (length // 2)
    token = max(texts.vocabulary(), key=len, default="").removesuffix("</w>")
    if token:
        many = token * (length // len(token) + 1)
        yield f"its longest token, {token[:40]!r}", many[:length]
