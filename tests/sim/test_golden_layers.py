"""The golden model of layers without a window, against plain Python."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from brambling.layers import (
    Add,
    Concat,
    Conv,
    DepthToSpace,
    Flatten,
    Layer,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.network import Network
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.sim import golden

INPUT: dict[str, Any] = {"name": "layer", "inputs": ("input",)}
FORMATS = (
    Bipolar(),
    Ternary(),
    Fixed(3, 5),
    Fixed(8, -2),
    Fixed(8, 3, signed=False),
    Fixed(20, 1),
    Fixed(33, 0, signed=False),
)


def every(fmt: Format):
    """Every code, up to 4,096 of them spread over the range."""
    found = np.unique(np.linspace(fmt.min, fmt.max, 4096).astype(np.int64))
    return found[[fmt.holds(code) for code in found]]


def codes(rng, fmt: Format, shape):
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    return rng.integers(fmt.min, fmt.max + 1, shape)


def run(layer: Layer, tensor: Tensor, images):
    """Result of the layer, checked against what the network infers of it."""
    network = Network("net", tensor, (layer,))
    found = golden.run(network, images)[layer.name]
    assert found.shape == (len(images), *network.output.shape)
    assert network.output.fmt.holds(found)
    return found


# Thresholds -------------------------------------------------------------------------------------


def counted(layer: Thresholds, x: int, channel: int) -> int:
    """Code of one value, level by level."""
    channel %= len(layer.levels)
    count = 0
    for level in layer.levels[channel].tolist():
        count += x <= level if layer.falling[channel] else level <= x
    return 2 * count - 1 if layer.fmt == Bipolar() else layer.fmt.min + count


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 9, 255])
@pytest.mark.parametrize("source", FORMATS, ids=str)
def test_thresholds_on_every_road(source, n, channels, few, monkeypatch):
    monkeypatch.setattr(golden, "FEW", few)
    rng = np.random.default_rng(n)
    reach = min(source.max + 2, 1000 if channels == 1 else 10)  # The first is too far for a table.
    levels = np.sort(rng.integers(-reach, reach + 1, (channels, n)), axis=1)
    falling = rng.integers(0, 2, channels, bool)
    x = codes(rng, source, (20, 2, 4))
    for fmt in (Bipolar(), Fixed(8), Fixed(8, 0, signed=False), Fixed(40)):
        if fmt != Bipolar() or n == 1:
            layer = Thresholds(**INPUT, levels=levels, falling=falling, fmt=fmt)
            wanted = [counted(layer, int(v), k % 4) for k, v in enumerate(x.reshape(-1))]
            assert run(layer, Tensor((2, 4), source), x).reshape(-1).tolist() == wanted


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("source", [Fixed(63), Fixed(63, 0, signed=False), Fixed(4)], ids=str)
def test_thresholds_at_the_ends_of_64_bits(source, n):
    ends = [-(2**63), -(2**63) + 1, source.min, source.max, 2**63 - 2, 2**63 - 1]
    values = [source.min, source.min + 1, 0, source.max - 1, source.max]
    for end in ends:
        for falls in (False, True):
            layer = Thresholds(
                **INPUT,
                levels=np.full((1, n), end),
                falling=np.array([falls]),
                fmt=Fixed(6),
            )
            found = run(layer, Tensor((5,), source), np.array([values]))
            assert found[0].tolist() == [counted(layer, v, 0) for v in values]


# Requantise -------------------------------------------------------------------------------------


def rounded(value: Fraction, rounding: str) -> int:
    below = math.floor(value)
    half = Fraction(1, 2)
    match rounding:
        case "floor":
            return below
        case "half_up":
            return math.floor(value + half)
        case "half_even":
            return round(value)  # Python's rounding of a Fraction.
        case "half_away":
            return math.floor(value + half) if value >= 0 else math.ceil(value - half)
    raise AssertionError(rounding)


def requantised(layer: Requantise, x: int, channel: int) -> int:
    """Result of one value, in fractions."""
    multiplier, bias = (
        int(array[channel % len(array)]) for array in (layer.multiplier, layer.bias)
    )
    value = x * multiplier + bias
    value *= layer.slope[value < 0]
    low, high = layer.limits
    return min(max(rounded(Fraction(value, 2**layer.shift), layer.rounding), low), high)


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "half_away", "floor"])
@pytest.mark.parametrize("shift", [0, 1, 2, 7, 30])
@pytest.mark.parametrize("source", FORMATS, ids=str)
def test_requantise_equals_fractions(source, shift, rounding):
    rng = np.random.default_rng(shift)
    reach = max(2, 2**shift * 200 // source.max)
    for channels, slope, low in ((1, (1, 1), None), (3, (8, -3), -7), (3, (1, 0), 0)):
        layer = Requantise(
            **INPUT,
            fmt=Fixed(8, 2),
            multiplier=rng.integers(-reach, reach, channels),
            bias=rng.integers(-(2**shift), 2**shift + 1, 3),
            shift=shift,
            low=low,
            slope=slope,
            rounding=rounding,
        )
        x = codes(rng, source, (20, 1, 2, 3))
        wanted = [requantised(layer, int(v), k % 3) for k, v in enumerate(x.reshape(-1))]
        assert run(layer, Tensor((1, 2, 3), source), x).reshape(-1).tolist() == wanted


@pytest.mark.parametrize(
    ("rounding", "wanted"),
    [
        ("half_up", [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]),
        ("half_even", [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        ("half_away", [-3, -2, -2, -1, -1, 0, 1, 1, 2, 2, 3]),
        ("floor", [-3, -2, -2, -1, -1, 0, 0, 0, 1, 1, 2]),
    ],
)
def test_halves(rounding, wanted):
    quarters = [-10, -8, -6, -4, -2, 0, 2, 3, 6, 7, 10]
    one = np.array([1])
    layer = Requantise(
        **INPUT, fmt=Fixed(4), multiplier=one, bias=0 * one, shift=2, rounding=rounding
    )
    found = run(layer, Tensor((11,), Fixed(8)), np.array([quarters]))
    assert found[0].tolist() == [requantised(layer, q, 0) for q in quarters] == wanted


def test_requantise_at_its_bounds():
    """The widest values that are not refused, in 32 and in 64 bits."""
    for width, multiplier in ((16, 2**15), (16, 2**16 + 1), (32, 2**30), (32, 2**29)):
        layer = Requantise(
            **INPUT,
            fmt=Fixed(40),
            multiplier=np.array([multiplier]),
            bias=np.array([2**15]),
            shift=10,
        )
        source = Fixed(width)
        values = [source.min, source.min + 1, -1, 0, 1, source.max]
        found = run(layer, Tensor((6,), source), np.array([values]))
        assert found[0].tolist() == [requantised(layer, v, 0) for v in values]


# Others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [f for f in FORMATS if f.width <= 10], ids=str)
def test_a_table_is_indexed_from_the_smallest_code(source):
    inputs = every(source).tolist()
    rng = np.random.default_rng(1)
    layer = Table(**INPUT, entries=codes(rng, Fixed(12), len(inputs)), fmt=Fixed(12))
    found = run(layer, Tensor((len(inputs),), source), np.array([inputs]))
    assert found[0].tolist() == layer.entries.tolist()


def joined(kind: type[Add | Concat], tensors, values):
    """Result of a join, of inputs that are made by a slice of one input each."""
    parts, start = [], 0
    source = Tensor((*tensors[0].shape[:-1], sum(t.shape[-1] for t in tensors)), Fixed(16))
    for n, tensor in enumerate(tensors):
        stop = start + tensor.shape[-1]
        parts.append(Slice(name=f"s{n}", inputs=("input",), start=start, stop=stop))
        one = np.array([1])
        if tensor.fmt == Bipolar():
            parts.append(
                Thresholds(
                    name=f"q{n}",
                    inputs=(f"s{n}",),
                    levels=0 * one[:, None],
                    falling=0 * one,
                    fmt=tensor.fmt,
                )
            )
        else:
            parts.append(
                Requantise(
                    name=f"q{n}",
                    inputs=(f"s{n}",),
                    multiplier=one,
                    bias=0 * one,
                    fmt=tensor.fmt,
                )
            )
        start = stop
    inputs = tuple(f"q{n}" for n in range(len(tensors)))
    network = Network("net", source, (*parts, kind(name="join", inputs=inputs)))
    found = golden.run(network, np.concatenate(values, axis=-1))
    for n, value in enumerate(values):
        assert np.array_equal(found[f"q{n}"], value)
    assert network.output.fmt.holds(found["join"])
    return network.output.fmt, found["join"]


GROUPS = (
    (Fixed(8, 3), Fixed(8, 3)),
    (Fixed(8, 3), Fixed(4, 6)),
    (Fixed(8, 0, signed=False), Bipolar()),
    (Bipolar(), Bipolar()),
    (Bipolar(), Fixed(4, 2)),
    (Fixed(16, -3), Fixed(5, 2, signed=False), Fixed(3, 0), Bipolar()),
)


@pytest.mark.parametrize("formats", GROUPS, ids=str)
def test_add_aligns_radix_points(formats):
    rng = np.random.default_rng(2)
    tensors = [Tensor((2, 3, 4), fmt) for fmt in formats]
    values = [codes(rng, fmt, (20, 2, 3, 4)) for fmt in formats]
    for value, fmt in zip(values, formats, strict=True):
        value[0], value[1] = fmt.min, fmt.max
    fmt, found = joined(Add, tensors, values)
    wanted = sum(
        value.astype(object) * Fraction(2) ** -f.frac
        for value, f in zip(values, formats, strict=True)
    )
    assert (found.astype(object) * Fraction(2) ** -fmt.frac == wanted).all()


@pytest.mark.parametrize("formats", GROUPS, ids=str)
def test_concat_aligns_radix_points(formats):
    rng = np.random.default_rng(3)
    tensors = [Tensor((2, 3, n + 1), fmt) for n, fmt in enumerate(formats)]
    values = [codes(rng, t.fmt, (9, *t.shape)) for t in tensors]
    fmt, found = joined(Concat, tensors, values)
    wanted = [
        v.astype(object) * Fraction(2) ** -f.frac for v, f in zip(values, formats, strict=True)
    ]
    assert (found.astype(object) * Fraction(2) ** -fmt.frac == np.concatenate(wanted, -1)).all()
    if len(set(formats)) == 1:
        assert fmt == formats[0]


def test_slice_upsample_and_flatten():
    x = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    tensor = Tensor((3, 2, 4), Fixed(8))
    found = run(Slice(**INPUT, start=1, stop=3), tensor, x)
    assert np.array_equal(found, x[..., 1:3])
    found = run(Flatten(**INPUT), tensor, x)
    assert found[1].tolist() == list(range(24, 48))
    found = run(Upsample(**INPUT, factor=(2, 3)), tensor, x)
    for row, column in np.ndindex(6, 6):
        assert np.array_equal(found[:, row, column], x[:, row // 2, column // 3])


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (1, 3), (3, 1), (2, 3)], ids=str)
def test_depth_to_space_takes_pixels_apart(block):
    rows, columns = block
    x = np.random.default_rng(7).integers(-8, 8, (2, 3, 2, 2 * rows * columns))
    found = run(DepthToSpace(**INPUT, block=block), Tensor(x.shape[1:], Fixed(4)), x)
    assert found.shape == (2, 3 * rows, 2 * columns, 2)
    for n, row, column, channel in np.ndindex(found.shape):
        part = row % rows * columns + column % columns
        seen = x[n, row // rows, column // columns, part * 2 + channel]
        assert found[n, row, column, channel] == seen


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_depth_to_space_is_that_of_onnx(mode, size):
    """Mode CRD once the channels are in the other order."""
    helper = pytest.importorskip("onnx.helper")
    reference = pytest.importorskip("onnx.reference")
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=size, mode=mode)
    ends = [helper.make_tensor_value_info(n, 1, [None] * 4) for n in ("x", "y")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    x = np.random.default_rng(3).integers(-8, 8, (2, 3, 4, 5 * size * size))
    channels_first = x.transpose(0, 3, 1, 2).astype(np.float32)
    (wanted,) = reference.ReferenceEvaluator(model).run(None, {"x": channels_first})
    order = np.arange(x.shape[3])
    if mode == "CRD":
        order = order.reshape(5, size * size).T.reshape(-1)
    layer = DepthToSpace(**INPUT, block=(size, size))
    found = run(layer, Tensor(x.shape[1:], Fixed(4)), x[..., order])
    assert np.array_equal(found, np.transpose(wanted, (0, 2, 3, 1)))


def test_a_residual_network():
    """One input of the sum skips the convolution; the same edge may be read twice."""
    rng = np.random.default_rng(4)
    tensor = Tensor((4, 5, 3), Fixed(4, 1))
    conv = Conv(
        name="conv",
        inputs=("input",),
        weights=codes(rng, Ternary(), (3, 3, 3, 3)),
        fmt=Ternary(),
        padding=(1, 1, 1, 1),
    )
    layers = (
        conv,
        Add(name="sum", inputs=("input", "conv")),
        Add(name="twice", inputs=("sum", "sum")),
        Pool(name="pool", inputs=("twice",), kind="sum"),
    )
    images = codes(rng, tensor.fmt, (6, 4, 5, 3))
    found = golden.run(Network("net", tensor, layers), images)
    assert np.array_equal(found["sum"], images + found["conv"])
    assert np.array_equal(found["twice"], 2 * found["sum"])
    assert np.array_equal(found["pool"], found["twice"].sum((1, 2), keepdims=True))
