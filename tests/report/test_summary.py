"""The summary of a pass: its figures, and how it looks on all kinds of terminals."""

from __future__ import annotations

import json
import re

import pytest
import torch
from report_models import HOSTILE, Saved, in_memory, make_record, pruned, shown, state_dict, tallies
from rich.cells import cell_len

from nnopt_cli import Run
from nnopt_cli.model.naming import select
from nnopt_cli.report.build import build
from nnopt_cli.report.console import render
from nnopt_cli.report.settings import described

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("verbose", [0, 1])
def test_no_line_is_wider_than_the_terminal(width: int, verbose: int) -> None:
    record = make_record(output="o.pt")
    text = shown(lambda console: render(record, console, verbose), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert not any(line != line.rstrip() for line in text.splitlines()), "lines end in blanks"


@pytest.mark.parametrize("width", [60, 80, 140])
def test_each_row_of_the_layer_table_is_one_line(width: int) -> None:
    lines = shown(lambda console: render(make_record(), console), width).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Layers"))
    rows = lines[start + 2 : lines.index("", start)]
    assert len(rows) == 11  # five, a gap, five
    assert all("%" in row for i, row in enumerate(rows) if i != 5)


def test_the_path_is_printed_in_full_on_one_line_however_long() -> None:
    path = "deep/" * 60 + "model.pruned.safetensors"
    for terminal in (True, False):
        lines = shown(
            lambda console: render(make_record(output=path), console), 60, terminal=terminal
        ).splitlines()
        assert lines[-1] == f"Wrote {path}"


def test_quiet_prints_the_path_and_nothing_else() -> None:
    assert shown(lambda console: render(make_record(), console, -1)) == "out/nowhere.pruned.pt\n"
    assert shown(lambda console: render(make_record(dry_run=True), console, -1)) == ""


def test_a_dry_run_says_that_nothing_was_written() -> None:
    text = shown(lambda console: render(make_record(dry_run=True), console))
    assert "Nothing was written (--dry-run)." in text
    assert "Wrote" not in text


def test_names_from_a_file_print_as_they_are_and_steer_no_terminal() -> None:
    text = shown(lambda console: render(make_record(), console, 1), 300, colour=True)
    plain = ANSI.sub("", text)
    assert r"block[/bold].w[/x]\x1b[2J\x0a\u202eevil.weight" in plain
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_colour_only_where_there_may_be_some() -> None:
    assert "\x1b[" in shown(lambda console: render(make_record(), console), colour=True)
    assert re.search(r"\x1b\[[0-9;]*3\d", shown(lambda console: render(make_record(), console), colour=True))
    assert not re.search(
        r"\x1b\[[0-9;]*3\d", shown(lambda console: render(make_record(), console), colour=False)
    )
    assert "\x1b" not in shown(lambda console: render(make_record(), console), terminal=False)


def test_where_the_output_is_no_terminal_names_are_whole() -> None:
    record = make_record()
    text = shown(lambda console: render(record, console, 1), 60, terminal=False)
    assert all(row.name in text for row in record.tensors if row.prunable and row.name != HOSTILE)
    assert "…" in shown(lambda console: render(record, console, 1), 60)


def test_a_terminal_with_ascii_only_gets_ascii() -> None:
    text = shown(lambda console: render(make_record(), console), encoding="ascii")
    assert text.isascii()
    assert "#####" in text


def test_what_was_left_out_is_grouped_and_counted() -> None:
    lines = shown(lambda console: render(make_record(), console), 140).splitlines()
    start = lines.index("Left out")
    section = [line.split() for line in lines[start + 2 : start + 5]]
    assert ["39", "312", "1", "dimension", "bias", "×13,", "weight", "×13,", "running_mean", "×13"] in section  # noqa: RUF001
    assert ["1", "240", "embedding", "embed_tokens.weight"] in section
    assert any(row[:2] == ["13", "13"] and "int64," in row for row in section)


def test_zeros_are_not_oversold_and_only_mentioned_where_some_were_made() -> None:
    text = shown(lambda console: render(make_record(), console), 100)
    assert "no dense file smaller and no dense kernel faster" in text
    tensors = state_dict()
    same = render_of(tensors, tensors)
    assert "dense kernel" not in same


def render_of(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> str:
    model = in_memory(before)
    record = _build(model, Run(selection=select(model)), before, after)
    return shown(lambda console: render(record, console))


def _build(model, run, before, after):  # type: ignore[no-untyped-def]
    from nnopt_cli.model.provenance import Provenance

    saved = Saved(None, 999, tallies(before, after), "ab", (), Provenance())
    return build(
        command="x",
        options={},
        before=model,
        after=model,
        saved=saved,
        run=run,
        seconds=1.0,
        peak_bytes=1,
        dry_run=True,
    )


def test_totals_are_those_that_torch_counts() -> None:
    tensors = state_dict()
    model = in_memory(tensors, tied={"lm_head.weight": "embed_tokens.weight"})
    selection = select(model)
    assert "embed_tokens.weight" not in selection.names
    after = pruned(tensors, selection.names)
    record = _build(model, Run(selection=selection), tensors, after)
    counted = {n for n, t in tensors.items() if t.is_floating_point() and not n.endswith("running_mean")}
    assert record.before.parameters == sum(tensors[n].numel() for n in counted)
    assert record.after.nonzeros == sum(int(after[n].count_nonzero()) for n in counted)
    assert record.after.prunable == sum(tensors[n].numel() for n in selection.names)
    assert record.after.prunable_zeros == sum(int((after[n] == 0).sum()) for n in selection.names)
    tied = {row.name: row.tied_to for row in record.tensors if row.tied_to}
    assert tied == {"lm_head.weight": "embed_tokens.weight"}
    assert sum(row.numel for row in record.tensors if not row.tied_to) == sum(
        t.numel() for t in tensors.values()
    )


def test_compressed_size_is_each_tensors_sampled_ratio_times_its_bytes() -> None:
    record = make_record()
    whole = sum(t.numel() * t.element_size() for t in state_dict().values())
    assert record.before.compressed == pytest.approx(
        whole / 2, rel=0.02
    )  # the fake packs to half, then a quarter
    assert record.after.compressed == pytest.approx(whole / 4, rel=0.02)


def test_the_record_is_one_json_document_and_reads_back() -> None:
    record = make_record()
    text = json.dumps(record.model_dump(mode="json"), allow_nan=False)
    assert type(record).model_validate(json.loads(text)) == record


def test_a_path_with_undecodable_bytes_is_written_with_escapes() -> None:
    record = make_record(output="bad\udcff.pt")
    json.dumps(record.model_dump(mode="json")).encode()
    assert "Wrote bad\\udcff.pt" in shown(lambda console: render(record, console))


def test_settings_read_like_the_command_line() -> None:
    options = {
        "name": "prune",
        "sparsity": ["0.5", "a.*=0.8"],
        "criterion": {"name": "noisy", "sd": 2},
        "dry": True,
    }
    assert described(options) == ["sparsity 0.5, a.*=0.8", "criterion noisy:sd=2", "dry"]
    assert described({"granularity": {"name": "weight"}, "include": [], "t": 0.0, "off": False}) == [
        "granularity weight",
        "t 0.0",
    ]
