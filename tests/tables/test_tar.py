"""Archives as nobody should write them: a row's error, or a clear one of the file."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.errors import BadType, RequestError, TooManyBytes, UnreadableFile
from score.storage import byte_source
from score.tables import tar_reader
from score.tables.tar_reader import TarTable
from tests.support.spending import spent
from tests.support.tables import archive, cells_of, check_marks, errors_of, lines_of, shown

AFTER = ("z.txt", b"after")


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: str | int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = kind
    for field, value in fields.items():
        setattr(header, field, value)
    return header


def read(content: bytes, tmp_path: Path) -> list[str | None]:
    """The errors of an archive's rows, of which the last one is good."""
    (tmp_path / "in.tar").write_bytes(content)
    lines = lines_of(tmp_path / "in.tar")
    assert cells_of(lines[-1:]) == [(None, "after")]
    return errors_of(lines)[:-1]


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.txt", "..//a.json"])
def test_a_name_that_leads_out_fails_its_row(name: str, tmp_path: Path) -> None:
    (said,) = read(archive((name, b"x"), AFTER), tmp_path)
    assert said == f"the member {name!r} has a name that leads out of the archive"
    assert [path.name for path in tmp_path.iterdir()] == ["in.tar"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Q", "no regular file"),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "txt", "json"])
def test_what_is_no_file_fails_its_row(kind: bytes, said: str, ending: str, tmp_path: Path) -> None:
    header = member(f"a.{ending}", kind, linkname="/etc/passwd")
    assert read(archive((header, b""), AFTER), tmp_path) == [f"the member 'a.{ending}' is {said}"]


@pytest.mark.parametrize("maps", [0, 1, 3])
def test_a_sparse_file_fails_its_row(maps: int, tmp_path: Path) -> None:
    """As GNU's tar writes them: the map of what it holds goes on in blocks before the content."""
    header = bytearray(archive((member("a.jpg", tarfile.GNUTYPE_SPARSE), b"x"))[:512])
    header[482] = maps > 0
    blocks = b"".join(bytes(504) + bytes([number < maps - 1]) + bytes(7) for number in range(maps))
    content = signed(header) + blocks + b"x" + bytes(511) + archive(AFTER)
    assert read(content, tmp_path) == ["the member 'a.jpg' is a sparse file"]


def test_a_sparse_file_of_pax_fails_its_row(tmp_path: Path) -> None:
    header = member("a.jpg", pax_headers={"GNU.sparse.size": "9"})  # type: ignore[arg-type]
    assert read(archive((header, b"x"), AFTER), tmp_path) == [
        "the member 'a.jpg' is a sparse file",
    ]


def signed(header: bytearray) -> bytes:
    """A header with the right checksum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_members_that_are_too_large_fail_their_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_reader, "MAX_IMAGE", 600)
    monkeypatch.setattr(tar_reader, "MAX_TEXT", 10)
    content = archive(
        *[("a.jpg", b"x" * 601), ("a.txt", b"good"), ("b.png", b"x" * 600), ("c.txt", b"x" * 11)],
        *[("d.txt", b"y" * 10), ("e.txt", b"good"), ("e.json", b"1" * 11), AFTER],
    )
    said = read(content, tmp_path)
    assert said == [
        "the member 'a.jpg' has 601 bytes; at most 600",
        None,
        "the member 'c.txt' has 11 bytes; at most 10",
        None,
        "the member 'e.json' has 11 bytes; at most 10",
    ]
    (first, *_) = lines_of(tmp_path / "in.tar")
    assert isinstance(first.row.image, TooManyBytes)
    assert first.kept == ["a", "a.jpg", "good", None]


def test_what_else_fails_a_row(tmp_path: Path) -> None:
    content = archive(
        *[("a.jpg", b"1"), ("a.left.png", b"2"), ("b.txt", b"\xff"), ("c.txt", b"1")],
        *[("c.txt", b"2"), (f"{'d' * 5_000}.txt", b"x"), ("a.txt", b"once more"), AFTER],
    )
    said = read(content, tmp_path)
    assert said[:3] == [
        "the members 'a.jpg' and 'a.left.png' are both the image of the row 'a'",
        "the member 'b.txt' is not UTF-8 text",
        "the members 'c.txt' and 'c.txt' are both the text of the row 'c'",
    ]
    assert (said[3] or "").endswith("has a name of more than 4,096 characters")
    assert said[4] is None
    assert isinstance(lines_of(tmp_path / "in.tar")[0].row.image, BadType)


def test_archives_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    first, second = archive(("a.txt", b"a")), archive(("b.txt", b"b"), AFTER)
    assert read(first + second, tmp_path) == [None, None]
    assert read(first[:1024] + second, tmp_path) == [None, None]
    assert read(archive(AFTER) + b"rubbish" * 999, tmp_path) == []
    assert read(archive(AFTER)[:1536], tmp_path) == []  # with one block of two


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_that_is_cut_between_two_members_is_noticed(ending: str, tmp_path: Path) -> None:
    """Also by a job that goes on at the place where it was cut."""
    content = archive(("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c"))[: 2 * 1024]
    file = tmp_path / f"in{ending}"
    file.write_bytes(gzip.compress(content) if ending == ".tar.gz" else content)
    with TarTable(file) as table:
        for mark, good in ((None, 1), ((1024,), 0)):
            *others, last = table.after(mark)
            assert len(others) == good
            assert isinstance(last.row.text, UnreadableFile)
            assert "without the block of zeros" in str(last.row.text)
        assert list(table.after((2048,))) == []


BROKEN: list[tuple[bytes, str]] = [
    (b"", "is empty, and no tar archive"),
    (b"text\na\n", "is cut short: it ends inside a member"),
    (b"text\na\n" * 200, "is no readable tar: the header at byte 0 has a wrong checksum"),
    (archive(AFTER)[:700], "is cut short"),
    (archive(AFTER)[:200], "is cut short"),
    (archive(AFTER)[:1024] + b"rubbish" * 200, "the header at byte 1,024 has a wrong checksum"),
    (archive((member("a.jpg", size=2**40), b"x"))[:2_000], "is cut short"),
    (signed(bytearray(archive(AFTER)[:124] + b"-0000000007\0" + bytes(376))), "without a size"),
    (
        signed(bytearray(archive(AFTER)[:124] + b"x0000000007\0" + bytes(376))),
        "'x0000000007' is no",
    ),
    (signed(bytearray(archive(AFTER)[:124] + b"\xff" * 12 + bytes(376))), "without a size"),
    (
        archive((member("a.jpg", b"x"), b"x" * (2**20 + 1))),
        "extended headers of more than 1,048,576 bytes, or more than 16 of them, for the member at "
        "byte 0",
    ),
    (archive((member("a", b"L"), b"x" * (2**20 + 1))), "extended headers of more than"),
    (archive(*[(member("a", b"g"), b"")] * 17, AFTER), "more than 16 of them"),
    (archive((member("a", b"x"), b"11 size=-1\n"), AFTER), "without a size at byte 0"),
    (archive((member("a", b"x"), b"9 size=x\n"), AFTER), "without a size at byte 0"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_what_is_no_archive_is_refused(
    content: bytes, message: str, ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"in{ending}"
    file.write_bytes(gzip.compress(content) if ending == ".tar.gz" else content)
    if not content and ending == ".tar.gz":
        assert lines_of(file) == []
        return
    with pytest.raises(RequestError, match=rf"^in\{ending} ") as caught:
        lines_of(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields", [b"x", b"99 path=b\n", b"0 path=b\n", b"-5 path=b\n", b"5 path", b" " * 99, b"9" * 99]
)
def test_a_damaged_extended_header_is_refused(fields: bytes, tmp_path: Path) -> None:
    """A name or a size that it gives would be missed."""
    (tmp_path / "in.tar").write_bytes(archive((member("a", b"x"), fields), AFTER))
    with pytest.raises(RequestError, match=r"^in\.tar has a damaged extended header .* at byte 0$"):
        lines_of(tmp_path / "in.tar")
    assert read(archive((member("a", b"x"), bytes(99)), AFTER), tmp_path) == []


def test_sixteen_folders_in_a_row_are_no_headers(tmp_path: Path) -> None:
    folders = [(member(f"{number}", tarfile.DIRTYPE), b"") for number in range(40)]
    old = member("old/", tarfile.AREGTYPE)
    assert read(archive(*folders, (old, b""), AFTER), tmp_path) == []


_NAMES = ["a.jpg", "a.txt", "a.json", "b.png", "b.cls", "c", f"{'d' * 120}.txt", "ü.txt", "e/a.jpg"]


@given(
    names=st.lists(st.sampled_from(_NAMES), max_size=9),
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513]), min_size=9, max_size=9),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    block=st.sampled_from([7, 512, 2**16]),
    ending=st.sampled_from(["", ".gz"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_goes_on_after_each_row(
    names: list[str], sizes: list[int], form: int, block: int, ending: str, tmp_path: Path
) -> None:
    contents = (b"x" * size for size in sizes)
    content = archive(*zip(names, contents, strict=False), ("z.txt", b"z"), form=form)
    file = tmp_path / f"in.tar{ending}"
    file.write_bytes(gzip.compress(content) if ending else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "BLOCK", block)
        with TarTable(file) as table:
            lines = check_marks(table)
    assert cells_of(lines[-1:]) == [(None, "z")]


def test_an_archive_is_not_read_again_before_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "in.tar"
    file.write_bytes(archive(*((f"{number}.txt", b"x" * 600) for number in range(200))))
    with TarTable(file) as table:
        lines = list(table)
        (place,) = lines[150].mark
        with file.open("r+b") as stream:
            stream.write(b"\1" * place)
        rest = list(table.after(lines[150].mark))
    assert [shown(line) for line in rest] == [shown(line) for line in lines[151:]]


@given(place=st.integers(0, 3_000), byte=st.integers(0, 255))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_read_or_refused(place: int, byte: int, tmp_path: Path) -> None:
    content = bytearray(archive(("ä.jpg", b"x" * 700), ("b.txt", b"b")))
    content[place] = byte
    (tmp_path / "in.tar").write_bytes(content)
    with suppress(RequestError):
        lines_of(tmp_path / "in.tar")


@pytest.mark.slow
@pytest.mark.process
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    """Members of gigabytes, an endless header, an endless end: all of zeros, in a few megabytes."""
    stream = io.BytesIO()
    with zstd.open(stream, "wb", level=1) as packed:
        packed.write(archive((member("a.jpg", size=2**31), b""))[: 3 * 512])
        for _ in range(2**9):
            packed.write(bytes(2**22))
    (tmp_path / "member.tar.zst").write_bytes(stream.getvalue())
    header = bytearray(archive((member("a", b"x", size=2**33 - 1), b""))[:512])
    with gzip.open(tmp_path / "header.tar.gz", "wb", 1) as packed:
        packed.write(signed(header) + bytes(2**28))
    calls = [
        ("tests.support.tables:read_lines", tmp_path / name)
        for name in ("member.tar.zst", "header.tar.gz")
    ]
    costs = spent(calls, mebibytes=400)
    assert costs[0].said in (
        "",
        "RequestError: member.tar.zst is cut short: it ends inside a member",
    )
    assert "extended headers of more than" in costs[1].said
    assert max(cost.mebibytes for cost in costs) < 150


def test_an_empty_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(archive(("a.jpg", b""), ("b.txt", b"b")))
    assert errors_of(lines_of(tmp_path / "in.tar")) == ["the member 'a.jpg' is empty", None]
