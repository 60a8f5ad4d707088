"""What all elementwise engines share, seen by one that shows where each code is."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Value

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import Elementwise, ElementwiseSpec, spanning
from brambling.quant.formats import Fixed
from brambling.sim.job import Design, Job
from brambling.sim.pysim import Pysim

GEOMETRIES = {
    "vector": Beats(Fixed(4), 12, 3),
    "tail": Beats(Fixed(4), 7, 3),
    "one beat": Beats(Fixed(4), 3, 3),
    "one code": Beats(Fixed(4), 1, 1),
    "image": Beats(Fixed(4), 5, 2, 3, 4),
    "pixels": Beats(Fixed(4), 5, 2, 3, 5, 2),
    "one row": Beats(Fixed(4), 2, 2, 1, 6, 3),
    "one column": Beats(Fixed(4), 3, 1, 4, 1),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaceSpec(ElementwiseSpec):
    """The channel's parameter, the code, row, step and lane group, from the lowest bits."""

    @property
    def o(self):
        return replace(self.i, fmt=Fixed(24, signed=False))

    @property
    def latency(self):
        return 3

    def reference(self, x):
        shape = (self.i.rows, self.i.columns, self.i.elements)
        rows, columns, channels = np.indices(shape)
        steps, groups = columns // self.i.pixels, channels // self.i.lanes
        there = 3 * channels | rows << 12 | steps << 16 | groups << 20
        return (there.reshape(1, -1) | (x & 15) << 8).astype(np.int64)

    def build(self):
        return Place(self)


class Place(Elementwise[PlaceSpec]):
    @property
    def counts(self):
        i = self.spec.i
        return i.groups, i.steps, i.rows

    def parameters(self, lane):
        channels = np.arange(self.spec.i.elements)
        return self.spec.of_lane(3 * channels, lane).tolist(), 8

    def compute(self, m, pipe, code):
        group, step, row = (Cat(Value.cast(n), Const(0, 4))[:4] for n in code.position)
        (there,) = pipe.stage(there=Cat(code.bits, row, step, group))
        (seen,) = pipe.stage(seen=Cat(code.parameters, there))
        return pipe.stage(seen=seen)[0]


def frames(beats, n=3):
    return np.random.default_rng(1).integers(-8, 8, (n, beats.size))


@pytest.mark.parametrize("beats", GEOMETRIES.values(), ids=GEOMETRIES)
def test_knows_where_each_code_is(run_component, stalls, beats):
    spec = PlaceSpec(i=beats)
    x = frames(beats)
    seen = run_component(spec, x, **stalls)["output"]
    assert np.array_equal(spec.o.unpack(seen.payloads), spec.reference(x))
    first = [seen.value(n) >> spec.o.width - 1 for n in range(len(seen.cycles))]
    assert first == 3 * [1, *[0] * (beats.count - 1)]


@pytest.mark.parametrize("kept", range(1, 18))
def test_starts_anew_at_a_first_beat(kept):
    beats = GEOMETRIES["pixels"]
    spec = PlaceSpec(i=beats)
    x = frames(beats)
    packed = beats.pack(x)
    cut = np.concatenate([packed[:kept], packed[beats.count :]])
    job = Job(beats=cut, outputs=len(cut), limit=200)
    seen = Pysim().run(Design.of("place", spec.build), job)["output"]
    assert np.array_equal(spec.o.unpack(seen.payloads[kept:]), spec.reference(x[1:]))


@pytest.mark.parametrize("queue", [1, 2, 4])
def test_keeps_to_the_places_of_its_queue(run_component, stalls, queue):
    spec = PlaceSpec(i=GEOMETRIES["image"], queue=queue)
    x = frames(spec.i, 2)
    seen = run_component(spec, x, **stalls)["output"]
    assert np.array_equal(spec.o.unpack(seen.payloads), spec.reference(x))


def test_takes_a_beat_a_cycle_with_the_fewest_places(run_component):
    spec = PlaceSpec(i=GEOMETRIES["image"])
    assert spec.depth == spec.latency + 3
    assert set(np.diff(run_component(spec, frames(spec.i))["output"].cycles)) == {1}
    tighter = replace(spec, queue=spec.depth - 1)
    assert set(np.diff(run_component(tighter, frames(spec.i))["output"].cycles)) != {1}


def test_parameters_of_a_lane():
    spec = PlaceSpec(i=Beats(Fixed(4), 7, 3))
    assert spec.of_lane(np.arange(1, 8), 0).tolist() == [1, 4, 7]
    assert spec.of_lane(np.arange(1, 8), 2).tolist() == [3, 6, 0]
    assert spec.of_lane(np.array([9]), 2).tolist() == [9]


@pytest.mark.parametrize(
    ("low", "high", "width", "signed"),
    [
        (0, 0, 1, False),
        (0, 7, 3, False),
        (-1, 0, 2, True),
        (-5, 3, 4, True),
        (-(1 << 62), 0, 63, True),
    ],
)
def test_narrowest_shape(low, high, width, signed):
    shape = spanning(low, high)
    assert (shape.width, shape.signed) == (width, signed)


def test_rejects_parameters_of_another_number_of_channels():
    with pytest.raises(ConfigError, match=r"^bias must be for 1 or all 7 channels, not for 3$"):
        PlaceSpec(i=GEOMETRIES["tail"])._check_channels("bias", 3)
