"""What a window sees, where it is, and what is refused; the hardware is in ``test_feed.py``."""

from typing import Any

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed

U4 = Fixed(4, signed=False)
POINT: Any = {"kernel": (1, 1)}


def make(size=(5, 6), channels=3, simd=2, *, fmt: Any = U4, source_pixels=1, **options: Any):
    keys = ("kernel", "stride", "padding", "dilation")
    shape: Any = {"kernel": (3, 3), **{k: options.pop(k) for k in keys if k in options}}
    source = Beats(fmt, channels, simd, *size, pixels=source_pixels)
    return WindowFeedSpec(source=source, window=Window(**shape), **options)


SPECS = {
    "plain": make(),
    "padded": make(padding=(1, 0, 2, 1), pad_value=7, pixels=3),
    "stride, dilated": make((7, 9), stride=(2, 1), dilation=(1, 2), padding=(1, 1, 0, 1), pixels=2),
    "chunks": make((4, 4), 8, 2, chunks=2, padding=(1, 1, 1, 1)),
    "lane groups": make((4, 4), 5, 2, chunks=3, kernel=(2, 2), stride=(2, 2)),
    "bipolar": make((3, 3), 3, 2, fmt=Bipolar(), padding=(1, 1, 1, 1), pad_value=1),
    "split": make((3, 2), 12, 1, factor=(2, 3), split=True, **POINT),
    "split, lane groups": make((3, 2), 16, 2, chunks=2, factor=(2, 2), split=True, **POINT),
    "split, pixels": make(
        (2, 3), 12, 2, pixels=4, source_pixels=2, factor=(3, 2), split=True, **POINT
    ),
    "upsampled": make((2, 3), 3, 2, kernel=(1, 1), factor=(3, 2), pixels=4, source_pixels=2),
}


def seen(spec: WindowFeedSpec, image, row, column, ky, kx, channel) -> int | None:
    """Code of one tap, from the definition; ``None`` for a place past the last column."""
    window = spec.window
    if column >= spec.columns:
        return None
    if spec.split:
        part = row % spec.factor[0] * spec.factor[1] + column % spec.factor[1]
        channel += part * spec.elements
    y = row * window.stride[0] // spec.factor[0] + ky * window.dilation[0] - window.padding[0]
    x = column * window.stride[1] // spec.factor[1] + kx * window.dilation[1] - window.padding[2]
    if channel >= spec.i.elements:
        return int(spec.i.fmt.from_bits(0))
    if 0 <= y < spec.i.rows and 0 <= x < spec.i.columns:
        return int(image[y, x, channel])
    return spec.pad_value


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_operands_are_what_the_window_sees(spec):
    i = spec.i
    rng = np.random.default_rng(4)
    x = i.fmt.from_bits(rng.integers(0, 1 << i.fmt.width, (2, i.size)))
    found = spec.operands(x)
    image = x.reshape(2, i.rows, i.columns, i.elements)[1]
    kernel = spec.window.kernel
    for (position, chunk, beat, lane, place), code in np.ndenumerate(found[1]):
        row, step = divmod(position, spec.steps // spec.passes)
        tap, group = divmod(beat, spec.groups)
        ky, kx = divmod(tap, kernel[1])
        channel = (chunk * spec.groups + group) * spec.simd + lane
        wanted = seen(spec, image, row, step * spec.pixels + place, ky, kx, channel)
        assert wanted is None or wanted == code
    assert found.shape[1:] == (
        spec.bands * spec.steps,
        spec.chunks,
        spec.beats,
        spec.simd,
        spec.pixels,
    )


def beats_of(i):
    """Return the number of the beat that brings each code of an image; padding has none."""
    numbers = np.arange(i.count).reshape(i.rows, i.steps, i.groups)
    return np.repeat(np.repeat(numbers, i.pixels, 1)[:, : i.columns], i.lanes, 2)


WHOLE = {name: spec for name, spec in SPECS.items() if not spec.split}


@pytest.mark.parametrize("spec", WHOLE.values(), ids=WHOLE)
def test_a_group_of_positions_waits_for_the_last_pixel_that_it_sees(spec):
    i, beats = spec.i, beats_of(spec.i)
    for position, need in enumerate(spec.need):
        row, step = divmod(position, spec.steps)
        rows = spec.down.taps[row].clip(0, i.rows - 1)
        last = min((step + 1) * spec.pixels, spec.columns)
        columns = spec.across.taps[step * spec.pixels : last].clip(0, i.columns - 1)
        assert need == beats[rows.max(), columns.max()].max()


@pytest.mark.parametrize("spec", [s for s in SPECS.values() if s.split])
def test_a_group_of_positions_waits_for_its_parts_of_the_channels_only(spec):
    beats = beats_of(spec.i)
    for position, need in enumerate(spec.need):
        row, step = divmod(position, spec.steps // spec.passes)
        last = min((step + 1) * spec.pixels, spec.columns)
        places = [(c, n) for c in range(step * spec.pixels, last) for n in range(spec.elements)]
        assert need == max(seen(spec, beats, row, c, 0, 0, n) or 0 for c, n in places)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_line_is_free_when_no_window_sees_it_any_more(spec):
    for line, finished in enumerate(spec.down.finished):
        assert (spec.down.taps[finished:] > line).all()
        assert spec.down.taps[finished - 1, 0] <= line


@pytest.mark.parametrize(
    ("spec", "banks"),
    [
        (make(), 1),
        (make(pixels=4), 4),
        (make(pixels=4, source_pixels=3), 6),
        (make((7, 9), stride=(2, 2), pixels=2), 3),
        (make(kernel=(1, 1), factor=(2, 2), pixels=4), 2),
        (make(kernel=(1, 1), factor=(3, 3), pixels=4), 2),
        (make(channels=4, simd=1, **POINT, factor=(2, 2), split=True, pixels=2), 2),
        (make(channels=4, simd=1, **POINT, factor=(2, 2), split=True, pixels=4), 6),
        (make(channels=4, simd=1, **POINT, factor=(2, 2), split=True, pixels=3), 5),
        (make(channels=4, simd=1, **POINT, factor=(2, 2), split=True, source_pixels=2), 2),
    ],
)
def test_columns_of_a_slot_are_in_different_banks(spec, banks):
    assert spec.banks == banks
    places = spec.across.taps[:, 0].reshape(spec.steps, spec.pixels)
    for columns in places:
        assert len({c % banks for c in columns}) == len(set(columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 5}, "pixels must be 1 to 4, not 5"),
        ({"pixels": 0}, "pixels must be 1 to 4, not 0"),
        ({"kernel": (6, 3)}, r"window must fit .* 5 by 6, but spans \(6, 3\): pad more"),
        ({"padding": (1, 1, 1, 1), "pad_value": 16}, "pad_value must be a code of u4.0, not 16"),
        ({"ring": 2}, "ring must be at least 3 lines, not 2"),
        ({"store": "disk"}, "store must be block or lut, not 'disk'"),
        ({"factor": (2, 2)}, r"factor must be 2 numbers .* not \(2, 2\)"),
        ({"kernel": (1, 1), "factor": (0, 1)}, r"factor must be 2 numbers .* not \(0, 1\)"),
        (
            {"kernel": (1, 1), "factor": (1, 3), "split": True},
            "lanes must divide each of 3 equal parts of the 3 channels, not be 2",
        ),
        (
            {"kernel": (1, 1), "factor": (2, 1), "split": True, "simd": 1},
            "lanes must divide each of 2 equal parts of the 3 channels, not be 1",
        ),
        ({"chunks": 4}, "chunks of 3 channels must begin with a beat of 2 lanes"),
        ({"folds": 0}, "folds must be at least 1, not 0"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ConfigError, match=rf"^{message}"):
        make(**options)
