"""Invariant: a request takes at most 100 MiB, or 8 times its size where that is more, and for each
MiB 2 s of a core, beyond its answer's cost; it is answered, below 500; probes within 100 ms.

    python -m fuzz.requests --examples 10000 --room 1

Sends generated requests of all dialects to a `score serve` process with the embedded model, and
watches its memory, its time and its probe (`watched`).
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzz.watched import MIB, Sent, Watched, watched
from score.dialects import table
from score.dialects.base import FORM, JSON, RED_SQUARE
from score.dialects.mlflow import CSV

MULTIPART = f"{FORM}; boundary=b"
_HOLE = "\ue000"
_MODEL = "clip-endpoints-emoji"  # the embedded one
_NAMED = {route.path: route.path.replace("{model:path}", _MODEL) for route in table.ROUTES}
_PART = b"--b\r\nContent-Disposition: form-data; name=%s\r\n%s\r\n%s\r\n"
_END = b"--b--"

EXAMPLES: dict[str, Sent] = {
    route.path: Sent(_NAMED[route.path], JSON, json.dumps(route.example).encode())
    for route in table.ROUTES
} | {
    "csv": Sent("/invocations", CSV, f"image,text\n{RED_SQUARE},a cat\n".encode()),
    "form": Sent("/score", MULTIPART, _PART % (b"text", b"", b"a cat") + _END),
}
"""A request of each dialect, and of each kind of body."""


_UNITS = (
    *("[]", "{}", "[0]", "0", '""', '"a"', '"\\ud800"', "null", "true", "NaN", "1e400", "-1.5"),
    *('{"text":"a"}', '{"image":""}', '["",""]', '{"a":{"a":[]}}', '{"type":"text","text":"a"}'),
    *('{"recordId":"a","data":{}}', "9" * 999, "[" * 50 + "]" * 50, json.dumps(RED_SQUARE)),
)
_LETTERS = ("a", "\\n", "\\u0041", '\\"', "\\\\", "漢", "😀", " ", "<", "&amp;", "%41", "A=", "\0")


def listed(unit: str, count: int) -> str:
    """A list of equal values."""
    return f"[{','.join([unit] * count)}]"


def keyed(unit: str, count: int) -> str:
    """An object of different keys."""
    return f"{{{','.join(f'{chr(34)}{number:x}{chr(34)}:{unit}' for number in range(count))}}}"


def repeated(unit: str, count: int) -> str:
    """An object of one key."""
    return f"{{{','.join([f'{chr(34)}a{chr(34)}:{unit}'] * count)}}}"


def nested(unit: str, count: int) -> str:
    """Lists within lists."""
    return "[" * count + unit + "]" * count


_SHAPES: tuple[Callable[[str, int], str], ...] = (listed, keyed, repeated, nested)


def _json_of(path: str, before: str, unit: str, after: str, size: int = MIB) -> Sent:
    """A JSON body of about `size` bytes."""
    count = (size - len(before) - len(after)) // len(unit.encode())
    return Sent(path, JSON, f"{before}{unit * count}{after}".encode())


def _images(cell: str) -> bytes:
    """A body of as many rows as are allowed, but for one."""
    return json.dumps({"input_data": [{"image": cell}] * 9_999}).encode()


def _jpeg_2000(side: int) -> bytes:
    """A square of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(stream, "JPEG2000")
    return stream.getvalue()


_EMOJI = "😀".encode()
_LABELS = json.dumps([f"{number:x}" for number in range(1_900)])

WORST: dict[str, Sent] = {
    "lists": _json_of("/score", '{"input_data":[', "[0],", "0]}"),
    "lists, more": _json_of("/score", '{"input_data":[', "[0],", "0]}", 16 * MIB),
    "objects": _json_of("/score", '{"input_data":[', "{},", "{}]}"),
    "rows": _json_of("/score", '{"input_data":{"columns":["text"],"data":[', "[0],", "[0]]}}"),
    "index": _json_of("/score", '{"input_data":{"columns":[],"data":[],"index":[', "0,", "0]}}"),
    "depth": _json_of("/score", '{"input_data":', "[", ""),
    "wide depth": _json_of("/score", '{"input_data":[', "[" * 90 + "]" * 90 + ",", "0]}", 16 * MIB),
    "keys": Sent("/score", JSON, keyed("0", MIB // 9).encode()),
    "one key": Sent("/score", JSON, repeated("0", MIB // 6).encode()),
    "digits": _json_of("/score", '{"input_data":[', "9" * 4_000 + ",", "0]}", 16 * MIB),
    "escapes": _json_of("/score", '{"input_data":[{"text":"', "\\n", '"}]}', 16 * MIB),
    "emoji": _json_of("/score", '{"input_data":[{"text":"', "😀", '"}]}'),
    "texts with an emoji": _json_of(
        "/score", '{"input_data":[', f'{{"text":"😀{"a" * 9_000}"}},', '{"text":"a"}]}'
    ),
    "labels": _json_of("/v1/classify", '{"text":"a","labels":[', "[],", "[]]}"),
    "a label's place": _json_of("/v1/classify", '{"text":"a","labels":[[', "0,", "0]]}"),
    "a long template": _json_of(
        f"/models/{_MODEL}",
        f'{{"inputs":"AAAA","parameters":{{"candidate_labels":{_LABELS},"hypothesis_template":"{{}}',
        *("a", '"}}'),
    ),
    "a template of places": _json_of(
        f"/models/{_MODEL}",
        f'{{"inputs":"AAAA","parameters":{{"candidate_labels":["{"a" * MIB}"],'
        f'"hypothesis_template":"',
        *("{}", '"}}', 2 * MIB),
    ),
    "types": _json_of(
        "/v2/embed",
        '{"input_type":"image","texts":["a"],"embedding_types":[',
        '"float",',
        '"float"]}',
    ),
    "tokens": _json_of("/v1/embeddings", '{"input":[', "[1],", "[1]]}"),
    "messages": _json_of("/v1/embeddings", '{"messages":[', '{"content":""},', '{"content":"a"}]}'),
    "tensors": _json_of(f"/v2/models/{_MODEL}/infer", '{"inputs":[', "[],", "{}]}"),
    "similarities": _json_of("/v1/similarity", '{"a":[', '"",', '""]}'),
    "images": _json_of("/vectorize", '{"images":[', '"",', '""]}'),
    "parts": Sent("/score", MULTIPART, _PART % (b"x", b"", b"0") * (MIB // 53) + _END),
    "parts with long heads": Sent(
        "/score", MULTIPART, _PART % (b"text", b";" * 900 + b"\r\n", b"") * (MIB // 955) + _END
    ),
    "a part of lists": Sent(
        "/score", MULTIPART, _PART % (b"params", b"", b"[],[]" * 200_000) + _END
    ),
    "a part of emoji": Sent(
        "/score", MULTIPART, _PART % (b"text", b"", "😀".encode() + b"a" * 16 * MIB) + _END
    ),
    "a file": Sent("/score", "image/png", bytes(16 * MIB)),
    "lines": Sent("/invocations", CSV, b"text\n" + b"a\n" * (MIB // 2)),
    "quotes": Sent("/invocations", CSV, b'text\n"' + b'""' * (MIB // 2) + b'"\n'),
    "chunks of a byte": Sent("/score", JSON, b" " * (MIB // 6), chunk=1),
    "a name with an emoji": Sent("/invocations", CSV, _EMOJI + b"a" * 16 * MIB + b"\nb\n"),
    "a name of bytes": Sent("/invocations", CSV, b"\xff" * 16 * MIB + b"\n"),
    "a CSV cell with an emoji": Sent("/invocations", CSV, b"text\n" + _EMOJI + b"a" * 16 * MIB),
    "CSV cells with an emoji": Sent(
        "/invocations", CSV, b"text\n" + (_EMOJI + b"a" * 900_000 + b"\n") * 16
    ),
    "a CSV cell": Sent("/invocations", CSV, b"text\n" + b"a" * 16 * MIB),
    "empty lines": Sent("/invocations", CSV, b"text\n" + b"\n" * 16 * MIB),
    "control characters": Sent("/invocations", CSV, b"text\n" + b"\x1c" * 16 * MIB),
    "a key with an emoji": _json_of("/score", '{"input_data":[{"text":"a","😀', "b", '":0}]}'),
    "a long key with an emoji": _json_of(
        "/score", '{"input_data":[{"text":"a","😀', "b", '":0}]}', 16 * MIB
    ),
    "a column with an emoji": _json_of(
        "/score", '{"input_data":{"data":[],"columns":["text","😀', "b", '"]}}', 16 * MIB
    ),
    "a text with an emoji": _json_of("/score", '{"input_data":[{"text":"😀', "a", '"}]}', 16 * MIB),
    "an image with an emoji": _json_of(
        "/score", '{"input_data":[{"image":"😀', "A", '"}]}', 16 * MIB
    ),
    "columns": Sent("/score", JSON, b'{"input_data":' + keyed("[]", MIB // 10).encode() + b"}"),
    "blocked addresses": Sent("/score", JSON, _images("http://10.0.0.1/")),
    "blocked ports": Sent("/score", JSON, _images("http://8.8.8.8:81/")),
    "bad images": Sent("/score", JSON, _images("%")),
    "JPEG 2000": Sent("/score", "image/jp2", _jpeg_2000(1_500)),
    "a query": Sent("/score?" + "a=b&" * 15_000, JSON, b"{}"),
    "UTF-16": Sent("/score", JSON, ("[[]," + "Ⰲ[]," * (MIB // 10)).encode("utf-16")),
    "gzip": Sent("/score", JSON, gzip.compress(b"[0]," * 16 * MIB, mtime=0)),
}
"""The costliest requests that are known."""

LARGE: dict[str, Sent] = {
    "a text": _json_of("/score", '{"input_data":[{"text":"', "a", '"}]}', 60 * MIB),
    "a long key": _json_of("/score", '{"input_data":[{"text":"a","', "b", '":0}]}', 60 * MIB),
    "escapes, more": _json_of("/score", '{"input_data":[{"text":"', "\\n", '"}]}', 60 * MIB),
    "long texts with an emoji": _json_of(
        "/score",
        '{"input_data":[',
        f'{{"text":"😀{"a" * 1_000_000}"}},',
        '{"text":"a"}]}',
        60 * MIB,
    ),
    "long names": Sent(
        "/score",
        JSON,
        b'{"input_data":{%s}}'
        % b",".join(b'"%06d%s":0' % (number, b"k" * 180) for number in range(330_000)),
    ),
    "names, more": Sent(
        "/score",
        JSON,
        b'{"input_data":{%s}}'
        % b",".join(b'"%06d%s":[]' % (number, b"k" * 180) for number in range(160_000)),
    ),
    "keys, more": Sent("/score", JSON, keyed("0", 330_000).encode()),
    "rows of a letter": _json_of("/score", '{"input_data":[', '{"text":"a"},', "{}]}", 13 * 9_990),
    "a CSV name with an emoji, more": Sent("/invocations", CSV, _EMOJI + b"a" * 60 * MIB + b"\nb"),
    "a CSV cell, more": Sent("/invocations", CSV, b"text\n" + b"a" * 60 * MIB),
    "CSV cells with an emoji, more": Sent(
        "/invocations", CSV, b"text\n" + (_EMOJI + b"a" * 1_000_000 + b"\n") * 60
    ),
    "empty lines, more": Sent("/invocations", CSV, b"text\n" + b"\n" * 60 * MIB),
    "texts with an emoji, more": _json_of(
        "/score", '{"input_data":[', f'{{"text":"😀{"a" * 900}"}},', '{"text":"a"}]}', 16 * MIB
    ),
}
"""The same, of many megabytes; too large for each run of the tests."""


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values within a JSON value."""
    yield where
    entries = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else entries:
        yield from _places(inner, (*where, key))


def _with_hole(value: Any, where: tuple[Any, ...]) -> Any:
    if not where:
        return _HOLE
    copied = value.copy()
    copied[where[0]] = _with_hole(value[where[0]], where[1:])
    return copied


def holed(path: str) -> list[str]:
    """The example of a route, as often as it has values, each time without one of them."""
    (example,) = (route.example for route in table.ROUTES if route.path == path)
    extended = {**example, "params": {}, "x": 0}
    holes = [_with_hole(extended, where) for where in _places(extended)]
    dumped = (json.dumps(hole).replace(', "x": 0', "") for hole in holes)
    return [text.replace(', "params": {}', "") for text in dumped]


_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)


@st.composite
def _sizes(draw: st.DrawFn) -> int:
    """Bytes: mostly few, sometimes a megabyte, seldom more."""
    return int(2 ** draw(st.floats(0, 20) | st.floats(8, 20) | st.floats(0, 12)))


@st.composite
def _fillings(draw: st.DrawFn) -> str:
    """JSON values of all kinds and sizes."""
    size = draw(_sizes())
    match draw(st.sampled_from(("values", "values", "letters", "digits", "any"))):
        case "values":
            unit = draw(st.sampled_from(_UNITS))
            return draw(st.sampled_from(_SHAPES))(unit, size // (len(unit) + 1) + 1)
        case "letters":
            letter, last = draw(st.sampled_from(_LETTERS)), draw(st.sampled_from(_LETTERS))
            return f'"{letter * (size // len(letter.encode()))}{last}"'
        case "digits":
            return draw(st.sampled_from(("", "-", "0."))) + "1" * size
    return json.dumps(draw(_any))


@st.composite
def _json(draw: st.DrawFn) -> Sent:
    path = draw(st.sampled_from([*_NAMED]))
    template = draw(st.sampled_from(holed(path)))
    body = template.replace(json.dumps(_HOLE), draw(_fillings()))
    return Sent(_NAMED[path], JSON, body.encode("utf-8", "surrogatepass"))


@st.composite
def _forms(draw: st.DrawFn) -> Sent:
    names = st.sampled_from((b"text", b"image", b"params", b"labels", b"model", b"x", b'"";a'))
    heads = st.sampled_from(
        (b"", b"a:\r\n" * 200, b";" * 900, b"Content-Type: image/png\r\n", b"\0")
    )
    data = _fillings().map(lambda text: text.encode("utf-8", "surrogatepass"))
    parts = draw(st.lists(st.tuples(names, heads, data | st.just(b"a")), min_size=1, max_size=3))
    body = b"".join(_PART % part for part in parts)
    body *= 1 + min(draw(_sizes()), MIB) // len(body)
    path = draw(st.sampled_from(("/score", "/v1/classify")))
    return Sent(path, MULTIPART, body + draw(st.sampled_from((_END, b""))))


@st.composite
def _tables(draw: st.DrawFn) -> Sent:
    header = draw(st.sampled_from(("text", "image,text", "text,text", 'text,"', "", "a,text")))
    units = (",", "a,", "\n", "a\n", '""', '"', "a", "😀", "a,b\n", "\0", " \n", "\r\n", "\udcff")
    unit = draw(st.sampled_from(units))
    filling = draw(st.sampled_from(("", "😀"))) + unit * (draw(_sizes()) // len(unit))
    before = draw(st.sampled_from(("\n", ",", "\n\n", '\n"')))
    text = f"{header}{before}{filling}\na\n"
    return Sent("/invocations", CSV, text.encode("utf-8", "surrogateescape"))


_files = st.builds(
    lambda start, size: Sent("/score", "image/png", start + bytes(size)),
    st.sampled_from((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"")),
    _sizes(),
)


def _cut(body: bytes, at: int) -> bytes:
    return body[: at % (len(body) + 1)]


def _changed(body: bytes, at: int) -> bytes:
    at %= len(body) + 1
    return body[:at] + bytes([at % 251]) + body[at + at % 2 :]


_MUTATIONS: tuple[Callable[[bytes, int], bytes], ...] = (
    *(lambda body, at: body for _ in range(12)),
    *(_cut, _changed),
    lambda body, at: gzip.compress(body, mtime=0),
    lambda body, at: body.decode("utf-8", "replace").encode("utf-16"),
    lambda body, at: b"\xef\xbb\xbf" + body,
)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Requests of all dialects: valid, of extreme sizes, mutated, in chunks."""
    sent = draw(_json() | _json() | _json() | _forms() | _tables() | _files)
    body = draw(st.sampled_from(_MUTATIONS))(sent.body, draw(st.integers(0, 2**30)))
    chunk = draw(st.sampled_from((0, 0, 0, 1, 7, 1000, 65536)))
    kinds = st.sampled_from((*[sent.kind] * 12, JSON, CSV, MULTIPART, "", "x/y"))
    query = draw(st.sampled_from(("", "", "", "?" + "a=b&" * 3000)))
    sent = replace(sent, path=sent.path + query, kind=draw(kinds))
    return replace(sent, body=body, chunk=chunk, headers=draw(st.sampled_from((0, 0, 0, 50, 900))))


def run(watch: Watched, examples: int, *, repeatable: bool = False) -> None:
    """Asserts the invariant for generated requests. repeatable: for the same ones in each run."""

    @settings(
        max_examples=examples,
        derandomize=repeatable,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # a smaller request is no better one
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def check(request: Sent) -> None:
        watch.check(request)

    check()


def main() -> None:
    """Runs as many examples as the command line says."""
    parser = argparse.ArgumentParser(description="generated requests to a server that is watched")
    parser.add_argument("--examples", type=int, default=10_000, help="how many requests")
    parser.add_argument(
        "--room", type=float, default=1.0, help="times 100 ms that a probe may take (busy machines)"
    )
    options = parser.parse_args()
    with watched(EXAMPLES.values(), options.room) as watch:
        for request in WORST.values():
            watch.check(request)
        run(watch, options.examples)
    with watched(EXAMPLES.values(), options.room) as watch:
        for request in sorted(LARGE.values(), key=lambda request: len(request.body)):
            watch.check(request)
    print(f"{options.examples:,} requests: the invariant holds")


if __name__ == "__main__":
    main()
