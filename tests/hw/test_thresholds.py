"""ThresholdUnit against the golden model, on every code."""

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.thresholds import ThresholdsSpec
from brambling.network import Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim.golden import evaluate

SOURCE = Fixed(5)


def layer_and_spec(levels, falling, target, elements, pe):
    levels, falling = np.array(levels), np.array(falling)
    layer = Thresholds(name="q", inputs=("input",), levels=levels, falling=falling, fmt=target)
    spec = ThresholdsSpec(
        source=SOURCE, target=target, elements=elements, pe=pe, levels=levels, falling=falling
    )
    return layer, spec


@pytest.mark.parametrize("pe", [1, 2, 3])
@pytest.mark.parametrize(
    ("levels", "falling", "target"),
    [
        ([[3]], [False], Bipolar()),
        ([[3]], [True], Bipolar()),
        ([[-16], [0], [15]], [False, True, False], Bipolar()),
        ([[-99], [99], [16]], [False, False, True], Bipolar()),
        ([[-5, 0, 7]], [False], Fixed(2, signed=False)),
        ([[-5, 0, 7], [1, 1, 1], [-16, 3, 15]], [False, True, True], Fixed(2)),
    ],
    ids=str,
)
def test_every_code(run_component, stalls, levels, falling, target, pe):
    layer, spec = layer_and_spec(levels, falling, target, 3, pe)
    codes = np.arange(SOURCE.min, SOURCE.max + 1)
    x = np.stack([codes, codes[::-1], np.roll(codes, 5)], axis=1)
    trace = run_component(spec, x, **stalls)
    golden = evaluate(layer, Tensor((3,), SOURCE), x)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), golden)


def test_takes_a_beat_a_cycle(run_component):
    _, spec = layer_and_spec([[3]], [False], Bipolar(), 12, 3)
    cycles = run_component(spec, np.zeros((5, 12), int))["output"].cycles
    assert set(np.diff(cycles)) == {1}


def test_rejects_levels_for_another_number_of_elements():
    message = r"^levels must be for 1 or all 5 elements, not for 3$"
    with pytest.raises(ConfigError, match=message):
        layer_and_spec([[1], [2], [3]], [False] * 3, Bipolar(), 5, 1)
