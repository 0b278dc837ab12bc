"""Outputs appear when they are complete, also where two processes write one, or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from score.contract.rows import Record
from score.errors import RequestError
from score.storage import atomic
from score.storage.outputs import check_files, check_folder, check_replaceable, is_empty
from score.tables.parquet_writer import ParquetWriter
from tests.support.processes import started

WRITER = """
import sys
from pathlib import Path
import numpy as np
from score.contract.rows import Record
from score.tables.writers import writer_for

output, rows, value = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with writer_for(output)(output, ["text"], 2) as writer:
    print("open", flush=True)
    for _ in range(rows):
        writer.write([sys.argv[3]], Record(text_features=np.full(2, value, np.float32)))
    sys.stdin.readline()
print("done", flush=True)
"""


def writer(output: Path, rows: int, value: float):  # type: ignore[no-untyped-def]
    """A process that opens `output` and writes rows; it ends when it is told to."""
    command = [sys.executable, "-c", WRITER, str(output), str(rows), str(value)]
    return started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


@pytest.mark.process
@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_of_two_processes_with_one_output_the_last_to_finish_wins(
    tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"out{ending}"
    with writer(output, 5000, 1) as first, writer(output, 7000, 2) as second:
        for process in (first, second):
            assert process.stdout
            assert process.stdout.readline() == "open\n"
        assert not output.exists()
        finish(second)
        whole = output.read_bytes()
        if ending == ".parquet":
            assert pq.read_table(output)["text"].to_pylist() == ["2"] * 7000
        finish(first)
    if ending == ".parquet":
        assert pq.read_table(output)["text"].to_pylist() == ["1"] * 5000
    else:
        lines = output.read_text().splitlines()
        assert len(lines) == 5000 + (ending == ".csv")
        assert not any(line.startswith(("2,", '{"text": "2"')) for line in lines)
    assert output.read_bytes() != whole
    assert [file.name for file in tmp_path.iterdir()] == [output.name]


@pytest.mark.process
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    with writer(output, 10, 1) as killed, writer(output, 20, 2) as running:
        for process in (killed, running):
            assert process.stdout
            assert process.stdout.readline() == "open\n"
        killed.kill()
        killed.wait(30)
        assert len([*tmp_path.glob(".out.parquet.*.part")]) == 2
        with ParquetWriter(output, ["text"], 2) as mine:
            mine.write(["3"], Record(text_features=np.zeros(2, np.float32)))
            assert len([*tmp_path.glob(".out.parquet.*.part")]) == 2, "the running one's, and mine"
        assert pq.read_table(output)["text"].to_pylist() == ["3"]
        finish(running)
    assert pq.read_table(output).num_rows == 20
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_another_machines_work_is_abandoned_after_a_day_without_a_write(tmp_path: Path) -> None:
    now = time.time()
    names = [f".o.0123abcd-{os.getpid()}-{number:08x}.part" for number in range(4)]
    idle, busy, folder, busy_folder = (tmp_path / name for name in names)
    for file in (idle, busy):
        file.write_text("")
    for each in (folder, busy_folder):
        (each / "new").mkdir(parents=True)
        (each / "new/file").write_text("")
    stranger = tmp_path / ".o.part"
    stranger.write_text("")
    old = now - 25 * 3600
    for path in (idle, stranger, folder, folder / "new", folder / "new/file", busy_folder):
        os.utime(path, (old, old))
    with atomic.file(tmp_path / "o") as part:
        part.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [busy.name, busy_folder.name, stranger.name, "o"]
    )


def test_a_process_id_in_use_again_keeps_nothing_for_ever(tmp_path: Path) -> None:
    names = [f".o.{atomic._machine()}-{os.getpid()}-{number:08x}.part" for number in range(2)]
    idle, busy = (tmp_path / name for name in names)
    for file in (idle, busy):
        file.write_text("")
    os.utime(idle, (0, 0))
    with atomic.file(tmp_path / "o") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {busy.name, "o"}


def test_what_cannot_be_removed_does_not_keep_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f".o.0123abcd-1-{number:08x}.part" for number in range(3)]
    for name in names:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    unlink, asked = Path.unlink, list[str]()

    def refuse_first(path: Path, missing_ok: bool = False) -> None:
        if path.name in names:
            asked.append(path.name)
            if len(asked) == 1:
                raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_first)
    with atomic.file(tmp_path / "o") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {asked[0], "o"}


def test_machines_of_one_name_differ_by_their_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = set()
    for boot in ("11111111-1111", "22222222-2222"):
        (tmp_path / "boot_id").write_text(boot + "\n")
        monkeypatch.setattr(atomic, "_BOOT_ID", tmp_path / "boot_id")
        machines.add(atomic._machine.__wrapped__())
    assert len(machines) == 2


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from score.storage import atomic

rename = Path.rename

def killed(path, target):
    if path.name == "new":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)

Path.rename = killed
with atomic.folder(Path(sys.argv[1])) as new:
    (new / "file").write_text("new")
"""


@pytest.mark.process
@pytest.mark.parametrize("name", ["o", "o" * 200])
def test_a_folder_whose_replacing_was_killed_is_put_back(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    output.mkdir()
    (output / "file").write_text("old")
    command = [sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(output)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert not output.exists()
    with atomic.file(tmp_path / "other") as part:
        part.write_text("")
    assert (output / "file").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {name, "other"}


def test_an_old_folder_that_cannot_be_put_back_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "o"
    output.mkdir()
    (output / "file").write_text("old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target == output:
            raise PermissionError
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError), atomic.folder(output) as new:
        (new / "file").write_text("new")
    assert [file.read_text() for file in tmp_path.glob(".o.*.part/old/o/file")] == ["old"]


def test_a_folder_that_cannot_be_renamed_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError

    (tmp_path / "o").mkdir()
    (tmp_path / "o/file").write_text("")
    monkeypatch.setattr(Path, "rename", refuse)
    atomic.remove(tmp_path / "o")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "o"
    output.write_text("old")
    with pytest.raises(KeyError), atomic.file(output) as part:
        part.write_text("half")
        raise KeyError
    assert output.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["o"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "o"
    with atomic.folder(output) as new:
        (new / "file").write_text("1")
        (new.parent / "staged").write_text("")
        assert not output.exists()
    assert [file.name for file in output.iterdir()] == ["file"]
    assert output.stat().st_mode & 0o777 == 0o777 & ~_umask()
    with pytest.raises(KeyError), atomic.folder(output) as new:
        raise KeyError
    assert (output / "file").read_text() == "1"
    assert [each.name for each in output.parent.iterdir()] == ["o"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_contents_replace_files_and_folders_and_links_are_not_followed(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    for folder in (target / "old/deep", elsewhere):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (target / "link").symlink_to(elsewhere)
    with pytest.raises(KeyError), atomic.contents(target) as new:
        (new / "old").mkdir()
        raise KeyError
    assert (target / "old/deep/file").exists()
    with atomic.contents(target) as new:
        (new / "old").mkdir()
        (new / "old/new").touch()
    assert [entry.name for entry in target.rglob("*")] == ["old", "new"]
    assert (elsewhere / "file").exists()


def test_a_thread_that_still_writes_does_not_keep_a_folder_alive(tmp_path: Path) -> None:
    """Downloads may be under way when a job is interrupted."""
    over, failed = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                (folder / str(number)).write_text("")
            except OSError:
                failed.set()
                return

    with pytest.raises(KeyError), atomic.folder(tmp_path / "o") as new:
        thread = threading.Thread(target=write, args=[new])
        thread.start()
        time.sleep(0.05)
        raise KeyError
    over.set()
    thread.join(30)
    assert not [*tmp_path.iterdir()]


def test_names_of_any_length_and_bytes_are_written(tmp_path: Path) -> None:
    for name in ("é" * 127, os.fsdecode(b"\xff" * 255), ".hidden"):
        with atomic.file(tmp_path / name) as part:
            assert atomic.is_temporary(part.name)
            part.write_text(name.encode("utf-8", "surrogateescape").hex())
        assert (tmp_path / name).exists()
    assert len([*tmp_path.iterdir()]) == 3


def test_a_folder_is_empty_where_only_unfinished_outputs_are(tmp_path: Path) -> None:
    with atomic.file(tmp_path / "o") as part:
        part.write_text("")
        assert is_empty(tmp_path)
    assert not is_empty(tmp_path)


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["link", "dangling link", "file"])
def test_a_temporary_file_is_created_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """Even where somebody guessed its name, and put a link to another file there."""
    victim = tmp_path / "victim"
    if planted != "dangling link":
        victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    guessed = atomic._temporary(tmp_path, "out.csv")
    if planted == "file":
        guessed.hardlink_to(victim)
    else:
        guessed.symlink_to(victim)
    with pytest.raises(FileExistsError), atomic.file(tmp_path / "out.csv") as part:
        part.write_text("overwritten")
    assert not victim.exists() or victim.read_text() == "precious"
    assert os.path.lexists(guessed)


def test_names_of_temporary_files_cannot_be_guessed(tmp_path: Path) -> None:
    tokens = {atomic._temporary(tmp_path, "o").name.rpartition("-")[2] for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {len(".part") + 16}  # 64 bits


def test_a_link_at_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out").symlink_to("victim")
    with atomic.file(tmp_path / "out") as part:
        part.write_text("mine")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "out").is_symlink()


def test_a_temporary_file_has_its_mode_from_the_beginning(tmp_path: Path) -> None:
    with atomic.file(tmp_path / "secret", mode=0o600) as part:
        assert part.stat().st_mode & 0o777 == 0o600
    with atomic.file(tmp_path / "public") as part:
        assert part.stat().st_mode & 0o777 == 0o666 & ~_umask()


@pytest.mark.process
def test_what_a_killed_process_left_is_no_way_into_another_folder(tmp_path: Path) -> None:
    """A planted link must not make the next job move or list the files of a folder elsewhere."""
    private, shared = tmp_path / "private", tmp_path / "shared"
    private.mkdir()
    (private / "key").write_text("precious")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    left = shared / f".o.{atomic._machine()}-{ended.pid}-{0:016x}.part"
    left.mkdir(parents=True)
    (left / "old").symlink_to(private)
    other = shared / f".o.0123abcd-1-{1:016x}.part"
    other.symlink_to(private)
    with atomic.file(shared / "o") as part:
        part.write_text("")
    assert (private / "key").read_text() == "precious"
    assert {path.name for path in shared.iterdir()} == {"o", other.name}, "one is a day too young"


@pytest.mark.parametrize("leads", ["nowhere", "to a file", "to a folder"])
def test_an_output_that_is_a_link_is_refused_at_once(tmp_path: Path, leads: str) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    if leads == "to a file":
        target.write_text("precious")
    elif leads == "to a folder":
        target.mkdir()
    with pytest.raises(RequestError, match=r"link is a link: name the file that it leads to"):
        check_files([link], overwrite=True)
    with pytest.raises(RequestError, match=r"link is a link: name the folder that it leads to"):
        check_replaceable(link)
    if leads == "nowhere":
        with pytest.raises(RequestError, match="a link that leads nowhere"):
            check_folder(link, lambda content: True, overwrite=True)
