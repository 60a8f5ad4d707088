"""WidthAdapter: every pair of widths, no beat lost, no cycle lost."""

import numpy as np
import pytest

from brambling.hw.beat import Beats
from brambling.hw.width import WidthAdapterSpec
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim.job import Design, Job
from brambling.sim.pysim import Pysim

PAIRS = [(1, 4), (4, 1), (2, 6), (6, 2), (3, 2), (2, 3), (5, 4), (4, 7), (7, 11), (11, 1), (3, 3)]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_regroups(run_component, stalls, pair):
    spec = WidthAdapterSpec(i=Beats(Bipolar(), 11, pair[0]), target=pair[1])
    x = np.random.default_rng(1).choice([-1, 1], (4, 11))
    trace = run_component(spec, x, **stalls)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), x)


def test_carries_wide_elements(run_component):
    spec = WidthAdapterSpec(i=Beats(Fixed(11), 10, 3), target=2)
    x = np.random.default_rng(1).integers(-1024, 1024, (3, 10))
    trace = run_component(spec, x)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), x)


@pytest.mark.parametrize("pair", [(1, 4), (4, 1), (4, 8), (8, 4)], ids=str)
def test_loses_no_cycle_where_one_width_divides_the_other(run_component, pair):
    spec = WidthAdapterSpec(i=Beats(Bipolar(), 16, pair[0]), target=pair[1])
    x = np.random.default_rng(1).choice([-1, 1], (6, 16))
    ends = run_component(spec, x)["output"].cycles.reshape(6, -1)[:, -1]
    assert set(np.diff(ends)) == {max(spec.i.count, spec.o.count)}


@pytest.mark.parametrize("pair", [(2, 6), (6, 2), (3, 2), (4, 7)], ids=str)
@pytest.mark.parametrize("cut", [1, 2])
def test_an_incomplete_frame_is_given_up_at_the_next_first(pair, cut):
    spec = WidthAdapterSpec(i=Beats(Bipolar(), 11, pair[0]), target=pair[1])
    if cut >= spec.i.count:
        pytest.skip("a frame of two beats has one place to cut")
    x = np.random.default_rng(1).choice([-1, 1], (3, 11))
    beats = spec.i.pack(x)
    beats = np.concatenate([beats[:cut], beats[spec.i.count :]])
    trace = Pysim().run(
        Design.of("part", spec.build), Job(beats=beats, outputs=2 * spec.o.count, limit=200)
    )
    # A beat of the first frame may have left before; the next begins with a mark all the same.
    rows = np.unpackbits(trace["output"].payloads, axis=1, bitorder="little")
    marks = np.flatnonzero(rows[:, spec.target])
    whole = trace["output"].payloads[marks[1 if cut * spec.source >= spec.target else 0] :]
    frames = len(whole) // spec.o.count
    assert frames >= 1
    assert np.array_equal(spec.o.unpack(whole), x[1 : 1 + frames])
