"""Networks of every kind of layer, with all that an exporter could get wrong, and frames."""

from itertools import product
from typing import Any

import numpy as np

from brambling.network import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Layer,
    Network,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary, parse_format

__all__ = ["CASES", "codes", "frames_of", "random_network"]

IMAGE, VECTOR = (5, 4, 6), (6,)
#: Formats whose codes float32 holds, those that only float64 does, and those that need int64.
FORMATS = ("u4.2", "s20.3", "s30.0", "s50.7", "s60.-2")


def codes(rng, shape, fmt: Format):
    """Random codes; all of the format's, the extremes more often."""
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    inner = rng.integers(fmt.min, fmt.max, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.1, rng.choice([fmt.min, fmt.max], shape), inner)


def frames_of(network, count=3, seed=0):
    """Random frames, one of the smallest code and one of the largest."""
    fmt, shape = network.input.fmt, network.input.shape or (1,)
    found = codes(np.random.default_rng(seed), (count, *shape), fmt)
    return np.concatenate([found, np.full((1, *shape), fmt.min), np.full((1, *shape), fmt.max)])


def chain(name, shape, fmt, *steps):
    """Make a network of layers one after the other; a step is a kind and its parameters."""
    layers, source = [], "input"
    for n, (kind, parameters) in enumerate(steps):
        source, inputs = f"layer{n}", parameters.pop("inputs", (source,))
        layers.append(kind(name=source, inputs=inputs, **parameters))
    fmt = parse_format(fmt) if isinstance(fmt, str) else fmt
    return Network(name, Tensor(shape, fmt), tuple(layers))


def dense(rng, outputs, inputs, fmt):
    fmt = parse_format(fmt)
    return Dense, {"weights": codes(rng, (outputs, inputs), fmt), "fmt": fmt}


def conv(rng, shape, fmt, **options):
    fmt = parse_format(fmt)
    return Conv, {"weights": codes(rng, shape, fmt), "fmt": fmt, **options}


def thresholds(levels, falling, fmt):
    return Thresholds, {
        "levels": np.sort(np.array(levels), axis=1),
        "falling": np.array(falling),
        "fmt": parse_format(fmt),
    }


def requantise(fmt, multiplier=(1,), bias=(0,), **options):
    arrays = {"multiplier": np.array(multiplier), "bias": np.array(bias)}
    return Requantise, {"fmt": parse_format(fmt), **arrays, **options}


def denses(rng):
    for n, (x, w) in enumerate([
        ("u8.0", "bipolar"), ("bipolar", "bipolar"), ("s4.1", "s4.3"), ("s3.0", "ternary"),
        ("u2.0", "u1.0"), ("s16.0", "s16.0"), ("u30.0", "s10.0"), ("s30.0", "s26.4"),
        ("u1.0", "s40.0"),
    ]):  # fmt: skip
        yield chain(f"dense{n}", VECTOR, x, dense(rng, 5, 6, w))
        yield chain(f"dense_image{n}", (3, 2, 4), x, dense(rng, 3, 24, w))
    yield chain("dense_scalar", (), "s4.0", dense(rng, 3, 1, "s4.0"))


def convs(rng):
    options = {
        "plain": {"shape": (4, 3, 3, 6)},
        "stride": {"shape": (4, 3, 2, 6), "stride": (2, 1), "padding": (1, 2, 0, 1)},
        "value": {"shape": (4, 3, 3, 6), "padding": (1, 0, 2, 1), "pad_value": 1},
        "dilated": {"shape": (2, 2, 2, 6), "dilation": (3, 2), "padding": (0, 1, 1, 0)},
        "groups": {"shape": (6, 3, 3, 2), "groups": 3, "padding": (1, 1, 1, 1)},
        "depthwise": {"shape": (12, 3, 3, 1), "groups": 6, "pad_value": 1, "stride": (2, 2)},
        "point": {"shape": (3, 1, 1, 6), "stride": (2, 2)},
    }
    formats = (("u8.0", "s4.0"), ("bipolar", "bipolar"), ("u16.0", "s12.0"), ("s40.0", "s16.0"))
    for (key, parameters), (x, w) in product(options.items(), formats):
        layer = conv(rng, fmt=w, **parameters)
        yield chain(f"conv_{key}_{x[0]}{w[1:3]}".replace(".", ""), IMAGE, x, layer)


def activations(rng):
    for x in ("u8.0", "s20.3", "s30.0", "s60.0", "u63.0", "bipolar"):
        fmt = parse_format(x)
        for shape, y in product(((), VECTOR, (4, 6), IMAGE), ("bipolar", "ternary", "u2.3")):
            channels, count = (shape or (1,))[-1], {"bipolar": 1, "ternary": 2, "u2.3": 3}[y]
            levels = codes(rng, (channels, count), Fixed.spanning(fmt.min, fmt.max))
            falling = rng.integers(0, 2, channels, bool)
            name = f"act_{x}_{y}_{len(shape)}"
            yield chain(name, shape, x, thresholds(levels, falling, y))
    far = 1 << 62
    beyond = [[-far, 0, 3, far], [-(1 << 63), -1, 1 << 40, (1 << 63) - 1]]
    for x, falling in product(("s4.0", "s30.0", "s63.0"), ([False, True], [True, True])):
        yield chain(f"act_far_{x}_{falling[0]}", (2,), x, thresholds(beyond, falling, "s4.0"))
    yield chain("act_row", IMAGE, "s4.0", thresholds([[-3, -3, 5]], [True], "s2.0"))
    for x in ("s4.0", "s60.0"):
        yield chain(f"act_wide_{x}", IMAGE, x, thresholds([[-3, 0, 2]], [False], "s40.0"))


def requantisers(rng):
    slopes = ((1, 1), (1, 0), (8, 1), (10, 1), (3, 0), (-2, 5), (0, -3), (-4, -4), (8, 24))
    modes = ("half_up", "half_even", "half_away", "floor")
    for n, (slope, mode, (x, most, shift)) in enumerate(product(
        slopes, modes, (("s6.0", 9, 3), ("s20.0", 99, 7), ("s40.0", 99, 20))
    )):  # fmt: skip
        multiplier = rng.integers(-most, most, 6, endpoint=True)
        bias = rng.integers(-most, most, 6, endpoint=True)
        layer = requantise("s6.0", multiplier, bias, shift=shift, slope=slope, rounding=mode)
        yield chain(f"requantise{n}", IMAGE if n % 2 else VECTOR, x, layer)
    for n, options in enumerate((
        {}, {"low": 0}, {"low": -3, "high": 5}, {"shift": 1}, {"shift": 1, "low": -2, "high": -1},
        {"multiplier": [3], "bias": [-2]}, {"multiplier": [0]}, {"shift": 61},
        {"low": 2, "high": 2},
    )):  # fmt: skip
        for x, y in product(("s6.0", "s30.0", "s55.0", "bipolar"), ("s5.0", "ternary", "s40.0")):
            if y == "ternary" and "low" in options:
                continue
            yield chain(f"requantise_{x}_{y}_{n}", (), x, requantise(y, **options))
    for n, limit in enumerate((1 + (1 << 24), 1 + (1 << 30))):
        layer = requantise("s60.0", low=-limit, high=-limit)
        yield chain(f"requantise_limit{n}", VECTOR, "s6.0", layer)


def tables(rng):
    for x, y in product(("u3.0", "s5.1", "bipolar", "ternary"), ("s8.0", "bipolar", "s60.0")):
        fmt = parse_format(x)
        count = 2 if fmt == Bipolar() else fmt.max - fmt.min + 1
        entries = codes(rng, count, parse_format(y))
        layer = Table, {"entries": entries, "fmt": parse_format(y)}
        yield chain(f"table_{x}_{y}", IMAGE, x, layer)


def images(rng):
    for x in FORMATS:
        for n, options in enumerate((
            {"kind": "max", "kernel": (2, 2)},
            {"kind": "max", "kernel": (3, 2), "stride": (1, 2), "padding": (2, 1, 1, 0)},
            {"kind": "max"},
            {"kind": "sum", "kernel": (3, 3), "padding": (1, 1, 1, 0), "stride": (2, 1)},
            {"kind": "sum", "kernel": (2, 2), "padding": (1, 1, 1, 1)},
            {"kind": "sum"},
            {"kind": "average", "kernel": (2, 4), "stride": (1, 1)},
            {"kind": "average", "kernel": (1, 1)},
        )):  # fmt: skip
            if x == "s60.-2" and n in {3, 5, 6}:  # The sums could overflow.
                continue
            yield chain(f"pool{n}_{x}", IMAGE, x, (Pool, options))
        yield chain(f"average_{x}", (2, 2, 3), x, (Pool, {"kind": "average"}))
        yield chain(f"upsample_{x}", IMAGE, x, (Upsample, {"factor": (3, 2)}))
        for block in ((2, 1), (1, 3), (1, 1)):
            yield chain(f"shuffle_{block}_{x}".replace(", ", "").replace("(", "").replace(")", ""),
                        IMAGE, x, (DepthToSpace, {"block": block}))  # fmt: skip
        yield chain(f"square_{x}", (2, 3, 8), x, (DepthToSpace, {"block": (2, 2)}))
        for shape in ((), VECTOR, (4, 3), (1, 1, 3), (3, 2, 1), IMAGE):
            size = "x".join(map(str, shape))
            yield chain(f"flatten_{x}_{size}", shape, x, (Flatten, {}))
        yield chain(f"slice_{x}", IMAGE, x, (Slice, {"start": 1, "stop": 4}))
        yield chain(f"slice_vector_{x}", VECTOR, x, (Slice, {"start": 0, "stop": 6}))
        yield chain(f"argmax_{x}", VECTOR, x, (ArgMax, {}))


def joins(rng):
    for x, (kind, shape) in product(
        FORMATS[:4], ((Add, VECTOR), (Add, IMAGE), (Add, ()), (Concat, IMAGE), (Concat, VECTOR))
    ):
        yield chain(
            f"{kind.__name__}_{x}_{len(shape)}", shape, x,
            requantise("s5.4", shift=9, rounding="floor"),
            requantise("ternary", inputs=("input",), shift=3),
            (kind, {"inputs": ("input", "layer0", "layer1", "layer0")}),
        )  # fmt: skip
    same = {"inputs": ("input", "input")}
    yield chain("twice", VECTOR, "bipolar", (Add, dict(same)), (Concat, dict(same)))


def after_argmax(rng):
    start = dense(rng, 4, 6, "s3.0"), (ArgMax, {})
    entries = {"entries": np.array([5, -2, 0, 7]), "fmt": Fixed(4)}
    for n, step in enumerate((
        (Table, entries), thresholds([[1, 3]], [False], "u2.0"), requantise("s9.0", [7], [-3]),
        dense(rng, 2, 1, "s8.0"), (Flatten, {}), (Add, {"inputs": ("layer1", "layer1")}),
    )):  # fmt: skip
        steps = [(kind, dict(parameters)) for kind, parameters in (*start, step)]
        yield chain(f"after_argmax{n}", VECTOR, "s4.0", *steps)
    # What nobody reads is computed all the same.
    yield chain("unread", VECTOR, "s4.0", *start, (Flatten, {"inputs": ("input",)}))


def cases():
    rng = np.random.default_rng(0)
    makers = denses, convs, activations, requantisers, tables, images, joins, after_argmax
    return {network.name: network for make in makers for network in make(rng)}


CASES = cases()


# Random networks -----------------------------------------------------------------------------


def random_format(rng, most=8):
    if rng.random() < 0.15:
        return rng.choice([Bipolar(), Ternary()])
    signed = bool(rng.integers(2))
    return Fixed(int(rng.integers(1 + signed, most + 1)), int(rng.integers(-3, 9)), signed)


def random_layer(rng, name, source, x: Tensor) -> Layer:
    """Make some layer that takes ``x``; what it draws may not fit."""
    names = {"name": name, "inputs": (source,)}
    fmt, channels = random_format(rng), (x.shape or (1,))[-1]
    match rng.integers(12):
        case 0 | 1:
            groups = int(rng.choice([1, 1, channels]))
            kernel = tuple(rng.integers(1, 4, 2))
            shape = (int(rng.integers(1, 4)) * groups, *kernel, channels // groups)
            pads: Any = tuple(int(rng.integers(0, n)) for n in np.repeat(kernel, 2))
            value = int(rng.choice([0, x.fmt.min, x.fmt.max]))
            step: Any = tuple(int(rng.integers(1, n + 1)) for n in kernel)
            return Conv(
                **names, weights=codes(rng, shape, fmt), fmt=fmt, groups=groups, padding=pads,
                pad_value=value, stride=step,
            )  # fmt: skip
        case 2:
            weights = codes(rng, (int(rng.integers(1, 6)), x.size), fmt)
            return Dense(**names, weights=weights, fmt=fmt)
        case 3 | 4 | 5:
            count = int(rng.integers(1, 2 if fmt == Bipolar() else min(20, fmt.max - fmt.min + 1)))
            rows = int(rng.choice([1, channels]))
            levels = rng.normal(0, x.fmt.max / 4 + 1, (rows, count)).astype(np.int64)
            falling = rng.integers(0, 2, rows, bool)
            return Thresholds(**names, levels=np.sort(levels, axis=1), falling=falling, fmt=fmt)
        case 6 | 7 | 8:
            bits = int(rng.integers(1, 20))
            multiplier = rng.integers(-(1 << bits), 1 << bits, int(rng.choice([1, channels])))
            bias = rng.integers(-(1 << bits), 1 << bits, int(rng.choice([1, channels])))
            return Requantise(
                **names, multiplier=multiplier, bias=bias, fmt=fmt,
                shift=int(rng.integers(0, bits + 4)), slope=tuple(rng.integers(-3, 9, 2).tolist()),
                rounding=str(rng.choice(["half_up", "half_even", "half_away", "floor"])),
            )  # fmt: skip
        case 9:
            kernel = tuple(rng.integers(1, 4, 2).tolist())
            return Pool(**names, kind=str(rng.choice(["max", "sum", "average"])), kernel=kernel)
        case 10:
            entries = codes(rng, 1 << x.fmt.width, fmt)
            return Table(**names, entries=entries, fmt=fmt)
    return Add(name=name, inputs=(source, source))


def random_network(seed):
    """Make a network of two to six layers, each of any kind that fits; some read earlier edges."""
    rng = np.random.default_rng(seed)
    x = Tensor((int(rng.integers(1, 7)), int(rng.integers(1, 7)), int(rng.integers(1, 5))),
               random_format(rng))  # fmt: skip
    layers: list[Layer] = []
    tensors = {"input": x}
    while len(layers) < 2 + seed % 5:
        source = str(rng.choice(list(tensors)[-2:]))
        try:
            layer = random_layer(rng, f"layer{len(layers)}", source, tensors[source])
            tensors[layer.name] = layer.output(tensors[source], *[tensors[source]] * (
                len(layer.inputs) - 1))  # fmt: skip
        except ValueError:  # It does not fit: draw again.
            continue
        layers.append(layer)
    return Network(f"random{seed}", x, tuple(layers))
