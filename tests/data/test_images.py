"""Images: decoded as Pillow does, sized as torchvision does, broken ones counted."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from data_models import Small, image_file, jpeg, model_of, options, pictures, run
from PIL import Image

from nnopt_cli import NnoptError, UsageError
from nnopt_cli.data import Images, Numbers, Table
from nnopt_cli.data.images import Pixels, Plan, Skipped, decode_batch
from nnopt_cli.data.opening import Wanted, opened


def column(encoded: list[bytes]) -> Images:
    starts = np.cumsum([0, *map(len, encoded)])
    return Images(memoryview(b"".join(encoded)), starts)


def decoded(encoded: list[bytes], plan: Plan | None = None, limit: int = 0, strict: bool = False):
    rows = np.arange(len(encoded))
    skipped = Skipped(strict)
    found = decode_batch(column(encoded), rows, plan or Plan(), skipped, Pixels(rows, limit))
    return (*found, skipped)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pixels_are_pillows(form):
    encoded = [jpeg(each, form) for each in pictures(5)]
    found, good, _ = decoded(encoded)
    want = np.stack([np.asarray(Image.open(BytesIO(each)).convert("RGB")) for each in encoded])
    assert good is None
    assert found.dtype == np.uint8
    assert np.array_equal(found, want)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("source", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_what_the_model_takes(mode, source):
    out = BytesIO()
    image = Image.fromarray(pictures(1)[0]).convert(source)
    image.save(out, "TIFF")
    found, _, _ = decoded([out.getvalue()], Plan(mode))
    assert found.shape == (1, 9, 7, 3 if mode == "RGB" else 1)
    assert np.array_equal(found[0].squeeze(), np.asarray(image.convert(mode)))


def test_resize_takes_the_shorter_side_or_both_and_crop_the_middle():
    encoded = [jpeg(pictures(1, (40, 60))[0], "PNG")]
    assert decoded(encoded, Plan(resize=(20,)))[0].shape == (1, 20, 30, 3)
    assert decoded(encoded, Plan(resize=(8, 24)))[0].shape == (1, 8, 24, 3)
    whole, cropped = decoded(encoded)[0][0], decoded(encoded, Plan(crop=(20, 30)))[0][0]
    assert np.array_equal(cropped, whole[10:30, 15:45])


def test_a_crop_larger_than_the_image_says_what_to_add():
    with pytest.raises(NnoptError, match=r"--crop 50x50 is larger than an image of 9x7") as caught:
        decoded([jpeg(pictures(1)[0])], Plan(crop=(50, 50)))
    assert "--resize 50" in str(caught.value)


def test_images_of_different_sizes_are_named():
    encoded = [jpeg(pictures(1, (9, 7))[0]), jpeg(pictures(1, (8, 7))[0])]
    with pytest.raises(NnoptError, match="row 0 is 9x7, row 1 is 8x7") as caught:
        decoded(encoded)
    assert "--resize" in str(caught.value)
    assert decoded(encoded, Plan(resize=(6, 6)))[0].shape == (2, 6, 6, 3)


BROKEN = [b"", b"no image", b"\xff\xd8\xff\xe0 cut", jpeg(pictures(1, (64, 64))[0])[:700]]


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO"])
def test_formats_that_run_other_programs_are_no_images(form):
    encoded = jpeg(pictures(1, (16, 16))[0], form)
    _, good, skipped = decoded([jpeg(pictures(1, (16, 16))[0]), encoded])
    assert good == [True, False]
    assert "unknown kind" in skipped.found["row 1"]


@pytest.mark.parametrize("bad", BROKEN, ids=["empty", "text", "header", "cut short"])
def test_a_broken_image_is_left_out_and_listed(bad):
    good = [jpeg(each) for each in pictures(3, (64, 64))]
    found, fine, skipped = decoded([good[0], bad, good[1], good[2]])
    assert fine == [True, False, True, True]
    assert np.array_equal(found, decoded(good)[0])
    assert list(skipped.found) == ["row 1"]
    assert skipped.note(4).startswith("1 image of 4 could not be read")
    with pytest.raises(NnoptError, match="row 1 cannot be read"):
        decoded([good[0], bad], strict=True)


def test_labels_stay_with_their_images_where_some_are_broken(tmp_path):
    images = pictures(40)
    encoded = [jpeg(each, "PNG") for each in images]
    for row in (0, 7, 8, 39):
        encoded[row] = b"broken"
    labels = [i % 4 for i in range(40)]
    table = Table({"image": column(encoded), "label": Numbers(np.array(labels))})
    for workers in (0, 3):
        made = opened(table, wanted=Wanted(batch_size=6, workers=workers))
        for _ in range(2):  # the second pass finds some of them decoded
            seen = [(batch.args[0].numpy(), batch.target.numpy()) for batch in made]
            pixels, target = (np.concatenate(part) for part in zip(*seen, strict=True))
            kept = [i for i in range(40) if encoded[i] != b"broken"]
            assert target.tolist() == [labels[i] for i in kept]
            assert np.allclose(pixels, images[kept].transpose(0, 3, 1, 2) / 255, atol=1e-6)
        assert len(made.skipped.found) == 4


def test_a_corrupt_image_among_many_is_counted_by_the_command_and_stops_a_strict_one(tmp_path):
    encoded: list[bytes | None] = [jpeg(each) for each in pictures(20)]
    encoded[3], encoded[11] = b"x" * 40, None
    path = image_file(tmp_path / "d.parquet", encoded, [i % 4 for i in range(20)])
    model = model_of(tmp_path, Small)
    data = options(data=str(path)).open(run(), model)
    assert sum(batch.size for batch in data.plain) == 18
    assert "2 images of 20" in data.plain.skipped.note(20)
    assert "row 3 (3.jpg)" in data.plain.skipped.note(20)
    with pytest.raises(NnoptError, match="row 3"):
        list(options(data=str(path), strict=True).open(run(), model).plain)


def test_no_readable_image_at_all_is_no_data(tmp_path):
    path = image_file(tmp_path / "d.parquet", [b"a", b"b"], [0, 1])
    with pytest.raises(NnoptError, match="there is no data") as caught:
        options(data=str(path)).open(run(), model_of(tmp_path, Small))
    assert "2 images of 2 could not be read" in str(caught.value)


def test_images_are_decoded_once_where_all_of_them_are_small(monkeypatch):
    encoded = [jpeg(each) for each in pictures(10)]
    table = Table({"image": column(encoded), "label": Numbers(np.arange(10))})
    calls = []
    real = Plan.decode
    monkeypatch.setattr(Plan, "decode", lambda self, data: calls.append(1) or real(self, data))
    made = opened(table, wanted=Wanted(batch_size=3))
    first = [batch.args[0] for batch in made]
    again = [batch.args[0] for batch in made]
    assert len(calls) == 10
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    single = replace(made, keep=False, pixels={})
    assert len(list(single)) == len(list(single)) == 4
    assert len(calls) == 30


def test_resizing_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3, 8, 8), np.float32), y=np.arange(4))
    with pytest.raises(UsageError, match="--resize and --crop are for images in files"):
        options(data=str(tmp_path / "d.npz"), resize="4").open(run(), model_of(tmp_path, Small))
