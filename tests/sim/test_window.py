"""The full rate of windows, by the cycle model; ``tests/hw/test_feed.py`` holds it to the RTL."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brambling.hw.beat import Beats
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Fixed
from brambling.sim.cycles import Sink, Source, Wire, next_allowed
from brambling.sim.window import WindowProcess
from brambling.timing import Timing

FRAMES = 24
LATENCY = 6


def make(size, groups, *, source_pixels=1, **options: Any) -> WindowFeedSpec:
    keys = ("kernel", "stride", "padding", "dilation")
    shape: Any = {"kernel": (3, 3), **{k: options.pop(k) for k in keys if k in options}}
    source = Beats(Fixed(2), groups, 1, *size, pixels=source_pixels)
    return WindowFeedSpec(source=source, window=Window(**shape), **options)


SAME: Any = {"padding": (1, 1, 1, 1)}
TWO: Any = {"kernel": (2, 2), "stride": (2, 2)}
SPECS = {
    "same size": make((6, 7), 2, **SAME),
    "same size, folded": make((6, 7), 2, folds=3, **SAME),
    "no padding": make((6, 7), 2),
    "no padding, more input than slots": make((9, 9), 4, pixels=3, stride=(3, 3), chunks=4),
    "stride": make((8, 8), 2, stride=(2, 2), **SAME),
    "pooling": make((8, 8), 2, chunks=2, **TWO),
    "pooling, two by two": make((8, 8), 1, source_pixels=2, pixels=2, **TWO),
    "pooling, a row and a column over": make((7, 7), 1, **TWO),
    "two pixels": make((6, 7), 2, source_pixels=2, pixels=2, **SAME),
    "dilated": make((9, 9), 1, dilation=(2, 2), padding=(2, 2, 2, 2)),
    "whole image": make((4, 5), 2, kernel=(4, 5), chunks=2),
    "5x5 on 4x4": make((4, 4), 1, kernel=(5, 5), padding=(2, 2, 2, 2)),
    "point, skipping": make((6, 6), 4, kernel=(1, 1), stride=(2, 2)),
    "split": make((4, 4), 8, kernel=(1, 1), factor=(2, 2), split=True, chunks=2),
    "split, more slots than input": make(
        (4, 4), 4, kernel=(1, 1), factor=(2, 2), split=True, source_pixels=4
    ),
    "upsampling": make((4, 4), 2, kernel=(1, 1), factor=(2, 2), chunks=2),
}


def run(spec: WindowFeedSpec, offer=(1,), accept=(1,), depth=None):
    """Cycles of the input beats, and of the last run of each frame."""
    i, o = Wire(), Wire()
    queue = Timing(spec.beats, spec.folds, LATENCY).queue if depth is None else depth
    source = Source(i, FRAMES * spec.i.count, next_allowed(np.array(offer, bool)))
    engine = WindowProcess(i, o, spec, LATENCY, queue)
    sink = Sink(o, next_allowed(np.array(accept, bool)))
    while any([source.step(), engine.step(), sink.step()]):
        pass
    results = spec.bands * spec.steps * spec.chunks * spec.folds
    assert len(o.times) == FRAMES * results
    return i.times, o.times[results - 1 :: results]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_no_cycle_is_lost_between_rows_and_frames(spec):
    ends = run(spec)[1]
    assert set(np.diff(ends[FRAMES // 2 :])) == {spec.interval}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_no_cycle_is_lost_when_the_input_comes_evenly(spec):
    cycles = -(-spec.interval // spec.i.count)
    ends = run(spec, offer=[True] + [False] * (cycles - 1))[1]
    assert set(np.diff(ends[FRAMES // 2 :])) == {max(spec.interval, cycles * spec.i.count)}


@pytest.mark.parametrize("name", ["same size", "no padding", "stride", "pooling", "upsampling"])
def test_one_line_less_loses_cycles(name):
    spec = SPECS[name]
    ends = run(replace(spec, ring=spec.lines - 1))[1]
    assert np.diff(ends)[-1] > spec.interval


def test_lines_of_usual_windows():
    lines = {name: SPECS[name].lines for name in ("same size", "stride", "pooling", "upsampling")}
    assert lines == {"same size": 4, "stride": 5, "pooling": 4, "upsampling": 2}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_fewest_lines_do_not_stop_it(spec):
    run(replace(spec, ring=spec.down.least), accept=[1, 0, 0], depth=1)


def test_input_waits_for_its_line():
    spec = make((3, 4), 1, ring=3, padding=(1, 1, 1, 1))
    taken = run(spec)[0]
    # All lines are seen by the second row of positions; the one after it frees the first.
    assert taken[:12] == list(range(12))
    first = taken[5] + 1  # The slot behind the pixel that the first position waits for.
    slots = spec.columns * spec.beats
    assert taken[12] == first + 2 * slots - 1 + spec.RELEASE
