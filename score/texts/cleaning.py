"""How texts are cleaned before they are tokenized: not at all, or as OpenCLIP does.

OpenAI's, LAION's and MetaCLIP's models were trained and evaluated on texts that went through
`ftfy.fix_text` and twice through `html.unescape` (`open_clip.tokenizer.basic_clean`).
transformers' tokenizers do neither. Knows nothing of token ids.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from score.errors import ModelError
from score.extras import install

Name = Literal["transformers", "openclip"]

_NAMES: tuple[Name, ...] = ("transformers", "openclip")

# Texts that neither ftfy nor html.unescape changes but for spaces. All of ftfy's repairs are of
# characters beyond ASCII, of entities (`&`) and of control characters; of these, tabs and line
# breaks stay white space. `tests/texts/test_cleaning.py` tries every pair of these characters.
_PLAIN = re.compile(r"[\t\n\r -%'-~]*")

_MOST_LEVELS = 32  # of entities within entities; `&amp;amp;`, which is often met, has two

# OpenCLIP's special tokens, where a text spells them out.
_SPECIAL = re.compile("<(?:start|end)_of_text>")


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What happens to a text before it is tokenized.

    name: `transformers` leaves texts as they are; `openclip` repairs encodings, ligatures, quotes
        and widths (ftfy), resolves HTML entities, and makes all white space single spaces.
    lower: whether `openclip` lower-cases, too. OpenCLIP does so before CLIP's own byte pairs
        (`SimpleTokenizer`), not before other tokenizers (`HFTokenizer`).
    """

    name: Name = "transformers"
    lower: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cleaning:
        """What a `tokenizer_config.json` records; `transformers` where it records nothing.

        Raises ModelError for a cleaning that is not known, or whose library is not installed.
        """
        name = config.get("text_cleaning", "transformers")
        if name not in _NAMES:
            known = " or ".join(_NAMES)
            raise ModelError(f"tokenizer_config.json: text_cleaning {name!r:.80} is not {known}")
        if name == "transformers":
            return cls()
        _ftfy()
        return cls("openclip", lower=config.get("do_lower_case") is True)

    def config(self) -> dict[str, Any]:
        """What `from_config` reads again."""
        lower = {"do_lower_case": True} if self.lower else {}
        return {"text_cleaning": self.name, **lower}

    def __call__(self, text: str) -> str:
        """The cleaned text. Raises UnicodeEncodeError for half a character (a lone surrogate)."""
        if self.name == "transformers":
            return text
        if not _PLAIN.fullmatch(text):
            text.encode()  # ftfy would put U+FFFD in the place of half a character
            text = html.unescape(html.unescape(_fixed(text)))
        text = " ".join(text.split())
        return _apart(text.lower()) if self.lower else text


def _ftfy() -> Any:
    try:
        import ftfy
    except ImportError as error:
        raise ModelError(
            f"this model's texts are cleaned as OpenCLIP does, with ftfy, which is missing "
            f"({error}): {install('ftfy')}"
        ) from error
    return ftfy


def _fixed(text: str) -> str:
    """`ftfy.fix_text`, in bounded time.

    ftfy resolves entities within entities one level at a time, as long as there are any: a text of
    100,000 characters may have 25,000 levels, which take minutes. Deeper ones than `_MOST_LEVELS`
    are left to `html.unescape`.
    """
    ftfy = _ftfy()
    nested = ("&" in text or "＆" in text) and _is_deep(text)
    fixed: str = ftfy.fix_text(text, unescape_html=False) if nested else ftfy.fix_text(text)
    return fixed


def _is_deep(text: str) -> bool:
    """Whether entities are nested deeply, through all of ftfy's steps that may make new ones."""
    fixes = _ftfy().fixes
    for _ in range(_MOST_LEVELS):
        before = text
        text = fixes.fix_character_width(fixes.unescape_html(text))
        text = fixes.remove_control_chars(fixes.remove_terminal_escapes(text))
        if text == before:
            return False
    return True


def _apart(text: str) -> str:
    """Special tokens spelled within a run of punctuation, taken apart: `!< end_of_text>`.

    OpenCLIP's pattern reads such a run whole, so `<` is no beginning of a special token there; a
    space ends the run at the same place and leaves the other pieces as they are.
    """
    if "_of_text>" not in text:
        return text
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    end, special = 0, True  # of the special token before, and whether OpenCLIP takes it for one
    for match in _SPECIAL.finditer(text):
        between = text[end : match.start()]
        special = not _is_punctuation(between[-1]) if between else special
        yield between
        yield match[0] if special else match[0].replace("<", "< ")
        end = match.end()
    yield text[end:]


def _is_punctuation(character: str) -> bool:
    """Whether a character is of CLIP's third kind of word, `[^\\s\\p{L}\\p{N}]`."""
    return character != " " and unicodedata.category(character)[0] not in "LN"
