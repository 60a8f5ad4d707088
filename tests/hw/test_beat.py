"""Beats: which bit is which, and back."""

import re

import numpy as np
import pytest
from amaranth.hdl import Signal

from brambling.errors import ConfigError
from brambling.hw.beat import Beats, shape_of
from brambling.quant.formats import Bipolar, Fixed, Ternary

FORMATS = (
    Bipolar(),
    Ternary(),
    Fixed(1, 0, signed=False),
    Fixed(5, 2),
    Fixed(8, 0, signed=False),
    Fixed(13),
    Fixed(63, 0, signed=False),
    Fixed(64),
)


def random_codes(fmt, shape, seed=0):
    rng = np.random.default_rng(seed)
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    codes = rng.integers(fmt.min, fmt.max, shape, endpoint=True, dtype=np.int64)
    codes.flat[0], codes.flat[-1] = fmt.min, fmt.max
    return codes


def payload(beats, frame, beat):
    """What a beat spells, from the definition, in Python's integers."""
    total = 0
    for lane in range(beats.lanes):
        element = beat * beats.lanes + lane
        if element < beats.elements:
            code = int(frame[element])
            bits = (code > 0) if beats.fmt == Bipolar() else code % (1 << beats.fmt.width)
            total |= int(bits) << lane * beats.fmt.width
    return total | (beat == 0) << beats.lanes * beats.fmt.width


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize(("elements", "lanes"), [(1, 1), (8, 8), (8, 3), (12, 4), (7, 1), (9, 5)])
def test_every_bit_is_where_it_is_said_to_be(fmt, elements, lanes):
    beats = Beats(fmt, elements, lanes)
    codes = random_codes(fmt, (4, elements))
    packed = beats.pack(codes)
    assert packed.shape == (4 * beats.count, -(-beats.width // 8))
    words = [int.from_bytes(row.tobytes(), "little") for row in packed]
    assert words == [payload(beats, frame, n) for frame in codes for n in range(beats.count)]
    assert np.array_equal(beats.unpack(packed), codes)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_layout_says_the_same(fmt):
    beats = Beats(fmt, 7, 3)
    codes = random_codes(fmt, (1, 7))
    rows = [int.from_bytes(row.tobytes(), "little") for row in beats.pack(codes)]
    read = [beats.layout.from_bits(row) for row in rows]
    assert beats.layout.size == beats.width
    assert [const["first"] for const in read] == [1, 0, 0]
    mask = (1 << fmt.width) - 1
    lanes = [const["data"] >> lane * fmt.width & mask for const in read for lane in range(3)][:7]
    assert lanes == fmt.to_bits(codes[0]).tolist()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_lane_has_the_shape_of_a_code(fmt):
    beats = Beats(fmt, 7, 3)
    lane = beats.lane(Signal(beats.layout).data, 2)
    assert lane.shape() == shape_of(fmt)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_shape_holds_every_code(fmt):
    shape = shape_of(fmt)
    assert shape.width == fmt.width
    assert shape.signed == (fmt.signed and fmt != Bipolar())


@pytest.mark.parametrize(
    ("elements", "lanes", "count", "tail"),
    [(1, 1, 1, 1), (10, 10, 1, 10), (10, 5, 2, 5), (10, 4, 3, 2), (10, 9, 2, 1), (784, 26, 31, 4)],
)
def test_count_and_tail(elements, lanes, count, tail):
    beats = Beats(Bipolar(), elements, lanes)
    assert (beats.count, beats.tail) == (count, tail)
    assert (beats.count - 1) * lanes + beats.tail == elements


def test_meaningless_lanes_are_ignored():
    beats = Beats(Fixed(4), 5, 3)
    codes = random_codes(Fixed(4), (2, 5))
    packed = beats.pack(codes)
    packed[1::2] |= np.array([0, 0xF], np.uint8)  # Lane 2 of the second beat.
    assert np.array_equal(beats.unpack(packed), codes)


def test_beats_of_an_incomplete_frame_are_left_out():
    beats = Beats(Bipolar(), 4, 2)
    packed = beats.pack(random_codes(Bipolar(), (3, 4)))
    assert beats.unpack(packed[:5]).shape == (2, 4)
    assert beats.unpack(packed[:1]).shape == (0, 4)


@pytest.mark.parametrize("lanes", [0, -1, 8])
def test_refuses_lanes(lanes):
    message = f"lanes must be 1 to 7, not {lanes}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Beats(Bipolar(), 7, lanes)
