"""The oracle is independent: roots by ``decimal`` to 300 digits, every code by brute force."""

import dataclasses
import itertools
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from brambling import ArgMax, Dense, Network, Tensor, Thresholds
from brambling.errors import ConfigError, Mismatch
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.quant.norms import Norm
from brambling.sim import golden

torch = pytest.importorskip("torch")
exporting = pytest.importorskip("brambling.quant.export")
layers = pytest.importorskip("brambling.quant.layers")


def oracle(norm, x):
    """Whether batch-norm of ``x`` is not negative, by 300-digit decimals."""
    with localcontext(prec=300):
        gain, bias, mean, variance = (
            Decimal(part.numerator) / Decimal(part.denominator)
            for part in (norm.gain, norm.bias, norm.mean, norm.variance)
        )
        value = gain * (Decimal(x) - mean) / variance.sqrt() + bias
        return value >= 0 or abs(value) < Decimal("1e-250")


def norms(seed, count):
    """Random channels, dyadic as floats are; some without gain or bias, some that hit zero."""
    source = np.random.default_rng(seed)
    for _ in range(count):
        gain, bias, mean = (
            Fraction(float(np.float32(part))) for part in source.normal(0, [1, 1, 5])
        )
        variance = Fraction(float(np.float32(10 ** source.uniform(-30, 30))))
        kind = source.integers(6)
        if kind == 0:
            gain = Fraction(0)
        elif kind == 1:
            bias = Fraction(0)
        elif kind == 2:  # a zero at an integer: variance is a square
            root = Fraction(int(source.integers(1, 9)), 4)
            mean, variance = Fraction(int(source.integers(-6, 7))), root * root
            bias = -gain * (int(source.integers(-8, 9)) - mean) / root
        yield Norm(gain, bias, mean, variance)


def test_fires_as_the_decimals_say():
    fired = 0
    for norm in norms(1, 600):
        for x in range(-9, 10):
            assert norm.fires(x) == oracle(norm, x), (norm, x)
            fired += norm.fires(x)
    assert 1000 < fired < 10400  # both outcomes are common


@pytest.mark.parametrize("gain", [1, -1])
def test_zero_counts_as_plus_one(gain):
    norm = Norm(Fraction(gain), Fraction(gain), Fraction(3), Fraction(4))  # zero at x = 1
    assert norm.fires(1)
    assert not norm.fires(1 - gain)
    assert norm.level(range(-5, 6, 2)) == (1, gain < 0)


@pytest.mark.parametrize("bias", [0, 2, -2])
def test_channel_without_gain_is_constant(bias):
    norm = Norm(Fraction(0), Fraction(bias), Fraction(3), Fraction(1, 10**30))
    assert norm.level(range(-4, 5, 2)) == ((-4, False) if bias >= 0 else (5, False))


@pytest.mark.parametrize("span", [range(-9, 10), range(-9, 10, 2), range(-8, 9, 2), range(3, 4)])
def test_level_decides_every_reachable_sum(span):
    for norm in norms(2, 300):
        level, falling = norm.level(span)
        assert falling == (norm.gain < 0)
        for x in span:
            assert (x <= level if falling else x >= level) == oracle(norm, x)
        # Canonical: a reachable sum, or just outside.
        assert level in span or level == (span[0] - 1 if falling else span[-1] + 1)


@pytest.mark.parametrize("variance", [0.0, 1e-38, 1e38])
@pytest.mark.parametrize("gain", [1e-38, -1e38])
def test_extreme_floats_are_exact(variance, gain):
    layer = torch.nn.BatchNorm1d(1)
    with torch.no_grad():
        layer.weight.fill_(gain)
        layer.bias.fill_(-1e-20)
        layer.running_mean.fill_(0.5)
        layer.running_var.fill_(variance)
    (norm,) = exporting.norms_of(layer, "act1")
    assert [norm.fires(x) for x in range(-9, 10)] == [oracle(norm, x) for x in range(-9, 10)]


@pytest.mark.parametrize("part", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(part, value):
    layer = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        getattr(layer, part)[1] = value
    with pytest.raises(ConfigError) as caught:
        exporting.norms_of(layer, "act2")
    key = {"weight": "gain", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    assert str(caught.value) == (
        f"act2: {key[part]} of channel 1 must be finite, not {value}; train with a lower rate"
    )


def random_model(widths, seed):
    """Model whose batch-norms have gains of both signs, and one channel without gain each."""
    torch.manual_seed(seed)
    model = layers.BipolarMLP(widths).eval()
    with torch.no_grad():
        for norm in model.norm:
            norm.weight.normal_()
            norm.weight[0] = 0.0
            norm.bias.normal_()
            norm.running_mean.normal_(0, 2)
            norm.running_var.uniform_(0.1, 9)
    return model


def every_image(pixels):
    return np.array(list(itertools.product([127, 128], repeat=pixels)), dtype=np.uint8)


def by_hand(model, image):
    """Predicted class of one image, in plain integers and decimals."""
    x = [1 if pixel >= 128 else -1 for pixel in image]
    for index, dense in enumerate(model.dense):
        rows = [[1 if w >= 0 else -1 for w in row] for row in dense.weight.tolist()]
        x = [sum(w * a for w, a in zip(row, x, strict=True)) for row in rows]
        if index < len(model.norm):
            exact = exporting.norms_of(model.norm[index], "")
            x = [1 if oracle(norm, a) else -1 for norm, a in zip(exact, x, strict=True)]
    return x.index(max(x))


@pytest.mark.parametrize("seed", range(3))
def test_whole_network_on_every_input(seed):
    model = random_model((6, 5, 4, 3), seed)
    network = exporting.export(model, "tiny", classes="abc")
    images = every_image(6)
    edges = golden.run(network, images)
    assert edges["argmax"].tolist() == [by_hand(model, image) for image in images]
    report = exporting.check_export(model, network, images, edges)
    assert report.images == 64
    assert report.bits == 64 * (5 + 4)
    assert report.carried == 0


def test_names_and_formats_of_the_layers():
    network = exporting.export(random_model((6, 5, 4, 3), 1), "tiny", classes="abc")
    names = "binarise fc1 act1 fc2 act2 fc3 argmax"
    assert [layer.name for layer in network.layers] == names.split()
    assert str(network.input) == "6:u8.0"
    assert network.layer("binarise").levels.tolist() == [[128]]
    assert network.classes == ("a", "b", "c")


def test_levels_are_sums_that_can_occur():
    """An even number of products has an even sum, an odd number an odd one."""
    network = exporting.export(random_model((6, 50, 45, 3), 1), "tiny")
    for name, products in (("act1", 6), ("act2", 50)):
        level = network.layer(name).levels
        assert np.all((level % 2 == products % 2) | (level == products + 1))


def test_no_channel_is_falling():
    model = random_model((6, 50, 40, 3), 1)
    assert any((norm.weight < 0).any() for norm in model.norm)
    network = exporting.export(model, "tiny")
    for layer in network.layers:
        if isinstance(layer, Thresholds):
            assert not layer.falling.any()


def test_own_evaluation_is_the_golden_models():
    network = exporting.export(random_model((6, 5, 4, 3), 4), "tiny")
    expected = golden.run(network, every_image(6))
    for name, values in exporting.evaluate(network, every_image(6)).items():
        assert np.array_equal(values, expected[name]), name


# Falling channels ---------------------------------------------------------------------------------


def with_falling(fmt, act, second=None):
    """Network ``fc`` → ``act`` over every pair of signs, and perhaps a second reader of ``fc``."""
    rows = np.array([[1, 1], [1, -1], [-1, fmt.min]])
    fc = Dense(name="fc", inputs=("input",), weights=rows, fmt=fmt)
    extra = () if second is None else (second,)
    return Network("net", Tensor((2,), Fixed(3)), (fc, *extra, act))


def codes():
    return np.array(list(itertools.product(range(-4, 4), repeat=2)), dtype=np.int8)


def act(levels, falling, fmt):
    return Thresholds(name="act", inputs=("fc",), levels=levels, falling=falling, fmt=fmt)


ONE = np.array([[0], [-2], [3]])
TWO = np.array([[-2, 0], [1, 1], [-3, 3]])


@pytest.mark.parametrize("fmt", [Bipolar(), Ternary(), Fixed(3)], ids=str)
@pytest.mark.parametrize("falling", [[0, 1, 1], [1, 1, 1], [0, 0, 1]], ids=str)
@pytest.mark.parametrize(("levels", "out"), [(ONE, Bipolar()), (TWO, Ternary())])
def test_fold_keeps_every_value(fmt, falling, levels, out):
    network = with_falling(fmt, act(levels, np.array(falling, bool), out))
    folded = exporting.fold_falling(network)
    expected = golden.run(network, codes())["act"]
    assert np.array_equal(golden.run(folded, codes())["act"], expected)
    # Only -4 of s3.0, in the last row, has no negative.
    left = folded.layer("act").falling.tolist()
    assert left == [False, False, fmt == Fixed(3) and bool(falling[2])]


def test_fold_with_one_row_for_all_channels():
    network = with_falling(Bipolar(), act(np.array([[1]]), np.array([True]), Bipolar()))
    folded = exporting.fold_falling(network)
    assert folded.layer("act").levels.tolist() == [[-1]] * 3
    expected = golden.run(network, codes())["act"]
    assert np.array_equal(golden.run(folded, codes())["act"], expected)


def test_fold_leaves_a_shared_dense_layer_alone():
    other = Thresholds(
        name="other", inputs=("fc",), levels=ONE, falling=np.zeros(3, bool), fmt=Bipolar()
    )
    network = with_falling(Bipolar(), act(ONE, np.ones(3, bool), Bipolar()), other)
    assert exporting.fold_falling(network).layers == network.layers


def test_fold_leaves_what_follows_no_dense_layer_alone():
    first = Thresholds(
        name="first",
        inputs=("input",),
        levels=np.array([[128]]),
        falling=np.array([True]),
        fmt=Bipolar(),
    )
    network = Network("net", Tensor((2,), Fixed(8, 0, signed=False)), (first,))
    assert exporting.fold_falling(network).layers == network.layers


# Check --------------------------------------------------------------------------------------------


def changed(network, name, **arrays):
    """Network with one layer's arrays replaced."""
    new = [
        dataclasses.replace(layer, **arrays) if layer.name == name else layer
        for layer in network.layers
    ]
    return dataclasses.replace(network, layers=tuple(new))


def test_check_finds_a_wrong_level():
    model, images = random_model((6, 5, 4, 3), 1), every_image(6)
    network = exporting.export(model, "tiny")
    levels = network.layer("act1").levels.copy()
    levels[2] += 2
    wrong = changed(network, "act1", levels=levels)
    with pytest.raises(Mismatch, match=r"^act1: image \d+, channel 2 must be 1 as in the float "
                       r"model, not -1, at the sum -?\d+, which is no tie$"):  # fmt: skip
        exporting.check_export(model, wrong, images, golden.run(wrong, images))


def test_check_finds_a_wrong_weight():
    model, images = random_model((6, 5, 4, 3), 1), every_image(6)
    network = exporting.export(model, "tiny")
    weights = network.layer("fc2").weights.copy()
    weights[1, 3] *= -1
    wrong = changed(network, "fc2", weights=weights)
    with pytest.raises(Mismatch) as caught:
        exporting.check_export(model, wrong, images, golden.run(wrong, images))
    assert str(caught.value) == (
        f"fc2.weights: row 1, channel 3 must be {-weights[1, 3]} as in the float model, "
        f"not {weights[1, 3]} (1 differ)"
    )


def test_check_finds_a_wrong_prediction():
    model, images = random_model((6, 5, 4, 3), 1), every_image(6)
    network = exporting.export(model, "tiny")
    edges = dict(golden.run(network, images))
    edges["argmax"] = (edges["argmax"] + (np.arange(64) == 7)) % 3
    with pytest.raises(Mismatch, match=r"^argmax: image 7 must be \d as in the float model, "
                       r"not \d \(1 differ\)$"):  # fmt: skip
        exporting.check_export(model, network, images, edges)


def tied_model():
    """Model of one hidden channel that float32 puts on the other side of zero than the exact."""
    source = np.random.default_rng(1)
    layer = torch.nn.BatchNorm1d(1)
    model = layers.BipolarMLP((2, 1, 2)).eval()
    with torch.no_grad():
        for _ in range(1000):
            layer = model.norm[0]
            layer.weight.fill_(float(source.uniform(0.5, 2)))
            layer.running_mean.fill_(float(source.normal()))
            layer.running_var.fill_(float(source.uniform(0.5, 2)))
            root = float(layer.running_var.double().add(layer.eps).sqrt())
            layer.bias.fill_(float(-layer.weight.double() * -layer.running_mean.double() / root))
            (norm,) = exporting.norms_of(layer, "")
            if (layer(torch.zeros(1, 1)) >= 0).item() != norm.fires(0):
                return model
    raise AssertionError("float32 should be wrong now and then")


def test_float_ties_are_counted():
    model, images = tied_model(), every_image(2)
    network = exporting.export(model, "tied")
    edges = golden.run(network, images)
    (norm,) = exporting.norms_of(model.norm[0], "act1")
    assert norm.is_tie(0)
    assert not norm.is_tie(2)
    edges = dict(edges)
    edges["argmax"] = model(torch.from_numpy(images)).argmax(dim=1).numpy()
    report = exporting.check_export(model, network, images, edges)
    assert report.ties == {"act1": 2}  # the sum is 0 for two of the four images
    assert report.carried == 0
    assert str(report) == (
        "4 images: predictions equal; 4 hidden bits equal "
        "but for float ties (act1 2) and 0 that follow from them"
    )


def test_ties_are_narrow():
    norm = Norm(Fraction(1), Fraction(-1), Fraction(0), Fraction(1))  # zero at 1
    assert norm.is_tie(1)
    off = Norm(Fraction(1), Fraction(-1) + Fraction(1, 1 << 19), Fraction(0), Fraction(1))
    assert not off.is_tie(1)


def test_argmax_is_last():
    network = exporting.export(random_model((6, 5, 4, 3), 1), "tiny")
    assert isinstance(network.layers[-1], ArgMax)
