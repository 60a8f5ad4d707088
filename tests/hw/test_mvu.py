"""XnorMvu against its reference and its cycle counts."""

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.mvu import XnorMvuSpec
from brambling.sim.job import Design, Job
from brambling.sim.pysim import Pysim

FOLDINGS = [  # outputs, inputs, pe, simd
    (1, 1, 1, 1),
    (4, 6, 4, 6),
    (6, 5, 3, 5),
    (6, 9, 6, 4),
    (7, 12, 2, 5),
    (5, 33, 5, 3),
    (9, 7, 4, 1),
]


def make(outputs, inputs, pe, simd, *, kind="levels", seed=1, **options):
    rng = np.random.default_rng(seed)
    weights = rng.choice([-1, 1], (outputs, inputs)).astype(np.int8)
    levels = falling = None
    if kind != "products":
        levels = rng.integers(-inputs - 2, inputs + 3, outputs)
    if kind == "falling":
        falling = rng.random(outputs) < 0.5
    return XnorMvuSpec(weights=weights, pe=pe, simd=simd, levels=levels, falling=falling, **options)


def vectors(spec, frames=5, seed=2):
    return np.random.default_rng(seed).choice([-1, 1], (frames, spec.inputs))


@pytest.mark.parametrize("folding", FOLDINGS, ids=str)
@pytest.mark.parametrize("kind", ["levels", "falling", "products"])
def test_equals_reference(run_component, stalls, folding, kind):
    spec = make(*folding, kind=kind)
    x = vectors(spec)
    trace = run_component(spec, x, **stalls)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x))


@pytest.mark.parametrize("store", ["block", "lut"])
def test_memories_of_either_kind_hold_the_same(run_component, store):
    spec = make(7, 12, 2, 5, weight_store=store, level_store=store)
    x = vectors(spec)
    trace = run_component(spec, x)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x))


@pytest.mark.parametrize("folding", [f for f in FOLDINGS if f[0] > 1], ids=str)
def test_interval_is_the_number_of_slots(run_component, folding):
    outputs, inputs, pe, simd = folding
    spec = make(*folding)
    trace = run_component(spec, vectors(spec, frames=8))
    ends = trace["output"].cycles.reshape(8, -1)[:, -1]
    slots = -(-inputs // simd) * -(-outputs // pe)
    assert set(np.diff(ends)) == {slots}


@pytest.mark.parametrize("sign", [1, -1])
def test_reaches_both_ends_of_its_range(run_component, sign):
    weights = np.ones((2, 64), np.int8)
    spec = XnorMvuSpec(weights=weights, pe=1, simd=16)
    trace = run_component(spec, sign * np.ones((1, 64), int))
    assert spec.o.unpack(trace["output"].payloads).tolist() == [[64 * sign, 64 * sign]]


@pytest.mark.parametrize("level", range(-5, 7))
@pytest.mark.parametrize("falling", [False, True])
def test_every_level_at_every_product(run_component, level, falling):
    spec = XnorMvuSpec(
        weights=np.ones((1, 4), np.int8),
        pe=1,
        simd=4,
        levels=np.array([level]),
        falling=np.array([falling]) if falling else None,
    )
    x = np.array([[1] * n + [-1] * (4 - n) for n in range(5)])
    trace = run_component(spec, x)
    products = 2 * np.arange(5) - 4
    expected = products <= level if falling else products >= level
    assert (spec.o.unpack(trace["output"].payloads)[:, 0] > 0).tolist() == expected.tolist()


def test_idle_lanes_of_the_input_carry_no_meaning():
    spec = make(6, 9, 6, 4)
    x = vectors(spec)
    beats = spec.i.pack(x)
    dirty = beats.reshape(len(x), spec.i.count, -1).copy()
    dirty[:, -1, 0] |= 0b1110  # Lanes 1 to 3 of the last beat.
    runs = [
        Pysim().run(Design.of("part", spec.build), Job(beats=b, outputs=5, limit=200))
        for b in (beats, dirty.reshape(beats.shape))
    ]
    runs[0].edges["output"]
    assert runs[0]["output"].difference(runs[1]["output"]) is None


def test_an_incomplete_frame_is_given_up_at_the_next_first():
    spec = make(6, 9, 3, 4)
    x = vectors(spec, frames=3)
    beats = spec.i.pack(x)
    cut = np.delete(beats, [2], axis=0)  # The first frame lacks its last beat.
    outputs = 2 * spec.o.count
    trace = Pysim().run(Design.of("part", spec.build), Job(beats=cut, outputs=outputs, limit=200))
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pe": 0}, "pe must be 1 to 6, not 0"),
        ({"pe": 7}, "pe must be 1 to 6, not 7"),
        ({"simd": 0}, "simd must be 1 to 9, not 0"),
        ({"simd": 10}, "simd must be 1 to 9, not 10"),
    ],
    ids=str,
)
def test_rejects_foldings_beyond_the_matrix(change, message):
    options = {"pe": 1, "simd": 1, "weights": np.ones((6, 9), np.int8), **change}
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        XnorMvuSpec(**options)
