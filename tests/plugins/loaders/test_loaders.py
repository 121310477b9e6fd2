"""Loaders: what is missing is named, nothing is downloaded or run, and the libraries' networks export."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch
from nnopt_plugins.loaders.huggingface import HuggingFace
from nnopt_plugins.loaders.timm import Timm
from nnopt_plugins.loaders.torchvision import Torchvision

import nnopt_cli
from nnopt_cli import NnoptError, UsageError
from nnopt_cli.plugin.opening import architecture
from nnopt_cli.testing import run_command

BERT = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "vocab_size": 40,
}


def installed(package):
    return importlib.util.find_spec(package) is not None


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    def write(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm:resnet18", Timm(model="resnet18")),
        ("timm:vit_base_patch16_224.augreg", Timm(model="vit_base_patch16_224.augreg")),
        ("torchvision:resnet18", Torchvision(model="resnet18")),
        ("hf:./a folder/with:colons", HuggingFace(folder="./a folder/with:colons")),
        ("timm:model=resnet18", Timm(model="resnet18")),
    ],
)
def test_what_follows_the_name_is_the_first_option(text, expected):
    from nnopt_cli.plugin.manager import Wanted, load_plugins

    registry = load_plugins(Wanted(allowed=frozenset()))
    assert registry.build("loader", text) == expected
    assert architecture(text, {}, registry).maker.__self__ == expected


@pytest.mark.parametrize(
    ("package", "spec"),
    [("timm", "timm:resnet18"), ("torchvision", "torchvision:resnet18"), ("transformers", "hf:{folder}")],
)
def test_a_missing_package_names_the_extra(package, spec, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(NnoptError) as caught:
        architecture(spec.format(folder=folder(**BERT)), {}, None).build()
    assert f"nnopt[{package}]" in str(caught.value)


def test_a_package_that_does_not_import_is_told_so(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('no operator of that name\\nand more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(NnoptError, match="fails on import: no operator of that name") as caught:
        Timm(model="resnet18").build()
    assert "and more" not in str(caught.value)


def test_a_folder_without_a_description(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json does not exist"):
        HuggingFace(folder=str(tmp_path)).build()


def test_the_extras_are_declared():
    from importlib.metadata import metadata

    declared = set(metadata("nnopt").get_all("Provides-Extra") or ())
    if "timm" not in declared:
        pytest.skip("nnopt was installed before the extras were declared")
    assert {"timm", "torchvision", "transformers"} <= declared


@pytest.mark.skipif(not installed("transformers"), reason="transformers is not installed")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"architectures": ["AutoConfig"]}, "no network called 'AutoConfig'"),
        ({"architectures": ["os.system"]}, "no network called 'os.system'"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Net"}},
            "cannot read its config.json",
        ),
    ],
)
def test_no_code_in_a_folder_is_run(folder, change, told, tmp_path):
    made = folder(**{**BERT, **change})
    (made / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    with pytest.raises(NnoptError, match=told):
        HuggingFace(folder=str(made)).build()
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "spec", "given"),
    [
        ("timm", "timm:resnet10t", "3x64x64"),
        ("torchvision", "torchvision:squeezenet1_1", "3x64x64"),
        ("transformers", "hf:{folder}", "input_ids=int64[N,6]<40; attention_mask=int64[N,6]"),
    ],
)
@pytest.mark.filterwarnings("default")  # of libraries that are not ours
def test_networks_of_libraries_become_graphs(package, spec, given, folder, tmp_path):
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    spec = spec.format(folder=folder(**BERT))
    torch.save(architecture(spec, {}, None).build().state_dict(), tmp_path / "model.pt")
    out = tmp_path / "model.pt2"
    done = run_command(
        "convert", tmp_path / "model.pt", "--arch", spec, "--input", given, "-o", out, "--json"
    )
    assert done.code == 0, done.stderr
    assert done.json["agreement"]["difference"] <= 1e-5
    assert nnopt_cli.load(out).rung == "graph"


@pytest.mark.slow
@pytest.mark.parametrize(("package", "wrong"), [("timm", "resnet19"), ("torchvision", "resnet19")])
@pytest.mark.filterwarnings("default")
def test_a_wrong_name_lists_close_ones(package, wrong):
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        architecture(f"{package}:{wrong}", {}, None).build()
