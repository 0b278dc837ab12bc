"""The file of keys, the commands that change it, and the server's look at it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from score.__main__ import main
from score.errors import RequestError
from score.serve import keys
from score.serve.key_ring import KeyRing
from score.serve.keys import Key
from score.serve.rate_limit import RateLimit


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "keys.json"


def names(file: Path) -> list[str]:
    return [key.name for key in keys.read(file)]


def test_a_key_is_long_recognisable_and_not_in_the_file(file: Path) -> None:
    first, second = keys.new(file, "web"), keys.new(file, "alice", 60)
    assert first != second
    assert re.fullmatch(r"clip_[\w-]{43}", first)
    content = file.read_text()
    assert first not in content
    assert first.removeprefix(keys.PREFIX) not in content
    web, alice = keys.read(file)
    assert (web.name, web.per_minute) == ("web", None)
    assert web.sha256 == hashlib.sha256(first.encode()).hexdigest()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", web.created)
    assert (alice.name, alice.per_minute) == ("alice", 60)


def test_only_its_owner_reads_a_new_file(file: Path) -> None:
    before = os.umask(0)
    try:
        keys.new(file, "web")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_others_may_read_stays_so(file: Path) -> None:
    keys.new(file, "web")
    file.chmod(0o640)  # for the server's group
    keys.new(file, "alice")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    keys.new(file, "web")
    link.symlink_to(file)
    keys.new(link, "alice")
    assert link.is_symlink()
    assert names(file) == ["web", "alice"]


def test_a_key_is_revoked(file: Path) -> None:
    keys.new(file, "web")
    keys.new(file, "alice")
    keys.revoke(file, "web")
    assert names(file) == ["alice"]
    with pytest.raises(RequestError, match="has no key 'web', only alice"):
        keys.revoke(file, "web")


def test_a_name_is_taken_once(file: Path) -> None:
    keys.new(file, "web")
    with pytest.raises(RequestError, match="has a key web already"):
        keys.new(file, "web")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a\n", "é", "a" * 65, "../a"])
def test_an_unusable_name_is_refused(name: str, file: Path) -> None:
    with pytest.raises(RequestError, match="a key's name must be"):
        keys.new(file, name)
    assert not file.exists()


GOOD = {"name": "a", "sha256": "0" * 64, "created": "2026-01-01"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a file of keys"),
        (b"\xff\xfe", "is not a file of keys"),
        (b"[" * 100_000, "is not a file of keys"),
        (b"[]", 'it must be {"keys": […]}'),
        (b'{"keys": {}}', 'it must be {"keys": […]}'),
        ([1], "key 0 must have name, sha256 and created"),
        ([{"name": "a"}], "key 0 must have name"),
        ([GOOD, {**GOOD, "name": "b", "per_minut": 5}], "key 1 must have name"),
        ([{**GOOD, "name": 5}], "the name of key 0 is unusable"),
        ([{**GOOD, "name": "a b"}], "the name of key 0 is unusable"),
        ([{**GOOD, "sha256": "0" * 63}], "sha256 of a must be 64"),
        ([{**GOOD, "sha256": "A" * 64}], "sha256 of a must be 64"),
        ([{**GOOD, "per_minute": 0}], "per_minute of a must be"),
        ([{**GOOD, "per_minute": True}], "per_minute of a must be"),
        ([{**GOOD, "per_minute": 1.5}], "per_minute of a must be"),
        ([GOOD, GOOD], "a name is there twice"),
    ],
)
def test_a_damaged_file_is_refused_and_not_replaced(
    content: bytes | list[object], says: str, file: Path
) -> None:
    file.parent.mkdir()
    written = content if isinstance(content, bytes) else json.dumps({"keys": content}).encode()
    file.write_bytes(written)
    for change in (keys.new, keys.revoke):
        with pytest.raises(RequestError, match=re.escape(says)):
            change(file, "web")
    assert file.read_bytes() == written


def test_a_file_that_is_locked_for_long_is_an_error(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_PATIENCE", 0.1)
    with keys._locked(file), pytest.raises(RequestError, match="cannot be locked"):
        keys.new(file, "web")
    keys.new(file, "web")


@pytest.mark.process
def test_commands_at_the_same_time_lose_nothing(file: Path) -> None:
    code = "import sys; from score.__main__ import main; sys.exit(main(sys.argv[1:]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, "key", "new", f"key{number}", "--file", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    printed = [process.communicate(timeout=120)[0].decode().strip() for process in processes]
    assert sorted(names(file)) == [f"key{number}" for number in range(6)]
    ring = KeyRing(file)
    assert all(ring.find([key.encode()]) for key in printed)


# -- the server's look -------------------------------------------------------------------------


def test_a_ring_finds_the_key_that_is_presented(file: Path) -> None:
    web, alice = keys.new(file, "web"), keys.new(file, "alice")
    ring = KeyRing(file)
    assert (found := ring.find([web.encode()]))
    assert found.name == "web"
    assert (found := ring.find([b"placeholder", alice.encode()]))
    assert found.name == "alice"
    hashed = keys.read(file)[0].sha256.encode()
    for wrong in ([], [b""], [web.encode()[:-1]], [web.encode() + b" "], [hashed], [b"\xff"]):
        assert ring.find(wrong) is None


def test_a_change_counts_within_a_second(file: Path) -> None:
    web, clock = keys.new(file, "web"), Clock()
    ring = KeyRing(file, clock)
    alice = keys.new(file, "alice")
    keys.revoke(file, "web")
    assert ring.find([web.encode()])  # not looked at again yet
    clock.now += 1
    assert ring.find([web.encode()]) is None
    assert ring.find([alice.encode()])


@pytest.mark.parametrize("damage", [b"{", None])
def test_a_broken_file_keeps_the_last_good_keys(
    damage: bytes | None, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web, clock = keys.new(file, "web"), Clock()
    ring, good = KeyRing(file, clock), file.read_bytes()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    for _ in range(3):
        clock.now += 2
        assert ring.find([web.encode()])
    (record,) = caplog.records  # once, not at every look
    assert record.levelno == logging.ERROR
    assert "the keys that were read before stay valid" in record.getMessage()
    file.write_bytes(good.replace(b'"web"', b'"www"'))
    clock.now += 2
    assert (found := ring.find([web.encode()]))
    assert found.name == "www"


def test_a_file_is_not_read_at_each_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, clock = keys.new(file, "web").encode(), Clock()
    ring = KeyRing(file, clock)
    monkeypatch.setattr(keys, "read", lambda _: pytest.fail("read again"))
    for _ in range(10):
        clock.now += 1
        assert ring.find([key])


# -- rates -------------------------------------------------------------------------------------


def test_a_rate_is_kept_and_refills_evenly() -> None:
    clock = Clock()
    limit, key = RateLimit(clock), Key("a", "0" * 64, "2026-01-01", 30)
    assert [limit.wait(key) for _ in range(30)] == [0.0] * 30
    assert limit.wait(key) == pytest.approx(2)
    clock.now += 1.5
    assert limit.wait(key) == pytest.approx(0.5)
    clock.now += 0.5
    assert limit.wait(key) == 0
    assert limit.wait(key) > 0
    clock.now += 1e6
    assert [limit.wait(key) == 0 for _ in range(31)] == [True] * 30 + [False]


def test_keys_are_counted_apart() -> None:
    limit = RateLimit(Clock())
    one, other = (Key(name, name * 64, "2026-01-01", 1) for name in "ab")
    free = Key("c", "c" * 64, "2026-01-01")
    assert limit.wait(one) == 0
    assert limit.wait(one) > 0
    assert limit.wait(other) == 0
    assert [limit.wait(free) for _ in range(1000)] == [0.0] * 1000


# -- commands ----------------------------------------------------------------------------------


def test_the_key_alone_is_printed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "web", "--file", str(file), "--per-minute", "5"]) == 0
    printed = capsys.readouterr()
    (key,) = printed.out.splitlines()
    assert KeyRing(file).find([key.encode()]) == keys.read(file)[0]
    assert key not in printed.err
    assert "cannot be shown again" in printed.err


def test_keys_are_listed_and_revoked(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORE_API_KEYS_FILE", str(file))
    assert main(["key", "new", "web", "--per-minute", "5"]) == 0
    assert main(["key", "new", "alice"]) == 0
    capsys.readouterr()
    assert main(["key", "list"]) == 0
    today = keys.read(file)[0].created
    assert capsys.readouterr().out.splitlines() == [
        "name   created     per minute",
        f"web    {today}  5",
        f"alice  {today}  no limit",
    ]
    assert main(["key", "revoke", "web"]) == 0
    assert names(file) == ["alice"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new", "web"], "name the file of keys: --file FILE, or SCORE_API_KEYS_FILE"),
        (["list", "--file", "gone.json"], "no file of keys at gone.json: make a first key with"),
        (["revoke", "web", "--file", "gone.json"], "no file of keys at gone.json"),
        (["revoke", "web", "--file", "gone/k.json"], "no file of keys at gone/k.json"),
        (["new", "web", "--file", "."], "is a folder"),
        (["list", "--file", "."], "Is a directory"),
        (["new", "web", "--file", "plain/k.json"], "plain is not a folder"),
        (["new", "a b", "--file", "k.json"], "a key's name must be"),
        (["new", "web", "--file", "k.json", "--per-minute", "0"], "not a whole number from 1"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("")
    before = sorted(os.listdir())
    try:
        code = main(["key", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    message = capsys.readouterr().err
    assert code == 2
    assert says in message
    assert "Traceback" not in message
    assert sorted(os.listdir()) == before
