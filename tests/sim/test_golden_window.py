"""Convolution and pooling of the golden model, against plain loops and against torch."""

from typing import Any

import numpy as np
import pytest

from brambling.layers import Conv, Pool, Tensor
from brambling.network import Network
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.sim import golden, golden_window

FORMATS = (Bipolar(), Ternary(), Fixed(4, 2), Fixed(8, 0, signed=False), Fixed(16))
SEEDS = range(40)


def codes(rng, fmt: Format, shape):
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    return rng.integers(fmt.min, fmt.max + 1, shape)


def geometry(rng) -> tuple[dict[str, Any], tuple[int, ...], list[int]]:
    """Kernel, stride, padding, dilation, and a size of image that they fit."""
    kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
    dilation = tuple(int(n) for n in rng.integers(1, 3, 2))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    stride = tuple(int(rng.integers(1, n + 1)) for n in span)
    padding = tuple(int(rng.integers(0, span[n // 2])) for n in range(4))
    size = [
        max(1, span[axis] - padding[2 * axis] - padding[2 * axis + 1]) + int(rng.integers(0, 5))
        for axis in range(2)
    ]
    return {"stride": stride, "padding": padding, "dilation": dilation}, kernel, size


def convolution(rng, source: Format, weight: Format):
    options, kernel, size = geometry(rng)
    groups, inside, outputs = (int(n) for n in rng.integers(1, 4, 3))
    if rng.integers(3) == 0:  # Depthwise.
        groups, inside = 4, 1
    pad_value = int(codes(rng, source, ())) if rng.integers(2) else 0
    weights = codes(rng, weight, (groups * outputs, *kernel, inside))
    layer = Conv(
        name="conv",
        inputs=("input",),
        weights=weights,
        fmt=weight,
        pad_value=pad_value,
        groups=groups,
        **options,
    )
    return layer, Tensor((*size, groups * inside), source)


def conv_by_loops(layer, x):
    """One output at a time in Python's integers; ``x``: ``(height, width, channels)``."""
    weights, x = layer.weights.tolist(), x.astype(object)
    top, bottom, left, right = layer.padding
    height, width, _ = x.shape
    (_, tall, wide, inside), each = layer.weights.shape, len(weights) // layer.groups
    (down, across), (dy, dx) = layer.stride, layer.dilation
    rows = (height + top + bottom - dy * (tall - 1) - 1) // down + 1
    columns = (width + left + right - dx * (wide - 1) - 1) // across + 1
    y = np.zeros((rows, columns, len(weights)), object)
    for r, c, o, i, j, k in np.ndindex(*y.shape, tall, wide, inside):
        row, column = r * down + i * dy - top, c * across + j * dx - left
        within = 0 <= row < height and 0 <= column < width
        value = x[row, column, o // each * inside + k] if within else layer.pad_value
        y[r, c, o] += weights[o][i][j][k] * value
    return y


def run(layer, tensor, images):
    """Result of the layer, checked against what the network infers of it."""
    network = Network("net", tensor, (layer,))
    found = golden.run(network, images)[layer.name]
    assert found.shape == (len(images), *network.output.shape)
    assert network.output.fmt.holds(found)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_convolution_equals_plain_loops(seed):
    rng = np.random.default_rng(seed)
    source, weight = (FORMATS[int(n)] for n in rng.integers(0, len(FORMATS), 2))
    layer, tensor = convolution(rng, source, weight)
    images = codes(rng, source, (2, *tensor.shape))
    found = run(layer, tensor, images)
    for image, y in zip(images, found, strict=True):
        assert y.tolist() == conv_by_loops(layer, image).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_convolution_equals_torch(seed):
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'train'")
    rng = np.random.default_rng(100 + seed)
    source, weight = (FORMATS[int(n)] for n in rng.integers(0, len(FORMATS), 2))
    layer, tensor = convolution(rng, source, weight)
    images = codes(rng, source, (5, *tensor.shape))
    top, bottom, left, right = layer.padding
    x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    x = torch.nn.functional.pad(x, (left, right, top, bottom), value=layer.pad_value)
    w = torch.tensor(layer.weights, dtype=torch.float64).permute(0, 3, 1, 2)
    y = torch.nn.functional.conv2d(
        x, w, stride=layer.stride, dilation=layer.dilation, groups=layer.groups
    )
    assert np.array_equal(run(layer, tensor, images), y.permute(0, 2, 3, 1).numpy())


def test_blocks_of_images_are_put_together(monkeypatch):
    rng = np.random.default_rng(3)
    weights = codes(rng, Fixed(4), (6, 3, 2, 2))
    images = codes(rng, Fixed(4), (7, 5, 6, 4))
    layer = Conv(name="conv", inputs=("input",), weights=weights, fmt=Fixed(4), groups=2)
    wanted = run(layer, Tensor((5, 6, 4), Fixed(4)), images)
    for block in (1, 700, 10**6):
        monkeypatch.setattr(golden_window, "BLOCK", block)
        for elements in (1, 300, 10**6):
            monkeypatch.setattr(golden, "ELEMENTS", elements)
            assert np.array_equal(run(layer, Tensor((5, 6, 4), Fixed(4)), images), wanted)


@pytest.mark.parametrize(
    ("largest", "road"),
    [
        (65_793, np.float32),
        (65_794, np.float64),
        (2**53 // 255, np.float64),
        (2**53 // 255 + 1, None),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2)])
def test_each_road_is_exact_up_to_its_bound(largest, road, groups, kernel):
    """Odd results at the very bound: 255 * 65793 is 2**24 - 1, and the same of 2**53."""
    source, weight = Fixed(8, 0, signed=False), Fixed(49)
    weights = np.zeros((2, *kernel, 2 // groups), np.int64)
    weights[0, 0, 0, 0] = largest
    weights[1, -1, -1, -1], weights[1, 0, 0, 0] = 2 - largest, 1
    layer = Conv(name="conv", inputs=("input",), weights=weights, fmt=weight, groups=groups)
    tensor = Tensor((3, 3, 2), source)
    assert golden.exact_float(layer, tensor) is road
    images = np.random.default_rng(0).integers(250, 256, (4, 3, 3, 2))
    found = run(layer, tensor, images)
    assert found[0].tolist() == conv_by_loops(layer, images[0]).tolist()


def test_padding_with_zero_adds_nothing_to_a_bipolar_image():
    image = np.ones((1, 2, 2, 1), int)
    found = {}
    for pad_value in (-1, 0, 1):
        layer = Conv(
            name="conv",
            inputs=("input",),
            weights=np.ones((1, 3, 3, 1), int),
            fmt=Bipolar(),
            padding=(1, 1, 1, 1),
            pad_value=pad_value,
        )
        found[pad_value] = run(layer, Tensor((2, 2, 1), Bipolar()), image).reshape(-1).tolist()
    assert found == {-1: [-1] * 4, 0: [4] * 4, 1: [9] * 4}


# Pooling ----------------------------------------------------------------------------------------


def pool_by_loops(layer, fmt: Format, x):
    """One output at a time; ``x``: ``(height, width, channels)``."""
    height, width, channels = x.shape
    kernel = layer.kernel or (height, width)
    stride = layer.stride or kernel
    top, bottom, left, right = layer.padding
    rows = (height + top + bottom - kernel[0]) // stride[0] + 1
    columns = (width + left + right - kernel[1]) // stride[1] + 1
    y = np.zeros((rows, columns, channels), object)
    for r, c, k in np.ndindex(*y.shape):
        taps = [
            int(x[row, column, k])
            for row in range(r * stride[0] - top, r * stride[0] - top + kernel[0])
            for column in range(c * stride[1] - left, c * stride[1] - left + kernel[1])
            if 0 <= row < height and 0 <= column < width
        ]
        y[r, c, k] = max(taps, default=fmt.min) if layer.kind == "max" else sum(taps)
    return y


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("seed", range(20))
def test_pooling_equals_plain_loops(kind, seed):
    rng = np.random.default_rng(seed)
    options, kernel, size = geometry(rng)
    options["kernel"] = kernel
    del options["dilation"]
    options["stride"] = tuple(map(min, options["stride"], kernel))
    options["padding"] = tuple(min(n, kernel[i // 2] - 1) for i, n in enumerate(options["padding"]))
    fmt = FORMATS[seed % len(FORMATS)]
    tensor = Tensor((size[0] + 4, size[1] + 4, 3), fmt)
    if rng.integers(4) == 0:
        options = {}
    layer = Pool(name="pool", inputs=("input",), kind=kind, **options)
    images = codes(rng, fmt, (3, *tensor.shape))
    for image, y in zip(images, run(layer, tensor, images), strict=True):
        assert y.tolist() == pool_by_loops(layer, fmt, image).tolist()


@pytest.mark.parametrize("seed", range(10))
def test_pooling_equals_torch(seed):
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'train'")
    rng = np.random.default_rng(seed)
    kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
    stride = tuple(int(rng.integers(1, k + 1)) for k in kernel)
    down, across = (int(rng.integers(0, k // 2 + 1)) for k in kernel)  # torch's bound
    fmt = FORMATS[seed % len(FORMATS)]
    tensor = Tensor((9, 8, 3), fmt)
    images = codes(rng, fmt, (4, *tensor.shape))
    x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    options: dict[str, Any] = {"kernel": kernel, "stride": stride}
    options["padding"] = (down, down, across, across)
    functional = torch.nn.functional
    found = {
        "max": functional.max_pool2d(x, kernel, stride, (down, across)),
        "sum": functional.avg_pool2d(x, kernel, stride, (down, across), divisor_override=1),
    }
    for kind, y in found.items():
        layer = Pool(name="pool", inputs=("input",), kind=kind, **options)
        assert np.array_equal(run(layer, tensor, images), y.permute(0, 2, 3, 1).numpy())


def test_an_average_moves_the_radix_point():
    fmt = Fixed(8, 3)
    rng = np.random.default_rng(5)
    images = codes(rng, fmt, (3, 4, 8, 2))
    layer = Pool(name="pool", inputs=("input",), kind="average", kernel=(2, 4))
    tensor = Tensor((4, 8, 2), fmt)
    found, fmt_out = run(layer, tensor, images), layer.output(tensor).fmt
    assert isinstance(fmt_out, Fixed)
    assert str(fmt_out) == "s11.6"
    blocks = fmt.decode(images).reshape(3, 2, 2, 2, 4, 2)
    assert np.array_equal(fmt_out.decode(found), blocks.mean(axis=(2, 4)))
