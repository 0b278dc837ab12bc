"""MkDocs hook: links in pages work on GitHub and on the site alike, wherever the site is.

Pages link to files of the repository by relative paths. READMEs outside `docs/` become pages of the
site. Other linked files are copied into it, below `repository/`; folders and further READMEs are
only named.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "benchmarks.md",
    "components/README.md": "components.md",
    "model/README.md": "embedded-model.md",
}
"""Files outside `docs/` that are pages: path in the repository → path in the site."""

_SOURCES = {page: file for file, page in PAGES.items()}
# A fenced block, which is left alone, or a link: its text, its path, its anchor.
_LINK = re.compile(
    r"^```.*?^```$|\[(?P<text>[^\]\[]*)\]\((?!https?:|mailto:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)


def on_config(config: MkDocsConfig) -> None:
    """Leaves out the theme's 404.html: a server shows it at any depth, where relative links lead
    nowhere, and links from the root work only where the site is at the root."""
    config.theme.static_templates.discard("404.html")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages whose files are outside `docs/`."""
    for file, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points the links of a page at the site's own files."""
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        if match["path"] is None:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        inside = _inside(target, config, files)
        if inside is None:
            return match["text"]
        relative = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{match['text']}]({relative}{match['anchor'] or ''})"

    return _LINK.sub(link, markdown)


def _inside(target: str, config: MkDocsConfig, files: Files) -> str | None:
    """The path in the site of a file of the repository; None for what is only named there."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if (ROOT / target).is_dir() or target.endswith(".md"):
        return None
    copy = f"repository/{target}"
    if files.get_file_from_path(copy) is None:
        files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
    return copy
