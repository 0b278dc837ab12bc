"""English captions of a name: templates, articles, plurals."""

from __future__ import annotations

TEMPLATES = (
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "a drawing of {a}",
    "an icon of {a}",
    "an emoji of {a}",
    "a small picture of {a}",
    "a blurry photo of {a}",
    "a close-up of {a}",
    "this is {a}",
    "there is {a}",
    "{a}",
    "the {name}",
    "one {name}",
    "{name} emoji",
    "{name} icon",
    "{names}",
    "a photo of {names}",
    "a photo of the {name}",
    "my {name}",
)

NUMBERS = ("", "one", "two", "three", "four")


_LIKE_YOU, _LIKE_OUR = ("uni", "eu", "one", "us", "ut", "u."), ("hour", "heir", "honest")
_AFTER = ("of", "with", "in", "and", "on", "without")  # the head, which takes the plural


def article(name: str) -> str:
    """The name with "a" or "an" before it."""
    vowel = name[0] in "aeiou" and not name.startswith(_LIKE_YOU)
    return f"{'an' if vowel or name.startswith(_LIKE_OUR) else 'a'} {name}"


def plural(name: str) -> str:
    """The plural of a name, by the commonest rules of English: "slices of pizza"."""
    words = name.split(" ")
    ends = [n for n, word in enumerate(words) if n and (word in _AFTER or word[0] == "(")]
    head = (ends[0] if ends else len(words)) - 1
    word = words[head]
    if word.endswith(("s", "x", "ch", "sh", "z")):
        word += "es"
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "s"
    return " ".join([*words[:head], word, *words[head + 1 :]])


def phrase(template: str, name: str) -> str:
    """A template of TEMPLATES filled in with a name."""
    return template.format(a=article(name), name=name, names=plural(name))
