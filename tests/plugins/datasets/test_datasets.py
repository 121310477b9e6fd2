"""Every form in which data come: what it opens to, and what is said where it is broken."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from nnopt_cli import NnoptError, Run, UnreadableError, UsageError
from nnopt_cli.data import Images, Lists, Numbers, Texts, as_source
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))


def named(text: object):
    """What `--data text` builds."""
    return REGISTRY.build("dataset", str(text), allow_code=True)


def opened(text: object):
    return as_source(named(text).open(Run()), str(text))


def rows(count: int) -> np.ndarray:
    return np.arange(count)


def picture(shade: int) -> bytes:
    from io import BytesIO

    out = BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def parquet(path: Path, count: int = 10, start: int = 0, group: int = 3) -> Path:
    cells = [{"bytes": picture(start + i), "path": f"{i}.png"} for i in range(count)]
    table = pa.table(
        {
            "image": pa.array(cells),
            "label": pa.array([i % 3 for i in range(count)]),
            "name": [f"n{i}" for i in range(count)],
            "size": pa.array(np.linspace(0, 1, count).astype(np.float32)),
            "flag": [i % 2 == 0 for i in range(count)],
            "ids": pa.array([[i, i + 1, i + 2] for i in range(count)]),
            "ragged": pa.array([list(range(i % 4)) for i in range(count)]),
            "grid": pa.array([[[i, 0], [0, i]] for i in range(count)]),
        }
    )
    info = b'{"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), path, row_group_size=group)
    return path


def check_columns(table, count: int) -> None:
    columns = table.columns
    assert isinstance(columns["image"], Images)
    assert isinstance(columns["label"], Numbers)
    assert isinstance(columns["ragged"], Lists) or columns["ragged"].kind == "lists"
    picked = np.array([count - 1, 0, 4, 4])
    assert [bytes(each) for each in columns["image"].take(picked)] == [picture(i) for i in picked]
    assert columns["label"].take(picked).tolist() == [i % 3 for i in picked]
    assert columns["name"].take(picked) == [f"n{i}" for i in picked]
    assert np.asarray(columns["ids"].take(picked)).tolist() == [[i, i + 1, i + 2] for i in picked]
    assert [each.tolist() for each in columns["ragged"].take(picked)] == [list(range(i % 4)) for i in picked]
    assert np.asarray(columns["grid"].take(picked)).tolist() == [[[i, 0], [0, i]] for i in picked]
    assert columns["flag"].take(picked).tolist() == [bool(i % 2 == 0) for i in picked]
    assert columns["size"].take(picked).dtype == np.float32
    assert table.classes == {"label": ("a", "b", "c")}
    assert len(table) == count


def test_parquet_in_memory(tmp_path):
    table = opened(parquet(tmp_path / "d.parquet"))
    check_columns(table, 10)
    assert isinstance(table.columns["name"], Texts)
    assert table.blocks == ()
    assert table.columns["image"].named(3) == "row 3 (3.png)"


def test_parquet_row_group_by_row_group(tmp_path, monkeypatch):
    import nnopt_plugins.datasets.parquet as module
    import nnopt_plugins.datasets.parquet_columns as columns

    monkeypatch.setattr(module, "HELD", 0)
    monkeypatch.setattr(columns, "GROUPS", 2)
    table = opened(parquet(tmp_path / "d.parquet", 11))
    check_columns(table, 11)
    assert table.blocks == (0, 3, 6, 9)
    backwards = table.columns["image"].take(rows(11)[::-1])
    assert [bytes(each) for each in backwards] == [picture(i) for i in range(10, -1, -1)]


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 4)
    parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 6, start=50)
    table = opened(tmp_path)
    assert len(table) == 10
    assert bytes(table.columns["image"].take(np.array([5]))[0]) == picture(51)
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 2)
    with pytest.raises(NnoptError, match="holds several splits: test, train"):
        opened(tmp_path)


def test_parquet_files_of_different_columns(tmp_path):
    parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0], "y": [1]}), tmp_path / "b.parquet")
    with pytest.raises(NnoptError, match="its columns differ"):
        opened(tmp_path)


@pytest.mark.parametrize("cut", [30, 2000])
def test_a_broken_parquet_file(tmp_path, cut):
    path = parquet(tmp_path / "d.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableError, match="cannot be read as Parquet"):
        opened(path)


def test_odd_metadata_is_left_alone(tmp_path):
    for number, info in enumerate(
        (b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"y": {"names": 3}}}}')
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"x": [1.0], "y": [1]}).replace_schema_metadata({"huggingface": info}), path)
        assert opened(path).classes == {}


def test_missing_values_are_named(tmp_path):
    pq.write_table(pa.table({"x": [1.0, None, None], "y": [1, 2, 3]}), tmp_path / "d.parquet")
    with pytest.raises(NnoptError, match="column 'x': 2 of its values are missing"):
        opened(tmp_path / "d.parquet")


def test_paths_of_images_are_not_images(tmp_path):
    cells = pa.array(
        [{"bytes": None, "path": "a.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"image": cells, "label": [0]}), tmp_path / "d.parquet")
    with pytest.raises(NnoptError, match="holds paths of images"):
        opened(tmp_path / "d.parquet")


def test_a_folder_of_images(tmp_path):
    for name, count in (("dog", 2), ("cat", 3)):
        (tmp_path / "set" / name / "deep").mkdir(parents=True)
        for i in range(count):
            (tmp_path / "set" / name / f"{i}.png").write_bytes(picture(i))
        (tmp_path / "set" / name / "notes.txt").write_text("no image")
    (tmp_path / "set" / "cat" / "deep" / "z.PNG").write_bytes(picture(9))
    (tmp_path / "set" / ".hidden").mkdir()
    table = opened(tmp_path / "set")
    assert table.classes == {"label": ("cat", "dog")}
    assert table.columns["label"].take(rows(6)).tolist() == [0, 0, 0, 0, 1, 1]
    assert table.columns["image"].take(np.array([3]))[0] == picture(9)
    assert table.columns["image"].named(5).endswith("dog/1.png")
    (tmp_path / "set" / "dog" / "1.png").unlink()
    assert table.columns["image"].take(np.array([5]))[0] == b"", "reported like any other broken image"


def test_an_empty_class_is_named(tmp_path):
    for name in ("cat", "dog", "emu"):
        (tmp_path / name).mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(picture(0))
    with pytest.raises(NnoptError, match="the class 'dog' has no images, nor have 1 others"):
        opened(tmp_path)


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0))
    with pytest.raises(NnoptError, match="has no folders of images") as caught:
        opened(tmp_path)
    assert "CLASS/IMAGE.jpg" in str(caught.value)


X = np.random.default_rng(0).random((6, 2, 3)).astype(np.float32)
Y = np.arange(6) % 3


@pytest.mark.parametrize("form", ["npz", "packed", "pt", "legacy", "safetensors", "half"])
def test_arrays(tmp_path, form, monkeypatch):
    path = tmp_path / f"d.{ {'packed': 'npz', 'legacy': 'pt', 'half': 'pt'}.get(form, form) }"
    if form == "npz":
        np.savez(path, x=X, y=Y, scale=np.array(3.0))
    elif form == "packed":
        np.savez_compressed(path, x=X, y=Y)
    elif form == "safetensors":
        save_file({"x": X, "y": Y}, path)
    else:
        kind = torch.bfloat16 if form == "half" else torch.float32
        given = {"x": torch.from_numpy(X).to(kind), "y": torch.from_numpy(Y)}
        torch.save(given, path, _use_new_zipfile_serialization=form != "legacy")
    table = opened(path)
    assert set(table.columns) == {"x", "y"}
    picked = np.array([5, 0, 0, 2])
    tolerance = 1e-2 if form == "half" else 0
    assert np.allclose(table.columns["x"].take(picked), X[picked], atol=tolerance)
    assert table.columns["y"].take(picked).tolist() == Y[picked].tolist()


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_rows_of_large_tensors_are_read_when_they_are_needed(tmp_path, form, monkeypatch):
    import nnopt_plugins.datasets.arrays as module

    monkeypatch.setattr(module, "HELD", 10)
    path = tmp_path / f"d.{form}"
    if form == "pt":
        torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, path)
    else:
        save_file({"x": X, "y": Y}, path)
    column = opened(path).columns["x"]
    assert column.shape == (2, 3)
    assert column.dtype == np.float32
    assert np.array_equal(column.take(np.array([5, 0, 3])), X[[5, 0, 3]])


class Hostile:
    def __reduce__(self):
        return (Path.write_text, (Path(HOSTILE), "was here"))


HOSTILE = "/tmp/nnopt-hostile-data"


@pytest.mark.parametrize("form", ["pt", "npz", "npy"])
def test_nothing_in_a_file_is_run(tmp_path, form):
    mark = Path(HOSTILE)
    mark.unlink(missing_ok=True)
    path = tmp_path / f"d.{form}"
    if form == "pt":
        torch.save({"x": Hostile(), "y": torch.zeros(3)}, path)
    elif form == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            from io import BytesIO

            out = BytesIO()
            np.save(out, np.array([Hostile()], object), allow_pickle=True)
            archive.writestr("x.npy", out.getvalue())
    else:
        np.save(path, np.zeros(3))
    if form == "pt":
        assert set(opened(path).columns) == {"y"}  # what is no tensor is no column
    else:
        with pytest.raises(NnoptError, match=r"pickle|one array"):
            opened(path)
    assert not mark.exists()
    pickle.dumps(Hostile())  # the file really holds it


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"\x80\x04]."], ids=["empty", "zip", "pickle"])
def test_broken_files_of_arrays(tmp_path, data):
    path = tmp_path / "d.pt"
    path.write_bytes(data)
    with pytest.raises(UnreadableError):
        opened(path)


def test_one_array_alone(tmp_path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(NnoptError, match="holds one array") as caught:
        opened(tmp_path / "d.npy")
    assert "numpy.savez" in str(caught.value)


def test_tables_of_text(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('a,b,"the kind"\n1,2.5,cat\n3,4.5,"dog, or so"\n')
    table = opened(path)
    assert list(table.columns) == ["a", "b", "the kind"]
    assert table.columns["a"].take(rows(2)).tolist() == [1, 3]
    assert table.columns["the kind"].take(rows(2)) == ["cat", "dog, or so"]
    (tmp_path / "d.tsv").write_text("a\tb\n1\t2\n")
    assert opened(tmp_path / "d.tsv").columns["b"].take(rows(1)).tolist() == [2]
    (tmp_path / "semi.csv").write_text("1;2\n3;4\n")
    bare = opened(f"csv:path={tmp_path / 'semi.csv'},separator=;,header=false")
    assert list(bare.columns) == ["c1", "c2"]
    assert bare.columns["c2"].take(rows(2)).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        ("a,b\n", "there is no data"),
        ("a,a\n1,2\n", "two columns have the same name"),
        ("a,b\n1,\n", "1 of its values are missing"),
        ("", "cannot be read as a table"),
    ],
)
def test_broken_tables_of_text(tmp_path, text, said):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(NnoptError, match=said):
        opened(tmp_path / "d.csv")


def test_digits():
    table = opened("digits")
    assert len(table) == 1797
    assert table.columns["x"].shape == (1, 8, 8)
    values = table.columns["x"].take(rows(1797))
    assert (values.min(), values.max()) == (0, 1)
    parts = [opened(f"digits:part={part}") for part in ("train", "test")]
    assert [len(part) for part in parts] == [1437, 360]
    joined = np.concatenate([part.columns["x"].take(rows(len(part))) for part in parts])
    assert np.array_equal(joined, values), "the parts share no image"
    assert opened("digits:flat=true").columns["x"].shape == (64,)


CODE = """
import helper
import torch
from torch.utils.data import DataLoader, TensorDataset
calls = []
def pairs(count=3):
    return [(torch.full((2,), float(i)), i) for i in range(count)]
def endless():
    calls.append(1)
    for i in range(helper.COUNT):
        yield torch.zeros(2), i
LOADER = DataLoader(TensorDataset(torch.zeros(5, 2), torch.arange(5)), batch_size=2)
def fails():
    raise ValueError("the disk is gone")
"""


def test_code(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "helper.py").write_text("COUNT = 4\n")
    source = opened(f"{tmp_path}/mine.py:pairs")
    assert len(source) == 3
    assert len(opened(f'python:reference={tmp_path}/mine.py:pairs,arguments={{"count": 7}}')) == 7
    stream = opened(f"{tmp_path}/mine.py:endless")
    assert [len(list(stream)) for _ in range(3)] == [4, 4, 4]
    assert opened(f"{tmp_path}/mine.py:LOADER").batched
    with pytest.raises(NnoptError, match=r"ValueError: the disk is gone \(.*mine.py, line 14"):
        opened(f"{tmp_path}/mine.py:fails")
    with pytest.raises(UsageError, match="there is no 'pears' in") as caught:
        opened(f"{tmp_path}/mine.py:pears")
    assert "Did you mean 'pairs'?" in str(caught.value)
    with pytest.raises(UsageError, match="no_such_module"):
        opened("no_such_module:thing")
    assert named(f"{tmp_path}/mine.py:pairs").spec() == f"{tmp_path}/mine.py:pairs"


def test_code_is_followed_only_where_the_user_wrote_it(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    reference = f"{tmp_path}/mine.py:pairs"
    for written in (reference, {"name": "python", "reference": reference}):
        with pytest.raises(UsageError, match="refers to code, which is not followed here"):
            REGISTRY.build("dataset", written)
        assert REGISTRY.build("dataset", written, allow_code=True).spec() == reference


def test_a_dataset_component_of_ones_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "from nnopt_cli import Dataset, option\n"
        "class Ones(Dataset):\n"
        "    '''Ones.'''\n"
        "    count: int = option(2, help='How many.')\n"
        "    def open(self, run):\n"
        "        import numpy as np\n"
        "        return np.ones((self.count, 3)), np.zeros(self.count)\n"
    )
    assert len(opened(f"{tmp_path}/own.py:Ones")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing.parquet", "there is no such file or folder"),
        ("some/where", "there is no such file or folder"),
        ("digitz", "Did you mean 'digits'?"),
        ("digits:part=none", "must be one of all, train, test"),
    ],
)
def test_names_that_are_none(text, said):
    with pytest.raises(UsageError) as caught:
        named(text)
    assert said in str(caught.value)


def test_a_file_is_known_by_its_bytes(tmp_path):
    table = parquet(tmp_path / "d.parquet").rename(tmp_path / "d.npz")
    assert named(table).name == "parquet"
    np.savez(tmp_path / "e.npz", x=X, y=Y)
    assert named((tmp_path / "e.npz").rename(tmp_path / "e.csv")).name == "arrays"
    assert named(tmp_path / "e.csv").spec() == str(tmp_path / "e.csv")


@pytest.mark.parametrize(
    ("module", "text", "package"),
    [
        ("pyarrow", "d.parquet", "pyarrow"),
        ("pyarrow", "d.csv", "pyarrow"),
        ("sklearn.datasets", "digits", "scikit-learn"),
    ],
)
def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch, module, text, package):
    parquet(tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    wanted = named(text if text == "digits" else tmp_path / text)
    for name in [each for each in sys.modules if each.partition(".")[0] == module.partition(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NnoptError, match=f"needs the package {package}") as caught:
        wanted.open(Run())
    assert "pip install 'nnopt[data]'" in str(caught.value)


def test_without_pillow_the_error_names_the_extra(monkeypatch):
    from nnopt_cli.data.opening import opened as batches_of

    table = as_source({"image": Images(memoryview(b"xx"), np.array([0, 1, 2])), "label": np.arange(2)})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(NnoptError, match="reading images needs the package Pillow"):
        list(batches_of(table))
