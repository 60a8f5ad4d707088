"""Frames of another model's inputs, its outputs of our integers, and both written down."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.network import Dense, Network, Tensor
from brambling.origin import KEY, Decoding, Encoding, Layout, Origin, Rounding, origin_of
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.rounding import ROUNDINGS
from brambling.quant.rounding import rounded as exactly

FIRST = Layout((3, 2, 4), (3, 2, 4), (1, 2, 0))  # channels first there, last here
LAST = Layout((2, 4, 3), (2, 4, 3), (0, 1, 2))
FLAT = Layout((24,), (3, 8), (1, 0))
GRID = Rounding("grid", (0.5,))
TENSOR = Tensor((2, 4, 3), Fixed(8, 0, signed=False))


def counted(n, *shape):
    return np.arange(n * int(np.prod(shape))).reshape(n, *shape)


# Layouts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [FIRST, LAST, FLAT, Layout((1, 5, 1), (5,), (0,))])
def test_layouts_there_and_back(layout):
    x = counted(3, *layout.shape)
    moved = layout.to_network(x)
    assert moved.shape == (3, x[0].size)
    assert np.array_equal(layout.to_model(moved), x)
    assert np.array_equal(layout.to_network(layout.to_model(moved)), moved)


def test_layouts_move_as_they_say():
    x = counted(2, 3, 2, 4)
    assert np.array_equal(FIRST.to_network(x).reshape(2, 2, 4, 3), x.transpose(0, 2, 3, 1))
    assert np.array_equal(LAST.to_network(counted(2, 2, 4, 3)), counted(2, 24))
    assert np.array_equal(FLAT.to_network(counted(1, 24))[0, :4], [0, 8, 16, 1])


# Rounding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_rounding_at_halves_and_between(rounding):
    x = np.arange(-33, 34) / 8
    found = Rounding("round", (0.5,), (1.0,), (-5,), (6,), rounding).codes(x)
    wanted = [
        exactly(min(max(Fraction(float(value)) * 2 + 1, Fraction(-5)), Fraction(6)), rounding)
        for value in x
    ]
    assert found.tolist() == wanted
    assert found.dtype == np.int64


def test_a_zero_that_is_added_behind():
    x = np.array([0.25, 0.75, 1.25, -0.25, 100, -100])
    before = Rounding("round", (0.5,), (1.0,), (0,), (9,))
    behind = replace(before, behind=True)
    assert before.codes(x).tolist() == [2, 2, 4, 0, 9, 0]  # 1.5, 2.5, 3.5, 0.5
    assert behind.codes(x).tolist() == [1, 3, 3, 1, 9, 0]  # 0.5, 1.5, 2.5, -0.5


def test_by_channel():
    x = np.array([[[1.0, 1.0, 1.0], [-9.0, -9.0, -9.0]]])
    found = Rounding("round", (0.5, 1.0, 0.25), (0.0, 1.0, 2.0), (-3, -2, 0), (1, 3, 7))
    assert found.codes(x).tolist() == [[[1, 2, 6], [-3, -2, 0]]]


def test_quotients_are_those_of_float32():
    x, scale = np.float32(0.7), np.float32(0.1)
    found = Rounding("round", (float(scale),), rounding="floor").codes(np.array([x]))
    assert (found.tolist(), float(x) / float(scale) < 7) == ([7], True)


def test_a_rounding_that_is_none():
    with pytest.raises(ConfigError) as caught:
        Rounding("round", (1.0,), rounding="up").codes(np.zeros(1))
    assert str(caught.value) == "rounding must be that of a quantiser, not 'up'"


def test_signs():
    x = np.array([-1.0, -0.0, 0.0, 1e-30, 0.5])
    assert Rounding("sign", (1.0,)).codes(x).tolist() == [-1, 1, 1, 1, 1]
    assert Rounding("sign", (1.0,), (-0.25,)).codes(x).tolist() == [-1, -1, -1, -1, 1]


def test_levels():
    x = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, -5.0]])
    rows = ((0.0, 1.0, 2.0), (-1.0, 0.5, 1.0))
    found = Rounding("levels", (1.0,), low=(0,), high=(3,), levels=rows)
    assert found.codes(x).tolist() == [[1, 1], [2, 3], [3, 0]]
    two = Rounding("levels", (1.0,), low=(-1,), high=(1,), levels=((0.5,),))
    assert two.codes(x).tolist() == [[-1, -1], [1, 1], [1, -1]]


def test_a_grid_takes_its_multiples():
    scale = 1 / 255
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert Rounding("grid", (scale,)).codes(pixels).tolist() == list(range(256))
    found = Rounding("grid", (0.5,), (3.0,), (0,), (9,))
    assert found.codes(np.array([-1.5, 0.0, 3.0])).tolist() == [0, 3, 9]


@pytest.mark.parametrize(("value", "shown"), [(0.3, "0.3"), (128.0, "128"), (-0.5, "-0.5")])
def test_what_lies_on_no_grid(value, shown):
    x = np.array([[0.0, 1.0], [2.0, value]])
    with pytest.raises(ConfigError) as caught:
        GRID.codes(x)
    assert str(caught.value) == (
        f"image 1: {shown} must be one of 0 to 255 times 0.5: give images in the model's own "
        "domain, or its integers"
    )


# Frames -------------------------------------------------------------------------------------------


def test_frames_of_the_models_images_and_of_their_integers():
    encoding = Encoding(FIRST, (), GRID)
    codes = counted(2, 3, 2, 4)
    frames = encoding.frames(codes * 0.5, TENSOR)
    assert np.array_equal(frames, codes.transpose(0, 2, 3, 1))
    assert np.array_equal(encoding.frames(codes, TENSOR), frames)  # integers of the grid
    # As they lie in the network.
    assert np.array_equal(encoding.frames(frames, TENSOR), frames)


def test_flat_images_are_taken_as_they_lie():
    vector = Encoding(Layout((6,), (6,), (0,)), (), GRID)
    codes = counted(2, 2, 3)
    found = vector.frames(codes, Tensor((6,), Fixed(8, 0, signed=False)))
    assert np.array_equal(found, codes.reshape(2, 6))


def test_steps_before_the_quantiser_are_those_of_float32():
    steps = (("sub", (0.5, 1.0, 0.1)), ("mul", (2.0,)), ("add", (0.25,)), ("div", (3.0, 1.0, 7.0)))
    quantiser = Rounding("round", (0.1,), (0.0,), (-128,), (127,))
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 4)).astype(np.float32)
    channels = np.array([0.5, 1.0, 0.1], np.float32)
    y = (x.transpose(0, 2, 3, 1) - channels) * np.float32(2) + np.float32(0.25)
    y = y / np.array([3, 1, 7], np.float32)
    wanted = np.clip(np.rint(y / np.float32(0.1)), -128, 127)
    assert np.array_equal(Encoding(FIRST, steps, quantiser).frames(x, TENSOR), wanted)
    # Integers are numbers as others where there is a quantiser.
    whole = np.ones((1, 3, 2, 4), np.int64)
    found = Encoding(FIRST, steps, quantiser).frames(whole, TENSOR)
    assert np.array_equal(found, Encoding(FIRST, steps, quantiser).frames(whole * 1.0, TENSOR))


SHAPES = (
    "images must be of shape (3, 2, 4) as in the original model, or (2, 4, 3) as in the network"
)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 2, 4)), "images must be a batch of at least one, not of shape (0, 2, 4)"),
        (np.array(1.0), "images must be a batch of at least one, not of shape ()"),
        (
            np.full((1, 3, 2, 4), np.nan),
            "images must be finite numbers, not float64 with NaN or infinity",
        ),
        (
            np.full((1, 3, 2, 4), -np.inf, np.float32),
            "images must be finite numbers, not float32 with NaN or infinity",
        ),
        (
            np.zeros((1, 3, 2, 4), complex),
            "images must be finite numbers, not complex128 with NaN or infinity",
        ),
        (
            np.zeros((1, 3, 4, 2)),
            f"{SHAPES}, not (3, 4, 2)",
        ),
        (
            np.zeros((1, 3)),
            f"{SHAPES}, not (3,)",
        ),
    ],
)  # fmt: skip
def test_images_that_are_none(x, message):
    with pytest.raises(ConfigError) as caught:
        Encoding(FIRST, (), GRID).frames(x, TENSOR)
    assert str(caught.value) == message


# Outputs ------------------------------------------------------------------------------------------


def test_reals_of_integers():
    codes = counted(2, 24) - 20
    plain = Decoding("fc1", FIRST, (0.5,), (1.0,))
    assert np.array_equal(plain.reals(codes), FIRST.to_model(codes * 0.5 + 1))
    assert plain.reals(codes).dtype == np.float64
    gain = tuple(float(n) for n in range(24))
    each = replace(plain, gain=gain, offset=gain)
    assert np.array_equal(each.reals(codes), FIRST.to_model(codes * np.arange(24) + np.arange(24)))


def test_what_comes_behind_in_order():
    steps = (
        ("clip", ((-2.0,), (3.0,))),
        ("leak", ((0.5, 1.0),)),
        ("affine", ((2.0,), (1.0, -1.0))),
    )
    found = Decoding("fc1", Layout((2,), (2,), (0,)), (0.5,), (0.0,), steps)
    codes = np.array([[-8, -8], [3, 4], [9, -3]])
    assert found.reals(codes).tolist() == [[-1, -5], [4, 3], [7, -4]]


def test_softmax_and_its_logarithm():
    codes = np.array([[0, 1000], [-1000, -1001]])
    share = 1 / (1 + np.exp(-1.0))
    plain = Decoding("fc1", Layout((1, 2), (2,), (0,)), (1.0,), (0.0,), last="softmax")
    found = plain.reals(codes)
    assert found.shape == (2, 1, 2)
    np.testing.assert_allclose(found[:, 0], [[0, 1], [share, 1 - share]], rtol=1e-15, atol=0)
    logarithm = replace(plain, last="logsoftmax").reals(codes)
    wanted = [[-1000, 0], [np.log(share), np.log(share) - 1]]
    np.testing.assert_allclose(logarithm[:, 0], wanted, rtol=1e-15, atol=0)


def test_indices_of_classes():
    index = Decoding("argmax", Layout((1,), (1,), (0,)), (1.0,), (0.0,), last="argmax")
    assert index.reals(np.array([3, 0])).tolist() == [[3], [0]]
    scalar = replace(index, layout=Layout((), (1,), (0,)))
    assert scalar.reals(np.array([3, 0])).tolist() == [3, 0]


# Written down -------------------------------------------------------------------------------------

ORIGINS = {
    "grid": Origin("qonnx", Encoding(FIRST, (), GRID), Decoding("fc1", FLAT, (0.1,), (-1 / 3,))),
    "all": Origin(
        "tflite",
        Encoding(
            LAST,
            (("sub", (0.5,)), ("div", (1 / 3, 0.1, 7.0))),
            Rounding("round", (0.1, 0.2), (1.0, 2.0), (-1, 0), (7, 8), "ceil", behind=True),
        ),
        Decoding(
            "fc1",
            FLAT,
            tuple(n / 7 for n in range(24)),
            (0.0,),
            (("clip", ((-1.0,), (float("inf"),))), ("affine", ((2.0,), (1.0,)))),
            "softmax",
        ),
        ("Softmax_1 (Softmax) is left out of the network", "é"),
    ),
    "levels": Origin(
        "qonnx",
        Encoding(
            FIRST,
            (),
            Rounding("levels", (1.0,), low=(0,), high=(2,), levels=((0.1, 0.2), (0.3, 1e-30))),
        ),
        Decoding("fc1", FLAT, (1.0,), (0.0,), (("leak", ((0.25, -1.0),)),), "argmax"),
    ),
}  # fmt: skip


def network(provenance):
    weights = np.ones((3, 24), np.int64)
    layer = Dense(name="fc1", inputs=("input",), weights=weights, fmt=Bipolar())
    frame = Tensor((24,), Fixed(8, 0, signed=False))
    return Network("net", frame, (layer,), provenance=provenance)


@pytest.mark.parametrize("name", ORIGINS)
def test_origins_survive_their_file(name, tmp_path):
    origin = ORIGINS[name]
    assert Origin.read(origin.to_json()) == origin
    net = network({KEY: origin.to_json(), "more": "as it was"})
    assert origin_of(net) == origin
    net.save(tmp_path / "net.safetensors")
    again = Network.load(tmp_path / "net.safetensors")
    assert origin_of(again) == origin
    assert again.provenance["more"] == "as it was"
    assert again.digest == net.digest


def test_networks_of_our_own_have_no_origin():
    assert origin_of(network({})) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda facts: facts.pop("input"), "KeyError('input')"),
        (lambda facts: facts.update(output=None), "TypeError"),
        (lambda facts: facts["input"]["quantiser"].update(more=1), "TypeError"),
        (lambda facts: facts["input"].update(steps=[[1, 2, 3]]), "ValueError"),
        (lambda facts: facts["input"].update(quantiser=[]), "AttributeError"),
        (lambda facts: facts["output"]["layout"].update(axes=7), "TypeError"),
    ],
)
def test_origins_that_are_damaged(change, why):
    facts = ORIGINS["grid"].to_json()
    change(facts)
    with pytest.raises(ConfigError) as caught:
        origin_of(network({KEY: facts}))
    assert str(caught.value).startswith(f"net: its origin is damaged ({why}")
    assert "\n" not in str(caught.value)
