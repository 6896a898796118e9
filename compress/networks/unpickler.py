"""A pickle read as data: nothing that it names is looked up, imported or called.

A pickle is a program for a stack machine whose instructions may call anything. Its opcodes are parsed here by ``pickletools``
and carried out on plain values only. A global stays the :class:`Name` it is; what a name with arguments stands for is the
caller's table to say, and a name that is not in it ends the reading. State that an object would set itself is dropped.

Work and memory are proportional to the file: no key is hashed that could be a nest of shared tuples (hashing 60 levels of pairs
takes centuries), no number sizes an allocation, and sets are lists.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

_LARGEST_KEY = 2**31
"""Whole numbers from here on can be chosen so that a dictionary of them takes quadratic time."""
_LONGEST = 5_000_000
"""Instructions; a network of a thousand tensors is written with 40,000. Some 20 seconds."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
_IGNORED = frozenset({"PROTO", "FRAME"})


class Name(NamedTuple):
    """A global: what a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Forbidden(Exception):
    """The pickle wants something that is not data; ``args[0]`` says what."""


class Malformed(Exception):
    """The bytes are no pickle, or one that no honest program writes."""


Make = Callable[[Name, tuple[Any, ...]], Any]
"""What a name with arguments stands for."""


def read(file: BinaryIO, known: Callable[[Name], bool], make: Make, persistent: Callable[[Any], Any]) -> Any:
    """The value of the pickle at the file's position, which is left behind it.

    Args:
        file: seekable.
        known: whether a name may occur.
        make: stands in for calls and constructors.
        persistent: stands in for what is stored outside of the pickle.

    Raises:
        Forbidden: a name that is not known.
        Malformed: no pickle.
    """
    return _Machine(known, make, persistent).run(file)


class _Machine:
    def __init__(self, known: Callable[[Name], bool], make: Make, persistent: Callable[[Any], Any]) -> None:
        self.known = known
        self.make = make
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count > _LONGEST:
                    raise Malformed(f"more than {_LONGEST} instructions")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
            raise Malformed(f"{type(error).__name__}: {error}") from error
        raise Malformed("the pickle has no end")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            if argument >= _LARGEST_KEY:
                raise Malformed("a memo of absurd number")
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name == "GLOBAL":
            self.name(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL":
            second, first = stack.pop(), stack.pop()
            self.name(first, second)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, what = stack.pop(), stack.pop()
            if not isinstance(what, Name) or not isinstance(arguments, tuple):
                raise Malformed(f"a call of a {type(what).__name__}")
            stack.append(self.make(what, arguments))
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name == "BUILD":
            self.build(stack.pop())
        elif name not in _IGNORED:
            self.collect(name)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a name that is no text")
        found = Name(module, name)
        if not self.known(found):
            raise Forbidden(f"{found!s:.100}")
        self.stack.append(found)

    def build(self, state: Any) -> None:
        """Only stand-ins that say so take their state."""
        take = getattr(self.stack[-1], "take_state", None)
        if take is not None:
            take(state)

    def collect(self, name: str) -> None:
        """Instructions that gather what lies on the stack."""
        stack = self.stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise Malformed("an empty stack")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            self.append(tuple(self.marked()))
        elif name in ("LIST", "FROZENSET"):
            self.append(self.marked())
        elif name == "DICT":
            items = self.marked()
            self.append({})
            self.put(items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self.marked()
            if not isinstance(self.stack[-1], list):
                raise Malformed(f"items for a {type(self.stack[-1]).__name__}")
            self.stack[-1].extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.put([key, value])
        elif name == "SETITEMS":
            self.put(self.marked())
        elif name == "POP":
            stack.pop() if stack else self.marked()
        elif name == "POP_MARK":
            self.marked()
        elif name == "DUP":
            stack.append(stack[-1])
        else:  # INST, OBJ, NEWOBJ_EX, extension registry, out-of-band buffers: torch writes none of them
            raise Forbidden(f"instruction {name}")

    def append(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Malformed(f"entries for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str | None) or (isinstance(key, int) and -_LARGEST_KEY < key < _LARGEST_KEY):
                target[key] = value  # under any other key there is no weight, and hashing it may never end
