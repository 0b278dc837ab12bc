"""Labels and URLs as names of folders and files: safe on any file system, and never shared."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from score.jobs import file_names

anything = st.text(max_size=300)
HOSTILE = [
    "../x",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "\x7f",
    "CON",
    "con",
    "con.txt",
    "CON .txt",
    "aux.",
    "LPT1",
    "com¹",
    "CONIN$",
    "nul.tar.gz",
    "dot.",
    "dots...",
    "space ",
    " space",
    ". .",
    " ",
    "",
    "\t",
    ".hidden",
    "~",
    "-rf",
    "a:b",
    'a*?<>|"',
    "con" + " " * 300 + "a",
    "con." + "x" * 300,
    "x" * 1000,
    "ä" * 1000,
    "🐈" * 200,
    "\ud83d",
    "\u2028",
    "\uffff",
    "labels.csv",
    "LABELS.CSV",
]


def assert_safe(name: str) -> None:
    assert 0 < len(name.encode()) <= 255
    assert not set(name) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cn", "Zl", "Zp") for c in name)
    assert name[0] not in ". "
    assert name[-1] not in ". "
    stem = name.partition(".")[0].rstrip().lower()
    assert stem not in {"con", "prn", "aux", "nul", "conin$", "conout$"}
    assert not (stem[:3] in {"com", "lpt"} and len(stem) == 4 and stem[3] in "0123456789¹²³")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_a_name_that_a_disk_takes(text: str, tmp_path: Path) -> None:
    name = file_names.safe(text)
    assert_safe(name)
    (tmp_path / name).mkdir()
    assert os.listdir(tmp_path) == [name]


@given(anything, st.integers(1, 255))
@example("con", 255)
@example("x.", 2)
@example("a .b", 3)
@example("CONx", 3)
@example("..x", 255)
@settings(max_examples=1000)
def test_any_text_is_a_safe_name(text: str, longest: int) -> None:
    name = file_names.safe(text, longest)
    assert len(name.encode()) <= max(longest, 1)
    if longest > 8:
        assert_safe(name)


@pytest.mark.parametrize("text", ["cat", "a cat", "Straße", "猫", "black & white", "v1.2", "👩‍🚀"])
def test_harmless_text_is_left_alone(text: str) -> None:
    assert file_names.safe(text) == text
    assert file_names.folders([text]) == {text: text}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("a/b", "a_b"),
        ("é", "e\u0301"),
        ("Straße", "STRASSE"),
        ("ﬁsh", "fish"),
        ("cat", "ca\u200bt"),
        ("cat", "cat."),
        ("i", "ı"),
        ("x" * 300, "x" * 301),
        ("", " "),
        ("..", "."),
        ("con", "CON"),
        ("ſ", "s"),
        ("ẞ", "ß"),
        ("𝐀", "a"),
    ],
)
def test_labels_that_a_disk_may_take_for_one_get_two_folders(one: str, other: str) -> None:
    chosen = file_names.folders([one, other])
    assert list(chosen) == [one, other]
    assert sum(name.endswith("-2") for name in chosen.values()) == 1
    assert_safe(chosen[one])
    assert_safe(chosen[other])


def test_a_label_keeps_its_own_name_before_a_neighbour_takes_it() -> None:
    assert file_names.folders(["a/b", "a_b"]) == {"a/b": "a_b-2", "a_b": "a_b"}
    assert file_names.folders(["A", "a", "a-2"]) == {"A": "A", "a": "a-2", "a-2": "a-2-2"}


def test_names_in_use_are_not_given_again() -> None:
    assert file_names.folders(["Labels.CSV", "cat"], taken=["labels.csv"]) == {
        "Labels.CSV": "Labels.CSV-2",
        "cat": "cat",
    }


@given(st.lists(anything | st.sampled_from(HOSTILE), unique=True, max_size=60))
@settings(max_examples=300)
def test_folders_are_safe_and_distinct(labels: list[str]) -> None:
    chosen = file_names.folders(labels, taken=["labels.csv"])
    assert list(chosen) == labels
    assert (
        len({file_names.same(name) for name in chosen.values()} | {"labels.csv"}) == len(labels) + 1
    )
    for name in chosen.values():
        assert_safe(name)


def test_two_thousand_labels_that_collide() -> None:
    labels = ["x" * 300 + str(number) for number in range(2000)]
    chosen = file_names.folders(labels)
    assert len(set(chosen.values())) == 2000
    assert max(len(name) for name in chosen.values()) == 254


def test_a_free_name_is_found_in_few_looks() -> None:
    used: set[str] = set()
    looks = 0

    def taken(name: str) -> bool:
        nonlocal looks
        looks += 1
        return name in used

    for _ in range(3000):
        used.add(file_names.first_free("image", taken, ".jpg"))
    assert used == {"image.jpg", *(f"image-{number}.jpg" for number in range(2, 3001))}
    assert looks < 3000 * 26


@given(st.sets(st.integers(1, 40)))
def test_gaps_do_not_matter(numbers: set[int]) -> None:
    used = {"a.png" if number == 1 else f"a-{number}.png" for number in numbers}
    assert file_names.first_free("a", used.__contains__, ".png") not in used
