"""Images that their server forbids to robots are refused, where a deployment asks for that."""

from __future__ import annotations

import urllib.parse

import pytest

from score.errors import FetchFailed
from score.fetch import robots_tag
from score.fetch.fetcher import Fetcher
from score.settings import USER_AGENT, Settings
from tests.support.hostile import PNG, Server

OURS = robots_tag.names(USER_AGENT)


@pytest.mark.parametrize(
    ("headers", "directive"),
    [
        (["noai"], "noai"),
        (["noimageai"], "noimageai"),
        (["noindex"], "noindex"),
        (["noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["NoAI"], "noai"),
        (["nofollow,  \tnoai ,noarchive"], "noai"),
        (["nofollow", "noarchive, noindex"], "noindex"),
        (["clip-endpoints: noai"], "noai"),
        (["Clip-Endpoints : NoAI"], "noai"),
        (["*: noindex"], "noindex"),
        (["robots: noindex"], "noindex"),
        (["otherbot: noindex", "noai"], "noai"),
        (["otherbot: noindex, clip-endpoints: nofollow, noai"], "noai"),
        (["noai, otherbot: nofollow"], "noai"),
        (["otherbot: noindex, clip-endpoints: max-snippet: 5, noai"], "noai"),
        (["clip-endpoints: unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["unavailable_after: Friday, 25-Jun-30 15:00:00 PST, noindex"], "noindex"),
        (["max-snippet: 20, noindex"], "noindex"),
        ([",,;,", "", ":", "noindex"], "noindex"),
    ],
)
def test_directives_that_forbid(headers: list[str], directive: str) -> None:
    assert robots_tag.forbidding(headers, OURS) == directive


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [":", "::", ",:,", ": noai:"],
        ["all"],
        ["nofollow, noarchive, nosnippet"],
        ["index, follow"],
        ["otherbot: noindex, noai"],
        ["otherbot: nofollow, thirdbot: none"],
        ["otherbot: max-snippet: 5, noindex"],
        ["otherbot: unavailable_after: Friday, 25-Jun-30 15:00:00 PST, noindex"],
        ["unavailable_after: none"],
        ["clip-endpoints: max-image-preview: none"],
        ["max-image-preview: none"],
        ["noaix, xnoai, no ai, noindex=1"],
        ["clip-endpoints-2: noai"],
        ["x" * 100_000, "," * 100_000, ":" * 100_000],
    ],
)
def test_headers_that_do_not(headers: list[str]) -> None:
    assert robots_tag.forbidding(headers, OURS) is None


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("my-project/1.0 (https://example.org/robot)", "my-project"),
        ("MyBot", "mybot"),
        ("MyBot (contact)", "mybot"),
        ("Mozilla/5.0 (compatible; MyBot/2.1; +https://example.org/)", "mybot"),
    ],
)
def test_the_names_are_those_of_the_user_agent(agent: str, name: str) -> None:
    assert robots_tag.forbidding([f"{name}: noai"], robots_tag.names(agent)) == "noai"
    assert robots_tag.forbidding(["otherbot: noai"], robots_tag.names(agent)) is None


def tagged(server: Server, *tags: str, status: int = 200) -> str:
    return server.url(f"/tagged.png?status={status}&tags={urllib.parse.quote('|'.join(tags))}")


def fetcher(**changes: object) -> Fetcher:
    return Fetcher(Settings(**{"allow_hosts": ("127.0.0.1",), "retry_wait": 0.01, **changes}))


def test_a_forbidden_image_is_refused_once(server: Server, monkeypatch) -> None:
    """Its body is not even reserved memory for, and nothing is tried again."""
    fetching = fetcher(respect_robots_tag=True)
    monkeypatch.setattr(fetching._budget, "reserve", lambda *_: pytest.fail("the body is read"))
    with pytest.raises(FetchFailed) as caught:
        fetching.fetch(tagged(server, "nofollow", "otherbot: none", "NoAI"))
    assert not caught.value.retryable
    assert "its X-Robots-Tag says noai" in caught.value.message
    assert "respect_robots_tag" in caught.value.message
    assert server.requests["/tagged.png"] == 1


def test_other_tags_forbid_nothing(server: Server) -> None:
    fetching = fetcher(respect_robots_tag=True)
    assert fetching.fetch(tagged(server, "nofollow", "otherbot: noai")) == PNG


def test_the_name_is_that_of_the_setting(server: Server) -> None:
    url = tagged(server, "mybot: noai")
    assert fetcher(respect_robots_tag=True).fetch(url) == PNG
    with pytest.raises(FetchFailed, match="says noai"):
        fetcher(respect_robots_tag=True, user_agent="MyBot/1.0").fetch(url)


def test_by_default_they_are_not_looked_at(server: Server) -> None:
    assert fetcher().fetch(tagged(server, "noai")) == PNG


def test_only_the_answer_with_the_image_is_looked_at(server: Server) -> None:
    """Link shorteners keep their own links out of indexes; a 404 says more than its tag."""
    fetching = fetcher(respect_robots_tag=True)
    assert fetching.fetch(tagged(server, "noindex", status=302)) == PNG
    with pytest.raises(FetchFailed, match="404"):
        fetching.fetch(tagged(server, "noindex", status=404))
