"""How texts are cleaned before they are tokenized: not at all, or as the model's authors did.

OpenAI's, LAION's and MetaCLIP's models were trained and evaluated on texts that went through
`ftfy.fix_text` and twice through `html.unescape` (`open_clip.tokenizer.basic_clean`).
transformers' tokenizers do neither. SigLIP's texts were lower-cased, without punctuation; its
tokenizer in transformers does that itself (`SiglipTokenizer.canonicalize_text`), OpenCLIP after its
own cleaning (`open_clip.tokenizer.canonicalize_text`). Independent of token ids.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from score.errors import ModelError
from score.extras import install
from score.wording.quoting import quoted

Name = Literal["transformers", "openclip", "siglip", "canonicalize"]

_NAMES: tuple[Name, ...] = get_args(Name)

OPEN_CLIPS: tuple[Name, ...] = ("openclip", "canonicalize")
"""Those of OpenCLIP's tokenizers."""

# Texts in which ftfy and html.unescape change nothing but white space: ftfy repairs only non-ASCII
# characters, entities (`&`) and control characters other than tabs and line breaks.
# `tests/texts/test_cleaning.py` tries every pair of these characters.
_PLAIN = re.compile(r"[\t\n\r -%'-~]*")

_MOST_LEVELS = 32  # of nested entities; `&amp;amp;`, a frequent case, has two

# OpenCLIP's special tokens in a text.
_SPECIAL = re.compile("<(?:start|end)_of_text>")


@dataclass(frozen=True, slots=True)
class Cleaning:
    """How a text is cleaned before it is tokenized.

    name: `transformers` leaves texts as they are; `openclip` repairs encodings, ligatures, quotes
        and widths (ftfy), resolves HTML entities, and replaces white space by single spaces;
        `siglip` lower-cases, removes ASCII punctuation, and replaces white space likewise;
        `canonicalize`, OpenCLIP's for SigLIP and SigLIP 2, does what `openclip` does, then what
        `siglip` does, with a space for each underscore.
    lower: whether `openclip` also lower-cases. OpenCLIP does so before CLIP's own byte-pair
        tokenizer (`SimpleTokenizer`), not before others (`HFTokenizer`).
    """

    name: Name = "transformers"
    lower: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cleaning:
        """The cleaning in a `tokenizer_config.json`; by default that of the class it names.

        Raises ModelError for an unknown cleaning, or one whose library is not installed.
        """
        siglips = config.get("tokenizer_class") == "SiglipTokenizer"
        if siglips and config.get("do_lower_case", True) is not True:
            raise ModelError("tokenizer_config.json: SigLIP's texts without do_lower_case")
        name = config.get("text_cleaning", "siglip" if siglips else "transformers")
        if name not in _NAMES:
            known = ", ".join(_NAMES)
            raise ModelError(
                f"tokenizer_config.json: text_cleaning {quoted(name)} is not one of {known}"
            )
        if name in OPEN_CLIPS:
            _ftfy()
        return cls(name, lower=name == "openclip" and config.get("do_lower_case") is True)

    def config(self) -> dict[str, Any]:
        """The entries of `tokenizer_config.json` that `from_config` reads."""
        lower = {"do_lower_case": True} if self.lower else {}
        return {"text_cleaning": self.name, **lower}

    def __call__(self, text: str) -> str:
        """The cleaned text. Raises UnicodeEncodeError for a lone surrogate."""
        if self.name == "transformers":
            return text
        if self.name == "siglip":
            return _canonical(text)
        if not _PLAIN.fullmatch(text):
            text.encode()  # ftfy would replace a lone surrogate by U+FFFD
            text = html.unescape(html.unescape(_fixed(text)))
        if self.name == "canonicalize":
            # Lower-cased last: whether a sigma ends a word depends on what follows it.
            return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())
        text = " ".join(text.split())
        return _split_special(text.lower()) if self.lower else text


_SIGLIP_SPECIAL = re.compile(r"\s*(</s>|<unk>)\s*")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _canonical(text: str) -> str:
    """As transformers' `SiglipTokenizer`: the special tokens in a text stay, and an end token at
    its end is the one that every text has."""
    text = text.replace("▁", " ")
    if "</s>" not in text and "<unk>" not in text:
        return _lower_words(text)
    parts = _SIGLIP_SPECIAL.split(text)
    parts[::2] = map(_lower_words, parts[::2])
    return "".join(parts).removesuffix("</s>")


def _lower_words(text: str) -> str:
    """Lower-cased words with single spaces between them, without punctuation."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


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

    ftfy resolves nested entities one level at a time: a text of 16,000 characters may have 4,000
    levels, which take minutes. With more than `_MOST_LEVELS`, only `html.unescape` resolves them.
    """
    ftfy = _ftfy()
    nested = ("&" in text or "＆" in text) and _is_deep(text)
    fixed: str = ftfy.fix_text(text, unescape_html=False) if nested else ftfy.fix_text(text)
    return fixed


def _is_deep(text: str) -> bool:
    """Whether entities are nested too deeply, counting those that ftfy's other steps create."""
    fixes = _ftfy().fixes
    for _ in range(_MOST_LEVELS):
        before = text
        text = fixes.fix_character_width(fixes.unescape_html(text))
        text = fixes.remove_control_chars(fixes.remove_terminal_escapes(text))
        if text == before:
            return False
    return True


def _split_special(text: str) -> str:
    """Splits special tokens that follow punctuation: `!<end_of_text>` → `!< end_of_text>`.

    OpenCLIP's pattern matches a run of punctuation as a whole, so `<` does not start a special
    token there. A space ends the run at the same position and does not change other pieces.
    """
    if "_of_text>" not in text:
        return text
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    end, special = 0, True  # of the previous match, and whether OpenCLIP reads it as special
    for match in _SPECIAL.finditer(text):
        between = text[end : match.start()]
        special = not _is_punctuation(between[-1]) if between else special
        yield between
        yield match[0] if special else match[0].replace("<", "< ")
        end = match.end()
    yield text[end:]


def _is_punctuation(character: str) -> bool:
    """Whether a character matches the part `[^\\s\\p{L}\\p{N}]` of CLIP's pattern."""
    return character != " " and unicodedata.category(character)[0] not in "LN"
