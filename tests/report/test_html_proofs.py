"""The pages of export, verify and ensemble: every figure of the record, and names that stay text."""

from __future__ import annotations

import re

import pytest
from test_html import checked

from nnopt_cli.report.evaluation import Evaluated, Score
from nnopt_cli.report.exported import Compared, Exported, Fed, Measured, Speed, Tried
from nnopt_cli.report.fusion import Fused, Likeness, Member
from nnopt_cli.report.html import page, result_sheet
from nnopt_cli.report.verified import Verified

ATTACK = '"><script>alert(1)</script>\x1b[2J'


def compared(**changes: object) -> Compared:
    trials = [
        Tried(inputs="noise", sizes={"N": 2, "T": 5}, difference=1e-9),
        Tried(inputs="noise", sizes={"N": 3, "T": 5}, difference=3.2e-7),
        Tried(inputs="noise", sizes={"N": 2, "T": 6}, difference=1e-4),
    ]
    given = {
        "against": "PyTorch",
        "measure": "difference",
        "difference": 1e-4,
        "tolerance": 1e-4,
        "snr": None,
        "top1": None,
        "trials": trials,
        "fault": None,
    }
    return Compared.model_validate({**given, **changes})


def exported(**changes: object) -> Exported:
    made = Exported(
        input="model.pt2",
        input_bytes=4_000_000,
        format="onnx",
        options={},
        settings=["quantize static"],
        output="model.onnx",
        files=["model.onnx", "README.md"],
        bytes=1_000_000,
        parameters=999_123,
        inputs=[Fed(name="ids", dtype="int64", shape=["N", "T"])],
        steps=[{"pass": "prune", "sparsity": 0.5}],
        blake3="ab" * 32,
        runs_in="ONNX Runtime",
        parity=compared(),
        metric=Measured(name="accuracy", before=0.9125, after=0.9075, samples=800),
        speed=Speed(before=0.004, after=0.001, batch=1),
        notes=["Something to know."],
        seconds=3.0,
        version="0",
    )
    return made.model_copy(update=changes)


def widths(html: str) -> list[float]:
    """How far the bars of the verification reach, in percent."""
    rows = html[html.index("How it was verified") :].split("</table>")[0]
    return [float(share) for share in re.findall(r'<i style="width:([\d.]+)%"', rows)]


def test_an_export_shows_what_was_gained_and_what_was_proven():
    html = page(exported())
    shown = checked(html)
    for said in ("4.00x smaller", "4.00x as fast", "0.9125", "0.9075", "-0.0050", "800 samples", "999,123"):
        assert said in shown
    for said in ("3.2e-07", "0.0001", "int64", "prune", '{"sparsity": 0.5}', "README.md", "ab" * 32):
        assert said in shown
    assert "<b>3</b>" in html, "the size that was changed is strong"
    assert "<b>6</b>" in html
    assert "<b>5</b>" not in html
    assert widths(html) == pytest.approx([0, 50.1, 100], abs=0.1), "by orders of magnitude"


def test_figures_that_were_not_measured_are_left_out():
    bits = compared(trials=[], difference=0.0, tolerance=None, against="the weights")
    shown = checked(page(exported(metric=None, speed=None, parity=bits, inputs=[], steps=[])))
    for said in ("latency", "accuracy", "allowed;", "What it is fed"):
        assert said not in shown
    assert "same bits" in shown


def verified(parity: Compared) -> Verified:
    return Verified(
        a="a.pt2", b="b.onnx", parity=parity, same=parity.fault is None, notes=[], seconds=1, version="0"
    )


def test_a_comparison_says_what_differs():
    assert "The same, as far as these inputs tell." in checked(page(verified(compared())))
    worse = Tried(inputs="noise", sizes={"N": 2, "T": 7}, difference=None)
    fault = "the size T is frozen"
    parity = compared(trials=[*compared().trials, worse], difference=None, fault=fault)
    html = page(verified(parity))
    shown = checked(html)
    assert "Not the same." in shown
    assert f"Not proven: {fault}." in shown
    assert '<b class="bad">infinite</b>' in html
    assert html.count('<b class="bad">') == 1, "what is just allowed is allowed"
    assert widths(html)[-1] == 100


def test_few_bits_are_held_to_their_noise():
    shown = checked(page(verified(compared(measure="noise", tolerance=None, snr=31.25, top1=0.985))))
    assert "31.2 dB" in shown
    assert "98.5%" in shown
    assert "allowed" not in shown


def evaluated() -> Evaluated:
    scores = [
        Score(
            path=f"{name}.pt2",
            format="pt2",
            rung="graph",
            parameters=100,
            bytes=400,
            loss=nll,
            metrics={"accuracy": accuracy, "nll": nll, "ece": ece},
            per_class={},
            matrices={},
            samples=50,
            seconds=1.0,
            throughput=1000.0,
        )
        for name, accuracy, nll, ece in (
            ("one", 0.81, 0.61, 0.021),
            ("two", 0.83, 0.57, 0.034),
            ("result", 0.86, 0.44, 0.045),
        )
    ]
    return Evaluated(
        data="digits",
        task="classification",
        classes=10,
        names=[],
        counts=[],
        settings=[],
        samples=50,
        loss="cross-entropy",
        gate="accuracy",
        larger_is_better={"accuracy": True, "nll": False, "ece": False},
        models=scores,
        disagreement=[[0, 0.14, 0.08], [0.14, 0, 0.06], [0.08, 0.06, 0]],
        wins=[[0, 3, 1], [4, 0, 2], [7, 5, 0]],
        unreadable=[],
        notes=[],
        seconds=1.0,
        device="cpu",
        version="0",
    )


def fused(**changes: object) -> Fused:
    members = [
        Member(path=f"{name}.pt2", format="pt2", bytes=400, parameters=100, blake3=name[0] * 64)
        for name in ("one", "two")
    ]
    made = Fused(
        method="mean",
        asked="auto",
        settings=[],
        evidence=["They were trained apart."],
        likeness=[Likeness(layer=f"layer{n}", cosine=n / 20) for n in range(20)],
        inputs=members,
        output="both.pt2",
        dry_run=False,
        parameters=200,
        bytes=800,
        changed=0,
        tensors=4,
        evaluated=evaluated(),
        notes=["Aligned."],
        facts={},
        seconds=1.0,
        peak_bytes=1,
        device="cpu",
        version="0",
    )
    return made.model_copy(update=changes)


def test_an_ensemble_shows_members_and_result_side_by_side():
    html = page(fused())
    shown = checked(html)
    for said in ("They were trained apart.", "auto: mean", "NLL of the result", "best member 0.5700 (B)"):
        assert said in shown
    for figure in ("0.8100", "0.8300", "0.0340", "14.0%", "8.0%", "Aligned."):
        assert figure in shown
    rows = {row.split("<")[0]: row for row in html.split('<tr><td class="">')}
    assert re.findall(r"<b>([\d.]+)</b>", rows["NLL"]) == ["0.4400"], "less is better"
    assert re.findall(r"<b>([\d.]+)</b>", rows["accuracy"]) == ["0.8600"]
    assert re.findall(r"<b>([\d.]+)</b>", rows["ECE"]) == ["0.0210"]
    assert "Right where another is wrong" in shown
    assert "Likeness of the layers" in shown
    assert html.count("<svg") == 2, "likelihood and likeness"
    assert all(f"layer{n}" in shown for n in range(20))


def test_an_ensemble_without_data_shows_its_choice():
    shown = checked(page(fused(evaluated=None, likeness=fused().likeness[:3])))
    assert "They were trained apart." in shown
    assert "Measured" not in shown
    assert "Disagreement" not in shown


def test_values_have_no_right_and_wrong():
    values = evaluated().model_copy(update={"task": "regression"})
    shown = checked(page(fused(evaluated=values)))
    assert "0.1400" in shown
    assert "Root of the mean square" in shown
    assert "Right where" not in shown


def test_hostile_names_are_text():
    named = compared(against=ATTACK, fault=ATTACK)
    fed = [Fed(name=ATTACK, dtype=ATTACK, shape=[ATTACK])]
    pages = [
        page(exported(input=ATTACK, output=ATTACK, files=[ATTACK], steps=[{"pass": ATTACK, ATTACK: ATTACK}])),
        page(exported(parity=named, inputs=fed, notes=[ATTACK], runs_in=ATTACK, blake3=ATTACK)),
        page(verified(named).model_copy(update={"a": ATTACK, "b": ATTACK})),
        page(fused(likeness=[Likeness(layer=ATTACK, cosine=1.0)], evidence=[ATTACK], output=ATTACK)),
    ]
    for html in pages:
        assert "<script>alert(1)</script>" in checked(html), "as text"
        assert "\x1b" not in html


@pytest.mark.parametrize("record", [exported(), fused()], ids=["export", "ensemble"])
def test_a_step_of_a_recipe_looks_as_by_itself(record):
    command = "export" if isinstance(record, Exported) else "ensemble"
    made = result_sheet(command, record.model_dump(mode="json"))
    assert "".join(made.parts) in page(record)
