"""Augmentation and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_models import Small, image_file, jpeg, model_of, options, pictures, run

from nnopt_cli import UsageError
from nnopt_cli.data.augment import Augment, Normalize


def test_flip_mirrors_about_half_of_the_images():
    images = pictures(200)
    out = Augment(flip=True).images(images, np.random.default_rng(0))
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(out, images, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(out, images, strict=True)])
    assert (mirrored | same).all()
    assert 70 < mirrored.sum() < 130
    assert np.array_equal(images, pictures(200)), "what is given stays as it is"


def test_crop_cuts_windows_of_the_padded_image():
    images = pictures(60, (8, 8)) | 1  # no pixel of them is zero
    out = Augment(crop=2).images(images, np.random.default_rng(0))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = set()
    for cut, whole in zip(out, padded, strict=True):
        fits = [
            (r, c) for r in range(5) for c in range(5) if np.array_equal(whole[r : r + 8, c : c + 8], cut)
        ]
        assert fits
        places.add(fits[0])
    assert len(places) > 10


def test_mixup_mixes_inputs_and_targets_by_one_share():
    images = torch.eye(6)
    target = torch.eye(6)
    out = Augment(mixup=1.0).mixed([images], target, np.random.default_rng(1))
    assert torch.allclose(images, out), "the same mixture on both"
    assert torch.allclose(out.sum(1), torch.ones(6))
    assert not torch.equal(out, target)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", Augment()),
        ("flip", Augment(flip=True)),
        ("flip, crop", Augment(flip=True, crop=-1)),
        ("crop=4,mixup=0.5", Augment(crop=4, mixup=0.5)),
        ("mixup", Augment(mixup=0.2)),
    ],
)
def test_the_list_is_read(text, want):
    assert Augment.parse(text) == want


@pytest.mark.parametrize("text", ["flop", "flip=2", "crop=x", "crop=1.5", "mixup=a"])
def test_what_is_not_understood(text):
    with pytest.raises(UsageError, match="--augment"):
        Augment.parse(text)


def test_statistics_are_applied_per_channel():
    images = torch.randint(0, 256, (4, 3, 5, 5)).float()
    want = (images / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    found = Normalize.parse("imagenet")
    assert found is not None
    assert torch.allclose(found.apply(images / 255), want, atol=1e-5)
    pixels = images.to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.allclose(found.pixels(pixels).permute(0, 3, 1, 2), want, atol=1e-5)
    one = Normalize.parse("0.5/0.25")
    assert one is not None
    assert torch.allclose(one.apply(images.clone()), (images - 0.5) / 0.25)
    assert Normalize.parse("none") is None


@pytest.mark.parametrize("text", ["imagenot", "0.5", "0.5/0", "1,2/1", "a/b", "0.5/-1"])
def test_statistics_that_are_none(text):
    with pytest.raises(UsageError, match="--normalize"):
        Normalize.parse(text)


def test_training_batches_are_augmented_and_the_others_are_not(tmp_path):
    encoded = [jpeg(each, "PNG") for each in pictures(12, (8, 8))]
    path = image_file(tmp_path / "d.parquet", list(encoded), [i % 4 for i in range(12)])
    given = {"data": str(path), "augment": "flip,crop=1,mixup", "batch_size": 5}
    data = options(**given).open(run(seed=7), model_of(tmp_path, Small))
    plain = list(data.plain)
    assert torch.equal(torch.cat([b.args[0] for b in plain]), torch.cat([b.args[0] for b in data.plain]))
    assert plain[0].target.dtype == torch.int64
    one, two = ([*data.train.epoch(number)] for number in (0, 1))
    assert all(batch.target.shape[1] == 4 and batch.target.is_floating_point() for batch in one)
    assert all(torch.allclose(batch.target.sum(1), torch.ones(batch.size)) for batch in one)
    assert not torch.equal(one[0].args[0], two[0].args[0])
    again = options(**given, workers=3).open(run(seed=7), model_of(tmp_path, Small))
    for a, b in zip(one, again.train.epoch(0), strict=True):
        assert torch.equal(a.args[0], b.args[0])
        assert torch.equal(a.target, b.target)


def test_floating_images_are_flipped_along_their_width(tmp_path):
    x = np.zeros((40, 3, 4, 4), np.float32)
    x[..., 0] = 1  # the left column
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 4)
    model = model_of(tmp_path, Small)
    data = options(data=str(tmp_path / "d.npz"), augment="flip").open(run(), model)
    batch = next(iter(data.train))
    right = batch.args[0][:, :, :, 3].amax((1, 2))
    left = batch.args[0][:, :, :, 0].amax((1, 2))
    assert torch.equal(left + right, torch.ones(40))
    assert 5 < right.sum() < 35
