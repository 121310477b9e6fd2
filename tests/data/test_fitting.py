"""Data and model are held against each other before the first step; what does not fit is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_models import Both, Small, Tokens, Viewed, image_file, jpeg, model_of, options, pictures, run
from torch import nn

from nnopt_cli import NnoptError, UsageError
from nnopt_cli.data import input_spec, measure


def arrays(folder, **columns):
    np.savez(folder / "d.npz", **columns)
    return str(folder / "d.npz")


def images(count=12, size=6, channels=3):
    return np.random.default_rng(0).random((count, channels, size, size)).astype(np.float32)


LABELS = np.arange(12) % 4


@pytest.mark.parametrize("inputs", [None, "3x6x6"], ids=["module", "graph"])
def test_what_fits_is_opened_on_both_rungs(tmp_path, inputs):
    model = model_of(tmp_path, Small, inputs)
    data = options(data=arrays(tmp_path, x=images(), y=LABELS)).open(run(), model)
    assert data.task.kind == "classification"
    assert data.task.classes == 4
    assert data.task.counts == (3, 3, 3, 3)
    assert data.gate.name == "accuracy"
    assert {"accuracy", "f1", "nll", "ece"} <= {metric.name for metric in data.metrics}
    assert "top-5" not in {metric.name for metric in data.metrics}, "of four classes it is always 1"
    found = measure(model.module(), data, run())
    assert found.samples == 12


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (images(size=5), r"float32\[N,3,6,6\].*dimension 2 is 5 instead of 6"),
        (images(channels=1), r"dimension 1 is 1 instead of 3"),
        (images().reshape(12, 3, 36), "3 dimensions instead of 4"),
    ],
)
def test_a_wrong_shape_is_reported_with_what_the_graph_takes(tmp_path, x, said):
    model = model_of(tmp_path, Small, "3x6x6")
    with pytest.raises(NnoptError, match=said) as caught:
        options(data=arrays(tmp_path, x=x, y=LABELS)).open(run(), model)
    assert "the data do not fit the model" in str(caught.value)
    if x.shape[2:] == (5, 5):
        assert "--resize 6x6" in str(caught.value)


def test_a_wrong_shape_is_reported_by_a_module_too(tmp_path):
    with pytest.raises(NnoptError, match=r"does not take what the data give it \(float32\[4,1,6,6\]\)"):
        options(data=arrays(tmp_path, x=images(channels=1), y=LABELS)).open(run(), model_of(tmp_path, Small))


def test_numbers_where_tokens_are_wanted(tmp_path):
    model = model_of(tmp_path, Tokens, "ids=int64[N,5]<20; mask=int64[N,5]<2")
    ids = np.random.default_rng(0).random((12, 5)).astype(np.float32)
    path = arrays(tmp_path, ids=ids, mask=np.ones((12, 5), np.int64), label=LABELS % 3)
    with pytest.raises(NnoptError, match="float32 is not int64"):
        options(data=path).open(run(), model)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(12) % 6, r"labels go up to 5 \(6 classes\), and the model tells 4 classes apart"),
        (np.arange(12) % 4 + 1, "They seem to count from 1: subtract 1"),
        (np.arange(12) % 4 - 1, "a label is -1, and labels count from 0"),
        (np.full(12, -100), "no sample has a label"),
        (np.zeros((12, 3), np.int64), r"does not fit the targets"),
        (np.random.default_rng(0).random(12), r"does not fit the targets"),
    ],
)
def test_labels_that_the_model_has_no_output_for(tmp_path, labels, said):
    with pytest.raises(NnoptError, match=said):
        options(data=arrays(tmp_path, x=images(), y=labels)).open(run(), model_of(tmp_path, Small))


def test_a_class_without_samples_is_told(tmp_path):
    r = run()
    options(data=arrays(tmp_path, x=images(), y=LABELS // 2 * 2)).open(r, model_of(tmp_path, Small))
    assert "No sample is of the classes 1, 3." in r.notes


def test_one_sample_teaches_nothing(tmp_path):
    given = options(data=arrays(tmp_path, x=images(1), y=np.array([0])))
    with pytest.raises(NnoptError, match="one sample"):
        given.open(run(), model_of(tmp_path, Small), training=True)


def test_no_rows_are_no_data(tmp_path):
    path = arrays(tmp_path, x=images(0), y=np.zeros(0, np.int64))
    with pytest.raises(NnoptError, match="there is no data"):
        options(data=path).open(run(), model_of(tmp_path, Small))
    with pytest.raises(UsageError, match="--data"):
        options().open(run(), model_of(tmp_path, Small))


def test_weights_alone_say_what_to_add(tmp_path):
    from nnopt_cli import load

    model_of(tmp_path, Small)
    with pytest.raises(NnoptError, match="module") as caught:
        options(data=arrays(tmp_path, x=images(), y=LABELS)).open(run(), load(tmp_path / "model.pt"))
    assert "--arch" in str(caught.value)


def test_an_image_and_a_vector(tmp_path):
    draw = np.random.default_rng(1)
    path = arrays(
        tmp_path,
        image=draw.random((10, 1, 5, 5)).astype(np.float32),
        extra=draw.random((10, 2)).astype(np.float64),
        label=np.arange(10) % 2,
    )
    torch.manual_seed(0)
    for inputs in (None, "image=float32[N,1,5,5]; extra=float32[N,2]", "float32[N,1,5,5]; float32[N,2]"):
        model = model_of(tmp_path, Both, inputs)
        data = options(data=path).open(run(), model)
        batch = data.plain.first(3)
        assert sorted(tensor.dim() for tensor in (*batch.args, *batch.kwargs.values())) == [2, 4]
        assert all(tensor.dtype == torch.float32 for tensor in (*batch.args, *batch.kwargs.values()))
        assert measure(model.module(), data, run()).samples == 10
    explicit = options(data=path, x=["image", "extra"]).open(run(), model_of(tmp_path, Both))
    assert len(explicit.plain.first(2).args) == 2
    with pytest.raises(NnoptError, match="the data give 1"):
        options(data=path, x=["image"]).open(run(), model)


def test_tokens_by_name(tmp_path):
    draw = np.random.default_rng(1)
    path = arrays(
        tmp_path, ids=draw.integers(0, 20, (9, 5)), mask=np.ones((9, 5), np.int32), y=np.arange(9) % 3
    )
    for inputs in (None, "ids=int64[N,T]<20; mask=int64[N,T]<2"):
        model = model_of(tmp_path, Tokens, inputs)
        data = options(data=path).open(run(), model)
        batch = data.plain.first(2)
        assert set(batch.kwargs) == {"ids", "mask"}
        assert batch.inputs is batch.kwargs
        assert not batch.kwargs["ids"].is_floating_point()
        assert measure(model.module(), data, run()).samples == 9


def test_a_token_out_of_the_table_is_no_traceback(tmp_path):
    ids = np.zeros((9, 5), np.int64)
    ids[8, 0] = 99
    model = model_of(tmp_path, Tokens)
    data = options(data=arrays(tmp_path, ids=ids, y=np.arange(9) % 3), batch_size=4).open(run(), model)
    with pytest.raises(NnoptError, match="the model fails on samples 8 to 8"):
        measure(model.module(), data, run())


def test_values_and_labels_are_told_apart(tmp_path):
    x = np.random.default_rng(0).random((12, 3)).astype(np.float32)
    cases = [
        (1, x.sum(1), "regression"),
        (2, x[:, :2] * 3, "regression"),
        (1, np.arange(12) + 5, "regression"),
        (3, (x > 0.5).astype(np.int64), "multi-label"),
        (3, (x > 0.5).astype(np.float32), "multi-label"),
        (1, np.arange(12) % 2, "multi-label"),
        (3, np.eye(3)[np.arange(12) % 3], "classification"),
        (3, np.arange(12.0) % 3, "classification"),
        (3, np.arange(12) % 3, "classification"),
    ]
    for outputs, y, kind in cases:
        model = model_of(tmp_path, lambda n=outputs: nn.Linear(3, n))
        data = options(data=arrays(tmp_path, x=x, y=y)).open(run(), model)
        assert data.task.kind == kind, (outputs, y.dtype, y.shape)
        found = measure(model.module(), data, run())
        assert np.isfinite([*found.metrics.values(), found.loss]).all()
        assert data.gate.name in found.metrics


def test_the_task_can_be_named(tmp_path):
    x = np.random.default_rng(0).random((12, 3)).astype(np.float32)
    model = model_of(tmp_path, lambda: nn.Linear(3, 1))
    path = arrays(tmp_path, x=x, y=np.arange(12) % 2)
    assert options(data=path, task="regression").open(run(), model).task.kind == "regression"
    with pytest.raises(NnoptError, match="does not fit the targets"):
        options(data=path, task="classification").open(
            run(), model_of(tmp_path, lambda: nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))))
        )


def test_classes_at_every_position(tmp_path):
    x = images(8, 5)
    y = np.random.default_rng(0).integers(0, 4, (8, 5, 5))
    y[0, 0] = -100
    model = model_of(tmp_path, lambda: nn.Conv2d(3, 4, 1))
    data = options(data=arrays(tmp_path, x=x, y=y)).open(run(), model)
    assert data.task.kind == "classification"
    found = measure(model.module(), data, run(), tuple(m for m in data.metrics if not m.detail))
    with torch.no_grad():
        said = model.module()(torch.from_numpy(x)).argmax(1).numpy()
    assert found.metrics["accuracy"] == pytest.approx((said == y)[y >= 0].mean())

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, ids):
            return self.table(ids)

    ids = np.random.default_rng(0).integers(0, 9, (8, 6))
    model = model_of(tmp_path, Last)
    data = options(data=arrays(tmp_path, x=ids, y=ids % 4)).open(run(), model)
    found = measure(model.module(), data, run(), tuple(m for m in data.metrics if not m.detail))
    said = model.module()(torch.from_numpy(ids)).argmax(-1).numpy()
    assert found.metrics["accuracy"] == pytest.approx((said == ids % 4).mean())


def test_grey_images_for_a_model_of_one_channel(tmp_path):
    path = image_file(tmp_path / "d.parquet", [jpeg(each) for each in pictures(8)], [i % 4 for i in range(8)])
    for inputs in (None, "1x9x7"):
        data = options(data=str(path)).open(run(), model_of(tmp_path, lambda: Small(channels=1), inputs))
        assert data.plain.first(2).args[0].shape == (2, 1, 9, 7)


def test_bytes_are_pixels_whatever_their_layout(tmp_path):
    pixels = pictures(8, (6, 6))
    shaped = {"last": pixels, "first": pixels.transpose(0, 3, 1, 2)}
    seen = []
    for values in shaped.values():
        data = options(data=arrays(tmp_path, x=values, y=LABELS[:8])).open(run(), model_of(tmp_path, Small))
        seen.append(data.plain.first(4).args[0])
    assert torch.equal(*seen)
    assert torch.allclose(seen[0], torch.from_numpy(shaped["first"][:4]) / 255)
    grey = options(data=arrays(tmp_path, x=pixels[..., 0], y=LABELS[:8]))
    assert grey.open(run(), model_of(tmp_path, lambda: Small(1))).plain.first(2).args[0].shape == (2, 1, 6, 6)


def test_channels_last_in_memory_only_where_the_model_can(tmp_path):
    path = image_file(tmp_path / "d.parquet", [jpeg(each) for each in pictures(8)], [i % 4 for i in range(8)])
    plain = options(data=str(path)).open(run(), model_of(tmp_path, Small))
    viewed = options(data=str(path)).open(run(), model_of(tmp_path, Viewed))
    last = torch.channels_last
    assert plain.plain.first(2).args[0].is_contiguous(memory_format=last)
    assert viewed.plain.first(2).args[0].is_contiguous()
    assert torch.equal(plain.plain.first(2).args[0], viewed.plain.first(2).args[0])
    assert measure(model_of(tmp_path, Viewed).module(), viewed, run()).samples == 8


def test_what_a_graph_would_take_follows_from_the_data(tmp_path):
    data = options(data=arrays(tmp_path, x=images(), y=LABELS)).open(run(), model_of(tmp_path, Small))
    assert str(input_spec(data.plain.first(2))) == "float32[N,3,6,6]"
    path = arrays(
        tmp_path, ids=np.zeros((6, 5), np.int64), mask=np.ones((6, 5), np.int64), y=np.arange(6) % 3
    )
    data = options(data=path).open(run(), model_of(tmp_path, Tokens))
    assert str(input_spec(data.plain.first(2))) == "ids=int64[N,5]; mask=int64[N,5]"


def test_a_model_of_half_floats_is_fed_them(tmp_path):
    model = model_of(tmp_path, lambda: nn.Linear(3, 4).to(torch.bfloat16))
    x = np.random.default_rng(0).random((12, 3))
    data = options(data=arrays(tmp_path, x=x, y=LABELS)).open(run(), model)
    assert data.plain.first(2).args[0].dtype == torch.bfloat16
    assert measure(model.module(), data, run()).loss > 0


def test_the_columns_can_be_named(tmp_path):
    draw = np.random.default_rng(0)
    path = arrays(
        tmp_path, a=draw.random(12), b=draw.random(12), c=draw.random(12), odd=LABELS, y=draw.random(12)
    )
    data = options(data=path, x=["a,b,c"], y="odd").open(run(), model_of(tmp_path, lambda: nn.Linear(3, 4)))
    assert data.plain.first(2).args[0].shape == (2, 3)
    several = options(data=path, x=["a,b"], y="c,y").open(run(), model_of(tmp_path, lambda: nn.Linear(2, 2)))
    assert several.task.kind == "regression"
    assert several.task.names == ("c", "y")
    with pytest.raises(UsageError, match="no column 'od'") as caught:
        options(data=path, y="od").open(run(), model_of(tmp_path, lambda: nn.Linear(3, 4)))
    assert "Did you mean 'odd'?" in str(caught.value)
    x = draw.random((12, 3))
    other = arrays(tmp_path, one=x, two=x, y=LABELS)
    with pytest.raises(UsageError, match="not clear"):
        options(data=other).open(run(), model_of(tmp_path, lambda: nn.Linear(3, 4)))


def test_validation_data_take_the_class_numbers_of_the_training_data(tmp_path):
    head = "a,b,kind\n"
    rows = [f"{i},{-i},{['cat', 'dog', 'emu'][i % 3]}\n" for i in range(9)]
    (tmp_path / "train.csv").write_text(head + "".join(rows))
    (tmp_path / "val.csv").write_text(head + rows[1] + rows[2] + rows[4])
    (tmp_path / "odd.csv").write_text(head + rows[1] + "1,2,dogg\n")
    model = model_of(tmp_path, lambda: nn.Linear(2, 3))
    given = {"data": str(tmp_path / "train.csv")}
    r = run()
    data = options(**given, val=str(tmp_path / "val.csv")).open(r, model)
    assert data.val is not None
    assert data.val.first(3).target.tolist() == [1, 2, 1]
    assert data.task.names == ("cat", "dog", "emu")
    assert any("alphabetical" in note for note in r.notes)
    assert any("'kind', was taken as the target" in note for note in r.notes)
    with pytest.raises(NnoptError, match="class 'dogg', which the other data do not have") as caught:
        options(**given, val=str(tmp_path / "odd.csv")).open(run(), model)
    assert "Did you mean 'dog'?" in str(caught.value)


def test_a_metric_that_cannot_decide(tmp_path):
    path = arrays(tmp_path, x=images(), y=LABELS)
    model = model_of(tmp_path, Small)
    for metric, said in (("r2", "is not for classification"), ("confusion", "one figure for each class")):
        with pytest.raises(UsageError, match=said):
            options(data=path, metric=metric).open(run(), model)
    assert options(data=path, metric="ece:bins=5").open(run(), model).gate.name == "ece"


def test_a_model_for_one_batch_size_is_filled_up(tmp_path):
    model = model_of(tmp_path, Small, "float32[5,3,6,6]")
    data = options(data=arrays(tmp_path, x=images(), y=LABELS)).open(run(), model)
    assert data.plain.batch_size == 5
    found = measure(model.module(), data, run())
    free = model_of(tmp_path, Small, "3x6x6")
    want = measure(free.module(), options(data=str(tmp_path / "d.npz")).open(run(), free), run())
    assert found.samples == 12
    assert found.loss == pytest.approx(want.loss, rel=1e-5)
    with pytest.raises(UsageError, match="batches of 5 only"):
        options(data=str(tmp_path / "d.npz"), batch_size=8).open(run(), model)
