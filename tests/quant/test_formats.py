import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.quant.formats import Bipolar, Fixed, Ternary, parse_format

EVERY = [
    Bipolar(),
    Ternary(),
    Fixed(2),
    Fixed(1, signed=False),
    Fixed(8, 5),
    Fixed(8, 0, signed=False),
    Fixed(4, -2),
    Fixed(3, 7, signed=False),
    Fixed(64),
    Fixed(63, signed=False),
]


def codes(fmt):
    if fmt == Bipolar():
        return np.array([-1, 1])
    if fmt.width > 8:
        return np.array([fmt.min, fmt.min + 1, fmt.max // 3, fmt.max])
    return np.arange(fmt.min, fmt.max + 1)


@pytest.mark.parametrize("fmt", EVERY, ids=str)
def test_text_is_parsed_back(fmt):
    assert parse_format(str(fmt)) == fmt


@pytest.mark.parametrize("fmt", EVERY, ids=str)
def test_bits_are_turned_back(fmt):
    bits = fmt.to_bits(codes(fmt))
    assert bits.dtype == np.uint64
    assert all(int(b) < 1 << fmt.width for b in bits)
    assert np.array_equal(fmt.from_bits(bits), codes(fmt))


@pytest.mark.parametrize("fmt", EVERY, ids=str)
def test_dtype_holds_every_code(fmt):
    assert np.array_equal(codes(fmt).astype(fmt.dtype), codes(fmt))


@pytest.mark.parametrize("fmt", EVERY, ids=str)
def test_holds_its_codes_only(fmt):
    assert fmt.holds(codes(fmt))
    assert fmt.holds(np.array([], dtype=np.int64))
    if fmt.width < 63:
        assert not fmt.holds(np.array([fmt.max + 1]))
        assert not fmt.holds(np.array([fmt.min - 1]))


def test_bipolar_has_no_zero():
    assert not Bipolar().holds(np.array([0, 1]))
    assert Ternary().holds(np.array([0, 1]))


@pytest.mark.parametrize(
    ("fmt", "low", "high"),
    [
        (Fixed(8, 5), -128, 127),
        (Fixed(8, 0, signed=False), 0, 255),
        (Fixed(1, signed=False), 0, 1),
        (Bipolar(), -1, 1),
        (Ternary(), -1, 1),
    ],
    ids=str,
)
def test_range(fmt, low, high):
    assert (fmt.min, fmt.max) == (low, high)


@pytest.mark.parametrize("low", [-9, -8, -7, -1, 0, 3])
@pytest.mark.parametrize("high", [3, 4, 7, 8, 15, 16])
def test_spanning_is_narrowest(low, high):
    fmt = Fixed.spanning(low, high, 2)
    assert fmt.frac == 2
    assert fmt.min <= low
    assert high <= fmt.max
    if fmt.width > 1 + fmt.signed:
        narrower = Fixed(fmt.width - 1, 2, fmt.signed)
        assert low < narrower.min or high > narrower.max


def test_spanning_one_value():
    assert Fixed.spanning(0, 0) == Fixed(1, signed=False)
    assert Fixed.spanning(-1, -1) == Fixed(2)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.25, 1), (-0.25, -1), (0.24, 0), (0.75, 2), (-0.75, -2), (3.5, 7), (3.6, 7), (-9, -8)],
)
def test_encode_rounds_halves_away_from_zero_and_clips(value, code):
    assert Fixed(4, 1).encode(value) == code


def test_decode_is_turned_back():
    fmt = Fixed(6, -3)
    assert np.array_equal(fmt.encode(fmt.decode(codes(fmt))), codes(fmt))
    assert fmt.decode(1) == 8.0


@pytest.mark.parametrize(
    ("width", "signed", "message"),
    [
        (1, True, "a signed fixed-point format has 2 to 64 bits, not 1"),
        (65, True, "a signed fixed-point format has 2 to 64 bits, not 65"),
        (0, False, "an unsigned fixed-point format has 1 to 63 bits, not 0"),
        (64, False, "an unsigned fixed-point format has 1 to 63 bits, not 64"),
    ],
)
def test_width_wrong(width, signed, message):
    with pytest.raises(ConfigError) as caught:
        Fixed(width, signed=signed)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "s8", "x8.5", "s8.5 ", "bi-polar"])
def test_parse_wrong(text):
    with pytest.raises(ConfigError) as caught:
        parse_format(text)
    assert str(caught.value) == (
        f"a format is written 'bipolar', 'ternary', or like 's8.5' or 'u4.0', not {text!r}"
    )
