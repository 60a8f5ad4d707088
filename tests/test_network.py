"""Networks: what is inferred, and what is refused."""

import re
from itertools import product

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.network import ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

BIPOLAR = Bipolar()
VECTOR = Tensor((3,), BIPOLAR)
WORDS = [[1, -1, 1], [-1, -1, 1]]


def dense(weights, fmt: Format = BIPOLAR, name="fc", inputs=("input",)):
    return Dense(name=name, inputs=inputs, weights=np.array(weights), fmt=fmt)


def thresholds(levels, fmt: Format = BIPOLAR, falling=None, inputs=("fc",)):
    falling = np.zeros(len(levels), bool) if falling is None else np.array(falling)
    return Thresholds(name="act", inputs=inputs, levels=np.array(levels), falling=falling, fmt=fmt)


def network(*layers, name="net", source=VECTOR, **options):
    return Network(name, source, layers or (dense(WORDS),), **options)


def refused(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# What is inferred -----------------------------------------------------------------------------


def test_tensors_are_the_edges_in_order():
    act = thresholds([[0], [1]])
    net = network(dense(WORDS), act, ArgMax(name="argmax", inputs=("act",)))
    assert {name: str(tensor) for name, tensor in net.tensors.items()} == {
        "input": "3:bipolar",
        "fc": "2:s3.0",
        "act": "2:bipolar",
        "argmax": "scalar:u1.0",
    }
    assert net.output == net.tensors["argmax"]
    assert net.consumers("fc") == (act,)
    assert net.layer("act") is act
    assert (net.macs, net.weight_bits) == (6, 6)
    assert str(net).splitlines()[1] == "  fc           Dense(input) -> 2:s3.0"


def test_a_graph_may_branch():
    rows = [dense(WORDS, name=name) for name in ("a", "b")]
    assert [layer.name for layer in network(*rows).consumers("input")] == ["a", "b"]


@pytest.mark.parametrize(
    "weight", [BIPOLAR, Ternary(), Fixed(3), Fixed(2, 1, signed=False)], ids=str
)
@pytest.mark.parametrize("source", [BIPOLAR, Fixed(3), Fixed(2, 5, signed=False)], ids=str)
def test_bounds_are_those_of_every_input(weight, source):
    rng = np.random.default_rng(5)
    codes = [c for c in range(weight.min, weight.max + 1) if weight.holds(np.array([c]))]
    weights = rng.choice(codes, (4, 3))
    layer = dense(weights, weight)
    inputs = [c for c in range(source.min, source.max + 1) if source.holds(np.array([c]))]
    results = np.array(list(product(inputs, repeat=3))) @ weights.T
    x = Tensor((3,), source)
    low, high = layer.bounds(x)
    assert low.tolist() == results.min(axis=0).tolist()
    assert high.tolist() == results.max(axis=0).tolist()
    y = layer.output(x)
    assert y == Tensor((4,), Fixed.spanning(int(low.min()), int(high.max()), y.fmt.frac))
    assert y.fmt.frac == weight.frac + source.frac


def test_parameters_are_read_only_copies():
    mine = np.array(WORDS)
    net = network(dense(mine), thresholds([[0], [1]]))
    mine[:] = 1
    assert net.layer("fc").arrays()["weights"].tolist() == [[0b101], [0b100]]
    for layer in net.layers:
        for key in ("weights", "levels", "falling"):
            array = getattr(layer, key, None)
            assert array is None or not array.flags.writeable


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network("net", VECTOR, ()), "net: a network has at least one layer, not 0"),
        (
            lambda: network(name="../net"),
            "a network's name must match [A-Za-z0-9][A-Za-z0-9_.-]*, not '../net'",
        ),
        (
            lambda: network(dense(WORDS, name="Conv 1")),
            "net: a layer's name must match [a-z][a-z0-9_]*, not 'Conv 1'",
        ),
        (lambda: network(dense(WORDS), dense(WORDS)), "net: two layers are named 'fc'"),
        (lambda: network(dense(WORDS, name="input")), "net: two layers are named 'input'"),
        (lambda: network(dense(WORDS, inputs=("x",))), "fc: no earlier layer is named 'x'"),
        (lambda: network(dense(WORDS, inputs=("fc",))), "fc: no earlier layer is named 'fc'"),
        (
            lambda: network(dense(WORDS, inputs=("input", "input"))),
            "fc: needs one input, not 2",
        ),
        (
            lambda: network(dense([[1, 1, 1, 1]])),
            "fc.weights: takes 4 inputs, but 'input' is 3:bipolar",
        ),
        (
            lambda: network(dense(WORDS), thresholds([[0], [1], [2]])),
            "act.levels: has 3 channels, but 'fc' is 2:s3.0",
        ),
        (
            lambda: network(ArgMax(name="max", inputs=("input",)), source=Tensor((2, 3), BIPOLAR)),
            "max: needs a vector, but 'input' is 2x3:bipolar",
        ),
        (lambda: network(normalisation=3), "net: normalisation and classes must be text"),
        (lambda: network(classes=(0, 1)), "net: normalisation and classes must be text"),
        (
            lambda: network(provenance=["seed"]),
            "net: provenance must be a mapping, not ['seed']",
        ),
        (lambda: Tensor((3, 0), BIPOLAR), "a shape must be positive integers, not (3, 0)"),
        (lambda: Tensor((3, True), BIPOLAR), "a shape must be positive integers, not (3, True)"),
        (lambda: network().layer("x"), "net has the layers fc, not 'x'"),
    ],
)
def test_refuses_networks(make, message):
    with refused(ConfigError, message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dense([[1.0, -1.0, 1.0]]),
            "fc.weights: values must be integers, not float64",
        ),
        (
            lambda: dense([[1, np.nan, 1]]),
            "fc.weights: values must be finite integers, not NaN or infinity",
        ),
        (
            lambda: dense([[1, -np.inf, 1]]),
            "fc.weights: values must be finite integers, not NaN or infinity",
        ),
        (lambda: dense([[True, False]]), "fc.weights: values must be integers, not bool"),
        (lambda: dense([["1"]]), "fc.weights: values must be integers, not <U1"),
        (
            lambda: dense([[1, 300]], Fixed(8, 0, signed=False)),
            "fc.weights: values must fit uint8, not int64",
        ),
        (lambda: dense([1, -1]), "fc.weights: shape must be (outputs, inputs), not (2,)"),
        (
            lambda: dense(np.zeros((0, 3), int)),
            "fc.weights: shape must be (outputs, inputs), not (0, 3)",
        ),
        (lambda: dense([[1, 0, 1]]), "fc.weights: every value must be a code of bipolar"),
        (
            lambda: dense([[1, -2, 1]], Ternary()),
            "fc.weights: every value must be a code of ternary",
        ),
        (
            lambda: dense([[7, 8]], Fixed(4, 2)),
            "fc.weights: every value must be a code of s4.2",
        ),
        (lambda: thresholds([[0.5]]), "act.levels: values must be integers, not float64"),
        (
            lambda: thresholds([[np.nan]]),
            "act.levels: values must be finite integers, not NaN or infinity",
        ),
        (lambda: thresholds([0]), "act.levels: shape must be (channels, n), not (1,)"),
        (
            lambda: thresholds([[0], [1]], falling=[True]),
            "act.falling: shape must be (2,), not (1,)",
        ),
        (
            lambda: thresholds([[0, 1], [2, 1]], Fixed(2)),
            "act.levels: each row must be in rising order",
        ),
        (
            lambda: thresholds([[0, 1]]),
            "act.levels: bipolar has 2 codes, enough for 1 levels, not 2",
        ),
        (
            lambda: thresholds([[0, 1, 2, 3]], Fixed(2)),
            "act.levels: s2.0 has 4 codes, enough for 3 levels, not 4",
        ),
        (
            lambda: thresholds([[0, 1, 2]], Ternary()),
            "act.levels: ternary has 3 codes, enough for 2 levels, not 3",
        ),
    ],
)
def test_refuses_parameters(make, message):
    with refused(ConfigError, message):
        make()


def test_levels_too_large_for_64_bits_are_refused():
    with refused(ConfigError, "act.levels: values must fit int64, not uint64"):
        thresholds(np.array([[2**63]], np.uint64))


def test_refuses_accumulators_that_could_overflow():
    wide = Fixed(32)
    source = Tensor((2,), wide)
    fits = network(dense([[2**31 - 1, -(2**31)]], Fixed(32)), source=Tensor((2,), Fixed(29)))
    assert fits.output.fmt.width == 61
    with refused(ConfigError, "fc: 2 products of s32.0 and s32.0 could overflow 63 bits"):
        network(dense([[1, 1]], wide), source=source)


def test_kinds_are_those_of_this_module():
    assert sorted(Layer.kinds) == [
        "Add", "ArgMax", "Concat", "Conv", "Dense", "DepthToSpace", "Flatten", "Pool", "Requantise",
        "Slice", "Table", "Thresholds", "Upsample",
    ]  # fmt: skip
