"""The cycle model by frame equals the one beat by beat, at every beat of every stream."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from brambling.hw.accelerator import edges, pipeline
from brambling.hw.beat import Beats
from brambling.hw.node import Node
from brambling.hw.width import WidthAdapterSpec
from brambling.plan import LEAST_FIFO
from brambling.quant.formats import Fixed
from brambling.sim import cycles
from brambling.sim.cycles import Deadlock, Model, schedule
from brambling.sim.frames import FrameModel, Unsettled

KINDS = [
    *("binary_cnn", "fixed_cnn", "residual", "shortcut", "separable", "bordered", "sequence"),
    "shuffled",
]
FRAMES = 5
ENOUGH = 1_000_000  #: Sweeps.


def assert_same(nodes, allowed=None, frames=FRAMES):
    """Compare both forms, on streams and on results."""
    slow, fast = Model(nodes), FrameModel(nodes, allowed, ENOUGH)
    if allowed is not None:
        slow.feed.allowed = allowed
    slow.advance(frames)
    fast.advance(2)
    fast.advance(frames)  # Going on changes nothing.
    assert slow.source.times[: frames * nodes[0].spec.i.count] == fast.source.times.tolist()
    assert slow.wires.keys() == fast.wires.keys()
    for port, wire in slow.wires.items():
        assert wire.times == fast.wires[port].times.tolist(), port
    for edge in edges(nodes):
        assert np.array_equal(slow.cycles(edge), fast.cycles(edge)), edge


@pytest.mark.parametrize(("kind", "seed"), list(product(KINDS, range(4))))
def test_of_networks(kind, seed, cnns, random_plan):
    network = cnns[kind](seed)
    assert_same(pipeline(network, random_plan(network, seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_of_frames_that_come_slowly(kind, cnns, random_plan):
    network = cnns[kind](9)
    assert_same(pipeline(network, random_plan(network, 9)), lambda cycle: -(-cycle // 7) * 7)


def test_of_a_dense_network(small_network, hand_plan):
    network = small_network([30, 12, 9, 5], 1)
    rows = [(4, 4, 0, 5), (5, 7, 4, 2), (2, 5, 0, 3), (1, 4, 3, 2), (1, 2, 0, 1)]
    assert_same(pipeline(network, hand_plan(network, rows)), frames=40)


@pytest.mark.parametrize("elements", [5, 12, 23])
def test_of_width_adapters(elements):
    for source, target in product(range(1, 9), repeat=2):
        if max(source, target) <= elements:
            beats = Beats(Fixed(4), elements, source, rows=2, columns=3)
            assert_same((Node("part", WidthAdapterSpec(i=beats, target=target)),))


def test_schedule_goes_either_way(cnns, random_plan, monkeypatch):
    network = cnns["residual"](2)
    nodes = pipeline(network, random_plan(network, 2))
    slow = schedule(nodes, 20)
    monkeypatch.setattr(cycles, "LARGE", 0)
    monkeypatch.setattr(cycles, "Model", None)
    fast = schedule(nodes, 20)
    assert fast.cycles.keys() == slow.cycles.keys()
    assert all(np.array_equal(fast.cycles[edge], slow.cycles[edge]) for edge in slow.cycles)


def test_what_waits_for_good_never_settles(cnns, random_plan, monkeypatch):
    network = cnns["shortcut"](1)
    plan = random_plan(network, 1)
    narrow = {"pe": 1, "simd": 1, "pixels": 1, "queue": 1}
    stages = [replace(s, fifo=(LEAST_FIFO,) * len(s.fifo), **narrow) for s in plan.stages]
    nodes = pipeline(network, replace(plan, stages=tuple(stages)))
    with pytest.raises(Unsettled):
        FrameModel(nodes).advance(1)
    with pytest.raises(Deadlock) as slow:
        Model(nodes).advance(10)
    monkeypatch.setattr(cycles, "LARGE", 0)
    with pytest.raises(Deadlock) as either:
        schedule(nodes, 10)
    found = [re.findall(r"\d+", str(error.value)) for error in (slow, either)]
    assert found[0][0] == found[1][0] == "0"  # Output beats.
    assert found[0][2] == found[1][2]  # Input beats, of 10 frames or of as many as were tried.
