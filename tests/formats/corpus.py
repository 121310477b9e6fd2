"""Builders of hostile and broken files; each case names its file and a piece of the message that it gives.

Run as a program with a list of paths, it reads each one and prints, as JSON lines, the error and the seconds,
and last its peak memory: the tests run it in a process of its own.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
HEAD = MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
GOOD = {"w": [1.0, 2.0, 3.0, 4.0]}  # what `archive(STATE_DICT, ...)` holds


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def persistent(
    key: str = "0", elements: int = 4, storage: str = "FloatStorage", module: str = "torch"
) -> bytes:
    return b"(" + text("storage") + name(module, storage) + text(key) + text("cpu") + number(elements) + b"tQ"


def tensor(storage: bytes | None = None, offset: int = 0, shape=(4,), strides=(1,)) -> bytes:
    inside = (
        (persistent() if storage is None else storage) + number(offset) + numbers(*shape) + numbers(*strides)
    )
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + inside + b"\x89" + ORDERED + b"tR"


ORDERED = name("collections", "OrderedDict") + b")R"
DATA = struct.pack("<4f", 1, 2, 3, 4)


def state_dict(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def archive(
    body: bytes, data: bytes = DATA, compression: int = zipfile.ZIP_STORED, **members: bytes
) -> bytes:
    """A zip as torch.save writes it, around the pickle `body`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("a/data.pkl", pickled(body))
        for key, content in {"a/data/0": data, "a/version": b"3\n", **members}.items():
            file.writestr(key, content)
    return out.getvalue()


def safetensors(header: object, data: bytes = DATA) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(
    dtype: object = "F32", shape: object = (4,), begin: object = 0, end: object = 16
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def patched(raw: bytes, old: bytes, new: bytes, which: int = 1) -> bytes:
    """Replace the `which`-th occurrence."""
    parts = raw.split(old)
    assert len(parts) > which
    return old.join(parts[:which]) + new + old.join(parts[which:])


def overlapping_members() -> bytes:
    """Two members whose directory entries point at the same local header."""
    raw = archive(state_dict(w=tensor()), **{"a/data/1": DATA})
    at = raw.index(b"PK\1\2", raw.index(b"PK\1\2") + 1)  # data/0's entry
    header = raw[at + 42 : at + 46]
    at = raw.index(b"PK\1\2", raw.index(b"a/data/1", at) - 50)
    at = raw.rindex(b"PK\1\2", 0, raw.rindex(b"a/data/1"))
    return raw[: at + 42] + header + raw[at + 46 :]


def twice() -> bytes:
    """Two members of one name."""
    return archive(state_dict(w=tensor()), **{"a/data/9": DATA}).replace(b"a/data/9", b"a/data/0")


def directory_field(offset: int, value: bytes) -> bytes:
    """The archive with some bytes of data/0's directory entry replaced."""
    raw = archive(state_dict(w=tensor()))
    at = raw.rindex(b"PK\1\2", 0, raw.rindex(b"a/data/0")) + offset
    return raw[:at] + value + raw[at + len(value) :]


def many_members(count: int) -> bytes:
    entry_ = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    directory = entry_ * count
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), 4)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 4 + len(directory), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return b"PK\3\4" + directory + end + locator + last


def laughs(levels: int = 60) -> bytes:
    """A list of two references to a list of two references …"""
    out = b"]\x94"
    for level in range(levels):
        out += b"](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"e\x94"
    return out


def deep(level: bytes, count: int = 100_000) -> bytes:
    return level * count


def module_bomb(levels: int = 40) -> bytes:
    """Modules that hold the next one twice."""
    module = name("torch.nn", "Module") + b")\x81"
    tables = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules")
    out = module + b"}(" + tables + b"}u" + b"b\x94"
    for level in range(levels):
        inner = b"}(" + text("a") + b"h" + bytes([level]) + text("b") + b"h" + bytes([level]) + b"u"
        out += b"0" + module + b"}(" + tables + inner + b"u" + b"b\x94"
    return out


def tuple_key(levels: int = 60) -> bytes:
    """A dict key that hashes 2^60 values."""
    out = b")\x94"
    for level in range(levels):
        out += b"0" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94"
    return b"}" + out + b"Ns"


def legacy(
    body: bytes, keys: bytes = b"](" + text("0") + b"e", data: bytes = b"\4" + bytes(7) + DATA
) -> bytes:
    return HEAD + pickled(body) + pickled(keys) + data


def tar(first: str) -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as file:
        info = tarfile.TarInfo(first)
        info.size = 4
        file.addfile(info, io.BytesIO(b"abcd"))
    return out.getvalue()


def opaque(function: str) -> bytes:
    return state_dict(w=name("torch._utils", function) + b"(NNtR")


_W = state_dict(w=tensor())
_PT2 = {"m/archive_format": b"pt2", "m/models/model.json": b"{}"}


def plain_zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for key, content in members.items():
            file.writestr(key, content)
    return out.getvalue()


def big_header(entries: int) -> bytes:
    return (
        b"{"
        + b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(entries))
        + b"}"
    )


_STORED = "its pickle cannot be read: "
_ZIP = "the zip archive is broken: "

# name -> (bytes, or a function of the folder that makes the file; a piece of the message)
CASES: dict[str, tuple[bytes | Callable[[Path], Path], str]] = {
    # not a model at all
    "empty.pt": (b"", "the file is empty"),
    "zeros.pt": (bytes(5000), "nothing but zeros"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "page.pt": (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
    "error.pt": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "error.json.pt": (b'{"error": "Repository not found"}', "a JSON document"),
    "notes.txt": ("Modèle entraîné\n".encode() * 3, "a text file"),
    "random.pt": (bytes((i * 197 + 91) % 256 for i in range(3000)), "it begins with the bytes 5b 20 e5"),
    "gzip.pt": (gzip.compress(b"x" * 100), "compressed with gzip"),
    "7z.pt": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7-Zip archive"),
    "tar.pt": (tar("model.pt"), "a tar archive"),
    "old-tar.pt": (tar("sys_info"), "the tar format of PyTorch before"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "llama.gguf": (b"GGUF" + bytes(100), "a GGUF file"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(range(100)), "a protobuf message"),
    "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(range(100)), "a TensorFlow Lite model"),
    "array.npy": (b"\x93NUMPY\x01\0" + bytes(100), "a single numpy array"),
    "arrays.npz": (plain_zip(**{"w.npy": b"\x93NUMPY"}), "a numpy archive (.npz)"),
    "program.pt2": (plain_zip(**_PT2), "its member 'archive_version' is missing"),
    "old-program.pt2": (
        plain_zip(**{"serialized_exported_program.json": b"{}", "version": b"8"}),
        "an exported program of PyTorch 2.7 or older",
    ),
    "model.keras": (plain_zip(**{"config.json": b"{}", "model.weights.h5": b"x"}), "a Keras model"),
    "package.pt": (plain_zip(**{"p/.data/extern_modules": b"", "p/m.pkl": b""}), "a torch.package archive"),
    "documents.zip": (plain_zip(**{"a.txt": b"x", "model.pt": b"y"}), "not one that torch.save wrote"),
    "nothing.zip": (plain_zip(), "an empty zip archive"),
    "pictures.pt": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
    # torch's zip
    "cut.pt": (archive(_W)[:-60], "so it was cut short"),
    "appended.pt": (archive(_W) + b"x", _ZIP + "there is something behind its end"),
    "prepended.pt": (b"PK\3\4" + archive(_W), _ZIP + "its directory is not where"),
    "deflated.pt": (
        archive(_W, compression=zipfile.ZIP_DEFLATED),
        "is compressed, which torch.save never does",
    ),
    "twice.pt": (twice(), _ZIP + "it holds 'a/data/0' twice"),
    "overlap.pt": (overlapping_members(), "overlaps another member"),
    "encrypted.pt": (directory_field(8, b"\1\0"), "'a/data/0' is encrypted"),
    "other-method.pt": (directory_field(10, b"\x08\0"), "the two headers of 'a/data/0' disagree"),
    "other-name.pt": (directory_field(46, b"b"), "the two headers of 'b/data/0' disagree"),
    "not-there.pt": (directory_field(42, b"\3\0\0\0"), "'a/data/0' overlaps another member"),
    "beyond.pt": (directory_field(20, struct.pack("<2I", 9999, 9999)), "disagree"),
    "zip64-lie.pt": (directory_field(20, b"\xff" * 8), "a member lacks its 64-bit sizes"),
    "two-disks.pt": (directory_field(34, b"\1\0"), "split over several files"),
    "bad-name.pt": (directory_field(46, b"\xff"), "is not UTF-8"),
    "members.pt": (many_members(300_000), "it claims 300000 members"),
    "big-endian.pt": (archive(_W, **{"a/byteorder": b"big"}), "saved on a big-endian machine"),
    "odd-endian.pt": (archive(_W, **{"a/byteorder": b"pdp"}), "its byte order is 'pdp'"),
    "no-storage.pt": (archive(state_dict(w=tensor(persistent("7")))), "there is no a/data/7"),
    "short-storage.pt": (archive(_W, data=DATA[:8]), "storage '0' claims 16 bytes"),
    "escape.pt": (
        archive(state_dict(**{"w\x1b[2J": tensor(offset=1)})),
        r"the tensor 'w\x1b[2J' reaches beyond",
    ),
    "escape.zip": (plain_zip(**{"a\x1b[2J": b""}), "it holds a?[2J"),
    "names.pkl": (b"\x80\x02" + name("m" * 60_000, "n") + b".", "a name is absurdly long"),
    # tensors
    "expanded.pt": (
        archive(state_dict(w=tensor(persistent(elements=1), shape=(1 << 20, 1 << 20), strides=(0, 0)))),
        "claims 1099511627776 elements of a storage that holds 1",
    ),
    "outside.pt": (archive(state_dict(w=tensor(offset=1))), "reaches beyond its storage of 4 elements"),
    "far-strides.pt": (
        archive(state_dict(w=tensor(shape=(2,), strides=(1 << 61,)))),
        "reaches beyond its storage",
    ),
    "vast.pt": (
        archive(state_dict(w=tensor(shape=(0, 1 << 60, 1 << 60), strides=(1, 1, 1)))),
        "impossible shape",
    ),
    "negative.pt": (archive(state_dict(w=tensor(shape=(-4,)))), _STORED + "a shape, stride or offset"),
    "ranks.pt": (archive(state_dict(w=tensor(shape=(2, 2)))), "has 2 dimensions and 1 strides"),
    "sparse.pt": (archive(opaque("_rebuild_sparse_tensor")), "the tensor 'w' is sparse"),
    "quantized.pt": (archive(opaque("_rebuild_qtensor")), "the tensor 'w' is quantized"),
    "meta.pt": (archive(opaque("_rebuild_meta_tensor_no_storage")), "the tensor 'w' has no data"),
    "nested.pt": (archive(opaque("_rebuild_nested_tensor")), "of a kind that nnopt cannot read"),
    "subclass.pt": (
        archive(
            state_dict(
                w=name("torch._tensor", "_rebuild_from_type_v2")
                + b"("
                + name("torch._utils", "_rebuild_tensor_v2")
                + name("evil", "Tensor")
                + b")Nt"
                + b"R"
            )
        ),
        "is of the class evil.Tensor",
    ),
    "no-model.pt": (
        archive(state_dict(epoch=b"K\1", lr=b"G?\xb9\x99\x99\x99\x99\x99\x9a")),
        "holds no model",
    ),
    "no-dict.pt": (archive(b"K\1"), "holds no model"),
    # pickles
    "cut-pickle.pkl": (b"\x80\x02}q\x00(X\x05\x00\x00\x00ab", _STORED + "it ends at byte"),
    "no-stop.pkl": (b"\x80\x02}q\x00", _STORED + "it ends at byte 5"),
    "opcode.pkl": (b"\x80\x02\xfe.", "byte 0xfe is not an instruction"),
    "underflow.pkl": (b"\x80\x02R.", "it takes a value from an empty stack"),
    "no-mark.pkl": (b"\x80\x02t.", "it closes a list that it never opened"),
    "memo.pkl": (b"\x80\x02h\x05.", "it refers to a value that it never stored"),
    "memo-far.pkl": (b"\x80\x02Nr\xff\xff\xff\x7f.", "its memo is out of order"),
    "long-text.pkl": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fab.", "more text and bytes than any real"),
    "long-bytes.pkl": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fab.", "it ends at byte 14"),
    "long-frame.pkl": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "a frame is longer than the file"),
    "long-int.pkl": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "an integer is absurdly long"),
    "huge-int.pkl": (b"(dp0\nI" + b"9" * 50_000 + b"\n.", "a value is wrong"),
    "list-key.pkl": (b"\x80\x02}]Ns.", "a list is used as a key"),
    "tuple-key.pkl": (pickled(tuple_key()), "a key is absurdly large"),
    "colliding-keys.pkl": (pickled(b"}" + number((1 << 61) - 1) + b"Ns"), "an absurdly large integer"),
    "extension.pkl": (b"\x80\x02\x82\x01.", "copyreg extension codes"),
    "out-of-band.pkl": (b"\x80\x05\x97.", "stored outside of it"),
    "protocol.pkl": (b"\x80\x02\x80\x09N.", "it claims pickle protocol 9"),
    "set-state.pkl": (
        pickled(name("torch._utils", "_rebuild_tensor_v2") + state_dict(__code__=b"N") + b"b"),
        "it sets the state of a Global",
    ),
    "arguments.pkl": (pickled(name("os", "system") + b"K\1R"), "the arguments of a call are not a tuple"),
    "few-arguments.pkl": (pickled(name("torch._utils", "_rebuild_tensor_v2") + b")R"), "a value is wrong"),
    "odd-id.pt": (
        archive(state_dict(w=tensor(name("os", "system") + b"Q"))),
        "a persistent id is not one of",
    ),
    "odd-storage.pt": (
        archive(state_dict(w=tensor(persistent(storage="system", module="os")))),
        "os.system is not a storage of PyTorch",
    ),
    "id-in-plain.pkl": (pickled(_W), "it refers to storages, and has none"),
    "deep-list.pkl": (pickled(deep(b"]") + deep(b"a", 99_999)), "nested too deeply"),
    "deep-tuple.pkl": (pickled(b")" + deep(b"\x85")), "nested too deeply"),
    "laughs.pkl": (b"\x80\x04" + laughs() + b".", "holds no model"),
    "steps.pkl": (b"\x80\x04" + b"N0" * 2_500_000 + b"N.", "more steps than any real checkpoint"),
    "sets.pkl": (b"\x80\x04" + b"\x8f" * 3_000_000 + b".", "more steps than any real checkpoint"),
    "dicts.pkl": (b"\x80\x04" + b"}\x94" * 2_500_000 + b".", "more steps than any real checkpoint"),
    "modules.pt": (archive(state_dict(model=b"\x80\x04" + module_bomb())), "contain one another without end"),
    # legacy
    "legacy-cut.pt": (legacy(_W)[:-1], "truncated: it ends at byte"),
    "legacy-no-data.pt": (legacy(_W, data=b""), "truncated: it ends at byte"),
    "legacy-head.pt": (HEAD, "it ends at byte"),
    "legacy-protocol.pt": (MAGIC + pickled(b"K\1") + pickled(b"}") + pickled(b"}"), "its protocol is 1"),
    "legacy-big.pt": (
        MAGIC + pickled(b"M\xe9\x03") + pickled(state_dict(little_endian=b"\x89")) + pickled(_W),
        "saved on a big-endian machine",
    ),
    "legacy-count.pt": (legacy(_W, data=b"\5" + bytes(7) + DATA + DATA), "has 5 elements and claims others"),
    "legacy-keys.pt": (
        legacy(_W, keys=b"](" + text("0") * 2 + b"e"),
        "is listed and not used, or listed twice",
    ),
    "legacy-lost.pt": (legacy(_W, keys=b"]"), "storage '0' has no data"),
    "legacy-view.pt": (
        legacy(
            state_dict(
                w=tensor(
                    b"("
                    + text("storage")
                    + name("torch", "FloatStorage")
                    + text("0")
                    + text("cpu")
                    + number(4)
                    + b"("
                    + text("v")
                    + number(2)
                    + number(3)
                    + b"ttQ",
                    shape=(1,),
                )
            )
        ),
        "a storage view is larger than its storage",
    ),
    "legacy-two-sizes.pt": (
        legacy(state_dict(v=tensor(persistent(elements=8)), w=tensor())),
        "is claimed to have 32 and 16 bytes",
    ),
    # safetensors
    "header.safetensors": (struct.pack("<Q", 1 << 40) + b"{" + bytes(50), "its header claims 1099511627776"),
    "header-cut.safetensors": (safetensors({"w": entry()})[:30], "inside its header"),
    "cut.safetensors": (safetensors({"w": entry()})[:-1], "promises 16 bytes of data and the file has 15"),
    "trailing.safetensors": (safetensors({"w": entry()}) + b"x", "something follows the tensors"),
    "utf8.safetensors": (safetensors(b'{"\xff\xfe": 1}'), "its header is not UTF-8"),
    "json.safetensors": (safetensors(b"{nonsense}"), "its header is not JSON"),
    "nan.safetensors": (safetensors(b'{"w": NaN}'), "holds NaN"),
    "deep.safetensors": (safetensors(b'{"w":' * 90_000 + b"1" + b"}" * 90_000), "is nested too deeply"),
    "many.safetensors": (safetensors(big_header(150_000), b""), "more entries than any real model"),
    "lists.safetensors": (safetensors(b'{"w":[' + b"[]," * 5_000_000 + b"0]}"), "more entries than any real"),
    "key-twice.safetensors": (
        safetensors(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{"dtype":"F32"}}'),
        "has the key 'w' twice",
    ),
    "inner-twice.safetensors": (
        safetensors(b'{"w":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        "has the key 'dtype' twice",
    ),
    "dtype.safetensors": (safetensors({"w": entry("F4")}), "the element type 'F4'"),
    "dtype-list.safetensors": (safetensors({"w": entry([])}), "the element type []"),
    "shape.safetensors": (safetensors({"w": entry(shape=[-4])}), "the impossible shape [-4]"),
    "shape-bool.safetensors": (safetensors({"w": entry(shape=[True, 4])}), "the impossible shape [True"),
    "overflow.safetensors": (
        safetensors({"w": entry(shape=[1 << 62, 4, 0], end=0)}, b""),
        "the impossible shape",
    ),
    "size.safetensors": (safetensors({"w": entry(shape=[5])}), "gives 'w' 16 bytes; float32 [5] takes 20"),
    "offsets.safetensors": (safetensors({"w": entry(begin=16, end=0)}), "the impossible offsets [16, 0]"),
    "overlap.safetensors": (safetensors({"v": entry(), "w": entry()}), "puts 'w' over 'v'"),
    "hole.safetensors": (
        safetensors({"w": entry(begin=4, end=20)}, DATA * 2),
        "leaves a hole of 4 bytes before 'w'",
    ),
    "beyond.safetensors": (safetensors({"w": entry(shape=[400], end=1600)}), "promises 1600 bytes"),
    "fields.safetensors": (
        safetensors({"w": {**entry(), "file": "/etc/passwd"}}),
        "by other things than dtype",
    ),
    "metadata.safetensors": (safetensors({"w": entry(), "__metadata__": {"a": 1}}), "not a table of strings"),
    "bare.safetensors": (safetensors({}, b""), "holds no tensors"),
}


def index(table: object, *shards: str, raw: bytes | None = None) -> Callable[[Path], Path]:
    """A folder with an index and good shards of one tensor, `w`."""

    def make(folder: Path) -> Path:
        folder.mkdir()
        for shard in shards:
            (folder / shard).write_bytes(safetensors({"w": entry()}))
        text_ = json.dumps({"weight_map": table}).encode() if raw is None else raw
        (folder / "model.safetensors.index.json").write_bytes(text_)
        return folder

    return make


def shard_with_more(folder: Path) -> Path:
    index({"w": "a.safetensors"})(folder)
    both = {"w": entry(), "v": entry(begin=16, end=32)}
    (folder / "a.safetensors").write_bytes(safetensors(both, DATA * 2))
    return folder


def linked_out(folder: Path) -> Path:
    outside = folder.parent / "outside.safetensors"
    outside.write_bytes(safetensors({"w": entry()}))
    index({"w": "a.safetensors"})(folder)
    (folder / "a.safetensors").symlink_to(outside)
    return folder


def empty_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def two_models(folder: Path) -> Path:
    folder.mkdir()
    for file in ("a.pt", "b.pt"):
        (folder / file).write_bytes(archive(_W))
    return folder


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def sharded_fifo(folder: Path) -> Path:
    index({"w": "a.safetensors"})(folder)
    os.mkfifo(folder / "a.safetensors")
    return folder


def misspelt(path: Path) -> Path:
    path.with_name("resnet-pruned.pt").write_bytes(archive(_W))
    return path.with_name("resnet-prunde.pt")


_TWICE = b'{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}'
CASES |= {
    "shard-up": (index({"w": "../a.safetensors"}), "'../a.safetensors', which is not a plain name"),
    "shard-absolute": (index({"w": "/etc/passwd"}), "'/etc/passwd', which is not a plain name"),
    "shard-link": (linked_out, "is a link that leads out of the model's folder"),
    "shard-missing": (index({"w": "a.safetensors"}), "the shard 'a.safetensors' is missing"),
    "shard-lacks": (index({"v": "a.safetensors"}, "a.safetensors"), "lacks the tensor 'v'"),
    "shard-extra": (shard_with_more, "holds the tensor 'v', which the index does not list there"),
    "shard-number": (index({"w": 1}), "gives 'w' no file name"),
    "shard-self": (index({"w": "model.safetensors.index.json"}), "is an index where a shard is expected"),
    "shard-fifo": (sharded_fifo, "a pipe, socket or device"),
    "index-empty": (index({}), "has no weight_map"),
    "index-twice": (index(None, raw=_TWICE), "has the key 'w' twice"),
    "index-broken": (index(None, raw=b'{"weight_map'), "the index is not JSON"),
    "folder-empty": (empty_folder, "no model in this folder"),
    "folder-two": (two_models, "2 files in this folder may be the model: a.pt, b.pt"),
    "fifo.pt": (fifo, "is a pipe, socket or device"),
    "device": (lambda path: Path("/dev/zero"), "is a pipe, socket or device"),
    "misspelt": (misspelt, "no such file"),
    "nul": (lambda path: Path("a\0b"), "cannot be opened"),
}


def build(folder: Path) -> dict[str, Path]:
    """Make every case in `folder`; their paths by name."""
    paths = {}
    for case, (content, _) in CASES.items():
        path = folder / case
        if isinstance(content, bytes):
            path.write_bytes(content)
            paths[case] = path
        else:
            paths[case] = content(path)
    return paths


def main(paths: list[str]) -> None:
    from nnopt_cli.errors import NnoptError
    from nnopt_cli.formats.read import read
    from nnopt_cli.formats.syscalls import peak_memory

    for path in paths:
        start = time.process_time()  # not the wall: the machine may be busy
        try:
            read(Path(path))
            said: tuple[int, str, str] = (0, "", "read it")
        except NnoptError as error:
            said = (error.exit_code, type(error).__name__, str(error))
        print(json.dumps({"said": said, "seconds": time.process_time() - start}))
    print(json.dumps({"peak": peak_memory(), "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
