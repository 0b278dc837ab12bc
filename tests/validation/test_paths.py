"""`~` in the settings that name files: one rule for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from score.__main__ import main
from score.errors import SettingError
from score.fetch.fetcher import Fetcher
from score.serve.access import access_of
from score.serve.tls import tls_of
from score.settings import Settings
from score.storage import cache
from score.validation.paths import path_of
from tests.support.hostile import Authority

HOMELESS = "~nobody-of-this-name/x"


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("SCORE_CACHE", "~/x") == cache.location("~/x") == tmp_path / "x"
    assert path_of("SCORE_CACHE", "a~/x") == Path("a~/x")


@pytest.mark.parametrize("homeless", [HOMELESS, "~/x"])
def test_no_home_folder_is_an_error_of_files(
    homeless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(OSError, match=f"no home folder for {homeless}; SCORE_CACHE can name"):
        path_of("SCORE_CACHE", homeless)


def test_certificates_to_trust_may_be_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = Authority(tmp_path).file
    monkeypatch.setenv("HOME", str(bundle.parent))
    Fetcher(Settings(ca_bundle=f"~/{bundle.name}"))
    with pytest.raises(SettingError, match=r"no home folder for ~nobody.*SCORE_CA_BUNDLE"):
        Fetcher(Settings(ca_bundle=HOMELESS))


def test_files_of_the_server() -> None:
    with pytest.raises(OSError, match=r"no home folder for ~nobody.*; --api-keys-file can name"):
        access_of("127.0.0.1", Settings(api_keys_file=HOMELESS))
    with pytest.raises(OSError, match=r"no home folder for ~nobody.*; --tls-cert can name"):
        tls_of(Settings(tls_cert=HOMELESS, tls_key=HOMELESS))


@pytest.mark.parametrize("arguments", [["list", "--file", HOMELESS], ["list"]])
def test_a_command_says_it_in_a_sentence(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCORE_API_KEYS_FILE", HOMELESS)
    assert main(["key", *arguments]) == 2
    setting = "--file" if "--file" in arguments else "SCORE_API_KEYS_FILE"
    said = f"score: no home folder for {HOMELESS}; {setting} can name another\n"
    assert capsys.readouterr().err == said
