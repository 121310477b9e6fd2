"""Text from model files made safe to print, and made to fit."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """`text` with every character that would steer a terminal written as its escape.

    Names come from files: escape sequences, newlines, bidirectional overrides and lone surrogates
    are shown (`\\x1b`), never sent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def middle(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` terminal cells, its middle left out; both ends of a name tell most."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    if width <= cell_len(ellipsis):
        return set_cell_size(text, max(0, width))
    room = width - cell_len(ellipsis)
    head = set_cell_size(text, room // 2).rstrip()
    tail = ""
    for char in reversed(text):
        if cell_len(char + tail) > room - cell_len(head):
            break
        tail = char + tail
    return f"{head}{ellipsis}{tail}"


def end(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` terminal cells, its end left out."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - cell_len(ellipsis))).rstrip(" ,") + ellipsis[:width]


def encodable(text: str) -> str:
    """`text` without lone surrogates (undecodable bytes of a file's name), which JSON cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
