"""What nnopt writes, nnopt reads back the same, through every form and twice over."""

from __future__ import annotations

from pathlib import Path

import pytest
from write_helpers import NOTE, Keep, checkpoint, save, weight

from nnopt_cli.formats.checkpoint import Checkpoint, Leaf
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.inert import Ordered
from nnopt_cli.formats.read import read


def summary(source: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {n: (w.dtype.name, w.shape, w.words().tobytes()) for n, w in source.weights.items()}


def model(safetensors: bool) -> Checkpoint:
    kinds = [name for name, kind in DTYPES.items() if kind.safetensors or not safetensors]
    weights = {f"layer.{i}.{name}": weight("w", name, (3, i), seed=i) for i, name in enumerate(kinds)}
    tied = weight("embed", shape=(6, 4)).edited(Keep(2))
    weights = {"embed": tied, **weights, "head": tied}
    tree = {"epoch": 3, "net": Ordered((f"module.{name}", Leaf(w.origin)) for name, w in weights.items())}
    return checkpoint(weights, tree=tree, key=("net",), prefix="module.")


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors", "out"])
def test_a_written_model_is_read_back_and_written_again(tmp_path, name):
    source = model(safetensors=name != "out.pt")
    wanted = summary(source)
    for step in range(2):
        out = tmp_path / str(step) / name
        out.parent.mkdir()
        save(source, out)
        back = read(out)
        assert summary(back) == wanted
        assert list(back.weights) == [*list(source.weights)[:-1], "head"] or name != "out.pt"
        assert back.weights["embed"] is back.weights["head"]
        assert back.container.prefix == "module."
        assert back.provenance == NOTE
        assert back.notes == ()
        source = back
    if name == "out.pt":
        assert back.container.key == ("net",)
        assert back.container.tree["epoch"] == 3
    first, second = (sorted(p for p in (tmp_path / s).rglob("*") if p.is_file()) for s in "01")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_shards_with_tied_weights_are_read_back(tmp_path, suffix):
    tied = weight("embed", shape=(6, 4))
    weights = {"embed": tied, "fc": weight("fc", seed=1), "head": tied}
    names = [f"m-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    source = checkpoint(
        weights,
        path=Path("folder"),
        format="torch" if suffix == "bin" else "safetensors",
        files=(),
        shards={"embed": names[0], "fc": names[1], "head": names[0]},
    )
    save(source, tmp_path / "out")
    back = read(tmp_path / "out")
    assert summary(back) == {name: summary(source)[name] for name in back.weights}
    assert sorted(back.weights) == ["embed", "fc", "head"]
    assert back.weights["embed"] is back.weights["head"]
    assert back.provenance == NOTE
    save(back, tmp_path / "again")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
