"""What a file is, by its bytes; for each thing that is not a PyTorch checkpoint, what it is instead."""

from __future__ import annotations

import json
import os
import re
import stat
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Literal

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.weight import InputFile

Kind = Literal["safetensors", "zip", "legacy", "pickle", "index"]

_MAGIC_BODY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's magic number, as the bytes of a pickled integer
_MAGIC_TEXT = b"119547037146038801333356"  # the same in protocols 0 and 1
_TEXT_PICKLE = re.compile(
    rb"\((dp|lp|i|c)\d*|c(__builtin__|builtins|copy_reg|collections|numpy|torch)|[\]}]q"
)

_ADDRESS = re.compile(r"[a-z][a-z0-9+]{1,8}:/", re.IGNORECASE)  # a path has lost one of its slashes
_OTHER: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer; the model itself was not downloaded",
        "Run `git lfs pull`.",
    ),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first (`gunzip`, or `tar xf` for a .tar.gz)."),
    (b"BZh", "compressed with bzip2", "Unpack it first."),
    (b"\xfd7zXZ\0", "compressed with xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes", "nnopt reads PyTorch models."),
    (b"GGUF", "a GGUF file, quantized for llama.cpp", "Give the checkpoint that it was converted from."),
    (b"\x93NUMPY", "a single numpy array (.npy)", "nnopt reads a model: a state dict of named tensors."),
    (b"\x7fELF", "a program or shared library", "nnopt reads PyTorch models."),
    (b"%PDF", "a PDF document", "nnopt reads PyTorch models."),
    (b"\x89PNG", "a picture", "nnopt reads PyTorch models."),
    (b"\xff\xd8\xff", "a picture", "nnopt reads PyTorch models."),
)


def check_path(path: Path) -> Literal["file", "folder"]:
    """What `path` is. Raises UnreadableError for anything else, such as a pipe, which could block."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableError(f"{str(path)!r}: cannot be opened: it is not a path") from error
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise UnreadableError(
            f"{path}: is a pipe, socket or device, not a file", "Save the model to a file first."
        )
    return "file"


def open_file(path: Path) -> InputFile:
    """Open a regular file. Raises UnreadableError for what is missing, empty, or not a file."""
    if check_path(path) == "folder":
        raise UnreadableError(f"{path}: is a folder where a file is expected")
    file = InputFile(path)
    if file.size == 0:
        raise UnreadableError(f"{path}: the file is empty", "The download or the save did not finish.")
    return file


def kind_of(file: InputFile) -> Kind:
    """What the file is. Raises UnreadableError, saying what it is instead, if nnopt does not read it."""
    head = file.read(0, 4096)
    length = int.from_bytes(head[:8], "little")
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    for magic, what, hint in _OTHER:
        if head.startswith(magic):
            raise _not(file, what, hint)
    if head[257:262] == b"ustar":
        raise _tar(file, head)
    if len(head) > 8 and head[8:9] == b"{" and 0 < length < 1 << 48:
        return "safetensors"
    if _MAGIC_BODY in head[:24] or _MAGIC_TEXT in head[:32]:
        return "legacy"
    if (head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5) or _TEXT_PICKLE.match(head):
        return "pickle"
    return _text_or_unknown(file, head)


def _text_or_unknown(file: InputFile, head: bytes) -> Literal["index"]:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:200].lower()
    if not head.strip(b"\0"):
        raise _not(file, "nothing but zeros; its data was never written", "Download or copy it again.")
    if lower.startswith((b"<!doctype html", b"<html")):
        raise _not(file, "a web page, saved in place of the model", "Download the file itself, not its page.")
    if lower.startswith(b"<") and _is_text(head):
        raise _not(file, "an XML document, most likely a server's error message", "Download the model again.")
    if text.startswith((b"{", b"[")) and _is_text(head):
        if b'"weight_map"' in file.read(0, 1 << 26):
            return "index"
        raise _not(
            file, f"a JSON document{_quoted(text)}", "If it is an error message, download the model again."
        )
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 0x20 and head[2] in (0x12, 0x1A, 0x22, 0x3A):
        raise _not(
            file,
            "a protobuf message, such as an ONNX or TensorFlow model",
            "Give the PyTorch checkpoint that it was exported from.",
        )
    if head[4:8] == b"TFL3":
        raise _not(file, "a TensorFlow Lite model", "nnopt reads PyTorch models.")
    if _is_text(head):
        raise _not(file, f"a text file{_quoted(text)}", "Check the name; a model file is binary.")
    raise UnreadableError(
        f"{file.path}: not a model file that nnopt knows; it begins with the bytes {head[:8].hex(' ')}",
        "nnopt reads what torch.save writes, and safetensors. Damaged and encrypted files look so too.",
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # more than a character cut in two
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char in "\r\n\t\f" for char in text)


def _quoted(text: bytes) -> str:
    line = text.splitlines()[0][:60].decode("utf-8", "replace") if text else ""
    return f" that begins {json.dumps(line, ensure_ascii=False)}" if line.isprintable() and line else ""


def _not(file: InputFile, what: str, hint: str) -> UnreadableError:
    return UnreadableError(f"{file.path}: not a model file: it is {what}", hint)


def _tar(file: InputFile, head: bytes) -> UnreadableError:
    name = head[:100].rstrip(b"\0")
    if name in (b"sys_info", b"pickle", b"tensors", b"storages", b"./sys_info"):
        return UnreadableError(
            f"{file.path}: this is a checkpoint in the tar format of PyTorch before 0.2 (2017)",
            "Load it with torch.load(..., weights_only=False), if you trust it, and save it again.",
        )
    return _not(file, "a tar archive", "Unpack it (`tar xf`) and give the model inside.")


def _missing(path: Path) -> UnreadableError:
    if _ADDRESS.match(str(path)):
        return UnreadableError(
            f"{path}: is an address, and nnopt reads files of this machine",
            "Download it first: `curl -LO URL`, or `hf download OWNER/MODEL --local-dir FOLDER`.",
        )
    try:
        names = [entry.name for entry in islice(os.scandir(path.parent), 10_000)]
    except OSError:
        hub = len(path.parts) == 2 and not path.suffix
        return UnreadableError(
            f"{path}: no such file, and no folder {path.parent}",
            f"For a model of the Hugging Face hub: `hf download {path} --local-dir {path.name}`."
            if hub
            else "Check the name and the folder.",
        )
    folded = {name.lower(): name for name in names}
    close = [folded[name] for name in get_close_matches(path.name.lower(), folded, n=3, cutoff=0.6)]
    return UnreadableError(
        f"{path}: no such file",
        f"Did you mean {' or '.join(close)}?" if close else "Check the name and the folder.",
    )
