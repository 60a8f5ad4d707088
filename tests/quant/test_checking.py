"""The check must pass what is exact, count what is a tie, and find what is wrong."""

import dataclasses

import numpy as np
import pytest

from brambling.errors import ConfigError, Mismatch
from brambling.sim import golden

torch = pytest.importorskip("torch")
checking = pytest.importorskip("brambling.quant.checking")
graph = pytest.importorskip("brambling.quant.graph")
layers = pytest.importorskip("brambling.quant.layers")
models = pytest.importorskip("brambling.quant.models")
Quantiser = pytest.importorskip("brambling.quant.quantiser").Quantiser
nn = torch.nn

SHAPE = (6, 6, 2)


def lsq(bits, signed=True, channels=None):
    return Quantiser(bits, signed=signed, method="lsq", channels=channels)


def sign():
    return Quantiser(1, signed=True, method="sign")


class Halves(nn.Module):
    """Uses every function that the exporter knows."""

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return torch.cat([second, first + first, x[:, 1:3]], 1)


def make(seed=1):
    """Model with learned steps, joins, curves and averages; in evaluation."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        layers.PixelInput(128, 1 / 50),
        *(layers.QuantConv2d(2, 4, 3, quantiser=lsq(4, channels=4), padding=1), nn.BatchNorm2d(4)),
        *(layers.QuantActivation(lsq(4, signed=False)), Halves(), nn.MaxPool2d(2, 1)),
        *(layers.QuantConv2d(6, 4, 2, quantiser=lsq(4), bias=True), nn.BatchNorm2d(4)),
        *(nn.LeakyReLU(0.1), layers.QuantActivation(lsq(5)), nn.SiLU()),
        *(layers.QuantActivation(lsq(5)), nn.AvgPool2d(2), layers.QuantActivation(lsq(6))),
        *(nn.Flatten(), layers.QuantLinear(16, 4, quantiser=lsq(4)), nn.BatchNorm1d(4)),
        layers.QuantActivation(lsq(4)),
        *(layers.QuantLinear(4, 3, quantiser=lsq(4), bias=True), models.Scale(4)),
    )
    model.train()(torch.from_numpy(np.moveaxis(images(32, 9), -1, 1).copy()))
    return model.eval()


def images(count=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def checked(model, network, x):
    return checking.check_graph(model, network, x, golden.run(network, x))


def test_exact_networks_pass():
    model = make()
    network = graph.export_graph(model, "tiny", SHAPE)
    report = checked(model, network, images())
    assert (report.images, report.predictions, report.carried) == (40, 0, 0)
    assert report.codes == 40 * (36 * 4 + 16 * 4 + 16 * 4 + 16 + 4)
    assert sum(report.ties.values()) == 0
    assert str(report) == (
        "40 images: predictions equal but for 0 with a tie; 11,680 codes equal but for float ties "
        "(none) and 0 that follow from them"
    )


def test_reports_add_up():
    a = checking.GraphReport(2, 10, {"act1": 1, "act2": 0}, 3, 0)
    b = checking.GraphReport(3, 15, {"act1": 4, "act2": 0}, 1, 1)
    assert a + b == checking.GraphReport(5, 25, {"act1": 5, "act2": 0}, 4, 1)
    assert "float ties (act1 5) and 4 that follow" in str(a + b)


def changed(network, name, **arrays):
    """Network with one layer's arrays replaced."""
    new = [
        dataclasses.replace(layer, **arrays) if layer.name == name else layer
        for layer in network.layers
    ]
    return dataclasses.replace(network, layers=tuple(new))


#: How each kind of parameter is made wrong.
WRONG = {
    "weights": lambda w: np.roll(w, 1, axis=0),
    "levels": lambda levels: levels + 1,
    "multiplier": lambda m: 2 * m,
    "bias": lambda b: b + 10**6,
    "entries": lambda entries: np.roll(entries, 1),
}


def test_every_wrong_layer_is_found():
    model = make()
    network = graph.export_graph(model, "tiny", SHAPE)
    parameters = [
        (layer.name, key, wrong)
        for layer in network.layers
        for key, wrong in WRONG.items()
        if hasattr(layer, key) and layer.name != "bias"
    ]
    assert len(parameters) == 9
    for name, key, wrong in parameters:
        other = changed(network, name, **{key: wrong(getattr(network.layer(name), key))})
        with pytest.raises(Mismatch, match=r"^(act\d|bias): .* and it is no tie$"):
            checked(model, other, images())


def test_a_wrong_last_bias_is_found():
    model = make()
    network = graph.export_graph(model, "tiny", SHAPE)
    bias = network.layer("bias").bias
    common = np.bincount(golden.run(network, images())["argmax"]).argmax()
    wrong = changed(network, "bias", bias=bias - 10**4 * (np.arange(3) == common))
    with pytest.raises(Mismatch, match=r"^bias: image \d+ is of class \d, not \d as in the float "):
        checked(model, wrong, images())


def test_other_networks_are_refused():
    model = make()
    network = graph.export_graph(model, "tiny", SHAPE)
    short = dataclasses.replace(network, layers=network.layers[:-1])
    with pytest.raises(ConfigError, match=r"^tiny was not exported from this model: its layers "):
        checked(model, short, images())


def tied():
    """Model whose batch-norm float32 puts on the other side of zero for many sums."""
    source = np.random.default_rng(1)
    model = nn.Sequential(
        *(layers.PixelInput(0, 1), nn.Flatten()),
        *(layers.QuantLinear(72, 40, quantiser=sign()), nn.BatchNorm1d(40)),
        *(layers.QuantActivation(sign()), layers.QuantLinear(40, 3, quantiser=sign())),
    ).eval()
    sums = model[:3](torch.from_numpy(np.moveaxis(images(), -1, 1).copy()))
    norm = model[3]
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(source.uniform(0.5, 2, 40)))
        norm.running_var.copy_(torch.from_numpy(source.uniform(0.5, 2, 40)))
        norm.running_mean.copy_(torch.from_numpy(source.normal(0, 1, 40)))
        # The sum of the first image is at zero, or as near as a float can be.
        root = norm.running_var.double().add(norm.eps).sqrt()
        distance = sums[0].double() - norm.running_mean.double()
        norm.bias.copy_(-norm.weight.double() * distance / root)
    return model


def test_ties_are_counted_and_proved():
    model = tied()
    network = graph.export_graph(model, "tied", SHAPE)
    report = checked(model, network, images())
    assert report.ties["act1"] >= 3  # of 40 that lie within rounding of zero
    assert report.codes == 1600
    assert report.carried == 0


def test_a_difference_beside_a_tie_is_no_tie():
    model = tied()
    network = graph.export_graph(model, "tied", SHAPE)
    edges = dict(golden.run(network, images()))
    edges["act1"] = edges["act1"].copy()
    edges["act1"][5, 7] *= -1
    with pytest.raises(Mismatch, match=r"^act1: image 5, element \(7,\) is -?1, not as in the "
                       r"float model, and it is no tie$"):  # fmt: skip
        checking.check_graph(model, network, images(), edges)


def test_a_wrong_class_is_no_tie():
    model = make()
    network = graph.export_graph(model, "tiny", SHAPE)
    edges = dict(golden.run(network, images()))
    edges["argmax"] = (edges["argmax"] + (np.arange(40) == 7)) % 3
    with pytest.raises(Mismatch, match=r"^bias: image 7 is of class \d, not \d as in the float "):
        checking.check_graph(model, network, images(), edges)


def test_bounds_hold_what_float32_does():
    """Differences of float32 and float64 stay below the bound, and not far below."""
    model = make(3)
    network = graph.export_graph(model, "tiny", SHAPE)
    edges = golden.run(network, images())
    found = graph.Graph(model, network.input)
    bounded = checking.BoundedRun(found, edges)
    pixels = torch.from_numpy(np.moveaxis(images(), -1, 1).copy())
    with torch.no_grad():
        bounded.run(pixels)
        values, handles = {}, []
        names = iter(tuple(bounded.before))
        for module in model:
            if isinstance(module, layers.QuantActivation):
                name = next(names)
                handles.append(
                    module.register_forward_pre_hook(
                        lambda m, x, name=name: values.__setitem__(name, x[0])
                    )
                )
        model(pixels)
    for name, bound in bounded.before.items():
        error = (values[name].double() - bound.exact).abs()
        assert bool((error <= bound.error).all()), name
        assert bool((bound.error < 1e-4).all()), name
