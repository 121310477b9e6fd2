"""The opcodes of pickle, protocols 0 to 5, and what each does in our interpreter."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from nnopt_cli.formats.pickle_source import Limits, Source
from nnopt_cli.formats.pickle_vm import Builder, Machine


def run(source: Source, builder: Builder, limits: Limits) -> Any:
    """Interpret the pickle that begins here; returns its value, inert.

    Raises MalformedError for anything but a whole pickle. The source is left just behind it.
    """
    return Machine(source, builder, limits).run(_TABLE)


def _on_stack(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _unpacked(form: str) -> Callable[[Machine], None]:
    layout = struct.Struct(form)
    return lambda machine: machine.stack.append(layout.unpack(machine.source.take(layout.size))[0])


_TABLE: dict[int, Callable[[Machine], None]] = {
    ord(code): step
    for code, step in {
        # values
        b"\x80": Machine.proto,
        b"\x95": Machine.frame,
        b"N": _on_stack(None),
        b"\x88": _on_stack(True),
        b"\x89": _on_stack(False),
        b"I": Machine.int_line,
        b"J": _unpacked("<i"),
        b"K": _unpacked("<B"),
        b"M": _unpacked("<H"),
        b"L": Machine.long_line,
        b"\x8a": lambda m: m.integer(1),
        b"\x8b": lambda m: m.integer(4),
        b"F": lambda m: m.stack.append(float(m.source.line())),
        b"G": _unpacked(">d"),
        b"S": Machine.old_text_line,
        b"T": lambda m: m.old_text(4),
        b"U": lambda m: m.old_text(1),
        b"V": Machine.text_line,
        b"\x8c": lambda m: m.text(1),
        b"X": lambda m: m.text(4),
        b"\x8d": lambda m: m.text(8),
        b"C": lambda m: m.raw(1),
        b"B": lambda m: m.raw(4),
        b"\x8e": lambda m: m.raw(8),
        b"\x96": lambda m: m.raw(8),
        # collections
        b")": _on_stack(()),
        b"\x85": lambda m: m.make_tuple(1),
        b"\x86": lambda m: m.make_tuple(2),
        b"\x87": lambda m: m.make_tuple(3),
        b"t": lambda m: m.make(tuple(m.since_mark())),
        b"]": lambda m: m.make([]),
        b"l": lambda m: m.make(m.since_mark()),
        b"}": lambda m: m.make({}),
        b"d": Machine.make_dict,
        b"\x8f": lambda m: m.make_set(set()),
        b"\x91": Machine.make_frozenset,
        b"a": Machine.append,
        b"e": Machine.appends,
        b"s": Machine.set_item,
        b"u": Machine.set_items,
        b"\x90": Machine.add_items,
        # stack and memo
        b"(": Machine.mark,
        b"0": Machine.pop,
        b"1": lambda m: m.since_mark() and None,
        b"2": lambda m: m.stack.append(m.stack[-1]),
        b"p": lambda m: m.put(int(m.source.line())),
        b"q": lambda m: m.put(m.source.byte()),
        b"r": lambda m: m.put(m.source.number(4)),
        b"\x94": Machine.memoize,
        b"g": lambda m: m.get(int(m.source.line())),
        b"h": lambda m: m.get(m.source.byte()),
        b"j": lambda m: m.get(m.source.number(4)),
        # what pickle would run
        b"c": Machine.global_lines,
        b"\x93": Machine.stack_global,
        b"R": Machine.reduce,
        b"\x81": Machine.reduce,
        b"\x92": Machine.new_with_keywords,
        b"i": Machine.instance,
        b"o": Machine.make_object,
        b"b": Machine.build,
        b"P": lambda m: m.persistent(m.source.line().decode()),
        b"Q": lambda m: m.persistent(m.stack.pop()),
        b"\x82": Machine.extension,
        b"\x83": Machine.extension,
        b"\x84": Machine.extension,
        b"\x97": Machine.buffer,
        b"\x98": Machine.buffer,
    }.items()
}
