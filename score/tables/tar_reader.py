"""Webdataset's tar archives as a job's rows: members whose names differ by endings are one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice

from score.contract.rows import IMAGE, TEXT, Row
from score.errors import (
    BadType,
    NotAnImage,
    RequestError,
    RowError,
    TooManyBytes,
    UnreadableFile,
)
from score.storage.byte_source import ByteSource
from score.storage.remote import File, Input
from score.tables.lines import (
    ALL_TEXT,
    NO_NAMES,
    EmptyTable,
    Line,
    Mark,
    as_utf8,
    folder_of,
    places_of,
)
from score.tables.tar_members import Member, TarMembers
from score.wording.quoting import quoted

MAX_IMAGE = 48 * 2**20
"""Bytes of an image, as of an inline image in a line of a table."""

MAX_TEXT = 2**20
"""Bytes of a text, or of the JSON beside it."""

_KEY, _JSON = "key", "json"
_COLUMNS = (_KEY, IMAGE, TEXT, _JSON)
_KINDS = {".txt": TEXT, ".json": _JSON}
_LONGEST_NAME = 4096  # characters


class _Sample:
    """The members of one key: the cells of a row, and the names of the members they are from."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.cells: dict[str, object] = {}
        self.names: dict[str, str] = {}

    def add(self, kind: str, name: str, cell: object) -> None:
        """A member that is an image, a text or JSON. Two of a kind are an error of the row."""
        if kind in self.cells:
            cell = BadType(
                f"the members {quoted(self.names[kind])} and {quoted(name)} are both the {kind} of "
                f"the row {quoted(self.key)}"
            )
        self.cells[kind] = cell
        self.names.setdefault(kind, name)

    def doubt(self, archive: str) -> None:
        """Has the row fail: of an archive that ends without its mark it may lack members."""
        self.cells[_JSON] = UnreadableFile(
            f"{archive} ends with this row, but without the block of zeros that marks an archive's "
            "end: if it is cut short, members and rows are missing"
        )

    def line(self, places: Mapping[str, int], position: int, end: int) -> Line:
        """As a table's line, which ends at a place. `places`: of the row's cells in `_COLUMNS`."""
        values = [self.key, *map(self.cells.get, _COLUMNS[1:])]
        row = Row(**{name: values[number] for name, number in places.items()})
        if isinstance(error := values[-1], RowError):
            row = Row(text=error)
        values[1] = self.names.get(IMAGE)
        kept: list[object] = [
            as_utf8(value) if isinstance(value, str) else None for value in values
        ]
        return Line(row, kept, position, (end,))


class TarTable:
    """A tar archive (`.tar`, `.tar.gz`, `.tar.zst`) in webdataset's form, read lazily.

    Members that follow one another and whose paths are equal up to the first dot of the file name
    are a row: one with an image's ending is its image, `.txt` its text, and `.json` is kept as it
    is. Other members are ignored, as are hidden ones. A row fails whose member is no regular file,
    is too large, comes twice, or has a name that leads out of the archive; nothing is unpacked to
    the disk. Columns: the key, the image's name, the text, the JSON. Use it as a context manager.
    A mark is a place, in unpacked bytes: an archive that is not packed is not read again before it.
    Raises RequestError for what is no archive.
    """

    def __init__(
        self,
        path: File,
        chosen: Mapping[str, str] = NO_NAMES,
        *,
        image_endings: Collection[str] = (".jpg", ".jpeg", ".png", ".webp"),
    ) -> None:
        """`chosen`: as for `places_of`. `image_endings`: in lower case."""
        self.path, self.root = path, folder_of(path)
        self.files: list[Input] = [path]
        self.columns, self.types = list(_COLUMNS), ALL_TEXT
        self._places = places_of(self.columns, path.name, chosen)
        self._endings = image_endings
        with ExitStack() as files:
            self._source = files.enter_context(ByteSource(path))
            self.size = self._source.size
            if not self.size:
                raise EmptyTable(f"{path.name} is empty, and no tar archive")
            list(islice(self._members(0), 1))  # whether it is an archive
            self._files = files.pop_all()

    def __enter__(self) -> TarTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        (place,) = mark or (0,)
        return self._after(self._members(place))

    def _after(self, members: Iterator[tuple[TarMembers, Member]]) -> Iterator[Line]:
        """The lines, each once a member of the next one has come."""
        position = self._source.position
        sample: _Sample | None = None
        reader: TarMembers | None = None
        for reader, member in members:
            key, kind = self._key_and_kind(member.name)
            if not kind:
                continue
            if sample and key != sample.key:
                yield sample.line(self._places, position(reader.end), reader.end)
                sample = None
            sample = sample or _Sample(key)
            sample.add(kind, member.name, _content(reader, member, kind))
        if sample and reader:
            if reader.lacks_end:
                sample.doubt(self.path.name)
            yield sample.line(self._places, position(reader.end), reader.end)

    def _members(self, place: int) -> Iterator[tuple[TarMembers, Member]]:
        try:
            reader = TarMembers(self._source.read_from(place), place, self.path.name)
            for member in reader:
                yield reader, member
        except OSError as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error

    def _key_and_kind(self, name: str) -> tuple[str, str]:
        """What the members of a row have in common, and the column of one; none for others."""
        folder, slash, file = name.rpartition("/")
        stem, dot, endings = file.partition(".")
        ending = f".{endings.rpartition('.')[2].lower()}"
        kind = IMAGE if ending in self._endings else _KINDS.get(ending, "")
        return f"{folder}{slash}{stem}", kind if stem and dot else ""


def _content(reader: TarMembers, member: Member, kind: str) -> object:
    """A member as a cell, or its error."""
    most = MAX_IMAGE if kind == IMAGE else MAX_TEXT
    shown = f"the member {quoted(member.name)}"
    if len(member.name) > _LONGEST_NAME:
        return BadType(f"{shown} has a name of more than {_LONGEST_NAME:,} characters")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return BadType(f"{shown} has a name that leads out of the archive")
    if member.kind:
        return BadType(f"{shown} is {member.kind}")
    if member.size > most:
        return TooManyBytes(f"{shown} has {member.size:,} bytes; at most {most:,}")
    content = reader.read()
    if kind == IMAGE:
        return content or NotAnImage(f"{shown} is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return BadType(f"{shown} is not UTF-8 text")
