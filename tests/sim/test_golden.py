"""The golden model against integers in plain Python, on every road that it takes."""

import re

import numpy as np
import pytest

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.sim import golden

U8 = Fixed(8, 0, signed=False)
FORMATS = (Bipolar(), Ternary(), Fixed(4, 2), Fixed(3, 0, signed=False), U8, Fixed(16))


def oracle(network, frame):
    """Every edge of one frame, ``{name: list}``, in Python's integers."""
    edges = {"input": [int(x) for x in frame.reshape(-1)]}
    for layer in network.layers:
        x = edges[layer.inputs[0]]
        match layer:
            case Dense():
                rows = layer.weights.tolist()
                y = [sum(w * v for w, v in zip(row, x, strict=True)) for row in rows]
            case Thresholds():
                y = []
                for n, value in enumerate(x):
                    channel = n % len(layer.levels)
                    count = 0
                    for level in layer.levels[channel].tolist():
                        if layer.falling[channel]:
                            count += value <= level
                        else:
                            count += value >= level
                    codes = [-1, 1] if layer.fmt == Bipolar() else None
                    y.append(codes[count] if codes else layer.fmt.min + count)
            case ArgMax():
                y = [max(range(len(x)), key=lambda n, x=x: (x[n], -n))]
            case _:
                raise AssertionError(layer)
        edges[layer.name] = y
    return edges


def check(network, images):
    found = golden.run(network, images)
    assert list(found) == list(network.tensors)
    for n, frame in enumerate(images):
        for name, values in oracle(network, frame).items():
            assert found[name][n].reshape(-1).tolist() == values, (name, n)
    for name, array in found.items():
        assert array.shape == (len(images), *network.tensors[name].shape)
        assert network.tensors[name].fmt.holds(array)
    return found


def codes(rng, fmt: Format, shape):
    """Random codes, the largest and the smallest among them."""
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    found = rng.integers(fmt.min, fmt.max + 1, shape)
    found.flat[0], found.flat[-1] = fmt.min, fmt.max
    return found


def dense(rng, name, source, outputs, inputs, fmt):
    weights = codes(rng, fmt, (outputs, inputs))
    return Dense(name=name, inputs=(source,), weights=weights, fmt=fmt)


def thresholds(rng, name, source, channels, fmt, reach):
    n = 1 if fmt == Bipolar() else fmt.max - fmt.min
    return Thresholds(
        name=name,
        inputs=(source,),
        levels=np.sort(rng.integers(-reach, reach + 1, (channels, n)), axis=1),
        falling=rng.integers(0, 2, channels, bool),
        fmt=fmt,
    )


@pytest.mark.parametrize("weight", FORMATS, ids=str)
@pytest.mark.parametrize("hidden", FORMATS[:4], ids=str)
@pytest.mark.parametrize("source", [FORMATS[0], FORMATS[2], FORMATS[4]], ids=str)
def test_equals_the_oracle(source, hidden, weight):
    rng = np.random.default_rng(7)
    reach = 4 * max(-source.min, source.max) * max(-weight.min, weight.max)
    network = Network(
        "net",
        Tensor((2, 3), source),
        (
            dense(rng, "fc1", "input", 5, 6, weight),
            thresholds(rng, "act", "fc1", 5, hidden, reach),
            dense(rng, "fc2", "act", 4, 5, FORMATS[2]),
            ArgMax(name="argmax", inputs=("fc2",)),
        ),
    )
    check(network, codes(rng, source, (20, 2, 3)))


def test_a_perceptron(small_network, random_frames):
    for falling in (False, True):
        network = small_network((13, 11, 7, 5), 3, falling=falling)
        check(network, random_frames(network, 30))


def test_thresholds_for_each_channel_of_a_map():
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        layer = thresholds(rng, "act", "input", channels, Ternary(), 100)
        network = Network("net", Tensor((2, 2, 3), Fixed(8)), (layer,))
        check(network, codes(rng, Fixed(8), (10, 2, 2, 3)))


def test_branches_are_allowed():
    rng = np.random.default_rng(1)
    rows = [dense(rng, name, "input", 2, 4, Bipolar()) for name in ("a", "b")]
    last = dense(rng, "c", "a", 3, 2, Ternary())
    check(Network("net", Tensor((4,), Bipolar()), (*rows, last)), codes(rng, Bipolar(), (9, 4)))


def test_thresholds_that_no_value_reaches():
    levels = np.array([[-(2**63), 2**63 - 1]])
    for falling in (False, True):
        layer = Thresholds(
            name="act",
            inputs=("input",),
            levels=levels,
            falling=np.array([falling]),
            fmt=Ternary(),
        )
        network = Network("net", Tensor((3,), Fixed(16)), (layer,))
        found = check(network, np.array([[-(2**15), 0, 2**15 - 1]], np.int16))
        assert found["act"].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("row", "winner"),
    [
        ([1, 1, 1], 0),
        ([0, 2, 2], 1),
        ([-3, -1, -1], 1),
        ([-4, -4, 3], 2),
        ([3, -4, 3], 0),
    ],
)
def test_of_equal_elements_the_lowest_index_wins(row, winner):
    network = Network("net", Tensor((3,), Fixed(3)), (ArgMax(name="argmax", inputs=("input",)),))
    found = check(network, np.array([row]))
    assert found["argmax"].tolist() == [winner]


# Roads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "weight", "largest", "road"),
    [
        # 255 * 65793 = 2**24 - 1, and one weight more.
        (U8, Fixed(18), 65_793, np.float32),
        (U8, Fixed(18), 65_794, np.float64),
        (Fixed(2), Fixed(24, 0, signed=False), 2**23 - 1, np.float32),
        (Fixed(2), Fixed(24, 0, signed=False), 2**23, np.float64),
        (Fixed(27), Fixed(28, 0, signed=False), 2**27 - 1, np.float64),
        (Fixed(27), Fixed(28, 0, signed=False), 2**27, None),
        (Fixed(30), Fixed(30), 2**29 - 1, None),
    ],
)
def test_each_road_is_exact_up_to_its_bound(source, weight, largest, road):
    """Odd results at the very bound: a float with one bit less would miss them."""
    weights = np.array([[largest, 0, 0, 0], [largest - 3, 1, 1, 1], [0, 1, 0, largest - 1]])
    layer = Dense(name="fc", inputs=("input",), weights=weights, fmt=weight)
    tensor = Tensor((4,), source)
    assert golden.exact_float(layer, tensor) is road
    top, low = source.max, source.min
    frames = [
        [top] * 4,
        [low] * 4,
        [top, low, low, top],
        [top, top - 1, low, top - 1],
        [1, 0, 1, 0],
    ]
    check(Network("net", tensor, (layer,)), np.array(frames))


@pytest.mark.parametrize("width", [8, 16, 24, 31])
def test_every_road_gives_the_same(width):
    rng = np.random.default_rng(width)
    weight, source = Fixed(width), Fixed(31)
    tensor = Tensor((3,), source)
    layer = dense(rng, "fc", "input", 4, 3, weight)
    check(Network("net", tensor, (layer,)), codes(rng, source, (30, 3)))


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2500])
def test_batches_are_put_together(n, small_network, random_frames):
    network = small_network((6, 3))
    images = random_frames(network, n)
    told = []
    found = golden.run(network, images, edges=("fc1", "argmax"), progress=told.append)
    assert list(found) == ["fc1", "argmax"]
    weights = network.layer("fc1").weights.astype(int)
    products = np.where(images >= 128, 1, -1) @ weights.T
    assert np.array_equal(found["fc1"], products)
    assert np.array_equal(found["argmax"], products.argmax(axis=1))
    assert sum(told) == n
    assert max(told) <= golden.BATCH


def test_accuracy(small_network, random_frames):
    network = small_network((6, 3))
    images = random_frames(network, 40)
    classes = golden.run(network, images)["argmax"].astype(int)
    assert golden.accuracy(network, images, classes) == 1.0
    assert golden.accuracy(network, images, (classes + 1) % 3) == 0.0
    classes[:10] = 9
    assert golden.accuracy(network, images, classes) == 0.75


# Bad input --------------------------------------------------------------------------------------


@pytest.fixture
def network(small_network):
    return small_network((12, 4))


@pytest.mark.parametrize("shape", [(5, 12), (5, 3, 4), (5, 2, 2, 3)])
def test_takes_any_shape_of_the_right_size(network, shape):
    images = np.arange(60, dtype=np.uint8).reshape(shape)
    assert golden.frames(network, images).shape == (5, 12)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((5, 11), np.uint8),
            "small takes images of 12 values (12:u8.0), not 11",
        ),
        (
            np.zeros((5, 28, 28), np.uint8),
            "small takes images of 12 values (12:u8.0), not 28x28",
        ),
        (
            np.zeros(12, np.uint8),
            "small takes images of 12 values (12:u8.0), not a single number",
        ),
        (
            np.array(3),
            "small takes images of 12 values (12:u8.0), not a single number",
        ),
        (
            np.zeros((5, 12), np.float32),
            "small takes images of integers (u8.0), not float32",
        ),
        (np.zeros((5, 12), bool), "small takes images of integers (u8.0), not bool"),
        (np.full((5, 12), "a"), "small takes images of integers (u8.0), not <U1"),
        (
            np.arange(60).reshape(5, 12) * 5,
            "small takes values from 0 to 255, not 0 to 295",
        ),
        (np.full((2, 12), -1), "small takes values from 0 to 255, not -1 to -1"),
        (np.zeros((0, 12), np.uint8), "small needs at least one image, not an empty batch"),
        (np.zeros((0, 28, 28), np.uint8), "small needs at least one image, not an empty batch"),
        (np.zeros(0, np.uint8), "small needs at least one image, not an empty batch"),
    ],
)
def test_refuses_images(network, images, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        golden.run(network, images)


def test_refuses_labels_of_another_number(network):
    with pytest.raises(ConfigError, match=r"^3 images need 3 labels, not 2$"):
        golden.accuracy(network, np.zeros((3, 12), np.uint8), np.zeros(2, np.uint8))


def test_refuses_layers_that_it_does_not_know(monkeypatch):
    monkeypatch.setattr(Layer, "kinds", dict(Layer.kinds))

    class Same(Layer):
        def output(self, *inputs):
            return inputs[0]

    network = Network("net", Tensor((3,), Bipolar()), (Same(name="x", inputs=("input",)),))
    message = (
        "x: Same has no golden model; Dense, Conv, Pool, Thresholds, Requantise, Table, Add, "
        "Concat, Slice, Upsample, DepthToSpace, Flatten, ArgMax have"
    )
    with pytest.raises(UnsupportedLayer, match=f"^{re.escape(message)}$"):
        golden.run(network, np.ones((1, 3), int))
