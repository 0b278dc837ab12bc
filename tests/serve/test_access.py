"""Who may use the server: with keys, without them, from web pages. On real sockets, before an
application that answers at once."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from score.__main__ import main
from score.core.embedder import Embedder
from score.errors import RequestError
from score.serve import keys
from score.serve.access import Access, access_of, protected
from score.settings import Settings
from tests.support.asgi import listening
from tests.support.surfaces import OwnServer

PAGE = "https://app.example"
BODY = b'{"input_data": {"columns": ["text"], "data": [["a cat"]]}}'


class Application:
    """Answers `reached`, and counts the bytes of bodies that it is given."""

    def __init__(self) -> None:
        self.read = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            more = True
            while more:
                message = await receive()
                self.read += len(message.get("body", b""))
                more = message.get("more_body", False)
            await Response(b"reached")(scope, receive, send)


@contextmanager
def running(access: Access, application: Any = None) -> Iterator[tuple[str, int]]:
    """A server in a thread; its address."""
    with listening(protected(application or Application(), access)) as address:
        yield address


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of keys, and a key of it."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    return file, keys.new(file, "web")


@pytest.fixture(scope="module")
def locked(ring: tuple[Path, str]) -> Iterator[str]:
    """The URL of a server with keys."""
    with running(access_of("0.0.0.0", Settings(api_keys_file=str(ring[0])))) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture(scope="module")
def local() -> Iterator[str]:
    """The URL of a server without keys, for this machine only."""
    with running(access_of("127.0.0.1", Settings())) as (host, port):
        yield f"http://{host}:{port}"


def raw(url: str, request: str) -> str:
    """The beginning of the answer to what is sent as it is; then the connection is closed."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(request.encode())
        return sock.recv(65536).decode()


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Authorization", "Bearer {}"),
        ("authorization", "bearer   {}"),
        ("api-key", "{}"),
        ("X-API-Key", "{} "),
    ],
)
def test_a_key_may_be_in_any_of_three_headers(
    name: str, form: str, locked: str, ring: tuple[Path, str]
) -> None:
    answer = requests.post(f"{locked}/score", headers={name: form.format(ring[1])}, timeout=10)
    assert (answer.status_code, answer.text) == (200, "reached")


def test_a_placeholder_beside_a_key_does_no_harm(locked: str, ring: tuple[Path, str]) -> None:
    headers = {"Authorization": "Bearer EMPTY", "x-api-key": ring[1]}
    assert requests.post(f"{locked}/score", headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer clip_wrong"},
        {"Authorization": "Basic {}"},
        {"Authorization": "{}"},
        {"api-key": "Bearer {}"},
        {"api-key": "{}x"},
        {"api-key": "{}, {}"},
        {"api-key": "\xff"},
        {"Cookie": "api-key={}"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_a_request_without_a_valid_key_is_refused(
    headers: dict[str, str], locked: str, ring: tuple[Path, str]
) -> None:
    filled = {name: value.replace("{}", ring[1]) for name, value in headers.items()}
    encoded = {name: value.encode("latin-1") for name, value in filled.items()}
    answer = requests.post(f"{locked}/score", BODY, headers=encoded, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert (error["code"], error["rows"]) == ("unauthorized", [])
    assert ring[1] not in answer.text
    assert "wrong" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ping", 200),
        ("HEAD", "/ping", 200),
        ("GET", "/", 200),
        ("GET", "/page/page.js", 200),
        ("HEAD", "/page/page.css", 200),
        ("GET", "/page/other.js", 401),
        ("GET", "/health", 200),
        ("GET", "/health/live", 200),
        ("POST", "/ping", 401),
        ("POST", "/", 401),
        ("POST", "/health/live", 401),
        ("GET", "/metrics", 401),
        ("GET", "/score", 401),
        ("OPTIONS", "/score", 401),
        ("GET", "/healthy", 401),
        ("GET", "/pings", 401),
        ("GET", "//ping", 401),
        ("GET", "/v1/models", 401),
    ],
)
def test_health_checks_and_the_page_alone_are_open(
    method: str, path: str, status: int, locked: str
) -> None:
    assert requests.request(method, locked + path, timeout=10).status_code == status


def test_a_key_in_the_url_is_none(locked: str, ring: tuple[Path, str]) -> None:
    answer = requests.post(f"{locked}/score?api-key={ring[1]}", timeout=10)
    assert answer.status_code == 401


def test_a_body_is_not_read_before_the_key_is_checked(ring: tuple[Path, str]) -> None:
    """The answer comes while the client still sends, and a client that waits is not told to."""
    application = Application()
    access = access_of("127.0.0.1", Settings(api_keys_file=str(ring[0])))
    with running(access, application) as (host, port):
        head = "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        assert " 401 " in raw(f"http://{host}:{port}", f"{head}\r\n{{").splitlines()[0]
        waits = f"{head}Expect: 100-continue\r\n\r\n"
        assert raw(f"http://{host}:{port}", waits).startswith("HTTP/1.1 401 ")
        assert application.read == 0


def test_a_client_that_sends_a_large_body_with_a_wrong_key_is_told_so(locked: str) -> None:
    """It sees the 401, not a connection that breaks while it sends."""
    for body in (b" " * 5_000_000, (b" " * 100_000 for _ in range(50))):
        answer = requests.post(f"{locked}/score", body, headers={"api-key": "x"}, timeout=60)
        assert answer.status_code == 401


def test_a_revoked_key_is_refused_and_a_new_one_taken_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = keys.new(file, "old")
    with running(access_of("127.0.0.1", Settings(api_keys_file=str(file)))) as (host, port):

        def status(key: str) -> int:
            url = f"http://{host}:{port}/score"
            return requests.post(url, headers={"api-key": key}, timeout=10).status_code

        assert status(old) == 200
        keys.revoke(file, "old")
        new = keys.new(file, "new")
        give_up = time.monotonic() + 30
        while status(old) == 200 and time.monotonic() < give_up:
            time.sleep(0.05)
        assert (status(old), status(new)) == (401, 200)


def test_over_its_rate_a_key_is_told_when_to_come_back(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    slow, free = keys.new(file, "slow", per_minute=2), keys.new(file, "free")
    with running(access_of("127.0.0.1", Settings(api_keys_file=str(file)))) as (host, port):
        url = f"http://{host}:{port}/score"
        answers = [requests.post(url, headers={"api-key": slow}, timeout=10) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limited"
        assert 1 <= int(answers[2].headers["Retry-After"]) <= 30
        assert requests.post(url, headers={"api-key": free}, timeout=10).status_code == 200


def test_a_refusal_has_the_shape_of_its_path_s_dialect(ring: tuple[Path, str]) -> None:
    access = access_of("127.0.0.1", Settings(api_keys_file=str(ring[0])))
    with running(access) as (host, port):
        answer = requests.post(f"http://{host}:{port}/v1/embeddings", timeout=10)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert error["code"] == "unauthorized"


# -- without keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1:1", "[::1]", "127.0.0.2"])
def test_programs_of_this_machine_may_use_a_local_server(host: str, local: str) -> None:
    answer = requests.post(f"{local}/score", headers={"Host": host}, timeout=10)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:5001", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("192.168.0.1", "0.0.0.0", "[::]", "[::1", "localhost@evil.example", "evil.example/@"),
        *("localhost/", "x localhost", ""),
    ],
)
def test_a_name_that_was_pointed_here_is_refused(host: str, local: str) -> None:
    """DNS rebinding: the browser sends the page's own name."""
    request = f"GET /ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert re.match(r"HTTP/1.1 4(21|00) ", raw(local, request))
    assert "reached" not in raw(local, request)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", ""]
)
def test_a_page_of_another_site_is_refused(origin: str, local: str) -> None:
    answer = requests.post(f"{local}/score", BODY, headers={"Origin": origin}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")


def test_the_servers_own_page_is_not(local: str) -> None:
    assert requests.post(f"{local}/score", headers={"Origin": local}, timeout=10).ok


def test_a_request_without_host_is_refused(local: str) -> None:
    assert raw(local, "GET /ping HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 421 ")


def test_with_keys_or_in_a_closed_network_any_name_will_do(ring: tuple[Path, str]) -> None:
    closed = access_of("0.0.0.0", Settings(), without_keys=True)
    keyed = access_of("127.0.0.1", Settings(api_keys_file=str(ring[0])))
    for access in (closed, keyed):
        headers = {"Host": "clip.example", "Origin": PAGE, "api-key": ring[1]}
        with running(access) as (host, port):
            assert requests.post(f"http://{host}:{port}/score", headers=headers, timeout=10).ok


# -- CORS --------------------------------------------------------------------------------------

PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-api-key,x-request-id,"
    "x-request-timeout,traceparent,tracestate",
}


def test_without_the_setting_no_page_is_let_in(locked: str, ring: tuple[Path, str]) -> None:
    assert requests.options(f"{locked}/score", headers=PREFLIGHT, timeout=10).status_code == 401
    headers = {"Origin": PAGE, "api-key": ring[1]}
    answer = requests.post(f"{locked}/score", headers=headers, timeout=10)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("origin", [PAGE, "*"])
@pytest.mark.parametrize("is_keyed", [True, False])
def test_a_page_that_is_allowed_is_let_in(
    origin: str, is_keyed: bool, ring: tuple[Path, str]
) -> None:
    file = str(ring[0]) if is_keyed else ""
    access = access_of("127.0.0.1", Settings(api_keys_file=file, cors_origin=(origin,)))
    with running(access) as (host, port):
        url = f"http://{host}:{port}/score"
        preflight = requests.options(url, headers=PREFLIGHT, timeout=10)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert "x-api-key" in preflight.headers["Access-Control-Allow-Headers"].lower()
        answer = requests.post(url, headers={"Origin": PAGE, "api-key": ring[1]}, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"].lower()
        refused = requests.post(url, headers={"Origin": PAGE}, timeout=10)
        assert refused.status_code == (401 if is_keyed else 200)  # which the page can read
        assert refused.headers["Access-Control-Allow-Origin"] == origin


def test_another_page_is_not(ring: tuple[Path, str]) -> None:
    access = access_of("127.0.0.1", Settings(api_keys_file=str(ring[0]), cors_origin=(PAGE,)))
    with running(access) as (host, port):
        headers = {**PREFLIGHT, "Origin": "https://evil.example"}
        answer = requests.options(f"http://{host}:{port}/score", headers=headers, timeout=10)
    assert answer.status_code == 400
    assert "Access-Control-Allow-Origin" not in answer.headers


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "other machines reach 0.0.0.0, and no keys are set: pass --api-k"),
        (["--host", "0.0.0.0"], "`score key new NAME --file FILE`"),
        (["--host", "0.0.0.0"], "--without-keys where the network or the platform"),
        (["--host", ""], "other machines reach 0.0.0.0"),
        (["--host", "::"], "other machines reach ::"),
        (["--api-keys-file", "gone.json"], "no file of keys at gone.json"),
        (["--api-keys-file", "k.json", "--without-keys"], "--without-keys contradicts"),
        (["--cors-origin", "app.example"], "--cors-origin must be like https://app.example"),
    ],
)
def test_an_unsafe_start_is_refused_before_the_model_is_loaded(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["serve", "--port", str(port), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_what_protects_a_server_is_said(ring: tuple[Path, str]) -> None:
    keyed = access_of("0.0.0.0", Settings(api_keys_file=str(ring[0])))
    assert str(keyed) == f"requests need a key of {ring[0]}"
    assert "programs of this machine" in str(access_of("::1", Settings()))
    assert "whoever reaches" in str(access_of("10.0.0.1", Settings(), without_keys=True))


def test_an_address_of_this_machine_needs_no_keys() -> None:
    for address in ("127.0.0.1", "127.1.2.3", "::1"):
        assert access_of(address, Settings()).only_local
    for address in ("0.0.0.0", "::", "10.0.0.1", "169.254.1.1"):
        with pytest.raises(RequestError, match="no keys are set"):
            access_of(address, Settings())


@pytest.mark.process
@pytest.mark.slow
def test_keys_protect_the_real_server_and_stay_out_of_its_log(
    ring: tuple[Path, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    own = OwnServer(SCORE_API_KEYS_FILE=str(ring[0]), log=log)
    try:
        own.wait()
        assert own.post(BODY).status_code == 401
        wrong = {"Authorization": "Bearer clip_" + "w" * 43}
        assert requests.post(own.url, BODY, headers=wrong, timeout=60).status_code == 401
        right = {"Authorization": f"Bearer {ring[1]}"}
        answer = requests.post(own.url, BODY, headers=right, timeout=60)
        assert len(json.loads(answer.content)[0]["text_features"]) == 512
    finally:
        own.stop()
    written = log.read_text()
    assert f"requests need a key of {ring[0]}" in written
    assert ring[1] not in written
    assert "w" * 43 not in written
    assert "Traceback" not in written
