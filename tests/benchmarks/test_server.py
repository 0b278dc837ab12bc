"""The benchmarks of the server: each part runs, and finds what it is there to find.

Seconds and counts are small and the model is the embedded one: no figure is looked at.
"""

from __future__ import annotations

import http.server
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import fixtures
from benchmarks.server import (
    beside,
    clients,
    killing,
    overload,
    poison,
    rates,
    slow_clients,
    soak,
    stopping,
    vectors,
    watch,
)
from benchmarks.server.bad_requests import Case, cases
from benchmarks.server.clients import CUT, REFUSED, UNSENT, Answer, Load, Stream, summary
from benchmarks.server.context import Context, Report
from benchmarks.server.servers import ROOT
from score.deploy.simulate.ports import free_port
from score.folder.model_folder import EMBEDDED

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# -- the load ----------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A server that does this for each request; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.process
def test_answers_of_all_statuses_are_counted_and_none_ends_the_load() -> None:
    statuses = iter([200, 429, 503, 500, 404, *[200] * 5])

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        status = next(statuses)
        reply(handler, status, b"%d" % status, **({"Retry_After": "1"} if status == 429 else {}))

    with answering(answer) as port:
        (answers,) = clients.send([Stream(port, [REQUEST], most=10, keep=1)])
    assert [answer.status for answer in answers] == [200, 429, 503, 500, 404, *[200] * 5]
    assert [answer.body for answer in answers[:2]] == [b"200", b"429"]
    assert [answer.retry_after for answer in answers[:3]] == [False, True, False]
    assert len({answer.client for answer in answers}) == 1  # one connection for all


@pytest.mark.process
def test_connections_that_end_are_made_anew() -> None:
    turn = iter(range(100))

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        number = next(turn)
        if number == 0:
            reply(handler, 200, Connection="close")
            handler.close_connection = True
        elif number == 1:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            handler.close_connection = True
        elif number == 2:
            handler.close_connection = True
        else:
            reply(handler, 200)

    with answering(answer) as port:
        (answers,) = clients.send([Stream(port, [REQUEST], most=5)])
    assert [answer.status or answer.fault for answer in answers] == [200, CUT, CUT, 200, 200]
    assert len({answer.client for answer in answers}) == 4


@pytest.mark.process
def test_a_stream_ends_when_nobody_listens() -> None:
    (answers,) = clients.send([Stream(free_port(), [REQUEST], 2, seconds=60, until_refused=True)])
    assert {answer.fault for answer in answers} == {REFUSED}


@pytest.mark.process
def test_an_open_stream_does_not_wait_for_answers() -> None:
    held = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        held.wait(60)
        reply(handler, 200)

    def release() -> None:
        time.sleep(0.5)
        held.set()

    with answering(answer) as port:
        threading.Thread(target=release).start()
        (answers,) = clients.send([Stream(port, [REQUEST], 3, rate=100, most=3, seconds=0.2)])
    faults = [answer.fault for answer in answers]
    assert faults.count("") == 3  # as many as it has connections
    assert set(faults[:-3]) == {UNSENT}


@pytest.mark.process
def test_streams_go_on_until_all_have_sent_their_share() -> None:
    with answering(lambda handler: reply(handler, 200)) as port:
        few, many = clients.send(
            [Stream(port, [REQUEST], most=1), Stream(port, [REQUEST, REQUEST], most=50)]
        )
    assert len(many) >= 50
    assert few[-1].ended > many[20].ended
    assert {answer.request for answer in many} == {0, 1}


def answered(seconds: float, ended: float, status: int = 200) -> Answer:
    return Answer(0, ended - seconds, ended, status)


def test_a_summary_is_of_the_answers_200_of_its_time() -> None:
    answers = [answered(0.1, 1), answered(0.2, 2), answered(9, 2, 429), answered(0.3, 5)]
    assert summary(answers, 1, 3) == pytest.approx((1.0, 200, 200, 200))
    assert math.isnan(summary(answers, 6, 7).p50)


def test_recovery_is_when_a_window_of_answers_takes_no_longer_than_wanted() -> None:
    slow = [answered(2.0, 10 + number / 10) for number in range(20)]
    quick = [answered(0.01, 12 + number / 10) for number in range(20)]
    assert overload.recovery([*slow, *quick], 10.0, 0.1) == pytest.approx(1.5, abs=0.6)
    assert math.isnan(overload.recovery(slow, 10.0, 0.1))


# -- what is judged ----------------------------------------------------------------------------


def test_vectors_that_differ_are_found() -> None:
    one = vectors.of(b'[{"image_features": [1, 2]}, {"error": {}}, {"text_features": [4, 8]}]')
    other = vectors.of(b'[{"image_features": [1, 2]}, {"text_features": [4, 7]}]')
    assert vectors.difference(one, other) == 0.125
    assert vectors.difference(one, other[:1]) == math.inf


def test_bad_requests_are_judged_by_status_code_and_neighbours() -> None:
    row, text = b'{"text_features": [1, 2]}', b'{"error": {"code": "bad_type"}}'
    body = b"[" + row + b", " + text + b", " + row + b"]"
    case = Case("a case", b"", frozenset({200}), frozenset({"bad_type"}))
    alone = vectors.of(b"[" + row + b", " + row + b"]")
    for change, said in (
        ((b"", b""), ""),
        ((b"bad_type", b"bad_url"), "its code is bad_url"),
        ((b"[1, 2]", b"[1, 3]"), "the vectors beside it differ"),
        ((text, b'"Traceback"'), "200"),
    ):
        judged = poison._Judged(1e-5)
        judged.bad(Answer(0, 0, 1, 200, body=body.replace(*change)), case, alone)
        assert [said in fault for fault in judged.faults] == [True] * bool(said)
    judged.bad(Answer(0, 0, 1, 500), case, alone)
    judged.good(Answer(0, 0, 1, 0, CUT), alone)
    judged.good(Answer(0, 0, 1, 200, body=b"[" + row + b"]"), alone)
    assert (len(judged.faults), judged.wrong) == (4, 2)


def test_of_silent_servers_inside_clients_may_be_told_less() -> None:
    between = [case for case in cases({"{mute}": "http://127.0.0.1:1"}) if "{mute}" in case.name]
    assert {"fetch_failed", "fetch_timeout"} in [case.codes for case in between]


def test_growth_is_from_after_the_warm_up() -> None:
    assert soak.grown([1.0] * soak.WARM_UP + [100.0] * 13 + [110.0] * 3) == pytest.approx(10)


def test_what_a_process_holds() -> None:
    before = watch.sample(os.getpid())
    with (ROOT / "README.md").open():
        assert watch.sample(os.getpid()).files > before.files
    assert before.memory > 2**20


# -- the parts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    with clients.load() as load:
        yield load


@pytest.fixture(scope="module")
def context(load: Load) -> Iterator[Context]:
    with fixtures.image_server(thumbnails=True) as urls:
        environment = {"SCORE_ALLOW_HOSTS": fixtures.HERE}
        yield Context(EMBEDDED, environment, load, urls, seconds=0.5)


def checked(report: Report) -> Report:
    """A report without faults, whose table has its lines."""
    assert not report.faults
    assert report.table().count("\n|") == len(report.lines) + 1
    return report


@pytest.mark.process
@pytest.mark.slow
def test_rates(context: Context) -> None:
    lines = checked(rates.measure(context, [2], ["base64"], {"now": ROOT}, count=64)).lines
    assert [line["rows"] for line in lines] == ["base64"]
    assert all(line["rows/s"] > 0 and line["offline rows/s"] > 0 for line in lines)


@pytest.mark.process
@pytest.mark.slow
def test_beside_azures_server(context: Context) -> None:
    lines = checked(beside.measure(context, 2, ["texts"], count=64)).lines
    assert [line["server"] for line in lines] == [beside.OWN, beside.ENTRY, beside.WRAPPER]
    assert all(line["rows/s"] > 0 for line in lines)


@pytest.mark.process
@pytest.mark.slow
def test_overload(context: Context) -> None:
    lines = checked(overload.measure(context, count=64)).lines
    assert [line["load"] for line in lines] == ["half", "overload", "after"]


@pytest.mark.process
@pytest.mark.slow
def test_poison(context: Context) -> None:
    (line,) = checked(poison.measure(context, 60, every=25)).lines
    assert line["good requests"] > line["bad cases"] > 5


@pytest.mark.process
@pytest.mark.slow
def test_slow_clients(context: Context) -> None:
    lines = checked(slow_clients.measure(context, count=64)).lines
    assert all(line["rows/s"] > 0 for line in lines)


@pytest.mark.process
@pytest.mark.slow
def test_soak(context: Context) -> None:
    lines = soak.measure(context, minutes=0.05, slices=6).lines  # too short to look at its growth
    assert len(lines) == 6
    assert all(line["2xx"] and line["4xx"] for line in lines)


@pytest.mark.process
@pytest.mark.slow
def test_stopping(context: Context) -> None:
    (line,) = checked(stopping.measure(context, 1, count=64)).lines
    assert line["answered before"] > 0


@pytest.mark.process
@pytest.mark.slow
def test_killing(context: Context) -> None:
    (line,) = checked(killing.measure(context, 1, count=64)).lines
    assert line["connections of the killed"] >= line["failed of them"]
