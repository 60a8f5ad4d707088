"""BorderUnit: sums with a padding of -1 become those with a padding of 0."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.border import BorderSpec
from brambling.layers import Conv, Tensor
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim.golden import evaluate

#: Height, width, outputs, channels, lanes, pixels, and the window.
GEOMETRIES = {
    "same": (4, 5, 5, 2, 2, 1, Window(kernel=(3, 3), padding=(1, 1, 1, 1))),
    "pixels": (4, 5, 3, 2, 3, 2, Window(kernel=(3, 3), padding=(1, 1, 1, 1))),
    "a row at a time": (3, 4, 2, 1, 1, 4, Window(kernel=(3, 3), padding=(1, 1, 1, 1))),
    "stride": (5, 6, 4, 2, 2, 1, Window(kernel=(3, 3), stride=(2, 2), padding=(1, 0, 1, 1))),
    "one side": (3, 4, 2, 3, 1, 3, Window(kernel=(2, 3), padding=(0, 1, 2, 0))),
    "wide": (4, 3, 2, 1, 2, 1, Window(kernel=(5, 5), padding=(2, 2, 2, 2))),
    "dilation": (4, 4, 2, 1, 1, 2, Window(kernel=(3, 3), padding=(2, 2, 2, 2), dilation=(2, 2))),
    "larger than the image": (2, 2, 3, 1, 2, 1, Window(kernel=(4, 3), padding=(1, 2, 1, 1))),
    "sequence": (1, 6, 2, 2, 1, 1, Window(kernel=(1, 3), padding=(0, 0, 1, 1))),
    "no padding": (4, 4, 2, 1, 1, 1, Window(kernel=(3, 3))),
    "one sum": (1, 1, 1, 2, 1, 1, Window(kernel=(3, 3), padding=(1, 1, 1, 1))),
}


def sums(x, weights, window, extent, pad):
    """Convolve images ``(n, height, width, channels)``, tap by tap; ``pad`` is around them."""
    top, bottom, left, right = window.padding
    image = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad)
    total = np.zeros((len(x), *extent, len(weights)), np.int64)
    for r, c in np.ndindex(*extent):
        for i, j in np.ndindex(*window.kernel):
            at = r * window.stride[0] + i * window.dilation[0]
            beside = c * window.stride[1] + j * window.dilation[1]
            total[:, r, c] += image[:, at, beside] @ weights[:, i, j].T.astype(np.int64)
    return total.reshape(len(x), -1)


def make(geometry, weight_fmt=None, seed=8, **options):
    """Spec with random weights, bipolar where no format is given."""
    height, width, outputs, channels, lanes, pixels, window = GEOMETRIES[geometry]
    rng = np.random.default_rng(seed)
    shape = (outputs, *window.kernel, channels)
    if weight_fmt is None:
        weights = rng.choice([-1, 1], shape)
    else:
        weights = rng.integers(weight_fmt.min, weight_fmt.max + 1, shape)
    rows, columns = window.extent(height, width)
    reach = int(abs(weights).sum(axis=(1, 2, 3)).max())
    i = Beats(Fixed.spanning(-reach, reach), outputs, lanes, rows, columns, pixels)
    return BorderSpec(i=i, window=window, weights=weights, height=height, width=width, **options)


def images(spec, n=4, seed=9):
    shape = (n, spec.height, spec.width, spec.weights.shape[3])
    return np.random.default_rng(seed).choice([-1, 1], shape)


def check(run_component, spec, x, **stalls):
    extent = spec.i.rows, spec.i.columns
    got, wanted = (sums(x, spec.weights, spec.window, extent, pad) for pad in (-1, 0))
    seen = spec.o.unpack(run_component(spec, got, **stalls)["output"].payloads)
    assert np.array_equal(seen, wanted)
    assert np.array_equal(spec.reference(got), wanted)
    return wanted


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_zero_padding(run_component, stalls, geometry):
    spec = make(geometry)
    check(run_component, spec, images(spec), **stalls)


@pytest.mark.parametrize("geometry", ["pixels", "stride"])
@pytest.mark.parametrize("store", ["lut", "block"])
def test_weights_of_several_bits(run_component, geometry, store):
    spec = make(geometry, Fixed(4), store=store)
    check(run_component, spec, images(spec))


@pytest.mark.parametrize("geometry", ["same", "stride"])
def test_equals_the_golden_model(run_component, geometry):
    spec = make(geometry)
    window = spec.window
    layer = Conv(
        name="conv",
        inputs=("input",),
        weights=spec.weights,
        fmt=Bipolar(),
        stride=window.stride,
        padding=window.padding,
    )
    x = images(spec)
    tensor = Tensor(x.shape[1:], Bipolar())
    assert layer.output(tensor).fmt == spec.o.fmt
    golden = evaluate(layer, (tensor,), x).reshape(len(x), -1)
    assert np.array_equal(check(run_component, spec, x), golden)


def test_reaches_the_ends_of_its_range(run_component):
    spec = make("same")
    ones = np.ones_like(spec.weights)
    spec = replace(spec, weights=ones * np.array([1, -1, 1, -1, 1])[:, None, None, None])
    for x in (np.ones_like(images(spec)), -np.ones_like(images(spec))):
        wanted = check(run_component, spec, x)
        assert (wanted.min(), wanted.max()) == (-18, 18)
    assert spec.o.fmt == Fixed.spanning(-18, 18)


def test_classes_are_the_different_patterns_of_padding():
    rows, columns = make("same").classes
    assert [np.flatnonzero(rows == n).tolist() for n in rows] == [[0], [1, 2], [1, 2], [3]]
    assert len(set(columns)) == 3
    assert make("no padding").corrections.tolist() == [[[0, 0]]]


def test_takes_a_beat_a_cycle(run_component):
    spec = make("same")
    cycles = run_component(spec, np.zeros((3, spec.i.size), int))["output"].cycles
    assert set(np.diff(cycles)) == {1}


def test_rejects_an_image_of_another_size():
    spec = make("same")
    with pytest.raises(ConfigError, match=r"^the sums must be an image of 5x5x5, not 4x5x5$"):
        replace(spec, height=5)


def test_rejects_weights_of_another_kernel():
    spec = make("same")
    message = r"^weights must be \(outputs, 3, 3, channels\), not of shape \(5, 3, 2, 2\)$"
    with pytest.raises(ConfigError, match=message):
        replace(spec, weights=spec.weights[:, :, :2])
