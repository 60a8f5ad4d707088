"""FIFO depths: none smaller keeps the throughput."""

from dataclasses import replace

import pytest

from brambling.boards.parts import BOARDS
from brambling.boards.resources import interval
from brambling.boards.solver import fold
from brambling.plan import LEAST_FIFO
from brambling.sim import sizing
from brambling.sim.sizing import size, throughput

SIZES = [([40, 24, 18, 6], "max-fps"), ([64, 32, 5], "fps=1000000"), ([33, 17, 9, 4], "min-area")]


@pytest.fixture(params=SIZES, ids=str)
def sized(request, small_network):
    sizes, goal = request.param
    network = small_network(sizes, 1)
    return network, size(network, fold(network, BOARDS["icebreaker"], goal))


def test_reaches_the_interval_of_the_slowest_engine(sized):

    network, plan = sized
    slowest = max(interval(step, stage) for step, stage in plan.pairs(network))
    assert throughput(network, plan) == slowest


def test_one_place_less_costs_throughput(sized):
    network, plan = sized
    best = throughput(network, plan)
    tried = 0
    for n, stage in enumerate(plan.stages):
        smaller = []
        if depth := stage.fifo[0]:
            smaller.append({"fifo": (depth - 1 if depth > LEAST_FIFO else 0,)})
        if stage.queue > 1:
            smaller.append({"queue": stage.queue - 1})
        for change in smaller:
            stages = [*plan.stages]
            stages[n] = replace(stage, **change)
            assert throughput(network, replace(plan, stages=tuple(stages))) > best, (stage, change)
            tried += 1
    assert tried


def test_says_how_far_it_is(small_network):
    network = small_network([12, 6, 3], 1)
    told = []
    size(network, fold(network, BOARDS["icebreaker"], "max-fps"), told.append)
    assert all(0 <= share <= 1 for share in told)
    assert told[-1] == 1


def test_a_vector_is_put_together_while_the_one_before_is_repeated(
    small_network, hand_plan, monkeypatch
):
    """Narrow results in front of wide inputs, and as much work behind as before."""
    network = small_network([40, 36, 32, 4], 1)
    plan = hand_plan(network, [(4, 4), (2, 4), (1, 12), (1, 4), (1, 1)])
    monkeypatch.setattr(sizing, "SEARCHED", 0)  # As for a large network.
    sized = size(network, plan)
    slowest = max(interval(*pair) for pair in sized.pairs(network))
    assert throughput(network, sized) == slowest
    assert sized.stages[2].fifo[0] >= LEAST_FIFO
    without = [*sized.stages]
    without[2] = replace(without[2], fifo=(0,))
    assert throughput(network, replace(sized, stages=tuple(without))) > slowest
