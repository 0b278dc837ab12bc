"""JSON bodies: the values of `json.loads`, and what reading them may cost."""

from __future__ import annotations

import json
import os
import signal
import time
import tracemalloc
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.contract import json_reader, wire
from score.contract.json_shape import DEEPEST
from score.contract.labels import Labels
from score.core import endpoint
from score.core.embedder import Embedder
from score.core.models import Models
from score.dialects import table
from score.dialects.base import Message
from score.errors import BadParams, RequestError, RequestTooLarge

MIB = 2**20
MOST = wire._BESIDE + wire.VALUES_PER_ROW  # values, of one row
_SMALLEST_PIECE = 13  # bytes: a pair of surrogates as escapes, and what follows it

_PIECES = (
    *('"', "\\", "\\u", "d83d", "dc00", "\\ud83d", "\\ude00", "\\n", "0", "1", "-", ".", "e", "E+"),
    *("[", "]", "{", "}", ",", ":", " ", "\n", "true", "null", "NaN", "Infinity", "😀", "é", "a"),
    *("\t", "\x01", '"a"', '"a":', '"b":', "\ufeff"),
)
_IN_STRINGS = ("\\ud83d", "\\ude00", "\\n", "\\\\", '\\"', "a", "😀", "é", "\\u0041", "x" * 20)
_texts = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)
_strings = st.lists(st.sampled_from(_IN_STRINGS), max_size=30).map(lambda x: f'"{"".join(x)}"')
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_dumped = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    *(_values, st.booleans(), st.sampled_from((None, 0, 200))),
)


def _outcome(read: Any, body: bytes) -> tuple[str, str]:
    """The kind of outcome, and the value; NaN is equal to itself as text."""
    try:
        return "value", repr(read(body))
    except RequestError:
        return "repeated", ""
    except ValueError:
        return "no JSON", ""


def _as_python(body: bytes) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            raise RequestError("repeated")
        return dict(pairs)

    return json.loads(body.decode("utf-8-sig"), object_pairs_hook=unique)


@settings(max_examples=500)
@given(text=_texts | _strings | _dumped, piece=st.integers(_SMALLEST_PIECE, 40))
def test_the_values_are_those_of_pythons_own_reader(text: str, piece: int) -> None:
    body = text.encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "_PIECE", piece)
        assert _outcome(lambda b: json_reader.read(b, 10_000), body) == _outcome(_as_python, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[1", "Expecting ',' delimiter: line 1 column 3 (char 2)"),
        (b"[1}", "Expecting ',' delimiter: line 1 column 3 (char 2)"),
        (b'{"a" 1}', "Expecting ':' delimiter: line 1 column 6 (char 5)"),
        ('{"é":\n "漢" 1}'.encode(), "Expecting ',' delimiter: line 2 column 6 (char 11)"),
        (b"[1] x", "Extra data: line 1 column 5 (char 4)"),
        (b'["a', "Unterminated string or invalid \\escape: line 1 column 2 (char 1)"),
        (b'["\x01"]', "Invalid control character at: line 1 column 3 (char 2)"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        wire.decode(body, 1)
    assert str(caught.value) == f"the body is not JSON: {message}"


@given(value=_values.filter(lambda value: "nan" not in repr(value)))
def test_each_value_is_counted(value: Any) -> None:
    body = json.dumps(value).encode()
    assert json_reader.read(body, _counted(value)) == value
    with pytest.raises(json_reader.TooManyValues):
        json_reader.read(body, _counted(value) - 1)


def _counted(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + (sum(map(_counted, inner)) if isinstance(value, (list, dict)) else 0)


def test_strings_hold_as_many_brackets_as_they_like() -> None:
    text = '[{,"' * 100_000
    assert wire.decode(json.dumps({"text": text}).encode(), 1) == {"text": text}


@pytest.mark.parametrize("unit", [b"[0],", b"[],", b"{},", b'{"a":[0]},', b'"ab",', b"1000,"])
def test_many_small_values_are_refused_before_they_are_made(unit: bytes) -> None:
    body = b"[" + unit * (4 * MIB // len(unit)) + b"0]"
    with pytest.raises(RequestTooLarge, match=f"more than {MOST:,} values"):
        wire.decode(body, 1)
    assert _peak(body, RequestTooLarge) < len(body), "they would take twenty times as much"


@pytest.mark.parametrize(
    ("body", "times"),
    [
        ('[{"text":"' + "a" * 16 * MIB + '"}]', 2.2),
        ('[{"text":"' + "\\n" * 8 * MIB + '"}]', 2.2),
        ("[" + ",".join([f'{{"text":"😀{"a" * 900_000}"}}'] * 16) + "]", 4.5),
        ("[" + ",".join([f'{{"text":"😀{"a" * 2_000}"}}'] * 8_000) + "]", 4.9),
    ],
    ids=["ASCII", "escapes", "emoji in long texts", "emoji in short texts"],
)
def test_a_string_is_in_memory_once(body: str, times: float) -> None:
    """An emoji makes four bytes of each character of its text, and of no other's."""
    encoded = body.encode()
    assert _peak(encoded) < times * len(encoded)


@pytest.mark.parametrize("place", ['[{"text":"%s"}]', '["%s",', "%s", '{"a":["%s"'])
def test_a_long_text_is_ascii(place: str) -> None:
    """No more of it would be read, and images are ASCII."""
    body = (place % ("a" * 16 * MIB + "😀" + "a" * 16 * MIB)).encode()
    assert _peak(body, None if place.endswith("]") else RequestError) < 1.2 * len(body)
    longest = "😀" + "a" * (json_reader.LONGEST_WIDE - 1)
    assert wire.decode(json.dumps(longest, ensure_ascii=False).encode(), 1) == longest
    assert wire.decode(json.dumps(longest).encode(), 1) == longest


def test_a_text_that_is_too_wide_is_its_rows_error(embedder: Embedder) -> None:
    wide = json.dumps("a" * json_reader.LONGEST_WIDE + "😀", ensure_ascii=False)
    body = '{"input_data":[{"text":"a"},{"text":%s},{"text":"b"}],"params":{"on_error":"report"}}'
    answer = endpoint.score(embedder, (body % wide).encode())
    fine, failed, fine_too = json.loads(answer.body)
    assert fine.keys() == fine_too.keys() == {"text_features"}
    assert failed["error"]["code"] == "bad_type"
    assert failed["error"]["message"].startswith("text: has more than 1,048,576 characters")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", '{"input_data":[{"text":"a"}],"params":{"labels":%s}}'),
        ("/score", '{"input_data":[{"text":"a"}],"params":%s}'),
        ("/score", '{"input_data":%s}'),
        ("/score", '{"values":[{"recordId":%s,"data":{"text":"a"}}]}'),
        ("/v1/classify", '{"text":"a","labels":[%s]}'),
        ("/v1/classify", '{"text":"a","labels":{"a":%s}}'),
        ("/v1/embeddings", '{"input":"a","model":%s}'),
        ("/v1/embeddings", '{"input":%s}'),
        ("/v1/embeddings", '{"input":["a",%s]}'),
        ("/v1/embeddings", '{"messages":[{"content":%s}]}'),
        ("/v2/embed", '{"input_type":"image","texts":["a"],"embedding_types":[%s]}'),
        ("/v2/embed", '{"input_type":"image","texts":["a",%s]}'),
        ("/v2/models/{model:path}/infer", '{"inputs":[{"name":"text","data":[%s]}]}'),
        (
            "/v2/models/{model:path}/infer",
            '{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":[%s]}]}',
        ),
        ("/models/{model:path}", '{"inputs":%s,"parameters":{"candidate_labels":["a"]}}'),
        ("/models/{model:path}", '{"inputs":"a","parameters":{"candidate_labels":[%s]}}'),
        ("/vectorize", '{"texts":[%s]}'),
        ("/v1/similarity", '{"a":["a",%s]}'),
    ],
)
def test_a_text_that_is_too_wide_is_refused_everywhere(
    path: str, body: str, embedder: Embedder
) -> None:
    wide = json.dumps("a" * json_reader.LONGEST_WIDE + "😀", ensure_ascii=False)
    route = next(route for route in table.ROUTES if route.path == path)
    models = Models.of({"clip": embedder})
    message = Message((body % wide).encode(), "application/json", "clip" if "{" in path else None)
    answer = endpoint.answer(models, route, message)
    assert (400 <= answer.status < 500) or (answer.status == 200 and b'"bad_type' in answer.body)


@pytest.mark.parametrize("letter", ["a", "😀", "\\u0041", " "])
def test_a_key_has_as_many_characters_as_a_label(letter: str) -> None:
    most = json_reader.LONGEST_KEY
    body = '[{"%s": 0}]'
    assert str(wire.decode((body % (letter * most)).encode(), 1)).count("'") == 2
    with pytest.raises(RequestTooLarge, match=f"a key of the body has more than {most:,}"):
        wire.decode((body % (letter * (most + 1))).encode(), 1)
    long = (body % (letter * 8 * MIB)).encode()
    assert _peak(long, RequestTooLarge) < 2 * MIB


def _peak(body: bytes, refused: type[Exception] | None = None) -> int:
    """The most memory that reading takes beside the body."""
    tracemalloc.start()
    try:
        with pytest.raises(refused) if refused else nullcontext():
            wire.decode(body, 1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most


def test_other_threads_run_while_a_body_is_read() -> None:
    """No call of C's reads more than a piece: the clock of the interpreter's own is what counts."""
    body = b"[" + b",".join([b'"' + b"a" * 4 * MIB + b'"'] * 4) + b"]"
    longest = 0
    pieces = json_reader._Reader(body, 10, "strict")
    pieces._at = 1
    for piece in pieces._pieces():
        longest = max(longest, len(piece))
    assert longest <= json_reader._PIECE


@pytest.mark.parametrize("begin", ["[", '{"a":', '[{"a":['])
def test_deep_json_is_refused(begin: str) -> None:
    levels = begin.count("[") + begin.count("{")
    within = DEEPEST // levels
    end = begin.translate(str.maketrans("[{", "]}", '"a:'))[::-1]
    wire.decode(f"{begin * within}0{end * within}".encode(), 1)
    with pytest.raises(RequestError, match="nested too deeply"):
        wire.decode(f"{begin * (within + 1)}0{end * (within + 1)}".encode(), 1)


def test_another_encoding_is_not_read() -> None:
    for encoding in ("utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        for mark in ("", "\ufeff"):
            with pytest.raises(RequestError, match="the body is not UTF-8"):
                wire.decode(f'{mark}{{"text": "Ⰲ"}}'.encode(encoding), 1)
    assert wire.decode(b"\xef\xbb\xbf[0]", 1) == [0]  # a byte order mark


@pytest.mark.parametrize("sign", ["", "-", "0.", "0.5e", "1e-"])
def test_a_number_has_a_thousand_digits_at_most(sign: str) -> None:
    """Reading digits takes time that is quadratic in their number."""
    assert wire.decode(f"[{sign}{'9' * 900}]".encode(), 1) == json.loads(f"[{sign}{'9' * 900}]")
    with pytest.raises(RequestError, match="a number of more than 1,000 digits"):
        wire.decode(f"[{sign}{'9' * MIB}]".encode(), 1)


def test_labels_that_are_json_within_a_string_are_read_alike() -> None:
    with pytest.raises(RequestTooLarge, match="may hold 262,144 values"):
        Labels.parse("[" + "[]," * 300_000 + "[]]")
    with pytest.raises(BadParams, match="is not JSON"):
        Labels.parse("[" * 1000)
    with pytest.raises(BadParams, match="has 'a' twice"):
        Labels.parse('{"a": "b", "a": "c"}')
    with pytest.raises(BadParams, match="half a character"):
        Labels.parse('["\ud800"]')
    with pytest.raises(RequestTooLarge, match="4,000 characters"):
        Labels.parse('{"%s": "a"}' % ("a" * 4_001))


@pytest.mark.parametrize(
    "table",
    [
        {f"{number:x}": [] for number in range(5_000)},
        {"columns": [f"{number:x}" for number in range(5_000)], "data": []},
        [{f"{row * 100 + number:x}": 0 for number in range(100)} for row in range(50)],
    ],
    ids=["of columns", "split", "of records"],
)
def test_a_table_has_as_many_columns_as_in_every_format(table: object) -> None:
    with pytest.raises(RequestError, match="has 5,000 columns; at most 4,096") as caught:
        wire.parse_table(table)
    assert caught.value.code == "bad_columns"


def test_an_answer_is_written_in_pieces() -> None:
    """Other threads run between two of them."""
    records = [{"text_features": [0.5] * 8, "labels": ["é"]} for _ in range(1_000)]
    for payload in (records, {"predictions": records}, {"a": {"data": records, "b": [[1]] * 99}}):
        pieces = list(wire._written(payload))
        assert json.loads(b"".join(pieces)) == payload
        assert max(map(len, pieces)) < 8_000
    others: list[Any] = [[], {}, [[]], {"a": []}, None, "a", [*range(100)], [{}] * 65]
    for payload in (*others, [[], *range(99)]):
        assert json.loads(wire.dump(payload)) == payload


@pytest.mark.process
def test_a_forked_process_parses_large_bodies() -> None:
    body = b'{"a": "' + b"x" * MIB + b'"}'
    with wire._one_large_body:  # a thread's, which is not in the child
        child = os.fork()
        if not child:
            wire.decode(body, 1)
            os._exit(0)
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert ended[1] == 0
