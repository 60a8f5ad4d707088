"""More cases of the importer: windows, and elements that are moved."""

from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from brambling.quant.formats import Fixed

from .importer_loops import (
    CASES,
    ONE,
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
    slid,
)
from .small_models import GENERAL, LAST

__all__ = ["CASES"]

# Poolings -----------------------------------------------------------------------------------------


def pooled(x, make, *args, **options):
    return slid(x, lambda window: make(window, 2), x.shape[1], *args, **options)


def mean(window, axis):
    return window.sum(axis) / window.shape[axis]


@case
def largest_of_windows():
    codes, x = images(3, 6, 7)
    low = -(10**6) * ONE  # padding is never the largest
    for kernel, stride, pads in (
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 2), (1, 2), (2, 0, 1, 1)),
        ((1, 2), (2, 3), (0, 0, 0, 0)),
        ((2, 1), (1, 4), (1, 0, 0, 0)),
    ):
        y = pooled(x, np.max, kernel, stride, pads, value=low)
        given = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        for domain, op in (("", "MaxPool"), (LAST, "MaxPool"), (GENERAL, "MaxPoolNHWC")):
            net = Net(*(x.shape[1:] if not domain else (6, 7, 3)))
            net.then(op, domain=domain, **given)
            turn = (0, 1, 2, 3) if not domain else (0, 2, 3, 1)
            yield Case(net, codes.transpose(turn), y.transpose(turn))
    # Windows that begin within the image count, also those that end behind it: so 6 x 7 has 3 x 4.
    for kernel, stride, more in (((2, 2), (2, 2), (0, 1)), ((3, 2), (2, 3), (1, 1))):
        net = Net(3, 6, 7)
        net.then("MaxPool", kernel_shape=kernel, strides=stride, ceil_mode=1)
        yield Case(net, codes, pooled(x, np.max, kernel, stride, (0, 0, *more), value=low))


@case
def largest_where_a_channel_falls():
    codes, x = images(3, 4, 4)
    factor = np.array([0.5, -1, -0.25], np.float32).reshape(3, 1, 1)
    net = Net(3, 4, 4)
    net.then("Mul", net.const(factor))
    net.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.rounds(0.25, 8)
    yield Case(net, codes, quantised(pooled(x * exactly(factor), np.max, (2, 2), (2, 2))))
    net = Net(3, 4, 4)
    net.then("GlobalMaxPool")
    yield Case(net, codes, x.max((2, 3), keepdims=True))


@case
def means():
    codes, x = images(3, 6, 4)
    for kernel, stride, pads in (
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 2), (1, 1), (1, 0, 2, 1)),
        ((1, 2), (3, 2), (0, 0, 0, 0)),
        ((2, 1), (3, 1), (0, 0, 0, 0)),
    ):
        net = Net(3, 6, 4)
        given = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        net.then("AveragePool", count_include_pad=1, **given)
        net.rounds(0.7071, 6)
        yield Case(net, codes, quantised(pooled(x, mean, kernel, stride, pads), 0.7071, 6))
    for op, opset, options in forms(
        ("GlobalAveragePool", 13, {}), ("ReduceMean", 13, {"axes": [2, 3]}), ("ReduceMean", 18, {}),
    ):  # fmt: skip
        net = Net(3, 6, 4, opset=opset)
        net.then(op, *([net.whole(-1, -2)] if opset > 13 else []), **options)
        net.rounds(0.7071, 6)
        yield Case(net, codes, quantised(x.sum((2, 3), keepdims=True) / 24, 0.7071, 6))


@case
def sums_without_their_low_bits():
    codes, x = images(2, 5, 4, low=0, high=16)
    for stride, last in product((1, 2, 3), (False, True)):
        net = Net(*((5, 4, 2) if last else (2, 5, 4)))
        net.then("Mul", net.const(4))
        options = {"kernel": 2, "stride": stride, "ibits": 4, "obits": 4, "signed": 0}
        layout = "NHWC" if last else "NCHW"
        net.then("QuantAvgPool2d", domain=GENERAL, data_layout=layout, **options)
        y = pooled(x * 4, np.sum, (2, 2), (stride, stride)) // 4
        turn = (0, 2, 3, 1) if last else (0, 1, 2, 3)
        yield Case(net, codes.transpose(turn), y.transpose(turn), Fixed(4, 0, signed=False))


# Moving elements ----------------------------------------------------------------------------------


@case
def shapes():
    codes, x = images(3, 2, 4)
    w = np.random.default_rng(7).integers(-2, 3, (24, 3))

    def dense(y):
        return (y.reshape(len(y), 24, 1) * exactly(w)).sum(1)

    for moves in (
        [("Flatten", (), {})],
        [("Reshape", ((0, -1),), {})],
        [("Transpose", (), {"perm": [0, 2, 3, 1]}), ("Reshape", ((1, 24),), {})],
        [("Unsqueeze", ((2,),), {}), ("Squeeze", ((2,),), {}), ("Flatten", (), {"axis": 1})],
        [("Identity", (), {}), ("Cast", (), {"to": 1}), ("Dropout", (), {}), ("Flatten", (), {})],
    ):
        net, y = Net(3, 2, 4), x
        net.rounds(0.25, 8)
        for op, constants, options in moves:
            net.then(op, *(net.whole(*numbers) for numbers in constants), **options)
            y = y.transpose(options["perm"]) if op == "Transpose" else y
        net.then("MatMul", net.const(w))
        yield Case(net, codes, dense(y))


@case
def cuts():
    codes, x = images(6, 5, 4)
    rng = np.random.default_rng(10)
    for axes, starts, ends, steps, y in (
        ([1], [1], [4], [1], x[:, 1:4]),
        ([1], [0], [6], [2], x[:, ::2]),
        ([1], [4], [2], [-1], x[:, 4:2:-1]),
        ([2, 3], [1, 1], [5, 4], [2, 1], x[:, :, 1:5:2, 1:]),
        ([-1, 1], [0, -2], [3, 100], [1, 1], x[:, -2:, :, :3]),
    ):
        net = Net(6, 5, 4)
        net.then("Slice", *(net.whole(*row) for row in (starts, ends, axes, steps)))
        net.rounds(0.5, 5)
        w = rng.integers(-2, 3, (3, y.shape[1], 2, 2))
        net.then("Conv", net.const(w))
        yield Case(net, codes, convolved(quantised(y, 0.5, 5), w))
    net = Net(6, 5, 4, opset=9)
    net.then("Slice", axes=[1, 2], starts=[2, 1], ends=[5, 4])
    yield Case(net, codes, x[:, 2:5, 1:4])


@case
def parts_in_another_order():
    codes, x = images(6, 2, 4)
    for opset, others in ((13, True), (9, False)):
        net = Net(6, 2, 4, opset=opset)
        sizes = [net.whole(1, 3, 2)] if others else []
        options: dict[str, Any] = {} if others else {"split": [1, 3, 2]}
        node = helper.make_node("Split", ["x", *sizes], ["a", "b", "c"], axis=1, **options)
        net.nodes.append(node)
        net.last = "b"
        net.rounds(0.5, 4)
        net.last = net.add("Concat", "c", net.last, "a", axis=1)
        net.rounds(0.75, 4)
        y = np.concatenate([x[:, 4:], quantised(x[:, 1:4], 0.5, 4), x[:, :1]], 1)
        yield Case(net, codes, quantised(y, 0.75, 4))


@case
def channels_in_another_order():
    codes, x = images(6, 3, 4)
    w = np.random.default_rng(11).integers(-2, 3, (3, 6, 2, 2))
    net = Net(6, 3, 4)
    net.rounds(0.5, 5)
    net.then("Relu")
    net.then("Reshape", net.whole(1, 2, 3, 3, 4))
    net.then("Transpose", perm=[0, 2, 1, 3, 4])
    net.then("Reshape", net.whole(1, 6, 3, 4))
    net.then("Conv", net.const(w))
    y = np.maximum(quantised(x, 0.5, 5), ZERO)
    y = y.reshape(-1, 2, 3, 3, 4).swapaxes(1, 2).reshape(x.shape)
    yield Case(net, codes, convolved(y, w))


@case
def inputs_with_channels_last():
    codes, x = images(3, 5, 4)
    w = np.random.default_rng(12).integers(-2, 3, (2, 4, 2, 3))
    shift, factor = row(0.25, -1, 2, 0.5), row(1, 0.5, -2, 4)
    net = Net(3, 5, 4)
    net.then("Sub", net.const(shift))
    net.then("Mul", net.const(factor))
    net.rounds(0.5, 5)
    net.then("Transpose", perm=[0, 3, 1, 2])
    net.then("Conv", net.const(w))
    y = quantised((x - exactly(shift)) * exactly(factor), 0.5, 5).transpose(0, 3, 1, 2)
    yield Case(net, codes, convolved(y, w))


@case
def pixels():
    codes, x = images(8, 3, 2)
    w = np.random.default_rng(8).integers(-2, 3, (3, 2, 2, 2))
    for mode, turn in product(("DCR", "CRD"), (False, True)):
        y = x.swapaxes(2, 3) if turn else x
        n, _, h, v = y.shape
        if mode == "DCR":
            y = y.reshape(n, 2, 2, 2, h, v).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = y.reshape(n, 2, 2, 2, h, v).transpose(0, 1, 4, 2, 5, 3)
        net = Net(8, 3, 2)
        net.rounds(0.25, 8)
        if turn:
            net.then("Transpose", perm=[0, 1, 3, 2])
        net.then("DepthToSpace", blocksize=2, mode=mode)
        net.then("Conv", net.const(w))
        yield Case(net, codes, convolved(y.reshape(n, 2, 2 * h, 2 * v), w))
    for opset, op in ((9, "Upsample"), (10, "Resize"), (13, "Resize")):
        net = Net(8, 3, 2, opset=opset)
        scales = net.const([1, 1, 2, 3])
        net.then(op, *(["", scales] if opset > 10 else [scales]), mode="nearest")
        net.rounds(0.5, 5)
        yield Case(net, codes, quantised(x.repeat(2, 2).repeat(3, 3), 0.5, 5))


@case
def pixels_of_channels_with_several_scales():
    codes, x = images(8, 3, 2)
    scale = (0.25 * np.array([1, 2, 3, 1, 2, 3, 1, 4])).reshape(1, 8, 1, 1)
    net = Net(8, 3, 2)
    net.rounds(scale, 4, zero=1)
    net.then("DepthToSpace", blocksize=2)
    y = quantised(x, scale, 4, 1).reshape(4, 2, 2, 2, 3, 2).transpose(0, 3, 4, 1, 5, 2)
    yield Case(net, codes, y.reshape(4, 2, 6, 4))


# The end ------------------------------------------------------------------------------------------


@case
def the_largest():
    codes, x = images(6, low=-3, high=3, count=30)  # many of which are equal
    w, gains = np.random.default_rng(9).integers(-2, 3, (6, 4)), row(1, -2, 0.29, 0.5)
    y = (x[:, :, None] * exactly(w)).sum(1) * exactly(gains)
    places = np.array([row.tolist().index(max(row)) for row in y])
    for keep, op in ((0, "ArgMax"), (1, "ArgMax"), (1, "TopK")):
        net = Net(6)
        net.then("MatMul", net.const(w))
        net.then("Mul", net.const(gains))
        if op == "ArgMax":
            net.then("ArgMax", axis=1, keepdims=keep)
        else:
            net.nodes.append(helper.make_node("TopK", [net.last, net.whole(1)], ["v", "i"]))
            net.last = "i"
        expected = places[:, None] if keep else places
        yield Case(net, codes, expected, kind=TensorProto.INT64)
