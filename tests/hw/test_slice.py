"""Slice: the right beats pass, in their own cycles, and frames are marked anew."""

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.slice import SliceSpec
from brambling.quant.formats import Fixed
from brambling.sim.job import Design, Job
from brambling.sim.processes import Sink, Source, Wire, next_allowed
from brambling.sim.pysim import Pysim
from brambling.sim.structure import SliceProcess


def run(spec, x, stalls):
    """Run frames through a slice; return its trace, after comparing cycles with the model."""
    i, o = Wire(), Wire()
    processes = [
        Source(i, len(x) * spec.i.count, next_allowed(stalls["offer"])),
        SliceProcess(i, o, spec),
        Sink(o, next_allowed(stalls["accept"])),
    ]
    while any(process.step() for process in processes):
        pass
    outputs = len(x) * spec.o.count
    assert len(o.times) == outputs
    job = Job(beats=spec.i.pack(x), outputs=outputs, limit=o.times[-1] + 10, **stalls)
    trace = Pysim().run(Design.of("part", spec.build), job)
    assert trace["output"].cycles.tolist() == o.times
    taken = trace["input"].cycles
    assert taken.tolist() == i.times[: len(taken)]
    return trace


SLICES = [(0, 12), (0, 4), (4, 8), (8, 12), (2, 10)]


@pytest.mark.parametrize("part", SLICES, ids=str)
@pytest.mark.parametrize("pixels", [1, 2])
def test_passes_its_channels(stalls, part, pixels):
    start, stop = part
    beats = Beats(Fixed(5), 12, 2, rows=2, columns=3, pixels=pixels)
    spec = SliceSpec(i=beats, start=start, stop=stop)
    x = np.random.default_rng(1).integers(-16, 16, (3, beats.size))
    trace = run(spec, x, stalls)
    expected = x.reshape(3, 2, 3, 12)[..., start:stop].reshape(3, -1)
    assert np.array_equal(spec.reference(x), expected)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), expected)
    marks = np.unpackbits(trace["output"].payloads, axis=1, bitorder="little")
    first = np.flatnonzero(marks[:, spec.o.width - 1])
    assert first.tolist() == [*range(0, 3 * spec.o.count, spec.o.count)]


def test_one_lane_group_passes_whole(stalls):
    beats = Beats(Fixed(5), 3, 3, rows=2, columns=2)
    spec = SliceSpec(i=beats, start=0, stop=3)
    x = np.random.default_rng(1).integers(-16, 16, (3, beats.size))
    assert np.array_equal(run(spec, x, stalls)["output"].payloads, beats.pack(x))


@pytest.mark.parametrize(
    ("start", "stop", "lanes", "message"),
    [
        (4, 4, 2, "start and stop must lie in 0 to 12 in that order, not 4 and 4"),
        (-2, 4, 2, "start and stop must lie in 0 to 12 in that order, not -2 and 4"),
        (0, 14, 2, "start and stop must lie in 0 to 12 in that order, not 0 and 14"),
        (3, 8, 4, "lanes must divide start, 3, not be 4: use a width adapter before the slice"),
        (4, 6, 4, "lanes must divide stop, 6, not be 4: use a width adapter before the slice"),
        (0, 5, 5, "lanes must divide channels, 12, not be 5: use a width adapter before the slice"),
    ],
)
def test_rejects(start, stop, lanes, message):
    with pytest.raises(ConfigError) as caught:
        SliceSpec(i=Beats(Fixed(5), 12, lanes), start=start, stop=stop)
    assert str(caught.value) == message
