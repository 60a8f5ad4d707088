"""Kinds of layer: what is inferred, what is counted, and what is refused."""

import re
from typing import Any

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
    Window,
)
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

NAMES: dict[str, Any] = {"name": "layer", "inputs": ("input",)}
PAIR: dict[str, Any] = {"name": "layer", "inputs": ("a", "b")}
S8 = Fixed(8)
IMAGE = Tensor((6, 8, 4), S8)
TEXT: dict[str, Any] = {"start": "0", "stop": 2}
LONG: dict[str, Any] = {"block": (2, 2, 1)}
REAL: dict[str, Any] = {"weights": np.ones((3, 3))}
ONE = np.array([1])


def conv(outputs=6, kernel=(3, 3), inside=4, fmt: Format = S8, **options: Any) -> Conv:
    weights = np.ones((outputs, *kernel, inside), int)
    return Conv(**NAMES, weights=weights, fmt=fmt, **options)


def pool(kind="max", kernel: Any = (2, 2), **options: Any) -> Pool:
    return Pool(**NAMES, kind=kind, kernel=kernel, **options)


def requantise(multiplier: Any = ONE, bias: Any = 0 * ONE, **options: Any) -> Requantise:
    parameters: dict[str, Any] = {"fmt": S8, **options}
    return Requantise(**NAMES, multiplier=np.array(multiplier), bias=np.array(bias), **parameters)


def table(entries, fmt=S8) -> Table:
    return Table(**NAMES, entries=np.array(entries), fmt=fmt)


# What is inferred -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "inputs", "wanted"),
    [
        (conv(), (IMAGE,), "4x6x6:s14.0"),
        (conv(fmt=Fixed(8, 5)), (Tensor((6, 8, 4), Fixed(8, 3)),), "4x6x6:s14.8"),
        (conv(fmt=Bipolar()), (Tensor((6, 8, 4), Bipolar()),), "4x6x6:s7.0"),
        (conv(padding=(1, 0, 2, 1)), (IMAGE,), "5x9x6:s14.0"),
        (conv(stride=(2, 3)), (IMAGE,), "2x2x6:s14.0"),
        (conv(dilation=(2, 3)), (IMAGE,), "2x2x6:s14.0"),
        (conv(kernel=(1, 1), stride=(2, 2)), (IMAGE,), "3x4x6:s10.0"),
        (conv(groups=2, inside=2), (IMAGE,), "4x6x6:s13.0"),
        (conv(kernel=(1, 3)), (Tensor((1, 9, 4), S8),), "1x7x6:s12.0"),
        (pool(), (IMAGE,), "3x4x4:s8.0"),
        (pool(stride=(1, 1), padding=(1, 0, 0, 1)), (IMAGE,), "6x8x4:s8.0"),
        (pool("max", None), (Tensor((6, 8, 4), Bipolar()),), "1x1x4:bipolar"),
        (pool("sum", (3, 3)), (IMAGE,), "2x2x4:s12.0"),
        (pool("sum", None), (Tensor((5, 5, 2), Fixed(3, 1, signed=False)),), "1x1x2:u8.1"),
        (pool("average", (2, 4)), (Tensor((6, 8, 4), Fixed(8, 3)),), "3x2x4:s11.6"),
        (pool("average", (2, 2)), (Tensor((2, 2, 1), Bipolar()),), "1x1x1:s4.2"),
        (requantise(fmt=Fixed(4, 2, signed=False)), (IMAGE,), "6x8x4:u4.2"),
        (table(range(8)), (Tensor((3,), Fixed(3)),), "3:s8.0"),
        (table(range(3)), (Tensor((3,), Ternary()),), "3:s8.0"),
        (table(range(2)), (Tensor((3,), Bipolar()),), "3:s8.0"),
        (Upsample(**NAMES, factor=(2, 3)), (IMAGE,), "12x24x4:s8.0"),
        (DepthToSpace(**NAMES, block=(2, 1)), (IMAGE,), "12x8x2:s8.0"),
        (DepthToSpace(**NAMES, block=(2, 2)), (IMAGE,), "12x16x1:s8.0"),
        (DepthToSpace(**NAMES, block=(1, 1)), (IMAGE,), "6x8x4:s8.0"),
        (DepthToSpace(**NAMES, block=(1, 3)), (Tensor((1, 2, 6), Bipolar()),), "1x6x2:bipolar"),
        (Slice(**NAMES, start=1, stop=3), (IMAGE,), "6x8x2:s8.0"),
        (Flatten(**NAMES), (IMAGE,), "192:s8.0"),
        (Flatten(**NAMES), (Tensor((), S8),), "1:s8.0"),
        (Add(**PAIR), (IMAGE, IMAGE), "6x8x4:s9.0"),
        (Add(**PAIR), (Tensor((3,), Fixed(4, 2)), Tensor((3,), Fixed(3, 0))), "3:s6.2"),
        (Add(**PAIR), (Tensor((), Bipolar()), Tensor((), Bipolar())), "scalar:s3.0"),
        (Concat(**PAIR), (Tensor((3,), Fixed(4, 2)), Tensor((2,), Fixed(3, 0))), "5:s5.2"),
        (Concat(**PAIR), (Tensor((3,), Bipolar()), Tensor((2,), Bipolar())), "5:bipolar"),
        (Concat(**PAIR), (Tensor((3,), Ternary()), Tensor((2,), Ternary())), "5:ternary"),
        (Concat(**PAIR), (Tensor((3,), Bipolar()), Tensor((2,), Ternary())), "5:s2.0"),
    ],
)
def test_output(layer, inputs, wanted):
    assert str(layer.output(*inputs)) == wanted


def test_bounds_of_a_convolution_are_reached():
    rng = np.random.default_rng(0)
    weights = rng.integers(-8, 8, (3, 2, 2, 2))
    layer = Conv(**NAMES, weights=weights, fmt=Fixed(4))
    low, high = layer.bounds(Tensor((2, 2, 2), Fixed(3)))
    for o in range(3):
        rows = weights[o].reshape(-1)
        assert low[o] == np.where(rows > 0, -4, 3) @ rows
        assert high[o] == np.where(rows > 0, 3, -4) @ rows


def test_a_window():
    window = Window(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1), dilation=(2, 3))
    assert window.span == (5, 4)
    assert window.extent(6, 8) == (2, 6)
    assert not window.point
    assert Window(kernel=(1, 1)).point
    assert not Window(kernel=(1, 1), stride=(2, 1)).point
    assert not Window(kernel=(1, 1), padding=(0, 0, 1, 0)).point


# What is counted --------------------------------------------------------------------------------


def counted(convolutions, size, channels, sizes, fmt):
    """MACs of each layer, and all bits of weights, of convolutions and then dense layers.

    A convolution: outputs, kernel, and the size of the pool behind it.
    """
    macs, bits, x = [], 0, Tensor((size, size, channels), fmt)
    for outputs, kernel, pooled in convolutions:
        layer = conv(outputs, (kernel, kernel), x.shape[2], fmt)
        macs.append(layer.macs(x))
        bits += layer.weight_bits
        x = Tensor(layer.output(x).shape, fmt)
        if pooled:
            x = pool(kernel=(pooled, pooled)).output(x)
    x = Flatten(**NAMES).output(x)
    for outputs in sizes:
        layer = Dense(**NAMES, weights=np.ones((outputs, x.size), int), fmt=fmt)
        macs.append(layer.macs(x))
        bits += layer.weight_bits
        x = Tensor((outputs,), fmt)
    return macs, bits


def test_cnv_counts():
    """CNV of Umuroglu et al., "FINN", 2017: 57.9 M MACs behind the first layer, 1.54 Mbit."""
    layers = [(64, 3, 0), (64, 3, 2), (128, 3, 0), (128, 3, 2), (256, 3, 0), (256, 3, 0)]
    macs, bits = counted(layers, 32, 3, (512, 512, 10), Bipolar())
    assert macs[:3] == [1_555_200, 28_901_376, 10_616_832]
    assert sum(macs[1:]) == 57_906_176
    assert bits == 1_542_848


def test_lenet_counts():
    """LeNet-5 with full tables, LeCun et al., 1998: 416,520 MACs, 61,470 weights."""
    macs, bits = counted([(6, 5, 2), (16, 5, 2)], 32, 1, (120, 84, 10), S8)
    assert macs == [117_600, 240_000, 48_000, 10_080, 840]
    assert bits == 8 * (150 + 2400 + 48_000 + 10_080 + 840)


def test_groups_share_the_work():
    assert conv(outputs=4, inside=1, groups=4).macs(IMAGE) == 4 * 6 * 4 * 9
    assert conv(outputs=8, inside=2, groups=2).weight_bits == 8 * 9 * 2 * 8
    for layer in (pool(), requantise(), Flatten(**NAMES)):
        assert (layer.macs(IMAGE), layer.weight_bits) == (0, 0)


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Conv(**NAMES, **REAL, fmt=S8),
            "layer.weights: values must be integers, not float64",
        ),
        (
            lambda: Conv(**NAMES, weights=np.ones((3, 3), int), fmt=S8),
            (
                "layer.weights: shape must be (outputs, kernel height, kernel width, "
                "channels / groups), not (3, 3)"
            ),
        ),
        (
            lambda: Conv(**NAMES, weights=np.zeros((2, 1, 1, 1), int), fmt=Bipolar()),
            "layer.weights: every value must be a code of bipolar",
        ),
        (lambda: conv(groups=4), "layer: groups must divide the 6 outputs, not 4"),
        (lambda: conv(groups=0), "layer: groups must divide the 6 outputs, not 0"),
        (lambda: conv(groups=2.0), "layer: groups must divide the 6 outputs, not 2.0"),
        (lambda: conv(pad_value=0.5), "layer: pad_value must be an integer, not 0.5"),
        (lambda: pool("mean"), "layer: kind must be one of max, sum, average, not 'mean'"),
        (
            lambda: Upsample(**NAMES, factor=(2, 0)),
            "layer: factor must be 2 integers of at least 1, not (2, 0)",
        ),
        (
            lambda: DepthToSpace(**NAMES, block=(0, 2)),
            "layer: block must be 2 integers of at least 1, not (0, 2)",
        ),
        (
            lambda: DepthToSpace(**NAMES, **LONG),
            "layer: block must be 2 integers of at least 1, not (2, 2, 1)",
        ),
        (lambda: requantise([1.5]), "layer.multiplier: values must be integers, not float64"),
        (lambda: requantise([[1]]), "layer.multiplier: shape must be (channels,), not (1, 1)"),
        (
            lambda: requantise(bias=np.zeros(0, int)),
            "layer.bias: shape must be (channels,), not (0,)",
        ),
        (lambda: requantise(fmt=Bipolar()), "layer: fmt must not be bipolar: use Thresholds"),
        (lambda: requantise(shift=63), "layer: shift must be 0 to 62, not 63"),
        (lambda: requantise(shift=-1), "layer: shift must be 0 to 62, not -1"),
        (lambda: requantise(shift=1.0), "layer: shift must be 0 to 62, not 1.0"),
        (
            lambda: requantise(rounding="up"),
            "layer: rounding must be one of half_up, half_even, half_away, floor, not 'up'",
        ),
        (lambda: requantise(slope=(1,)), "layer: slope must be 2 integers, not (1,)"),
        (lambda: requantise(slope=3), "layer: slope must be 2 integers, not 3"),
        (
            lambda: requantise(low=5, high=-5),
            "layer: low and high must lie in -128 to 127 in that order, not 5 and -5",
        ),
        (
            lambda: requantise(high=128),
            "layer: low and high must lie in -128 to 127 in that order, not -128 and 128",
        ),
        (
            lambda: requantise(low=0.5),
            "layer: low and high must be integers or None, not 0.5 and 127",
        ),
        (lambda: table([[1]]), "layer.entries: shape must be (codes,), not (1, 1)"),
        (lambda: table([1, 128]), "layer.entries: every value must be a code of s8.0"),
    ],
)
def test_refuses_parameters(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


WIDE = Tensor((6, 8, 4), Fixed(40, 0))


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (
            conv(),
            (Tensor((192,), S8),),
            "layer: needs an image (height, width, channels), but 'input' is 192:s8.0",
        ),
        (conv(), (IMAGE, IMAGE), "layer: needs one input, not 2"),
        (
            conv(inside=3),
            (IMAGE,),
            "layer.weights: takes 3 channels in each of 1 groups, but 'input' is 6x8x4:s8.0",
        ),
        (
            conv(inside=4, groups=2),
            (IMAGE,),
            "layer.weights: takes 4 channels in each of 2 groups, but 'input' is 6x8x4:s8.0",
        ),
        (
            conv(padding=(1, 1, 1, 1), pad_value=128),
            (IMAGE,),
            "layer: pad_value must be 0 or a code of s8.0, not 128",
        ),
        (
            conv(padding=(1, 1, 1, 1), pad_value=2),
            (Tensor((6, 8, 4), Bipolar()),),
            "layer: pad_value must be 0 or a code of bipolar, not 2",
        ),
        (
            conv(kernel=(7, 3)),
            (IMAGE,),
            (
                "layer: kernel spans 7 rows, but 'input' with padding has 6: pad more, or use a "
                "smaller kernel"
            ),
        ),
        (
            conv(kernel=(3, 5), dilation=(1, 3), padding=(0, 0, 2, 2)),
            (IMAGE,),
            (
                "layer: kernel spans 13 columns, but 'input' with padding has 12: pad more, "
                "or use a smaller kernel"
            ),
        ),
        (
            conv(padding=(0, 3, 0, 0)),
            (IMAGE,),
            "layer: padding must be less than the 3 rows that the kernel spans, not 3",
        ),
        (
            conv(stride=(1, 4)),
            (IMAGE,),
            (
                "layer: a stride of 4 columns skips pixels, the kernel spans 3: use a stride "
                "that is no larger"
            ),
        ),
        (
            conv(stride=(0, 1)),
            (IMAGE,),
            "layer: stride must be 2 integers of at least 1, not (0, 1)",
        ),
        (
            conv(stride=2),
            (IMAGE,),
            "layer: stride must be 2 integers of at least 1, not 2",
        ),
        (
            conv(stride=("1", "1")),
            (IMAGE,),
            "layer: stride must be 2 integers of at least 1, not ('1', '1')",
        ),
        (
            conv(dilation=(1,)),
            (IMAGE,),
            "layer: dilation must be 2 integers of at least 1, not (1,)",
        ),
        (
            conv(padding=(1, 1)),
            (IMAGE,),
            "layer: padding must be 4 integers of at least 0, not (1, 1)",
        ),
        (
            conv(padding=(0, 0, -1, 0)),
            (IMAGE,),
            "layer: padding must be 4 integers of at least 0, not (0, 0, -1, 0)",
        ),
        (
            conv(fmt=Fixed(32)),
            (WIDE,),
            "layer: 36 products of s40.0 and s32.0 could overflow 63 bits",
        ),
        (
            pool(kernel=()),
            (IMAGE,),
            "layer: kernel must be 2 integers of at least 1, not ()",
        ),
        (
            pool(stride=(3, 2)),
            (IMAGE,),
            (
                "layer: a stride of 3 rows skips pixels, the kernel spans 2: use a stride that is "
                "no larger"
            ),
        ),
        (
            pool("average", (3, 3)),
            (IMAGE,),
            (
                "layer: an average must be over 2**n pixels without padding, not 9: "
                "use kind 'sum' and a Requantise that divides"
            ),
        ),
        (
            pool("average", (2, 2), padding=(0, 0, 1, 1)),
            (IMAGE,),
            (
                "layer: an average must be over 2**n pixels without padding, not 4 with padding: "
                "use kind 'sum' and a Requantise that divides"
            ),
        ),
        (
            pool("sum"),
            (Tensor((2, 2, 1), Fixed(61, 0, signed=False)),),
            "layer: results of 0 to 9223372036854775804 could overflow 63 bits",
        ),
        (
            pool(),
            (Tensor((4,), S8),),
            "layer: needs an image (height, width, channels), but 'input' is 4:s8.0",
        ),
        (
            requantise([1, 2]),
            (IMAGE,),
            "layer.multiplier: has 2 channels, but 'input' is 6x8x4:s8.0",
        ),
        (
            requantise(bias=[1, 2, 3]),
            (IMAGE,),
            "layer.bias: has 3 channels, but 'input' is 6x8x4:s8.0",
        ),
        (
            requantise([2**30], slope=(1, -(2**25))),
            (IMAGE,),
            "layer: s8.0 times the multiplier plus the bias could overflow 63 bits",
        ),
        (
            requantise([-(2**63)]),
            (IMAGE,),
            "layer: s8.0 times the multiplier plus the bias could overflow 63 bits",
        ),
        (
            requantise(bias=[-(2**63)]),
            (IMAGE,),
            "layer: s8.0 times the multiplier plus the bias could overflow 63 bits",
        ),
        (
            table(range(8)),
            (IMAGE,),
            "layer.entries: must have 256 entries for s8.0, not 8",
        ),
        (
            table(range(4)),
            (Tensor((1,), Ternary()),),
            "layer.entries: must have 3 entries for ternary, not 4",
        ),
        (
            table(range(8)),
            (Tensor((1,), Fixed(11)),),
            (
                "layer: a table takes codes of at most 10 bits, but 'input' is 1:s11.0: "
                "requantise it first"
            ),
        ),
        (
            Thresholds(**NAMES, levels=ONE[:, None], falling=np.array([False]), fmt=Bipolar()),
            (Tensor((1,), Fixed(64)),),
            (
                "layer: thresholds take codes of at most 63 bits, but 'input' is 1:s64.0: "
                "requantise it first"
            ),
        ),
        (
            Upsample(**NAMES, factor=(2, 2)),
            (Tensor((4,), S8),),
            "layer: needs an image (height, width, channels), but 'input' is 4:s8.0",
        ),
        (
            DepthToSpace(**NAMES, block=(2, 2)),
            (Tensor((4,), S8),),
            "layer: needs an image (height, width, channels), but 'input' is 4:s8.0",
        ),
        (
            DepthToSpace(**NAMES, block=(2, 3)),
            (IMAGE,),
            ("layer: a block of 2 by 3 pixels must divide the channels, but 'input' is 6x8x4:s8.0"),
        ),
        (
            Slice(**NAMES, start=2, stop=5),
            (IMAGE,),
            "layer: start and stop must lie in 0 to 4 in that order, not 2 and 5",
        ),
        (
            Slice(**NAMES, start=2, stop=2),
            (IMAGE,),
            "layer: start and stop must lie in 0 to 4 in that order, not 2 and 2",
        ),
        (
            Slice(**NAMES, **TEXT),
            (IMAGE,),
            "layer: start and stop must be integers, not '0' and 2",
        ),
        (Add(**NAMES), (IMAGE,), "layer: needs two inputs or more, not 1"),
        (
            Add(**PAIR),
            (IMAGE, Tensor((6, 8, 1), S8)),
            "layer: inputs must have one shape, but 'a' is 6x8x4:s8.0 and 'b' is 6x8x1:s8.0",
        ),
        (
            Add(**PAIR),
            (Tensor((3,), S8), Tensor((3,), Fixed(4, 70))),
            (
                "layer: 'a' is 3:s8.0, and shifted left by 70 bits it could overflow 63 bits: "
                "requantise it first"
            ),
        ),
        (
            Add(**PAIR),
            (Tensor((3,), Fixed(62)), Tensor((3,), Fixed(62))),
            "layer: results of -4611686018427387904 to 4611686018427387902 could overflow 63 bits",
        ),
        (Concat(**NAMES), (IMAGE,), "layer: needs two inputs or more, not 1"),
        (
            Concat(**PAIR),
            (IMAGE, Tensor((6, 7, 4), S8)),
            (
                "layer: inputs must have one height and width, but 'a' is 6x8x4:s8.0 and 'b' is "
                "6x7x4:s8.0"
            ),
        ),
        (
            Concat(**PAIR),
            (IMAGE, Tensor((), S8)),
            (
                "layer: inputs must have one height and width, but 'a' is 6x8x4:s8.0 and 'b' is "
                "scalar:s8.0"
            ),
        ),
    ],
)
def test_refuses_inputs(layer, inputs, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        layer.output(*inputs)
