"""Preparation of images: what each preset states is what its transforms do."""

import pytest
import torch

from genkl import CLOTHING1M, FOOD101N, MINI_WEBVISION
from genkl.data.transforms import IMAGENET_MEAN, IMAGENET_STD, as_square, build_transform

PRESETS = {"clothing1m": (CLOTHING1M, 224), "food101n": (FOOD101N, 224)}
PRESETS["mini webvision"] = (MINI_WEBVISION, 299)
WIDE = torch.randint(
    0, 256, (3, 330, 500), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def apply(transform, image=WIDE, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transform(image)


@pytest.mark.parametrize(("preset", "size"), PRESETS.values(), ids=PRESETS)
def test_a_presets_images_have_its_size_whatever_theirs(preset, size):
    for steps in (preset.train_transforms, preset.test_transforms):
        transform = build_transform(steps)
        for image in (WIDE, WIDE[:, :, :100], WIDE[:, :40, :40]):
            result = apply(transform, image)
            assert result.shape == (3, size, size)
            assert result.dtype == torch.float32


@pytest.mark.parametrize(("preset", "size"), PRESETS.values(), ids=PRESETS)
def test_training_is_random_but_for_the_seed_and_testing_is_not(preset, size):
    train = build_transform(preset.train_transforms)
    assert torch.equal(apply(train, seed=1), apply(train, seed=1))
    assert not torch.equal(apply(train, seed=1), apply(train, seed=2))
    test = build_transform(preset.test_transforms)
    assert torch.equal(apply(test, seed=1), apply(test, seed=2))


def test_values_are_those_of_imagenets_statistics():
    transform = build_transform(CLOTHING1M.test_transforms)
    for byte in (0, 255):
        result = transform(torch.full((3, 300, 260), byte, dtype=torch.uint8))
        for channel in range(3):
            expected = (byte / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
            assert torch.allclose(result[channel], torch.tensor(expected), atol=1e-5)


def test_testing_keeps_proportions_and_takes_the_centre():
    image = torch.zeros(3, 256, 512, dtype=torch.uint8)
    image[:, 128 - 5 : 128 + 5, 256 - 5 : 256 + 5] = 255
    result = build_transform(CLOTHING1M.test_transforms, (0, 0, 0), (1, 1, 1))(image)
    expected = torch.zeros(3, 224, 224)
    expected[:, 112 - 5 : 112 + 5, 112 - 5 : 112 + 5] = 1
    assert torch.equal(result, expected)


def test_a_flip_mirrors_about_half_of_the_images():
    flip = build_transform((("random flip", None),), (0, 0, 0), (1, 1, 1))
    plain, mirrored = WIDE.float() / 255, WIDE.flip(2).float() / 255
    results = [apply(flip, seed=seed) for seed in range(40)]
    flipped = [torch.allclose(result, mirrored) for result in results]
    assert all(f or torch.allclose(r, plain) for f, r in zip(flipped, results, strict=True))
    assert 8 < sum(flipped) < 32


def test_a_rotation_stays_within_its_angle():
    image = torch.zeros(3, 201, 201, dtype=torch.uint8)
    image[:, 100, 180:184] = 255  # 80 pixels to the right of the centre
    rotate = build_transform((("random rotation", 30),), (0, 0, 0), (1, 1, 1))
    angles = []
    for seed in range(30):
        row, column = apply(rotate, image, seed)[0].nonzero().float().mean(0)
        angles.append(float(torch.atan2(100 - row, column - 100).rad2deg()))
    assert max(map(abs, angles)) < 31
    assert min(angles) < -10 < 10 < max(angles)


@pytest.mark.parametrize(
    "step", [("blur", 3), ("resize", None), ("random crop", 0), ("random flip", 2)]
)
def test_steps_that_make_no_sense_are_refused(step):
    with pytest.raises(ValueError, match=step[0]):
        build_transform((step,))


def test_a_square_shows_the_centre_or_everything():
    image = torch.zeros(3, 100, 300, dtype=torch.uint8)
    image[:, :, 100:200] = 200
    assert (as_square(image, 50, "crop") == 200).all()
    squashed = as_square(image, 50, "squash")
    assert squashed.shape == (3, 50, 50)
    assert (squashed[0, 25] == 0).sum() > 30
    image[:, 10:90, 110:190] = 255
    assert (as_square(image, 40, "crop", crop_pct=0.8) == 255).all()
    assert as_square(image[:, :1, :1], 40).shape == (3, 40, 40)
    assert torch.equal(as_square(image, 40, crop_pct=1.15), as_square(image, 40))


def test_crop_and_squash_agree_on_squares():
    square = WIDE[:, :300, :300]
    assert torch.equal(as_square(square, 96, "crop"), as_square(square, 96, "squash"))


def test_unknown_ways_of_resizing_are_refused():
    with pytest.raises(ValueError, match="unknown resize 'stretch'"):
        as_square(WIDE, 10, "stretch")
    with pytest.raises(ValueError, match="size is 0"):
        as_square(WIDE, 0)
