"""Whatever the bytes are, reading ends in a checkpoint or in an error of ours that names the file."""

from __future__ import annotations

import io
import pickle
from argparse import Namespace
from pathlib import Path

import corpus
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from nnopt_cli.errors import UnreadableError, UsageError
from nnopt_cli.formats.read import read

REAL = Path(__file__).parents[3] / "shared" / "data" / "checkpoints"
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def try_reading(path: Path) -> bool:
    """Read all of it; whether that worked. Any exception but our own is a failure of the test."""
    try:
        weights = read(path).weights
    except (UnreadableError, UsageError) as error:
        message = str(error)
    else:
        assert all(weight.words().shape == weight.shape for weight in weights.values())
        return True
    assert str(path) in message
    return False


def saved(value: object, **options: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def seeds() -> dict[str, bytes]:
    """Real files of every format that is read, small enough to be cut at every byte."""
    tied = torch.arange(6.0).reshape(2, 3)
    state = {"a.weight": tied, "b.weight": tied, "t": tied.t(), "n": torch.tensor(3)}
    nested = {"state_dict": state, "epoch": 3, "args": Namespace(lr=np.float64(0.1)), "size": torch.Size([2])}
    tensors = {"a": tied, "b": torch.zeros(2, dtype=torch.bfloat16)}
    return {
        "zip": saved(nested),
        "legacy": saved(nested, _use_new_zipfile_serialization=False),
        "module": saved(torch.nn.Linear(2, 2)),
        "protocol 4": saved(nested, pickle_protocol=4),
        "pickle": pickle.dumps({"w": np.arange(6.0), "v": np.ones(2, np.float16), "t": torch.ones(2)}),
        "text pickle": pickle.dumps({"w": np.arange(3.0)}, protocol=0),
        "safetensors": save_safetensors(tensors, {"format": "pt"}),
    }


SEEDS = seeds()


@pytest.mark.parametrize("kind", SEEDS)
def test_the_seeds_are_readable(tmp_path, kind):
    path = tmp_path / "seed"
    path.write_bytes(SEEDS[kind])
    assert try_reading(path)


@pytest.mark.parametrize("kind", SEEDS)
def test_a_file_cut_anywhere_is_unreadable(tmp_path, kind):
    """Every length of the short ones; of the others, every length near an end and a sample between."""
    raw, path = SEEDS[kind], tmp_path / "cut"
    lengths = {*range(min(200, len(raw))), *range(len(raw) - 200, len(raw)), *range(0, len(raw), 37)}
    for length in sorted(length for length in lengths if length >= 0):
        path.write_bytes(raw[:length])
        with pytest.raises(UnreadableError):
            read(path)


@QUICK
@given(data=st.data(), kind=st.sampled_from(sorted(SEEDS)))
def test_a_damaged_file_never_surprises(tmp_path, data, kind):
    raw = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.binary(max_size=4))
        end = at + data.draw(st.integers(0, 6))
        raw[at:end] = piece
    path = tmp_path / "damaged"
    path.write_bytes(raw)
    try_reading(path)


NAMES = {
    "torch": ["float32", "FloatStorage", "Size", "device", "Tensor"],
    "torch._utils": ["_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"],
    "torch._tensor": ["_rebuild_from_type_v2"],
    "torch.storage": ["_load_from_bytes", "UntypedStorage"],
    "torch.jit._pickle": ["restore_type_tag"],
    "collections": ["OrderedDict", "Counter"],
    "builtins": ["set", "complex"],
    "numpy": ["dtype", "ndarray"],
    "numpy.core.multiarray": ["scalar", "_reconstruct"],
    "numpy.core.numeric": ["_frombuffer"],
    "_codecs": ["encode"],
    "copyreg": ["_reconstructor"],
    "os": ["system"],
}
PIECES = [
    *(bytes([code]) for code in b"()]}N02RbsuaetldoQ\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94"),
    *(b"h\0", b"h\1", b"q\0", b"q\1", b"K\0", b"K\2", b"J\xff\xff\xff\xff", b"G\x7f\xf8\0\0\0\0\0\0"),
    *(
        corpus.text("w"),
        corpus.text("storage"),
        b"C\4abcd",
        b"I01\n",
        b"I7\n",
        b"L7L\n",
        b"Vx\n",
        b"S'x'\n",
        b"P0\n",
    ),
    *(corpus.ORDERED, corpus.tensor(), corpus.persistent(), corpus.numbers(1, 2)),
    *(corpus.name(module, name) for module, names in NAMES.items() for name in names),
]


@QUICK
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=60), tail=st.binary(max_size=8))
def test_any_pickle_program_ends_well(tmp_path, pieces, tail):
    body = b"}X\1\0\0\0a" + corpus.tensor() + b"s" + b"".join(pieces) + tail
    for make in (corpus.archive, corpus.legacy):
        path = tmp_path / "program"
        path.write_bytes(make(body))
        try_reading(path)


@QUICK
@given(
    raw=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x80\x02", b"\x80\x04\x95", b"PK\3\4", corpus.HEAD]),
)
@example(raw=b"{" * 200, head=b"\x10\0\0\0\0\0\0\0")
def test_any_bytes_end_well(tmp_path, raw, head):
    path = tmp_path / "bytes"
    path.write_bytes(head + raw)
    try_reading(path)


_NAMES = st.sampled_from(["w", "v", "__metadata__", "dtype"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 20) | st.integers() | st.sampled_from(["F32", "BF16", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I8", "BOOL"]) | _VALUES,
        "shape": st.lists(st.integers(0, 4), max_size=3) | _VALUES,
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2) | _VALUES,
    }
)


@QUICK
@given(header=st.dictionaries(_NAMES, _ENTRY | _VALUES, max_size=3))
def test_any_safetensors_header_ends_well(tmp_path, header):
    path = tmp_path / "file.safetensors"
    path.write_bytes(corpus.safetensors(header))
    try_reading(path)


@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet32-d509ac18.th"])
def test_damaged_real_checkpoints_end_well(tmp_path, name):
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not here: real checkpoints are not part of the project")
    raw = (REAL / name).read_bytes()
    path = tmp_path / name
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(raw)
        for at in rng.integers(0, 20_000, 3):  # where the pickles are
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(raw))] if rng.random() < 0.3 else damaged)
        try_reading(path)
