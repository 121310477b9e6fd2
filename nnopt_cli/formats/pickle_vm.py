"""An interpreter for pickles that builds data and nothing else: it imports nothing and calls nothing.

The opcodes are those of Python's `pickle` (documented in the standard library's `pickletools`). Where
`pickle` would look up a global, this makes a `Global`; where it would call it, a `Builder` of ours
decides, by name, from a fixed list. Everything that a pickle claims (lengths, counts, memo slots) is
checked before memory is taken for it, and its steps are counted, so a small file costs little.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nnopt_cli.formats.inert import Blob
from nnopt_cli.formats.pickle_source import Limits, MalformedError, Source
from nnopt_cli.formats.pickle_store import checked_key, extend, set_items

_INTEGER = 1 << 10  # bytes of an integer
_NAME = 2000  # bytes of a module's and a class's name
_HEADER = 48  # bytes of a text or bytes object beside its content
_LARGE = 1 << 20  # bytes objects from this size on stay in the file
_MEMO_GAP = 1 << 10  # memo slots that a writer may leave out
_OBJECT = 3  # steps beyond its opcode that a collection counts: it takes about 100 bytes, and is walked later
_CALL = 6  # the same for what a call makes
_STOP = ord(".")
_MISSING = object()


class Builder(Protocol):
    """Decides what calls become. All arguments are inert data."""

    def name(self, module: str, name: str) -> Any:
        """A global."""

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """`function(*args)`, or `function.__new__(function, *args)`."""

    def build(self, value: Any, state: Any) -> None:
        """`value.__setstate__(state)`."""

    def persistent(self, key: Any) -> Any:
        """What the persistent id `key` stands for."""


class Machine:
    """The state of one pickle, and what its opcodes do to it (`pickle_ops.py` says which does what)."""

    def __init__(self, source: Source, builder: Builder, limits: Limits) -> None:
        self.source = source
        self._builder = builder
        self._limits = limits
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self.memo: list[Any] = []

    def run(self, table: Mapping[int, Callable[[Machine], None]]) -> Any:
        """The pickle's value. Raises MalformedError; leaves the source just behind the pickle."""
        byte, spend = self.source.byte, self._limits.spend
        try:
            while (op := byte()) != _STOP:
                spend(1)
                if (step := table.get(op)) is None:
                    raise MalformedError(f"byte 0x{op:02x} is not an instruction of a pickle")
                step(self)
            return self.stack.pop()
        except IndexError:
            raise MalformedError("it takes a value from an empty stack") from None
        except (ArithmeticError, RecursionError, TypeError, ValueError, MemoryError, struct.error) as error:
            raise MalformedError(f"a value is wrong ({type(error).__name__})") from error
        finally:  # an error keeps this frame alive, and need not keep what was built
            self.stack.clear()
            self.memo.clear()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def spend(self, steps: int) -> None:
        self._limits.spend(steps)

    def hold(self, size: int) -> int:
        return self._limits.hold(size)

    def make(self, value: Any) -> None:
        """Push a new object that has others in it."""
        self._limits.spend(_OBJECT)
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        if not self._marks:
            raise MalformedError("it closes a list that it never opened")
        mark = self._marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    # -- values ------------------------------------------------------------------------------------

    def proto(self) -> None:
        if (version := self.source.byte()) > 5:
            raise MalformedError(f"it claims pickle protocol {version}")

    def frame(self) -> None:
        if self.source.number(8) > self.source.left:
            raise MalformedError("a frame is longer than the file")

    def int_line(self) -> None:
        text = self.source.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))

    def long_line(self) -> None:
        self.push(int(self.source.line().rstrip(b"L")))

    def integer(self, width: int) -> None:
        size = self.source.number(width)
        if size > _INTEGER:
            raise MalformedError("an integer is absurdly long")
        self.push(int.from_bytes(self.source.take(size), "little", signed=True))

    def text(self, width: int) -> None:
        size = self.source.number(width)
        self.hold(size + _HEADER)
        self.push(self.source.take(size).decode("utf-8", "surrogatepass"))

    def text_line(self) -> None:
        line = self.source.line(self._limits.held)
        self.hold(len(line))
        self.push(line.decode("raw-unicode-escape"))

    def raw(self, width: int) -> None:
        size = self.source.number(width)
        if size < _LARGE:
            self.hold(size + _HEADER)
            self.push(self.source.take(size))
        else:
            self.push(Blob(self.source.file, self.source.skip(size), size))

    def old_text(self, width: int) -> None:
        """A `str` of Python 2: text where it is plain ASCII, else bytes."""
        size = self.source.number(width)
        self.hold(size + _HEADER)
        data = self.source.take(size)
        self.push(data.decode() if data.isascii() else data)

    def old_text_line(self) -> None:
        line = self.source.line(self._limits.held)
        self.hold(len(line))
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise MalformedError("a string has no quotes")
        data = codecs.escape_decode(line[1:-1])[0]
        self.push(data.decode() if data.isascii() else data)

    # -- collections -------------------------------------------------------------------------------

    def make_tuple(self, count: int) -> None:
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise MalformedError("it takes a value from an empty stack")
        del self.stack[-count:]
        self.make(values)

    def make_dict(self) -> None:
        made: dict[Any, Any] = {}
        set_items(made, self.since_mark(), self._limits)
        self.make(made)

    def make_set(self, values: Any) -> None:
        self.spend(_OBJECT)  # an empty one takes 200 bytes
        self.make(values)

    def make_frozenset(self) -> None:
        self.make_set(frozenset(checked_key(key, self._limits) for key in self.since_mark()))

    def append(self) -> None:
        value = self.stack.pop()
        extend(self.stack[-1], [value])

    def appends(self) -> None:
        values = self.since_mark()
        extend(self.stack[-1], values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        set_items(self.stack[-1], [key, value], self._limits)

    def set_items(self) -> None:
        values = self.since_mark()
        set_items(self.stack[-1], values, self._limits)

    def add_items(self) -> None:
        values = self.since_mark()
        target = self.stack[-1]
        self.spend(_OBJECT)
        if type(target) is set:
            target.update(checked_key(key, self._limits) for key in values)
        else:
            extend(target, values)

    # -- stack and memo ----------------------------------------------------------------------------

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def pop(self) -> None:
        if self._marks and self._marks[-1] == len(self.stack):
            self._marks.pop()
        else:
            self.stack.pop()

    def memoize(self) -> None:
        self.memo.append(self.stack[-1])

    def put(self, slot: int) -> None:
        memo = self.memo
        if slot == len(memo):
            memo.append(self.stack[-1])
        elif 0 <= slot < len(memo) + _MEMO_GAP:
            gap = max(0, slot + 1 - len(memo))
            self.spend(gap)
            memo.extend([_MISSING] * gap)
            memo[slot] = self.stack[-1]

        else:
            raise MalformedError("its memo is out of order")

    def get(self, slot: int) -> None:
        value = self.memo[slot] if 0 <= slot < len(self.memo) else _MISSING
        if value is _MISSING:
            raise MalformedError("it refers to a value that it never stored")
        self.push(value)

    # -- what pickle would run ---------------------------------------------------------------------

    def name_lines(self) -> Any:
        module, name = self.source.line(), self.source.line()
        if self.hold(len(module) + len(name)) > _NAME:
            raise MalformedError("a name is absurdly long")
        return self._builder.name(module.decode(), name.decode())

    def global_lines(self) -> None:
        self.push(self.name_lines())

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise MalformedError("a name is not text")
        self.push(self._builder.name(module, name))

    def call(self, function: Any, args: Any) -> None:
        self.spend(_CALL)
        if type(args) is not tuple:
            raise MalformedError("the arguments of a call are not a tuple")
        self.push(self._builder.call(function, args))

    def reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args)

    def new_with_keywords(self) -> None:
        keywords, args, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(args) is not tuple:
            raise MalformedError("the arguments of a call are not a tuple")
        self.call(function, (*args, keywords) if keywords else args)

    def instance(self) -> None:
        self.call(self.name_lines(), tuple(self.since_mark()))

    def make_object(self) -> None:
        function, *args = self.since_mark() or [None]
        self.call(function, tuple(args))

    def build(self) -> None:
        state = self.stack.pop()
        self._builder.build(self.stack[-1], state)

    def persistent(self, key: Any) -> None:
        self.spend(_CALL)
        self.push(self._builder.persistent(key))

    def extension(self) -> None:
        raise MalformedError("it uses copyreg extension codes, which mean nothing outside the program")

    def buffer(self) -> None:
        raise MalformedError("some of its data was stored outside of it")
