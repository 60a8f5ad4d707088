"""FIFO depths: none smaller keeps the throughput."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from brambling import api
from brambling.boards.parts import BOARDS
from brambling.boards.resources import interval
from brambling.boards.solver import fold
from brambling.network import Conv, Dense, Flatten, Network, Requantise, Tensor
from brambling.plan import LEAST_FIFO, Plan, Stage
from brambling.quant.formats import Fixed
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


def test_so_it_is_where_the_last_adapter_makes_narrower_beats(monkeypatch):
    """5 lanes of 6 channels: first to 6, so that pixels follow without a gap, then to 4."""
    monkeypatch.setattr(sizing, "SEARCHED", 0)
    rng, s4 = np.random.default_rng(1), Fixed(4)
    conv = Conv(name="conv", inputs=("input",), weights=rng.integers(-8, 8, (6, 1, 1, 2)), fmt=s4)
    flat = Flatten(name="flat", inputs=("conv",))
    fc = Dense(name="fc", inputs=("flat",), weights=rng.integers(-8, 8, (9, 72)), fmt=s4)
    network = Network("narrowed", Tensor((3, 4, 2), s4), (conv, flat, fc))
    rows = {"conv": (5, 2), "fc": (1, 4)}
    stages = [
        Stage(layer=name, engine="product", pe=pe, simd=simd) for name, (pe, simd) in rows.items()
    ]
    plan = Plan(network="narrowed", board="", goal="hand", clock_hz=1, stages=tuple(stages))
    sized = size(network, plan)
    assert max(interval(*pair) for pair in plan.pairs(network)) == 9 * 18
    assert throughput(network, sized) == 9 * 18
    assert sized.stages[1].fifo[0] >= LEAST_FIFO


# Where the first engine repeats what it reads -----------------------------------------------------


def perceptron(shape, sizes):
    """Dense layers of 8 bits, each requantised; the first one reads the network's input."""
    rng = np.random.default_rng(len(sizes))
    layers: list = [Flatten(name="flat", inputs=("input",))] if len(shape) == 3 else []
    source, s8 = "flat" if layers else "input", Fixed(8)
    for n, (inputs, outputs) in enumerate(pairwise((int(np.prod(shape)), *sizes)), start=1):
        weights = rng.integers(-128, 128, (outputs, inputs))
        layers.append(Dense(name=f"fc{n}", inputs=(source,), weights=weights, fmt=s8))
        factor, bias = rng.integers(100, 200, outputs), rng.integers(-999, 999, outputs)
        layers.append(
            Requantise(
                name=f"act{n}",
                inputs=(f"fc{n}",),
                fmt=s8,
                multiplier=factor,
                bias=bias,
                shift=16,
            )
        )
        source = f"act{n}"
    return Network("dense", Tensor(shape, s8), tuple(layers))


AD08 = (128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
PERCEPTRONS = {
    "small": ((40,), (12, 12, 3, 12, 40)),
    "an image": ((4, 5, 3), (12, 12, 3)),
    "one engine": ((24,), (24,)),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("goal", ["min-area", "max-fps", "fps=200000"])
@pytest.mark.parametrize("kind", PERCEPTRONS)
def test_an_input_that_is_repeated_keeps_the_pace(kind, goal, large, monkeypatch):
    if large:
        monkeypatch.setattr(sizing, "SEARCHED", 0)
    network = perceptron(*PERCEPTRONS[kind])
    plan = api.plan(network, "ulx3s-85f", goal)
    slowest = max(interval(*pair) for pair in plan.pairs(network))
    assert throughput(network, plan) <= slowest
    if goal.startswith("fps"):
        assert slowest <= plan.clock_hz / 200_000


@pytest.mark.parametrize("goal", ["min-area", "fps=5000"])
def test_the_autoencoder_of_mlperf_tiny_keeps_the_pace(goal):
    network = perceptron((640,), AD08)
    plan = api.plan(network, "ulx3s-85f", goal)
    slowest = max(interval(*pair) for pair in plan.pairs(network))
    # The least area: a weight a cycle, of 640 inputs and 128 outputs.
    assert throughput(network, plan) <= slowest <= (640 * 128 if goal == "min-area" else 10_000)
    # It has as much to do as the slowest one, and the outside world waits for it.
    assert plan.stages[0].fifo == (0,)


@pytest.mark.slow
def test_the_autoencoder_of_mlperf_tiny_as_fast_as_can_be():
    network = perceptron((640,), AD08)
    plan = api.plan(network, "ulx3s-85f", "max-fps")
    assert throughput(network, plan) == max(interval(*pair) for pair in plan.pairs(network))


@pytest.mark.parametrize("large", [False, True])
def test_what_an_adapter_costs_is_not_asked_of_the_depths(large, hand_plan, monkeypatch):
    """2 lanes to 3 take 6 cycles for 10 elements, 5 beats of which come and 4 go."""
    if large:
        monkeypatch.setattr(sizing, "SEARCHED", 0)
    network = perceptron((2,), (10, 2))
    plan = size(network, hand_plan(network, [(2, 2), (2, 2), (2, 3), (2, 2)]))
    assert max(interval(*pair) for pair in plan.pairs(network)) == 5
    assert throughput(network, plan) == 6
