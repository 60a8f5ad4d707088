"""The cycle model by itself; that it equals the RTL is tested wherever RTL runs."""

import numpy as np
import pytest

from brambling.hw.accelerator import edges, pipeline
from brambling.sim.cycles import Deadlock, Model, next_allowed, schedule
from brambling.sim.job import pattern
from brambling.timing import Timing


@pytest.fixture
def nodes(small_network, hand_plan):
    network = small_network([30, 12, 9, 5], 1)
    rows = [(4, 4, 0, 5), (5, 7, 4, 2), (2, 5, 0, 3), (1, 4, 3, 2), (1, 2, 0, 1)]
    return pipeline(network, hand_plan(network, rows))


def test_periodic_continuation_equals_the_long_way(nodes):
    long, short = schedule(nodes, 300), schedule(nodes, 300, accept=np.ones(2, bool))
    model = Model(nodes)
    model.run(300 * nodes[0].spec.i.count, 300 * nodes[-1].spec.o.count)
    assert long.cycles["argmax"].tolist() == model.output.times[:300]
    assert all(np.array_equal(long.cycles[e], short.cycles[e]) for e in long.cycles)


def test_interval_and_latency(nodes):
    found = schedule(nodes, 20)
    slots = max(n.spec.timing.interval for n in nodes if n.step)
    assert found.interval >= slots
    assert found.latency == found.cycles["argmax"][0] - found.cycles["input"][0]


@pytest.mark.parametrize("kind", ["random", "burst", "alternate"])
def test_stalls_only_delay(nodes, kind):
    free = schedule(nodes, 6)
    held = schedule(nodes, 6, offer=pattern(kind, 1), accept=pattern(kind, 2))
    for edge, cycles in free.cycles.items():
        assert np.all(held.cycles[edge] >= cycles)


def test_beats_leave_in_order_one_a_cycle(nodes):
    held = schedule(nodes, 6, offer=pattern("random", 1), accept=pattern("random", 2))
    for cycles in held.cycles.values():
        assert np.all(np.diff(cycles) >= 1)


def test_a_source_that_ends_within_a_frame_leaves_the_model_waiting(nodes):
    model = Model(nodes)
    message = r"^the accelerator stops after 0 of 1 output beats, with 7 input beats taken$"
    with pytest.raises(Deadlock, match=message):
        model.run(nodes[0].spec.i.count - 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_next_allowed_is_the_first_flag_from_there(seed):
    flags = pattern("random", seed, 37)
    find = next_allowed(flags)
    for cycle in range(80):
        later = cycle
        while not flags[later % 37]:
            later += 1
        assert find(cycle) == later


def test_timing_of_a_queue_that_keeps_the_full_rate():
    assert Timing(beats=1, folds=1, latency=2).queue == 5
    assert Timing(beats=4, folds=3, latency=6).queue == 3
    assert Timing(beats=4, folds=3, latency=6).interval == 12


def test_of_lfc_is_fast_enough_to_use_it_freely(small_network, hand_plan):
    network = small_network([784, 1024, 1024, 1024, 10], 1)
    rows = [
        (2, 2, 0, 5), (128, 16, 43, 2), (21, 128, 6, 2),
        (21, 128, 7, 2), (1, 27, 31, 1), (1, 1, 0, 1),
    ]  # fmt: skip
    found = schedule(pipeline(network, hand_plan(network, rows)), 1000)
    assert found.interval == 392
    assert len(found.cycles["act1"]) == 1000 * 8


@pytest.mark.parametrize("kind", ["fixed_cnn", "residual"])
def test_later_frames_change_nothing(kind, cnns, random_plan):
    network = cnns[kind](3)
    nodes = pipeline(network, random_plan(network, 3))
    few, many = schedule(nodes, 3), schedule(nodes, 40).first(3)
    assert few.frames == many.frames == 3
    assert all(np.array_equal(few.cycles[edge], many.cycles[edge]) for edge in few.cycles)
    assert (few.latency, few.end) == (many.latency, many.end)


@pytest.mark.parametrize("kind", ["fixed_cnn", "residual", "sequence"])
def test_what_is_periodic_is_continued_as_it_would_run(kind, cnns, random_plan):
    network = cnns[kind](5)
    nodes = pipeline(network, random_plan(network, 6))
    added = schedule(nodes, 40)
    model = Model(nodes)
    model.run(40 * nodes[0].spec.i.count, 40 * nodes[-1].spec.o.count)
    for edge in edges(nodes):
        assert np.array_equal(added.cycles[edge.name], model.cycles(edge))
