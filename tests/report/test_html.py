"""Reports: whole pages, with the record's figures in them, that ask nobody for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_models import HOSTILE, in_memory, make_record, pruned, state_dict

from nnopt_cli import MemoryWeight, save
from nnopt_cli.model.histogram import SAMPLE, reach, spread
from nnopt_cli.model.naming import select
from nnopt_cli.report.details import with_details
from nnopt_cli.report.html import page
from nnopt_cli.report.html_charts import Series, chart
from nnopt_cli.report.html_page import MARK, text
from nnopt_cli.report.recipe_runs import RecipeRun, RecipeRuns, StepRow
from nnopt_cli.report.record import EpochRow, Trained
from nnopt_cli.testing import run_command, small_file

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
VOID = {"meta", "br", "img", "input", "link", "hr"}
KNOWN = re.findall(
    r"\w+",
    "html head meta title style body header main footer section h1 h2 h3 small p b span code ul li div i "
    "table thead tbody tr th td figure figcaption svg path text circle details summary",
)
FETCHING = ("src", "href", "xlink:href", "action", "srcset", "background")


class Checker(HTMLParser):
    """Well-formed: every tag is known, closed, and closed in order; no attribute runs or fetches anything."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag in KNOWN, f"an unexpected <{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name}={value}"
            assert name not in ("src", "href", "xlink:href", "action", "srcset", "background"), (
                f"{name}={value}"
            )
            assert "url(" not in (value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], []):
            self.words.append(data)


def checked(html: str) -> str:
    """The text that a page shows, once the page is found to be sound."""
    assert html.startswith("<!doctype html>\n" + MARK)
    found = Checker()
    found.feed(html)
    found.close()
    assert found.open == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?://", html), "a page names no address"
    assert "<script" not in html
    assert "prefers-color-scheme: dark" in style
    assert "default-src 'none'" in html
    assert not re.search(r"\bnan\b|\binf\b", " ".join(found.words))
    return " ".join(found.words)


def detailed():
    tensors = state_dict()
    before = in_memory(tensors)
    after = in_memory(pruned(tensors, select(before).names))
    return with_details(make_record(), before, after)


def test_a_pass_shows_what_its_record_holds():
    record = detailed()
    shown = checked(page(record))
    for figure in (record.before.parameters, record.after.nonzeros):
        assert f"{figure:,}" in shown
    for row in record.tensors:
        assert text(row.name) in page(record)
    assert "threshold" not in shown or "0.67" in shown
    for note in record.notes:
        assert note.strip()[:40] in shown
    assert len(record.histograms) == sum(row.prunable and row.tied_to is None for row in record.tensors)


def test_hostile_names_are_text():
    attack = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e&amp;</style>'
    record = detailed()
    rows = [row.model_copy(update={"name": f"{attack}{n}"}) for n, row in enumerate(record.tensors)]
    shapes = [each.model_copy(update={"name": attack}) for each in record.histograms]
    hostile = record.model_copy(
        update={
            "tensors": rows,
            "histograms": shapes,
            "notes": [attack],
            "settings": [attack],
            "command": attack,
            "output": attack,
            "rule": attack,
            "version": attack,
            "device": attack,
        }
    )
    shown = checked(page(hostile))
    assert "<script>alert(1)</script>" in shown, "as text"
    assert "\u202e" not in page(hostile)
    assert HOSTILE not in page(record)


@given(st.text(max_size=30))
def test_any_text_can_be_shown(words):
    html = text(words)
    assert not set("<>\"'") & set(html)
    html.encode("utf-8")
    assert not any(ord(char) < 32 for char in html)


def trained() -> Trained:
    rows = [
        EpochRow(epoch=n, steps=10 * n, loss=1 / n, lr=0.1 / n, val_loss=1.5 / n, metric=1 - 1 / (n + 1))
        for n in (1, 2, 3)
    ]
    return Trained(
        epochs=rows,
        losses=[3.0, 2.0, 1.0],
        steps=30,
        samples=300,
        metric_name="accuracy",
        larger_is_better=True,
        before=0.25,
        after=0.8125,
        train=0.9375,
        loss=(2.0, 0.5),
        reported_on="test rows",
        reported_samples=64,
        kept="best",
    )


def test_a_training_is_drawn():
    html = page(detailed().model_copy(update={"training": trained()}))
    shown = checked(html)
    for said in (
        "Loss by step",
        "Loss by epoch",
        "Accuracy by epoch",
        "Learning rate",
        "0.8125",
        "64 test rows",
    ):
        assert said in shown
    assert html.count("<svg") == 4 + len(detailed().histograms)


def sweep() -> RecipeRuns:
    record = make_record()
    runs = [
        RecipeRun(
            variables={"s": s, "same": 1},
            figures={"non-zeros": nonzeros, "accuracy": accuracy},
            steps=[StepRow(step="prune", settings=[], seconds=0.1)],
            record=record,
        )
        for s, nonzeros, accuracy in ((0.3, 700, 0.9), (0.6, 400, 0.8), (0.9, 100, None))
    ]
    failed = RecipeRun(
        variables={"s": 2, "same": 1}, figures={}, steps=[], record=None, error="no <b>good</b>"
    )
    return RecipeRuns(
        recipe="r.yaml",
        runs=[*runs, failed],
        metric="accuracy",
        cost="non-zeros",
        dense={"non-zeros": 1000, "accuracy": 0.95},
        seconds=1.0,
        version="0",
    )


def test_a_sweep_shows_accuracy_against_cost():
    html = page(sweep())
    shown = checked(html)
    assert "Accuracy against non-zeros" in shown
    picture = html[html.index("<svg") : html.index("</svg>")]
    assert picture.count("<circle") == 3, "two runs that have both figures, and the model before"
    for said in ("0.9000", "0.8000", "0.9500", "1,000", "failed: no <b>good</b>"):
        assert said in shown


def test_points_lie_where_they_should():
    html = chart([Series("a", [(0, 0.0), (10, 1.0), (5, 0.5)])], "x", "y")
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', html)]
    (x0, y0), (x1, y1), (xm, ym) = places
    assert x0 < x1
    assert y1 < y0, "up is more"
    assert (xm, ym) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.1)
    assert chart([Series("a", [])], "x", "y") == ""
    assert chart([Series("a", [(0, float("nan")), (1, None)])], "x", "y") == ""
    checked_points = chart([Series("a", [(3, 7.0)])], "x", "y")
    assert checked_points.count("<circle") == 1


@pytest.mark.parametrize("last", [2, 3, 7, 100])
def test_epochs_are_whole(last):
    html = chart([Series("a", [(n, n / 2) for n in range(1, last + 1)])], "epoch", "loss", whole=True)
    ticks = re.findall(r'text-anchor="middle">([^<]+)</text>', html)
    assert ticks[-1] == "epoch"
    assert all(tick.isdecimal() for tick in ticks[:-1])
    assert len(ticks) >= 3


@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), min_size=1, max_size=20))
def test_charts_of_any_figures_stay_inside(points):
    html = chart([Series("a", points)], "x", "y")
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', html):
        assert 0 <= float(x) <= 480
        assert 0 <= float(y) <= 250


@pytest.mark.parametrize("size", [1, 1000, SAMPLE + 12345])
def test_histograms_count_what_numpy_counts(size):
    values = np.random.default_rng(0).standard_normal(size).astype("float32")
    values[::7] = 0
    weight = MemoryWeight.of("w", values)
    far = reach(weight)
    found = spread(weight, far or 1.0)
    assert found.seen == min(size, SAMPLE) or size > SAMPLE
    assert sum(found.counts) + found.zeros == found.seen
    if size <= SAMPLE:
        kept = np.clip(values[values != 0].astype("float64"), -far or -1, far or 1)
        assert list(found.counts) == np.histogram(kept, 40, (-far or -1, far or 1))[0].tolist()
        assert found.zeros == int((values == 0).sum())
    else:
        assert found.seen <= SAMPLE
        assert found.zeros / found.seen == pytest.approx(1 / 7, abs=0.01)


def test_odd_values_are_in_no_bin():
    values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, -2], "float32")
    found = spread(MemoryWeight.of("w", values), 4.0)
    assert (sum(found.counts), found.zeros, found.seen) == (2, 2, 7)
    assert reach(MemoryWeight.of("w", np.zeros(5, "float32"))) == 0
    assert reach(MemoryWeight.of("w", np.empty(0, "float32"))) == 0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    model = small_file(folder / "model.safetensors")
    assert run_command("prune", model, "-s", "0.5", "-q").code == 0
    return folder


@pytest.mark.parametrize(
    "args",
    [
        ["prune", "model.safetensors", "-s", "0.3", "-o", "o.pt", "--force"],
        ["prune", "model.safetensors", "-s", "0.3", "--dry-run", "-o", "new.pt"],
        ["inspect", "model.pruned.safetensors"],
        ["inspect", "model.safetensors", "--headers"],
        ["compare", "model.safetensors", "model.pruned.safetensors"],
        ["run", "model.pruned.safetensors", "--model", "model.safetensors"],
    ],
    ids=" ".join,
)
def test_commands_write_reports(files, monkeypatch, args):
    monkeypatch.chdir(files)
    done = run_command(*args, "--report", "r.html")
    assert done.code == 0, done.stderr
    assert "Report in r.html" in done.stdout
    shown = checked((files / "r.html").read_text())
    assert "model" in shown
    again = run_command(*args, "--report", "r.html", "--json")
    assert again.code == 0, "a report is replaced by a report"
    assert isinstance(again.json, dict)


def test_measures_are_pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arch = ("--arch", f"{DIGITS}/net.py:build")
    data = ("--data", "digits:part=test", "--report", "r.html")
    done = run_command("evaluate", DIGITS / "digits.pt", *arch, *data, "--per-class", "--json")
    assert done.code == 0, done.stderr
    shown = checked((tmp_path / "r.html").read_text())
    (model,) = done.json["models"]
    for figure in (*model["metrics"].values(), *model["per_class"]["recall"]):
        assert f"{figure:.4f}" in shown
    done = run_command(
        "analyze",
        DIGITS / "digits.pt",
        *arch,
        "--input",
        "1x8x8",
        *data,
        "--limit",
        "64",
        "--ratios",
        "0.5",
        "--json",
    )
    assert done.code == 0, done.stderr
    shown = checked((tmp_path / "r.html").read_text())
    for group in done.json["groups"]:
        assert group["layer"] in shown
        assert f"{group['metric'][0]:.4f}" in shown


@pytest.mark.parametrize("name", ["r.txt", "no/r.html", "model.html", "folder.html"])
def test_a_report_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    small_file("model.safetensors")
    (tmp_path / "model.html").write_text("<p>somebody's page</p>")
    (tmp_path / "folder.html").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    done = run_command("prune", "model.safetensors", "-s", "0.5", "--report", name)
    assert done.code in (1, 2)
    assert name in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "model.html").read_text() == "<p>somebody's page</p>"


def test_a_hostile_file_makes_a_harmless_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = "<script>alert(1)</script>"
    tensors = {f"a.{attack}\x1b[2J.weight": torch.randn(8, 8), "b.weight": torch.randn(8, 8)}
    save(in_memory(tensors), "m.safetensors")
    for args in (
        ["prune", "m.safetensors", "-s", "0.5", "-o", "p.safetensors"],
        ["inspect", "m.safetensors"],
    ):
        assert run_command(*args, "--report", "r.html").code == 0
        html = (tmp_path / "r.html").read_text()
        assert attack in checked(html)
        assert attack not in html
        assert "\x1b" not in html
