"""The documentation's pages and the code blocks in them.

A block after `<!-- not run: KIND … -->` is not run by the tests, for a reason in KINDS. A block
after `<!-- run by the tests of Spark -->` is run there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

KINDS = {
    "Azure": "needs a subscription or an endpoint",
    "Docker": "needs a Docker engine",
    "hours": "takes far longer than a test may",
    "installs": "installs packages",
    "network": "downloads from the Hub",
    "placeholder": "names files that the reader has",
}
"""The reasons for which a block may not be run, by their first word."""

LANGUAGES = {"sh", "python", "json", "yaml", "text"}

# A comment on the line before it, if there is one, the language, the content.
_FENCE = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]+?) -->\n)?"
    r"```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_REASON = re.compile(r"not run: (.+)")
_SPARK = "run by the tests of Spark"
_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True)
class Block:
    """A fenced block. `reason`: why it is not run, or empty."""

    language: str
    text: str
    reason: str = ""
    is_sparks: bool = False

    @property
    def is_run(self) -> bool:
        """Whether the documentation's tests run it."""
        return self.language in ("sh", "python") and not self.reason and not self.is_sparks

    @property
    def commands(self) -> list[str]:
        """A shell block's lines, without comments."""
        return _COMMENT.sub("", self.text).splitlines() if self.language == "sh" else []


def pages() -> list[Path]:
    """README, the other pages in the repository, and all of `docs/`."""
    beside = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
    further = ("components/README.md", "model/README.md")
    return [*(ROOT / name for name in (*beside, *further)), *sorted(ROOT.glob("docs/**/*.md"))]


def name(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """A page's fenced blocks, from top to bottom."""
    listed = []
    for fence in _FENCE.finditer(page.read_text(encoding="utf-8")):
        reason = _REASON.fullmatch(fence["comment"] or "")
        listed.append(
            Block(
                fence["language"],
                fence["text"],
                reason[1] if reason else "",
                fence["comment"] == _SPARK,
            )
        )
    return listed
