"""TableUnit against its reference and the golden model, on every code."""

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.table import TableSpec
from brambling.layers import Table, Tensor
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.sim.golden import evaluate


def codes_of(fmt):
    return np.array([-1, 1]) if fmt == Bipolar() else np.arange(fmt.min, fmt.max + 1)


def make(beats, target, seed=4, **options):
    rng = np.random.default_rng(seed)
    entries = rng.choice(codes_of(target), len(codes_of(beats.fmt)))
    return TableSpec(i=beats, target=target, entries=entries, **options)


@pytest.mark.parametrize("store", ["lut", "block"])
@pytest.mark.parametrize("target", [Bipolar(), Fixed(6), Fixed(12, signed=False)], ids=str)
@pytest.mark.parametrize(
    "source",
    [Bipolar(), Ternary(), Fixed(1, signed=False), Fixed(4), Fixed(5, signed=False)],
    ids=str,
)
def test_every_code(run_component, source, target, store):
    spec = make(Beats(source, 3, 2), target, store=store)
    x = np.stack([np.roll(codes_of(source), n) for n in range(3)], axis=1)
    seen = spec.o.unpack(run_component(spec, x)["output"].payloads)
    layer = Table(name="t", inputs=("input",), entries=spec.entries, fmt=target)
    assert np.array_equal(seen, spec.reference(x))
    assert np.array_equal(seen, evaluate(layer, (Tensor((3,), source),), x))


def test_images(run_component, stalls):
    spec = make(Beats(Fixed(10), 3, 2, 2, 5, 3), Fixed(7))
    x = np.random.default_rng(5).integers(-512, 512, (4, spec.i.size))
    x[0, :2] = -512, 511
    seen = run_component(spec, x, **stalls)["output"]
    assert np.array_equal(spec.o.unpack(seen.payloads), spec.reference(x))


def test_takes_a_beat_a_cycle(run_component):
    spec = make(Beats(Fixed(3), 4, 2), Fixed(3))
    assert set(np.diff(run_component(spec, np.zeros((6, 4), int))["output"].cycles)) == {1}


@pytest.mark.parametrize(
    ("source", "entries", "message"),
    [
        (
            Fixed(11),
            2048,
            r"a table takes codes of at most 10 bits, not s11\.0: requantise first",
        ),
        (Fixed(3), 7, r"entries must be 8, one for each code of s3\.0, not of shape \(7,\)"),
        (Bipolar(), 3, r"entries must be 2, one for each code of bipolar, not of shape \(3,\)"),
    ],
)
def test_rejects_what_is_not_a_table_of_the_codes(source, entries, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        TableSpec(i=Beats(source, 2, 1), target=Fixed(4), entries=np.zeros(entries, int))


def test_rejects_entries_that_are_no_codes():
    with pytest.raises(ConfigError, match=r"^entries must be codes of s2\.0, not -2 to 2$"):
        TableSpec(i=Beats(Fixed(2), 2, 1), target=Fixed(2), entries=np.array([-2, 0, 1, 2]))
