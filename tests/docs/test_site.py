"""The documentation site builds without a warning, and every link in it and in the READMEs leads
somewhere. Nothing in it is fetched from elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.support import pages
from tests.support.pages import ROOT
from tests.support.surfaces import BIN

MARKDOWN = [*pages.pages(), ROOT / "CHANGELOG.md", ROOT / "samples/photos/README.md"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = len([one for one in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one)])
        found.add(f"{slug}-{again}" if again else slug)
    return found


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_no_two_headings_of_a_page_are_equal(page: Path) -> None:
    """A link to the second would lead to the first."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert len({*headings}) == len(headings), sorted(headings)


@pytest.mark.parametrize("page", MARKDOWN, ids=pages.name)
def test_every_link_resolves_in_the_repository(page: Path) -> None:
    text = re.sub(
        r"`([^`\n]*)`", r"\1", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    )
    for link in _LINK.findall(text):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. MkDocs is strict: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [BIN / "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not built.stderr
    return folder


class _Page(HTMLParser):
    """The ids of a page, where its links lead, and what a browser fetches to show it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link":
            self.fetched.append(values["href"])
        if "src" in values:
            self.fetched.append(values["src"])


@pytest.mark.process
def test_every_link_of_the_site_resolves(site: Path) -> None:
    files = {file: _Page(file) for file in site.rglob("*.html")}
    assert len(files) >= 25
    count = 0
    for file, page in files.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme in ("https", "mailto"):
                continue
            assert not url.scheme, link
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{file.relative_to(site)}: {link}"
            if url.fragment and target.suffix == ".html":
                count += 1
                assert unquote(url.fragment) in files[target].ids, f"{file.name}: {link}"
    assert count > 200


@pytest.mark.process
def test_the_site_works_below_any_path(site: Path) -> None:
    """Scripts find files by `base`; links and what pages fetch are relative, as tested elsewhere. A
    404.html cannot be: servers show it at any depth."""
    for file in site.rglob("*.html"):
        assert '"base": "."' in (text := file.read_text(encoding="utf-8")) or '"base": ".."' in text
    assert not (site / "404.html").exists()


@pytest.mark.process
def test_every_block_is_shown_as_code(site: Path) -> None:
    """A fence that MkDocs does not understand is shown as text."""
    for file in site.rglob("*.html"):
        article = re.sub(r"<pre.*?</pre>", "", file.read_text(encoding="utf-8"), flags=re.S)
        assert "```" not in article, file.name


@pytest.mark.process
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        for address in _Page(file).fetched:
            assert not re.match(r"https?:|/", address), f"{file.name}: {address}"
    for file in site.rglob("*.css"):
        assert not re.search(r"@import|url\((?![\"']?(data:|\.|#))", file.read_text()), file.name


def test_every_page_is_in_the_navigation() -> None:
    """MkDocs warns of a page of `docs/` that is not; here also of those beside it."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed)) >= 25
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in listed:
        if (ROOT / "docs" / page).exists() and page != "index.md":
            assert f"(docs/{page})" in readme, f"README does not link to {page}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 9 * 1024


@pytest.mark.process
def test_the_tools_configuration_is_sound() -> None:
    workflow = ROOT / ".github/workflows/ci.yml"
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert ".ci/run" in workflow.read_text(encoding="utf-8")
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # nothing is downloaded
    entries = [hook["entry"] for hook in local["hooks"]]
    assert [entry.split()[0] for entry in entries] == ["ruff", "ruff", "mypy"]
    for entry in entries:
        program, *options = entry.split()
        asked = subprocess.run([BIN / program, *options, "--help"], capture_output=True)
        assert asked.returncode == 0, entry


def test_development_brings_what_builds_the_site() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = extras["optional-dependencies"]
    assert any(name.startswith("mkdocs-material") for name in optional["docs"])
    assert re.search(r"[\[,]docs[\],]", optional["dev"][0])
