"""The pickles of `torch.save` → dictionaries, lists, numbers, and descriptions of tensors.

Nothing of a pickle is executed or imported. Its opcodes are interpreted here, and only those that
`torch.save` writes for dictionaries of tensors (pickle protocol 2, or 3 on request): a name is
looked up in the tables of `pickle_names`, a call is answered by a function of this module. The
result takes memory in proportion to the pickle, whatever sizes it states: a tensor is its
description, a `bytearray` of gigabytes is nothing, and what calls copy of one list or dictionary,
again and again, is counted against the pickle's operations. So does the time: nothing that an
operation does is longer than what it is of, but for copies.

Knows nothing of files.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

import torch

from score.checkpoints.pickle_names import CALLS, DTYPES, KNOWN, SPECIAL_TENSORS, STORAGES, Call
from score.errors import ModelError
from score.folder.architecture import Shape
from score.folder.weights import printable_name

_MOST_OPERATIONS = 2**20  # a checkpoint of 4,000 tensors has some 100,000
_MOST_DIMENSIONS = 16
_MOST_ARGUMENTS = 16  # of a call; torch has up to ten
_LARGEST_KEY = 2**63  # of a dictionary
_LONGEST_NAME = 1_000  # characters of a key, a storage's or a dictionary's: they are compared

RESAVE = "where you trust it, load it with torch, and save the model's state_dict() alone"
"""Advice on a file that is refused, and may be good."""


class Storage(NamedTuple):
    """The memory of one or more tensors. key: its name in the file; elements: of type `dtype`."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.elements * self.dtype.itemsize


class StoredTensor(NamedTuple):
    """A tensor as a view of its storage; `offset` and `stride` count elements of `dtype`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: Shape
    stride: Shape

    @property
    def is_plain(self) -> bool:
        """Whether it has no more elements than its storage: `expand` states any number."""
        return math.prod(self.shape) * self.dtype.itemsize <= self.storage.size

    @property
    def span(self) -> int:
        """Elements from its first to its last; it has some."""
        pairs = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in pairs)


class SpecialTensor(NamedTuple):
    """A tensor without a plain storage: sparse, quantized, or of no content."""

    kind: str


class Content(NamedTuple):
    """What a pickle holds. storages: by their keys, those of tensors that have no name too."""

    value: Any
    storages: dict[str, Storage]


class _Global(NamedTuple):
    """A name that a pickle imports, in a table of `pickle_names`; it is never imported."""

    name: str


_IGNORED = object()
"""The result of a call that makes neither a tensor nor a dictionary, such as a set or a device."""


def read(stream: IO[bytes]) -> Content:
    """The next pickle in a stream, read to its end.

    Raises ModelError for one that holds more than `torch.save` writes of tensors, or too much;
    ValueError for a damaged one.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= _MOST_OPERATIONS:
                raise ModelError(f"has a pickle of over {_MOST_OPERATIONS:,} operations ({RESAVE})")
            if opcode.name == "STOP":
                return Content(machine.stack.pop(), machine.storages)
            machine.step(opcode.name, argument)
            if machine.copied > count:
                raise ModelError(
                    f"has a pickle that copies {machine.copied:,} items in {count:,} operations "
                    f"({RESAVE})"
                )
    except (IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from None
    raise ValueError("its pickle has no end")


class MoreThanTensors(ModelError):
    """A pickle that would have to be executed. The message names what it asks for."""


class _Machine:
    """The stack, the marks and the memo of a pickle that is being read.

    copied: items of dictionaries that calls have made of other containers. An honest one has taken
    an operation and more to come there, and is copied once.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.storages: dict[str, Storage] = {}
        self.copied = 0
        self._below: list[list[Any]] = []  # stacks under the marks
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One opcode. Raises IndexError, KeyError, TypeError, ValueError for a damaged pickle."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _MAKERS:
            self.stack.append(_MAKERS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_global(argument))
        elif name == "PROTO":
            if argument not in (2, 3):
                raise MoreThanTensors(f"pickle protocol {argument}; save with the default protocol")
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        else:
            raise MoreThanTensors(f"the operation {name}, which torch.save does not write")

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def tuple(self) -> None:
        items = self._marked()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self) -> None:
        self._append([self.stack.pop()])

    def appends(self) -> None:
        self._append(self._marked())

    def _append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], [(key, value)])

    def set_items(self) -> None:
        items = self._marked()
        _set(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def build(self) -> None:
        """Attributes of a dictionary, such as `_metadata` of a state dict: left out."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise MoreThanTensors("the state of an object")

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], arguments)

    def _called(self, function: Any, arguments: Any) -> Any:
        """The result of a call, by the tables of `pickle_names`."""
        if type(function) is not _Global or type(arguments) is not tuple:
            raise TypeError
        if len(arguments) > _MOST_ARGUMENTS:
            raise MoreThanTensors(f"a call with {len(arguments):,} arguments")
        if function.name in SPECIAL_TENSORS:
            return SpecialTensor(SPECIAL_TENSORS[function.name])
        if function.name not in CALLS:
            raise MoreThanTensors(f"a call of {function.name.replace(' ', '.', 1)}")
        kind = CALLS[function.name]
        if kind == "inner call":  # of a function, for a type, with arguments; then attributes
            return self._called(arguments[0], arguments[2])
        if kind == "dictionary":
            self.copied += sum(map(len, arguments))
        return _MAKERS_OF_CALLS[kind](*arguments)

    def persistent(self) -> None:
        storage = _storage(self.stack.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"the storage {storage.key[:80]} has two sizes or types")
        self.stack.append(storage)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}
_LITERALS |= {"BINBYTES", "SHORT_BINBYTES"}  # of protocol 3
_MAKERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BUILD": _Machine.build,
    "REDUCE": _Machine.reduce,
    "BINPERSID": _Machine.persistent,
}


def _global(name: str) -> _Global:
    if name not in KNOWN:
        plain = "".join(c if c.isprintable() else "?" for c in name[:80])
        raise MoreThanTensors(f"the global {plain.replace(' ', '.', 1)}")
    return _Global(name)


def _set(target: object, items: Iterable[tuple[Any, Any]]) -> None:
    """Adds those items to a dictionary whose keys are plain.

    Others name no tensor, and can be made to take forever: nested tuples when they are hashed,
    large integers when they collide.
    """
    if type(target) is not dict:
        raise TypeError
    for key, value in items:
        if isinstance(key, int) and not -_LARGEST_KEY <= key < _LARGEST_KEY:
            continue
        if isinstance(key, str) and len(key) > _LONGEST_NAME:
            raise _long_name(key)
        if key is None or isinstance(key, (str, int, float)):
            target[key] = value


def _long_name(name: str) -> ModelError:
    shown = printable_name(name[:80])
    return ModelError(f"holds a name of over {_LONGEST_NAME:,} characters: {shown}")


def _storage(id: Any) -> Storage:
    """A storage's persistent id: `("storage", type, key, device, elements[, view])`."""
    if type(id) is not tuple or len(id) not in (5, 6) or id[0] != "storage":
        raise MoreThanTensors("a persistent id that names no storage")
    kind, key, elements = id[1], id[2], id[4]
    if len(id) == 6 and id[5] is not None:
        raise MoreThanTensors("a storage that is a part of another, as torch before 0.4 wrote it")
    if type(kind) is not _Global or type(key) is not str or not _is_size(elements):
        raise TypeError
    if len(key) > _LONGEST_NAME:
        raise _long_name(key)
    return Storage(key, STORAGES[kind.name], elements)


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, dtype: Any = None
) -> StoredTensor:
    """A tensor that lies within its storage. `more`: gradients and hooks, which are left out."""
    if type(storage) is not Storage or not _is_size(offset):
        raise TypeError
    for sizes in (shape, stride):
        if type(sizes) is not tuple:
            raise TypeError
    if len(shape) != len(stride) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions and {len(stride)} strides")
    if not all(map(_is_size, (*shape, *stride))):
        raise TypeError
    tensor = StoredTensor(storage, dtype or storage.dtype, offset, shape, stride)
    if all(shape) and (offset + tensor.span) * tensor.dtype.itemsize > storage.size:
        raise ValueError(f"a tensor reaches beyond its storage of {storage.size:,} bytes")
    return tensor


def _typed_tensor(*arguments: Any) -> StoredTensor:
    """`_rebuild_tensor_v3`: the dtype is stated, the storage is bytes."""
    kind = arguments[6]
    if type(kind) is not _Global:
        raise TypeError
    return _tensor(*arguments[:6], dtype=DTYPES[kind.name])


def _first(data: Any, *more: Any) -> Any:
    return data


def _dictionary(items: Any = ()) -> dict[Any, Any]:
    """An OrderedDict or Counter; Python 2 wrote the items of the first as pairs."""
    made: dict[Any, Any] = {}
    pairs = items.items() if type(items) is dict else items
    if type(pairs) is list and not all(type(p) in (list, tuple) and len(p) == 2 for p in pairs):
        raise TypeError
    _set(made, pairs)
    return made


def _ignored(*arguments: Any) -> object:
    return _IGNORED


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


_MAKERS_OF_CALLS: Mapping[Call, Callable[..., Any]] = {
    "dictionary": _dictionary,
    "tensor": _tensor,
    "typed tensor": _typed_tensor,
    "first argument": _first,
    "ignored": _ignored,
}
