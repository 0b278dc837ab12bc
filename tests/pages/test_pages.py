"""Self-contained pages and what they are made of."""

from __future__ import annotations

import re

from score.pages import parts, webpage


def test_pages_fit_phones_and_follow_dark_mode() -> None:
    text = webpage.page("<b>title", "<b>subtitle", "<p>body</p>", ".own { color: var(--ink); }")
    assert "width=device-width" in text
    assert "@media (prefers-color-scheme: dark)" in text
    light, dark = (
        dict(re.findall(r"(--[a-z]+): (#[0-9a-f]+)", part))
        for part in text.partition("prefers-color-scheme: dark")[::2]
    )
    assert light.keys() == dark.keys()
    # Colours outside the variables would not follow.
    rest = text.partition("* { box-sizing")[2]
    assert not re.search(r"#[0-9a-f]{3,6}\b", rest)
    assert set(re.findall(r"var\((--[a-z]+)\)", rest)) <= light.keys()
    assert "&lt;b&gt;title" in text
    assert "<b>" not in text
    assert not re.search(r"#[0-9a-f]{3,6}\b", parts.STYLE)
    assert set(re.findall(r"var\((--[a-z]+)\)", parts.STYLE)) <= light.keys()


def test_every_text_of_a_part_is_escaped() -> None:
    hostile = '<script>alert(1)</script>&"'
    made = [
        parts.figures([(hostile, hostile)]),
        parts.section(hostile, "<p></p>"),
        parts.quiet(hostile),
        parts.chart(hostile, "<svg></svg>"),
        parts.table((hostile, "#number"), [(hostile, hostile)]),
        parts.about([(hostile, hostile)]),
    ]
    for html in made:
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert '&"' not in html


def test_parts_without_content_are_nothing() -> None:
    assert parts.table(("head",), []) == parts.section("heading", "") == parts.quiet("") == ""
    assert parts.beside("", "") == ""
