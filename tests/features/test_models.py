"""Small networks: what they take, how large they are, and which one is the default."""

import pytest
import torch
from torch import nn

from genkl.networks import (
    NormaliseBytes,
    default_model,
    linear_head,
    seeded_model,
    small_cnn,
    small_resnet,
)


def photographs(count=4, channels=3, side=32):
    size = (count, channels, side, side)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 33, 64])
def test_the_small_resnet_takes_images_of_any_size_and_colour(channels, side):
    model = small_resnet((channels, side, side), 7)
    assert model(photographs(2, channels, side)).shape == (2, 7)


def test_the_small_resnet_is_resnet_20():
    model = small_resnet((3, 32, 32), 10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 19  # and the classifier
    assert sum(p.numel() for p in model.parameters()) == 269_722
    smaller = small_resnet((3, 32, 32), 10, depth=8).modules()
    assert sum(isinstance(module, nn.Conv2d) for module in smaller) == 7
    with pytest.raises(ValueError, match="depth is 18"):
        small_resnet((3, 32, 32), 10, depth=18)
    with pytest.raises(ValueError, match="input_shape"):
        small_resnet((32, 32), 10)


def test_the_small_resnet_learns_what_it_is_shown():
    model = seeded_model(small_resnet, (3, 32, 32), 2, 0)
    images, labels = photographs(16), torch.arange(16) % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).all()


@pytest.mark.parametrize("factory", [small_cnn, small_resnet])
def test_models_take_bytes_as_the_floats_they_stand_for(factory):
    model = seeded_model(factory, (3, 32, 32), 5, 0).eval()
    images = photographs()
    floats = images.float() / 255
    if factory is small_resnet:
        floats = (floats - 0.5) / 0.25
    assert torch.allclose(model(images), model(floats), atol=1e-5)


def test_the_small_cnn_starts_with_a_convolution_whatever_it_takes():
    layers = list(small_cnn((1, 8, 8), 8))  # chapters put layers between these
    assert [type(layer) for layer in layers[1:4]] == [nn.ReLU, nn.Conv2d, nn.ReLU]
    assert isinstance(layers[0], nn.Conv2d)


def test_bytes_are_normalised_and_grey_images_repeated():
    normalise = NormaliseBytes((0.1, 0.2, 0.3), (0.5, 0.5, 0.25), 3)
    white = normalise(torch.full((2, 1, 4, 5), 255, dtype=torch.uint8))
    assert white.shape == (2, 3, 4, 5)
    assert torch.allclose(white[0, :, 0, 0], torch.tensor([1.8, 1.6, 2.8]))
    prepared = torch.randn(2, 3, 4, 5)
    assert torch.equal(normalise(prepared), prepared)
    assert not normalise.state_dict()


def test_the_default_fits_the_input():
    def same(input_shape, factory):
        given, expected = default_model(input_shape, 3), factory(input_shape, 3)
        return [type(m) for m in given.modules()] == [type(m) for m in expected.modules()]

    assert same((5,), linear_head)
    assert same((1, 8, 8), small_cnn)  # digits
    assert same((3, 31, 64), small_cnn)
    assert same((3, 32, 32), small_resnet)
    assert same((1, 64, 48), small_resnet)
    with pytest.raises(ValueError, match="input_shape"):
        default_model((32, 32), 3)
