"""Any text → a name for a folder or file that every file system accepts.

Labels and URLs are untrusted: `../x`, `CON`, `a/b`, a name of a thousand letters. The result is one
path component of at most 255 bytes, without characters special to Windows, macOS or Linux.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

LONGEST = 255  # bytes of UTF-8: ext4, XFS, APFS; NTFS counts 255 UTF-16 units, which is more

# Separators, wildcards and the like (Windows: Naming Files, Paths, and Namespaces).
_SPECIAL = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))
# Devices, with any ending: `con.txt` opens the console.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?= *(?:\.|$))", re.I
)


def safe(text: str, longest: int = LONGEST) -> str:
    """`text` as one path component of at most `longest` bytes. Not unique, never empty."""
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():  # most are, and looking at each character takes long
        text = "".join(_visible(character) for character in text)
    text = text.translate(_SPECIAL)
    # Cut first, since the cut text may be a device's name; leaves one byte for the `_` after it.
    text = _trimmed(_trimmed(text).encode()[: longest - 1].decode(errors="ignore"))
    if text.startswith("."):  # hidden
        text = "_" + text[1:]
    return _DEVICE.sub(r"\1_", text) or "_"


def same(name: str) -> str:
    """Equal for names that some file system treats as one: case, Unicode forms, invisibles."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name.upper()).casefold())
    if text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def folders(labels: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A folder name for each label: its own where that is safe, and no two `same`.

    `taken`: names that are in use already.
    """
    labels = list(labels)
    used = {same(name) for name in taken}
    chosen: dict[str, str] = {}
    # Labels that keep their name go first, so that no changed label takes it.
    for label in sorted(labels, key=lambda label: safe(label) != label):
        name = first_free(safe(label), lambda name: same(name) in used)
        used.add(same(name))
        chosen[label] = name
    return {label: chosen[label] for label in labels}


def first_free(name: str, taken: Callable[[str], bool], ending: str = "") -> str:
    """`name` + `ending`, else with a number between them: the first that is not `taken`.

    Calls `taken` O(log n) times, which finds the first where numbers are in use without gaps.
    """

    def numbered(number: int) -> str:
        suffix = (f"-{number}" if number > 1 else "") + ending
        return safe(name, LONGEST - len(suffix.encode())) + suffix

    low, high = 0, 1
    while taken(numbered(high)):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(numbered(middle)) else (low, middle)
    return numbered(high)


def _visible(character: str) -> str:
    """`_` for control characters, surrogates and unassigned ones; joiners of emoji stay."""
    kind = unicodedata.category(character)
    if kind in ("Zl", "Zp") or (kind[0] == "C" and kind != "Cf"):
        return "_"
    return character


def _trimmed(text: str) -> str:
    """Without surrounding spaces and final dots, which Windows drops silently."""
    return text.strip().rstrip(". \t")
