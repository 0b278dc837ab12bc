"""Markdown shared by all reference pages."""

from __future__ import annotations

_HEAD = "<!-- Written by `make reference` from {source}: change that, not this page. -->"


def page(source: str, title: str, *parts: str) -> str:
    """A page: a comment with its source, its title, its parts separated by blank lines."""
    text = "\n\n".join([_HEAD.format(source=source), f"# {title}", *filter(None, parts)])
    return text.rstrip() + "\n"


def sentence(text: str) -> str:
    """A phrase with a capital and a full stop; a URL at its start is not capitalised."""
    text = text.strip()
    if text and text[0].islower() and "://" not in text.split()[0]:
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith((".", ":", "…", "?")) else f"{text}."


def unwrapped(paragraph: str) -> str:
    """A paragraph on one line."""
    return " ".join(paragraph.split())
