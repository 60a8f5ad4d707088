"""ArgMaxUnit against NumPy, ties and ends of range included."""

import numpy as np
import pytest

from brambling.hw.argmax import ArgMaxSpec
from brambling.quant.formats import Fixed


@pytest.mark.parametrize(
    "sizes", [(2, 1), (10, 1), (10, 2), (10, 3), (10, 10), (17, 5), (1, 1)], ids=str
)
def test_equals_numpy(run_component, stalls, sizes):
    elements, simd = sizes
    spec = ArgMaxSpec(source=Fixed(4), elements=elements, simd=simd)
    x = np.random.default_rng(1).integers(-8, 8, (12, elements))  # Narrow: many ties.
    trace = run_component(spec, x, **stalls)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads)[:, 0], x.argmax(axis=1))


@pytest.mark.parametrize("value", [-8, 0, 7])
def test_of_equal_elements_the_lowest_index_wins(run_component, value):
    spec = ArgMaxSpec(source=Fixed(4), elements=7, simd=3)
    trace = run_component(spec, np.full((2, 7), value))
    assert spec.o.unpack(trace["output"].payloads)[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize("simd", [1, 3, 7])
def test_interval_is_the_number_of_beats(run_component, simd):
    spec = ArgMaxSpec(source=Fixed(4), elements=7, simd=simd)
    cycles = run_component(spec, np.zeros((6, 7), int))["output"].cycles
    assert set(np.diff(cycles)) == {spec.i.count}
