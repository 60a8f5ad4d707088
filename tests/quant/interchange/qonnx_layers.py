"""Random layers for random QONNX graphs: each reads a quantised value and makes another."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .qonnx_build import CHANNELS_LAST, Builder, Value
from .qonnx_quantisers import bias, quantise, requantise, trunc, weights

__all__ = ["Layer", "activate", "conv", "dense", "image_layers", "layer", "vector_layers"]

Layer = Callable[[Builder, Value], Value]


# Products -----------------------------------------------------------------------------------------


def extent(size: int, kernel: int, stride: int, pads: int, dilation: int = 1) -> int:
    """Places of a window."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def conv(b: Builder, x: Value, *, outputs: int = 0, depthwise: bool = False, same: bool = False):
    """Add a convolution; ``same`` keeps the size of the image."""
    choices, rank = b.choices, len(x.space)
    kernel = [min(choices.pick([3, 1, 2]), n) for n in x.space]
    kernel = [k - (same and k % 2 == 0) for k in kernel]
    dilation = [choices.pick([1, 1, 1, 2]) if not same and n >= 5 else 1 for n in x.space]
    stride = [1 if same else choices.pick([1, 1, 2]) for _ in x.space]
    if same:
        pads = [k // 2 for k in kernel] * 2
    else:
        pads = [choices.pick([0, 1, 1, 2]) % k for k in kernel * 2]
    ends = zip(x.space, kernel, stride, pads[:rank], pads[rank:], dilation, strict=True)
    space = tuple(extent(n, k, s, p + q, d) for n, k, s, p, q, d in ends)
    groups, outputs = _groups(b, x.channels, outputs, depthwise)
    attributes = {"strides": stride, "pads": pads, "dilations": dilation, "group": groups}
    fan_in = int(np.prod(kernel)) * x.channels // groups
    last = choices.chance(8)
    inside = (*kernel, x.channels // groups) if last else (x.channels // groups, *kernel)
    made = weights(b, (outputs, *inside), 0)
    spread = x.spread * made.spread * fan_in**0.5
    constants = [made.name, *([bias(b, outputs, x, made, spread)] if choices.chance(50) else [])]
    attributes["kernel_shape"] = kernel
    if last:
        b.shapes[made.name] = (outputs, *inside)
        return _channels_last(b, "Conv", x, constants, (1, outputs, *space), spread, attributes)
    if choices.chance(20):
        attributes = {name: value for name, value in attributes.items() if not default(name, value)}
    shape = (1, outputs, *space)
    return b.apply("Conv", x, *constants, shape=shape, spread=spread, **attributes)


def default(name: str, value) -> bool:
    """Whether an attribute of a window may be left out."""
    return name == "kernel_shape" or set(np.ravel(value)) == {0 if name == "pads" else 1}


def _groups(b: Builder, inputs: int, outputs: int, depthwise: bool) -> tuple[int, int]:
    if depthwise:
        return inputs, inputs * (1 if outputs or inputs > 4 else b.choices.pick([1, 1, 2]))
    outputs = outputs or b.choices.pick([4, 2, 3, 6, 8])
    shared = [n for n in (1, 2, 3) if inputs % n == 0 and outputs % n == 0]
    return (b.choices.pick(shared) if b.choices.chance(25) else 1), outputs


def _channels_last(b: Builder, op: str, x: Value, constants, shape, spread, attributes) -> Value:
    """Add an operation that has its channels last, between transpositions."""
    rank = len(x.shape)
    to_last = [0, *range(2, rank), 1]
    to_first = [0, rank - 1, *range(1, rank - 1)]
    (name,) = b.add("Transpose", [x.name], perm=to_last)
    b.shapes[name] = tuple(x.shape[axis] for axis in to_last)
    (name,) = b.add(op, [name, *constants], domain=CHANNELS_LAST, **attributes)
    (name,) = b.add("Transpose", [name], perm=to_first)
    return Value(name, shape, spread)


def dense(b: Builder, x: Value, outputs: int) -> Value:
    """Add a dense layer."""
    form = b.choices.pick([_matmul, _gemm, _gemm, _matmul_transposed, _pointwise])
    return form(b, x, outputs)


def _spread(x: Value, spread: float) -> float:
    return x.spread * spread * x.channels**0.5


def _matmul(b: Builder, x: Value, outputs: int) -> Value:
    made = weights(b, (x.channels, outputs), 1)
    y = b.apply("MatMul", x, made.name, shape=(1, outputs), spread=_spread(x, made.spread))
    return _plus(b, y, bias(b, outputs, x, made, y.spread)) if b.choices.chance(40) else y


def _matmul_transposed(b: Builder, x: Value, outputs: int) -> Value:
    made = weights(b, (outputs, x.channels), 0)
    (name,) = b.add("Transpose", [made.name], perm=[1, 0])
    y = b.apply("MatMul", x, name, shape=(1, outputs), spread=_spread(x, made.spread))
    return _plus(b, y, bias(b, outputs, x, made, y.spread)) if b.choices.chance(40) else y


def _plus(b: Builder, x: Value, name: str) -> Value:
    first = b.choices.chance(20)
    (made,) = b.add("Add", [name, x.name] if first else [x.name, name])
    return replace(x, name=made)


def _gemm(b: Builder, x: Value, outputs: int) -> Value:
    choices = b.choices
    across = choices.pick([1, 0])
    made = weights(b, (outputs, x.channels) if across else (x.channels, outputs), 1 - across)
    spread = _spread(x, made.spread)
    attributes: dict = {"transB": across}
    factors = [1.0, 1.0]
    if choices.chance(15):
        factors = [choices.pick([0.5, 2.0, -1.0]), choices.pick([0.5, 2.0, -1.0])]
        attributes |= {"alpha": factors[0], "beta": factors[1]}
    source = x
    if choices.chance(4):
        source = replace(x, name=b.add("Transpose", [x.name], perm=[1, 0])[0])
        attributes["transA"] = 1
    constants = [made.name]
    if b.style.opset < 11 or choices.chance(60):
        constants.append(bias(b, outputs, x, made, spread))
    spread *= abs(factors[0])
    return b.apply("Gemm", source, *constants, shape=(1, outputs), spread=spread, **attributes)


def _pointwise(b: Builder, x: Value, outputs: int) -> Value:
    """A dense layer as a convolution of an image of one pixel."""
    image = b.with_axes("Unsqueeze", x, [2, 3], (*x.shape, 1, 1))
    made = weights(b, (outputs, x.channels, 1, 1), 0)
    shape, spread = (1, outputs, 1, 1), _spread(x, made.spread)
    y = b.apply("Conv", image, made.name, shape=shape, spread=spread, kernel_shape=[1, 1])
    return b.with_axes("Squeeze", y, [2, 3], (1, outputs))


# After a product ----------------------------------------------------------------------------------


def finish(b: Builder, x: Value) -> Value:
    """Add what follows a product: normalisation, constants, activation, quantiser."""
    if b.choices.chance(40):
        x = normalise(b, x)
    if b.choices.chance(20):
        x = by_constant(b, x)
    return quantise(b, activate(b, x))


def normalise(b: Builder, x: Value) -> Value:
    """Add batch normalisation; some gains are negative, some zero."""
    count, rng, spread = (x.channels,), b.rng, x.spread
    gain = b.numbers(count, 1) * (rng.uniform(size=count) > 0.1)
    if b.style.exact:
        variance, epsilon = np.full(count, 4.0 ** round(np.log2(spread))), 0.0
    else:
        variance, epsilon = spread**2 * rng.uniform(0.5, 2, count), b.choices.pick([1e-5, 1e-3])
    constants = [gain, b.numbers(count, 0.5), b.numbers(count, spread * 0.5), variance]
    names = [b.constant(values) for values in constants]
    attributes: dict = {"epsilon": epsilon, "momentum": 0.9}
    if len(x.shape) > 2 and b.choices.chance(5):
        return _channels_last(b, "BatchNormalization", x, names, x.shape, 1, attributes)
    return b.apply("BatchNormalization", x, *names, spread=1, **attributes)


def by_constant(b: Builder, x: Value) -> Value:
    """Add an operation with a constant: one number, or one for each channel."""
    op = b.choices.pick(["Add", "Mul", "Sub", "Div"])
    per_channel = (x.channels, *(1 for _ in x.space))
    shape = b.choices.pick([(), per_channel, (1, *per_channel), (1,)])
    values = b.factors(shape) if op in {"Mul", "Div"} else b.numbers(shape, x.spread)
    name = b.constant(values)
    first = op != "Div" and b.choices.chance(25)
    (made,) = b.add(op, [name, x.name] if first else [x.name, name])
    return Value(made, x.shape, x.spread * 1.3)


def activate(b: Builder, x: Value) -> Value:
    """Add an activation, or none."""
    kind = b.choices.pick(["Relu", "Relu", "", "LeakyRelu", "PRelu", "Clip", "Clip"])
    if kind == "Relu":
        return replace(b.apply("Relu", x), positive=True)
    if kind == "LeakyRelu":
        return b.apply("LeakyRelu", x, alpha=b.choices.pick([0.125, 0.25]))
    if kind == "PRelu":
        shape = b.choices.pick([(x.channels, *(1 for _ in x.space)), (1,)])
        slope = b.factors(shape) * np.float32(0.25)
        return b.apply("PRelu", x, b.constant(slope))
    if kind == "Clip":
        high = float(2.0 ** round(np.log2(x.spread)))
        low = b.choices.pick([0.0, -high, None])
        high = high if low is None else b.choices.pick([high, None])
        return replace(b.clip(x, low, high), positive=low == 0)
    return x


# Layers of images ---------------------------------------------------------------------------------


def layer(b: Builder, x: Value) -> Value:
    """A convolution and what follows it."""
    return finish(b, conv(b, x))


def depthwise(b: Builder, x: Value) -> Value:
    """A depthwise convolution, of a value that may have a scale for each channel."""
    if b.style.dialect == "qonnx" and b.choices.chance(30):
        x = requantise(b, x)
    return finish(b, conv(b, x, depthwise=True))


def padded(b: Builder, x: Value) -> Value:
    """A convolution after a border of zeros."""
    begins, ends = ([b.choices.pick([1, 0, 2]) for _ in x.space] for _ in range(2))
    return layer(b, b.pad(x, [0, 0, *begins, 0, 0, *ends]))


def pool(b: Builder, x: Value) -> Value:
    """The largest of a window."""
    choices = b.choices
    kernel = [min(choices.pick([2, 3]), n) for n in x.space]
    stride = [choices.pick([2, 1]) for _ in x.space]
    pads = [choices.pick([0, 0, 1]) % k for k in kernel]
    ends = zip(x.space, kernel, stride, pads, strict=True)
    shape = (1, x.channels, *(extent(n, k, s, 2 * p) for n, k, s, p in ends))
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": pads * 2}
    if choices.chance(10):
        made = _channels_last(b, "MaxPool", x, [], shape, x.spread, attributes)
        return replace(x, name=made.name, shape=shape)
    return b.kept("MaxPool", x, shape=shape, **attributes)


def average(b: Builder, x: Value) -> Value:
    """The mean of a window, quantised or truncated."""
    kernel = [min(2, n) for n in x.space]
    if b.choices.chance(25) and not b.style.exact:
        kernel = [min(3, n) for n in x.space]
    whole = b.choices.chance(30) and (not b.style.exact or is_power(int(np.prod(x.space))))
    count = int(np.prod(x.space if whole else kernel))
    stride = [b.choices.pick([k, 1]) for k in kernel]
    if whole:
        y = _mean(b, x)
    else:
        ends = zip(x.space, kernel, stride, strict=True)
        shape = (*x.shape[:2], *(extent(n, k, s, 0) for n, k, s in ends))
        y = b.apply("AveragePool", x, shape=shape, kernel_shape=kernel, strides=stride)
    return averaged(b, x, replace(y, positive=x.positive), count)


def _mean(b: Builder, x: Value) -> Value:
    """The mean of the whole image, in one of two forms."""
    axes, shape = list(range(2, len(x.shape))), (*x.shape[:2], *(1 for _ in x.space))
    if b.choices.chance(60):
        return b.apply("GlobalAveragePool", x, shape=shape)
    if b.style.opset < 18:
        return b.apply("ReduceMean", x, shape=shape, axes=axes, keepdims=1)
    return b.apply("ReduceMean", x, b.constant(axes, np.int64), shape=shape, keepdims=1)


def averaged(b: Builder, x: Value, y: Value, count: int) -> Value:
    """Truncate the sum behind an average, or quantise the average."""
    plain = x.scale is not None and x.scale.size == 1 and b.style.dialect == "qonnx"
    if not plain or not b.choices.chance(80):
        return quantise(b, y)
    as_now = b.style.trunc > 1 and b.choices.chance(60)  # Brevitas now; a sum before
    if not as_now:
        y = replace(b.apply("Mul", y, b.constant(count)), positive=x.positive)
    return trunc(b, replace(y, bits=x.bits, scale=x.scale), count, 1 / count if as_now else 1)


def is_power(n: int) -> bool:
    return n & (n - 1) == 0


def residual(b: Builder, x: Value) -> Value:
    """Two branches added, of equal or of unequal scales."""
    body = layer(b, x) if b.choices.chance(30) else x
    body = conv(b, body, outputs=x.channels, same=body.space == x.space)
    if body.shape != x.shape:
        return finish(b, body)
    left, right = _alike(b, normalise(b, body) if b.choices.chance(40) else body, x)
    (name,) = b.add(
        "Add", [left.name, right.name] if b.choices.chance(50) else [right.name, left.name]
    )
    spread = (left.spread**2 + right.spread**2) ** 0.5
    return quantise(b, activate(b, Value(name, x.shape, spread)))


def _alike(b: Builder, new: Value, old: Value) -> tuple[Value, Value]:
    """A branch after a quantiser of its own; or both with one scale, by equal quantisers."""
    if b.style.dialect != "qonnx" or b.choices.chance(50):
        return quantise(b, new), old
    count = len(b.nodes)
    made = quantise(b, new)
    node = b.nodes[-1]
    assert len(b.nodes) == count + 1
    (name,) = b.add(
        node.op_type, [old.name, *node.input[1:]], domain=node.domain, **attributes_of(node)
    )
    return made, replace(made, name=name, spread=old.spread)


def attributes_of(node) -> dict:
    """Attributes of a node, to make another like it."""
    return {entry.name: entry.i if entry.type == 2 else entry.s for entry in node.attribute}


def joined(b: Builder, x: Value) -> Value:
    """Two branches beside each other."""
    left = finish(b, conv(b, x, same=True))
    right = finish(b, conv(b, x, same=True)) if b.choices.chance(50) else x
    if left.space != right.space:
        return left
    axis = b.axis(1, len(x.shape))
    (name,) = b.add("Concat", [left.name, right.name], axis=axis)
    shape = (1, left.channels + right.channels, *x.space)
    positive = left.positive and right.positive
    made = Value(name, shape, max(left.spread, right.spread), positive=positive)
    return sliced(b, quantise(b, made))


def sliced(b: Builder, x: Value) -> Value:
    """Some of the channels; not more than eight."""
    count = x.channels
    if count <= 8 and not b.choices.chance(50):
        return x
    if count <= 2:
        return x
    start = b.choices.pick([0, 1])
    step = b.choices.pick([1, 2]) if b.style.opset >= 10 and count > 3 else 1
    return b.slice(x, start, min(count, 8), step)


def parted(b: Builder, x: Value) -> Value:
    """Channels in two parts, one of them changed, in the other order."""
    if x.channels < 2:
        return layer(b, x)
    size = b.choices.pick([x.channels // 2, 1])
    left, right = b.split(x, [size, x.channels - size])
    changed = finish(b, conv(b, left, outputs=left.channels, same=True))
    (name,) = b.add("Concat", [right.name, changed.name], axis=1)
    return quantise(b, Value(name, x.shape, max(right.spread, changed.spread)))


def enlarged(b: Builder, x: Value) -> Value:
    """Each pixel repeated, or channels as pixels."""
    if len(x.space) == 1 or max(x.space) > 4 or b.choices.chance(50):
        return b.resize(x, [b.choices.pick([2, 3, 1]) if n <= 4 else 1 for n in x.space])
    x = finish(b, conv(b, x, outputs=b.choices.pick([4, 8])))
    shape = (1, x.channels // 4, *(2 * n for n in x.space))
    mode = {"mode": b.choices.pick(["DCR", "CRD"])} if b.style.opset >= 11 else {}
    return b.kept("DepthToSpace", x, shape=shape, blocksize=2, **mode)


def constant_layer(b: Builder, x: Value) -> Value:
    """Constants between two quantisers, the first of which may have a scale for each channel."""
    if b.style.dialect == "qonnx" and b.choices.chance(40):
        x = requantise(b, x)
    return quantise(b, activate(b, by_constant(b, x)))


def turned(b: Builder, x: Value) -> Value:
    """Rows for columns."""
    if len(x.space) == 1:
        y = b.with_axes("Unsqueeze", x, [2], (*x.shape[:2], 1, *x.space))
        y = finish(b, conv(b, y))
        if y.space[0] != 1:
            return y
        return b.with_axes("Squeeze", y, [2], (*y.shape[:2], y.space[1]))
    return b.kept("Transpose", x, shape=(*x.shape[:2], *x.space[::-1]), perm=[0, 1, 3, 2])


image_layers: list[Layer] = [
    *(layer, layer, pool, residual, depthwise, average, average, joined, constant_layer),
    *(parted, sliced, enlarged, padded, turned),
]


# Layers of vectors --------------------------------------------------------------------------------


def dense_layer(b: Builder, x: Value) -> Value:
    """A dense layer and what follows it."""
    return finish(b, dense(b, x, b.choices.pick([6, 4, 8, 3])))


def dense_residual(b: Builder, x: Value) -> Value:
    """A dense layer added to what it reads."""
    left, right = _alike(b, dense(b, x, x.channels), x)
    (name,) = b.add("Add", [left.name, right.name])
    spread = (left.spread**2 + right.spread**2) ** 0.5
    return quantise(b, activate(b, Value(name, x.shape, spread)))


vector_layers: list[Layer] = [dense_layer, dense_layer, dense_residual, constant_layer]
