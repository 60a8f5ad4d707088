"""Cases of the importer: quantisers, elements and products, by plain loops over fractions."""

from fractions import Fraction
from itertools import product
from math import isqrt
from typing import Any

import numpy as np

from .importer_loops import (
    CASES,
    ONE,
    QUARTER,
    ZERO,
    Case,
    Net,
    case,
    convolved,
    exactly,
    forms,
    images,
    quantised,
    row,
    whole,
)
from .small_models import GENERAL, LAST

__all__ = ["CASES"]

MODES = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "half_down")

# Quantisers ---------------------------------------------------------------------------------------


@case
def int_quant_with_every_rounding_and_range():
    codes = np.arange(-48, 48).reshape(12, 8)  # quarters: halves are ties of a scale of 1
    for mode, signed, narrow in product(MODES, (0, 1), (0, 1)):
        for scale, bits, zero in ((1, 3, 0), (0.5, 4, 3), (1, 5, 2), (0.29, 3, 0), (0.5, 1, 0)):
            given = {"scale": scale, "bits": bits, "zero": zero}
            options = {"signed": signed, "narrow": narrow, "rounding_mode": mode}
            net = Net(8)
            net.rounds(**given, **options)
            yield Case(net, codes, quantised(exactly(codes) * QUARTER, **given, **options))


@case
def int_quant_of_one_signed_bit_is_a_sign():
    codes = np.arange(-48, 48).reshape(12, 8)
    for scale, zero in ((0.5, 0), (0.5, 3), (0.25, -2), (1, 0.5)):
        net = Net(8)
        net.rounds(scale, 1, zero, signed=1)
        expected = quantised(exactly(codes) * QUARTER, scale, 1, zero)
        assert len(set(expected.reshape(-1))) == 2
        yield Case(net, codes, expected)


@case
def int_quant_by_channel():
    codes, x = images(3, 2, 4)
    scale = np.array([0.5, 1, 0.29], np.float32).reshape(1, 3, 1, 1)
    zero = np.array([0, 1, -2]).reshape(1, 3, 1, 1)
    bits = np.array([2, 4, 3]).reshape(1, 3, 1, 1)
    for given in ((scale, 4, 0), (0.5, 4, zero), (scale, 3, zero), (scale, bits, zero)):
        for signed, mode in product((0, 1), ("ROUND", "UP", "HALF_DOWN")):
            net = Net(3, 2, 4)
            net.rounds(*given, signed=signed, rounding_mode=mode)
            yield Case(net, codes, quantised(x, *given, signed=signed, rounding_mode=mode))


@case
def bipolar_quant_has_zero_above():
    codes, x = images(3, 2, 4, low=-2, high=3)
    for scale in (0.5, np.array([1, -2, 0.29], np.float32).reshape(1, 3, 1, 1)):
        net = Net(3, 2, 4)
        net.then("BipolarQuant", net.const(scale), domain=GENERAL)
        sign = np.where(x >= 0, ONE, -ONE)
        yield Case(net, codes, sign * exactly(np.float32(scale)))


@case
def trunc_of_both_versions():
    codes = np.arange(-48, 48).reshape(12, 8)
    x = exactly(codes) * QUARTER
    for mode, zero in product(("ROUND", "CEIL", "FLOOR"), (0, 3)):
        net = Net(8)
        net.rounds(bits=8)
        net.then("Trunc", *map(net.const, (0.25, zero, 7, 5)), domain=GENERAL, rounding_mode=mode)
        expected = [(whole((v * 4 + zero) / 4, mode) - zero) * QUARTER for v in x.reshape(-1)]
        yield Case(net, codes, np.array(expected).reshape(x.shape))
        net = Net(8, version=2)
        net.rounds(bits=8)
        given = map(net.const, (0.25, zero, 7, 1, 4))
        options = {"rounding_mode": mode, "signed": 1, "narrow": 1}
        net.then("Trunc", *given, domain=GENERAL, **options)
        ends = [min(max((v * 4 + zero) / 4, -7), 7) for v in x.reshape(-1)]
        expected = [whole(end, mode) - Fraction(zero, 4) for end in ends]
        yield Case(net, codes, np.array(expected).reshape(x.shape))


@case
def multi_threshold():
    codes, x = images(3, 2, 4)
    rng = np.random.default_rng(0)
    for rows, count in ((3, 3), (1, 7), (3, 1), (1, 1)):
        steps = np.sort(rng.integers(-30, 30, (rows, count)), axis=1) / 4
        number = np.zeros(x.shape, object)
        for step in np.broadcast_to(exactly(steps), (3, count)).T:
            number += (x >= step.reshape(3, 1, 1)).astype(int)
        for scale, bias in ((1, 0), (2, -1), (0.5, -1.75)):
            net = Net(3, 2, 4)
            options = {"out_dtype": "INT4", "out_scale": float(scale), "out_bias": float(bias)}
            net.then("MultiThreshold", net.const(steps), domain=GENERAL, **options)
            yield Case(net, codes, number * Fraction(scale) + Fraction(bias))
    net = Net(2, 4, 3)
    steps = rng.integers(-30, 30, (3, 2)) / 4
    options = {"out_dtype": "UINT2", "data_layout": "NHWC"}
    net.then("MultiThreshold", net.const(np.sort(steps)), domain=GENERAL, **options)
    codes, x = images(2, 4, 3)
    yield Case(net, codes, sum((x >= step).astype(int) for step in exactly(steps).T))


@case
def qcdq_with_every_zero_point_then_clip():
    codes = np.arange(-48, 48).reshape(12, 8)
    for zero, limits, scale in product((0, 1, -3, 4), (None, (-5, 6)), (1, 0.5, 0.29)):
        net = Net(8)
        parameters = net.const(scale), net.const(zero, np.int8)
        net.then("QuantizeLinear", *parameters)
        low, high = limits or (-128, 127)
        if limits:
            net.then("Clip", net.const(low, np.int8), net.const(high, np.int8))
        net.then("DequantizeLinear", *parameters)
        s = Fraction(float(np.float32(scale)))
        made = [
            (min(max(round(v * QUARTER / s) + zero, low), high) - zero) * s  # to even, then moved
            for v in codes.reshape(-1).tolist()
        ]
        yield Case(net, codes, np.array(made).reshape(codes.shape))


@case
def qcdq_by_channel():
    codes, x = images(3, 2, 4)
    scale, zero = np.array([0.5, 1, 0.25], np.float32), np.array([1, 2, 3], np.uint8)
    net = Net(3, 2, 4)
    parameters = net.const(scale), net.const(zero, np.uint8)
    for op in ("QuantizeLinear", "DequantizeLinear"):
        net.then(op, *parameters, axis=1)
    made = np.empty(x.shape, object)
    for place in np.ndindex(x.shape):
        s, z = Fraction(float(scale[place[1]])), int(zero[place[1]])
        made[place] = (min(max(round(x[place] / s) + z, 0), 255) - z) * s
    yield Case(net, codes, made)


# Elements -----------------------------------------------------------------------------------------


@case
def arithmetic():
    codes, x = images(3, 2, 4)
    channels = np.array([0.5, -2, 0.25], np.float32).reshape(3, 1, 1)
    c = exactly(channels)
    for op, first, make in (
        ("Add", False, x + c), ("Add", True, x + c), ("Sub", False, x - c), ("Sub", True, c - x),
        ("Mul", False, x * c), ("Mul", True, x * c), ("Div", False, x / c),
    ):  # fmt: skip
        net = Net(3, 2, 4)
        name = net.const(channels)
        net.last = net.add(op, *((name, net.last) if first else (net.last, name)))
        net.rounds(0.5, 5)
        yield Case(net, codes, quantised(make, 0.5, 5))
    net = Net(3, 2, 4)
    net.then("Neg")
    net.rounds(0.5, 5)
    yield Case(net, codes, quantised(-x, 0.5, 5))


def normalised(x, gain, bias, mean, variance, axis=1):
    """Batch normalisation, with roots to 300 bits: no number here is that close to a tie."""
    made = np.empty(x.shape, object)
    rows = [exactly(np.asarray(part, np.float32)) for part in (gain, bias, mean, variance)]
    for place in np.ndindex(x.shape):
        g, b, m, v = (row[place[axis]] for row in rows)
        root = Fraction(isqrt(v.numerator * v.denominator << 600), v.denominator << 300)
        made[place] = g * (x[place] - m) / root + b
    return made


@case
def batch_normalisation_with_falling_and_constant_channels():
    gain, bias, mean = ([0.5, -1.5, 0], [0.25, 0.29, -0.6], [1, -0.7, 0.4])
    for variance, mode in product(([4, 1, 0.25], [0.7, 3, 2]), ("ROUND", "FLOOR", "CEIL")):
        for last in (False, True):
            codes, x = images(2, 4, 3) if last else images(3, 2, 4)
            net = Net(*x.shape[1:])
            given = map(net.const, (gain, bias, mean, variance))
            domain = LAST if last else ""
            net.then("BatchNormalization", *given, domain=domain, epsilon=0.0)
            net.rounds(0.5, 4, rounding_mode=mode)
            y = normalised(x, gain, bias, mean, variance, 3 if last else 1)
            yield Case(net, codes, quantised(y, 0.5, 4, rounding_mode=mode))


@case
def bends():
    codes, x = images(3, 2, 4)
    slopes = np.array([0.5, -0.25, -1], np.float32).reshape(3, 1, 1)
    for op, constants, options, y in forms(
        ("Relu", (), {}, np.maximum(x, ZERO)),
        ("LeakyRelu", (), {"alpha": 0.125}, np.where(x < 0, x / 8, x)),
        ("LeakyRelu", (), {"alpha": -0.5}, np.where(x < 0, -x / 2, x)),
        ("PRelu", (slopes,), {}, np.where(x < 0, x * exactly(slopes), x)),
        ("PRelu", (np.float32(0.25),), {}, np.where(x < 0, x / 4, x)),
        ("Clip", (-1.3, 2.6), {}, np.clip(x, *exactly(row(-1.3, 2.6)))),
    ):
        for options_of in forms({"signed": 1}, {"signed": 0, "rounding_mode": "FLOOR"}):
            net = Net(3, 2, 4)
            net.then(op, *map(net.const, constants), **options)
            net.rounds(0.5, 4, **options_of)
            yield Case(net, codes, quantised(y, 0.5, 4, **options_of))


@case
def branches_of_unequal_scales_are_added():
    codes, x = images(3, 2, 4)
    scale = np.array([0.5, 0.29, 0.75], np.float32).reshape(1, 3, 1, 1)
    for op, other, end in product(("Add", "Sub", "Sum"), (0.25, 0.29, scale), (True, False)):
        net = Net(3, 2, 4)
        net.rounds(0.5, 4)
        left, net.last = net.last, "x"
        net.rounds(other, 3, zero=1)
        net.last = net.add(op, left, net.last)
        y = quantised(x, other, 3, 1)
        y = quantised(x, 0.5, 4) + (-y if op == "Sub" else y)
        if end:
            net.rounds(0.73, 4)
            y = quantised(y, 0.73, 4)
        yield Case(net, codes, y)


# Products -----------------------------------------------------------------------------------------


@case
def convolutions():
    codes, x = images(4, 6, 7)
    rng = np.random.default_rng(1)
    for kernel, options in forms(
        ((3, 3), {"pads": (1, 1, 1, 1)}),
        ((2, 3), {"pads": (0, 4, 3, 1), "stride": (2, 1)}),  # wider than the kernel
        ((2, 2), {"stride": (3, 4)}),
        ((1, 1), {"stride": (2, 3), "pads": (0, 1, 1, 0)}),
        ((3, 2), {"dilation": (2, 3), "pads": (2, 0, 1, 3), "groups": 2}),
        ((3, 3), {"pads": (1, 0, 1, 2), "groups": 4}),
    ):
        groups = options.get("groups", 1)
        w = rng.integers(-3, 4, (4, 4 // groups, *kernel))
        names: dict = {"stride": "strides", "dilation": "dilations", "groups": "group"}
        given: dict[str, Any] = {names.get(key, key): options[key] for key in options}
        bias = np.array([0.25, -1, 0, 0.1], np.float32)
        expected = convolved(x, w, **options) + exactly(bias).reshape(4, 1, 1)
        net = Net(4, 6, 7)
        net.then("Conv", net.const(w), net.const(bias), **given)
        yield Case(net, codes, expected)
        net = Net(6, 7, 4)
        moved = net.const(w.transpose(0, 2, 3, 1))
        net.then("Conv", moved, net.const(bias), domain=LAST, kernel_shape=list(kernel), **given)
        yield Case(net, codes.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1))


@case
def convolutions_of_turned_images_and_of_sequences():
    codes, x = images(2, 5, 4)
    rng = np.random.default_rng(2)
    w = rng.integers(-3, 4, (3, 2, 3, 2))
    options = {"stride": (1, 2), "pads": (2, 0, 0, 1), "dilation": (2, 1)}
    given = {"strides": (1, 2), "pads": (2, 0, 0, 1), "dilations": (2, 1)}
    net = Net(2, 5, 4)
    net.rounds(0.25, 8)
    net.then("Transpose", perm=[0, 1, 3, 2])
    net.then("Conv", net.const(w), **given)
    yield Case(net, codes, convolved(x.swapaxes(2, 3), w, **options))
    codes, x = images(2, 9)
    net = Net(2, 9)
    net.then("Conv", net.const(w[:, :, 0]), strides=[3], pads=[1, 2])
    y = convolved(x[:, :, None], w[:, :, :1], stride=(1, 3), pads=(0, 1, 0, 2))
    yield Case(net, codes, y[:, :, 0])


@case
def weights_of_quantisers():
    codes, x = images(2, 4, 4)
    raw = np.random.default_rng(3).normal(size=(3, 2, 2, 2)).astype(np.float32)
    scale = np.array([0.29, 0.25, 0.1], np.float32).reshape(3, 1, 1, 1)
    for bits, zero, narrow, of in ((3, 0, 1, 0.29), (4, 1, 0, scale), (1, 0, 0, scale)):
        net = Net(2, 4, 4)
        given = map(net.const, (of, zero, bits))
        name = net.add("Quant", net.const(raw), *given, domain=GENERAL, narrow=narrow)
        net.then("Conv", name)
        net.rounds(0.7071, 5)
        w = quantised(exactly(raw), of, bits, zero, 1, narrow)
        yield Case(net, codes, quantised(convolved(x, w), 0.7071, 5))
    net = Net(2, 4, 4)
    w = np.random.default_rng(4).integers(-3, 4, (3, 2, 2, 2))
    parts = net.const(w, np.int8), net.const(scale.reshape(3)), net.const([1, 0, 2], np.int8)
    net.then("Conv", net.add("DequantizeLinear", *parts, axis=0))
    w = (w - np.array([1, 0, 2]).reshape(3, 1, 1, 1)) * exactly(scale)
    net.rounds(0.7071, 5)
    yield Case(net, codes, quantised(convolved(x, w), 0.7071, 5))


@case
def matrices():
    codes, x = images(6)
    w, bias = np.random.default_rng(5).integers(-3, 4, (6, 3)), row(0.5, -1, 0.29)
    product_, c = (x[:, :, None] * exactly(w)).sum(1), exactly(bias)
    net = Net(6)
    net.then("MatMul", net.const(w))
    yield Case(net, codes, product_)
    for across, alpha, beta in ((0, 1, 1), (1, 0.5, -2), (1, -1, 0.25)):
        net = Net(6)
        options = {"transB": across, "alpha": float(alpha), "beta": float(beta)}
        net.then("Gemm", net.const(w.T if across else w), net.const(bias), **options)
        y = product_ * Fraction(alpha) + c * Fraction(beta)
        net.rounds(0.29, 6)
        yield Case(net, codes, quantised(y, 0.29, 6))
    codes, x = images(2, 4, 3)  # of several pixels, channels last
    net = Net(2, 4, 3)
    net.then("MatMul", net.const(w[:3]))
    yield Case(net, codes, (x[..., None] * exactly(w[:3])).sum(-2))


@case
def padding_with_a_value():
    codes, x = images(2, 4, 5, low=-8, high=8)
    w = np.random.default_rng(6).integers(-2, 3, (3, 2, 3, 2))
    for opset, value in product((9, 13), (0.0, 0.5, -1.25)):
        net = Net(2, 4, 5, opset=opset)
        net.rounds(0.25, 5)
        pads = [0, 0, 1, 0, 0, 0, 0, 2]
        if opset < 11:
            net.then("Pad", pads=pads, value=value)
        else:
            net.then("Pad", net.whole(*pads), net.const(value))
        net.then("Conv", net.const(w))
        y = convolved(quantised(x, 0.25, 5), w, pads=(1, 0, 0, 2), value=Fraction(value))
        yield Case(net, codes, y)
