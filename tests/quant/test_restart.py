"""Training that goes on from an exported network: nothing is lost on the way there and back."""

from dataclasses import replace

import numpy as np
import pytest

from brambling import Thresholds, zoo
from brambling.errors import ConfigError

torch = pytest.importorskip("torch")
restart = pytest.importorskip("brambling.quant.restart")
models = pytest.importorskip("brambling.quant.models")
training = pytest.importorskip("brambling.quant.train_cnn")
graph = pytest.importorskip("brambling.quant.graph")


@pytest.fixture(scope="module")
def cnv():
    return zoo.load("cnv-w1a1")


@pytest.fixture(scope="module")
def pixels():
    return training.pixels(zoo.evaluation_set("CIFAR-10")[0][:40])


def test_exported_again_it_is_the_same_network(cnv, pixels):
    torch.manual_seed(5)
    model = models.cnv()
    restart.begin_as(model, cnv, pixels)
    again = graph.export_graph(
        model, cnv.name, cnv.input.shape, classes=cnv.classes, normalisation=cnv.normalisation
    )
    assert [layer.name for layer in again.layers] == [layer.name for layer in cnv.layers]
    for ours, theirs in zip(again.layers, cnv.layers, strict=True):
        assert ours.attributes() == theirs.attributes()
        for key, array in theirs.arrays().items():
            assert np.array_equal(ours.arrays()[key], array), (ours.name, key)


def test_batch_norm_is_that_of_the_pixels(cnv, pixels):
    model = models.cnv()
    restart.begin_as(model, cnv, pixels)
    x = model[1](model[0](pixels))
    assert torch.allclose(model[2].running_mean, x.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(model[2].running_var, x.var((0, 2, 3)), rtol=1e-4)
    assert set(model[1].weight.unique().tolist()) == {-1.0, 1.0}


def test_another_network_is_refused(cnv, pixels):
    for model, what in (
        (models.resnet8(), r"conv1 of \(16, 3, 3, 3\) weights"),
        (models.cnv()[:-6], "no layer fc2"),
    ):
        with pytest.raises(ConfigError, match=rf"^cnv-w1a1: .* has {what}.* can be gone on from$"):
            restart.begin_as(model, cnv, pixels)


def test_falling_levels_are_refused(cnv, pixels):
    layers = [
        replace(layer, falling=np.ones(64, bool)) if layer.name == "act1" else layer
        for layer in cnv.layers
    ]
    assert isinstance(layers[1], Thresholds)
    with pytest.raises(ConfigError, match="has one rising level a channel, which"):
        restart.begin_as(models.cnv(), replace(cnv, layers=tuple(layers)), pixels)


def test_weights_of_more_bits_are_refused(pixels):
    with pytest.raises(ConfigError, match="has one-bit weights and no bias, which this one has"):
        restart.begin_as(models.cnv(), zoo.load("resnet8-w4a4"), pixels)
