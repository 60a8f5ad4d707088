"""Goals: the shortest latency, the slowest clock, and another share of the LUTs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from brambling import api, zoo
from brambling.boards.goals import Goal
from brambling.boards.latency import tail
from brambling.boards.memories import Needs
from brambling.boards.options import Options, available, excess
from brambling.boards.parts import PARTS, Board, find_board
from brambling.boards.solver import Solver, bound, fold
from brambling.errors import ConfigError, DoesNotFit
from brambling.hw.accelerator import pipeline, root
from brambling.plan import steps
from brambling.sim.cycles import schedule
from brambling.sim.sizing import throughput, unlimited

ULX3S = find_board("ulx3s-85f")
FREE = 1 << 20  #: Places that are always enough.


def latency(network, plan):
    return schedule(pipeline(network, plan), 1).latency


@pytest.mark.parametrize(
    ("text", "kind", "rate"),
    [
        ("max-fps", "max-fps", None),
        ("min-latency", "min-latency", None),
        ("min-area", "min-area", None),
        ("fps=2.5e3", "fps", 2500.0),
        ("power", "power", None),
        ("power=30", "power", 30.0),
    ],
)
def test_goals_are_read(text, kind, rate):
    assert Goal.of(text) == Goal(text, kind, rate)


@pytest.mark.parametrize("text", ["power=0", "power=", "latency", "min-latency=3", "POWER"])
def test_other_goals_are_refused(text):
    message = (
        f"goal must be one of max-fps, min-latency, min-area, fps=N, power, power=N, not {text!r}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Goal.of(text)


# Latency --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("residual", [False, True])
def test_no_frame_is_kept_shorter_than_the_tail_of_an_engine(
    residual, seed, image_network, any_plan
):
    """From the last input beat that an engine takes to its last result, in the cycle model."""
    network = image_network(residual)
    plan = any_plan(network, seed)
    stages = (replace(s, queue=FREE, fifo=(FREE,) * len(s.fifo)) for s in plan.stages)
    found = schedule(pipeline(network, replace(plan, stages=tuple(stages))), 1)
    compared = 0
    for step, stage in plan.pairs(network):
        least = tail(step, stage.pixels, step.runs(stage.pe, stage.simd, stage.pixels))
        last = found.cycles[step.output][-1]
        if step.window and not least:  # No position sees the last pixel.
            continue
        for source in step.sources:
            assert last - found.cycles[root(network, source)][-1] >= least
        compared += least > 0
    assert compared


@pytest.mark.parametrize("part", ["ecp5-25f", "ice40-up5k"])
def test_latency_is_no_longer_than_that_of_the_fastest(part):
    assert_soon("tfc-w1a1", part)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["ecp5-85f", "ecp5-25f", "ice40-up5k"])
@pytest.mark.parametrize("name", zoo.names())
def test_latency_is_no_longer_in_the_whole_zoo(name, part):
    try:
        assert_soon(name, part)
    except DoesNotFit:
        pytest.skip("does not fit")


def assert_soon(name, part):
    network = zoo.load(name)
    plan = api.plan(network, part, "min-latency")
    fastest = api.plan(network, part)
    assert plan.goal == "min-latency"
    assert latency(network, plan) <= latency(network, fastest)
    assert bound(network, find_board(part), "min-latency").value <= latency(network, plan)
    most = available(find_board(part), Needs())
    assert excess(api.total(network, plan, find_board(part)), most) == Needs()


def test_latency_can_be_much_shorter(small_network):
    """A slow layer of many outputs: folds of results, not of inputs, keep a frame back."""
    network = small_network((64, 48, 10))
    board = Board(name="tiny", part=replace(PARTS["ecp5-25f"], luts=3000, blocks=20), clock_hz=1)
    fastest = fold(network, board, "max-fps")
    soonest = fold(network, board, "min-latency")
    measured = Solver(network, board).fold(
        "min-latency", latency=lambda plan: unlimited(network, plan)
    )
    assert unlimited(network, measured) <= unlimited(network, soonest)
    assert unlimited(network, measured) < unlimited(network, fastest)


# The slowest clock ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 1000, 250_000.5])
def test_the_clock_is_the_slowest_that_makes_the_frames(rate):
    network = zoo.load("tfc-w1a1")
    plan = api.plan(network, "ulx3s-85f", f"power={rate}")
    cycles = throughput(network, plan)
    assert plan.clock_hz / cycles >= rate > (plan.clock_hz - 1) / cycles
    assert cycles == throughput(network, api.plan(network, "ulx3s-85f", "max-fps"))
    assert plan.clock_hz >= bound(network, ULX3S, f"power={rate}").value


def test_without_a_rate_it_is_that_of_the_smallest():
    network = zoo.load("tfc-w1a1")
    small = fold(network, ULX3S, "min-area")
    frames = small.clock_hz / throughput(network, api.plan(network, "ulx3s-85f", "min-area"))
    plan = api.plan(network, "ulx3s-85f", "power")
    assert plan.clock_hz / throughput(network, plan) == pytest.approx(frames, rel=1e-3)
    assert plan.clock_hz < small.clock_hz / 100


def test_a_rate_that_the_clock_does_not_reach():
    network = zoo.load("tfc-w1a1")
    with pytest.raises(ConfigError) as error:
        fold(network, ULX3S, "power=1e9")
    assert str(error.value) == (
        "goal power=1e9: at 50 MHz at most 50000000 frames a second are possible, not 1e9"
    )
    with pytest.raises(DoesNotFit) as refused:
        fold(network, find_board("icebreaker"), "power=1e6")
    text = str(refused.value)
    match = re.fullmatch(
        r"tfc-w1a1 with goal power=1e6 needs [\d,]+ .+, but icebreaker has [\d,]+; the fastest "
        r"folding that fits has an interval of (\d+) cycles: power=(\d+)",
        text,
    )
    assert match, text
    assert int(match[2]) == 24_000_000 // int(match[1])
    assert fold(network, find_board("icebreaker"), f"power={match[2]}").clock_hz <= 24_000_000


# Another share of the LUTs --------------------------------------------------------------------


def test_more_of_the_luts_may_be_taken():
    network = zoo.load("tfc-w1a1")
    rows = [fold(network, find_board("icebreaker"), "max-fps", fill=x) for x in (0.5, 0.7, 0.95)]
    luts = [api.total(network, plan, find_board("icebreaker")).luts for plan in rows]
    assert luts[0] <= 0.5 * 5280
    assert luts[2] <= 0.95 * 5280
    cycles = [max(step.interval(s.pe, s.simd, s.pixels) for step, s in plan.pairs(network))
              for plan in rows]  # fmt: skip
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[2] < cycles[0]
    plan = api.plan(network, "icebreaker", fill=0.6)
    assert api.total(network, plan, find_board("icebreaker")).luts <= 0.6 * 5280


@pytest.mark.parametrize("fill", [0.0, -1.0, 1.01, float("nan")])
def test_a_share_is_one(fill):
    message = f"fill must be more than 0 and at most 1, a share of the LUTs, not {fill:g}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        fold(zoo.load("tfc-w1a1"), ULX3S, "max-fps", fill=fill)


def test_a_refusal_names_a_share_that_fits(small_network):
    """Too many LUTs for 70 %, not for the part."""
    network = small_network((4, 3))
    part = replace(PARTS["ecp5-25f"], luts=300)
    board = Board(name="tiny", part=part, clock_hz=1_000_000)
    with pytest.raises(DoesNotFit) as error:
        fold(network, board, "max-fps", fill=0.1)
    match = re.fullmatch(
        r"small needs (\d+) LUTs \(10% of 300\), but tiny has 30; "
        r"no folding fits: with a fill of (0\.\d+) one would",
        str(error.value),
    )
    assert match, str(error.value)
    fold(network, board, "min-area", fill=float(match[2]))


def test_a_refusal_names_a_part_that_fits():
    network = zoo.load("sfc-w1a1")
    with pytest.raises(DoesNotFit) as error:
        fold(network, find_board("ice40-hx8k"), "max-fps")
    match = re.fullmatch(
        r"sfc-w1a1 needs [\d,]+ .+, but ice40-hx8k has [\d,]+; no folding fits: the next larger "
        r"part that does is ([\w-]+) \(.+\)",
        str(error.value),
    )
    assert match, str(error.value)
    assert fold(network, find_board(match[1]), "max-fps").stages


def test_a_network_that_fits_nothing(monkeypatch, small_network):
    monkeypatch.setattr("brambling.boards.refusals.PARTS", {})
    board = Board(name="none", part=replace(PARTS["ecp5-25f"], luts=200, blocks=1), clock_hz=1)
    network = small_network((64, 32, 10))
    with pytest.raises(DoesNotFit) as error:
        fold(network, board, "min-area")
    assert str(error.value).endswith(
        "no folding fits, nor any part that is known: choose a smaller network"
    )


def test_foldings_are_found_once(monkeypatch):
    """However often a network is folded again for its FIFOs."""
    calls = []
    of = Options.of
    monkeypatch.setattr(
        "brambling.boards.solver.Options.of",
        lambda *args, **options: calls.append(1) or of(*args, **options),
    )
    api.plan(zoo.load("tfc-w1a1"), "icebreaker", "max-fps")
    assert len(calls) == 1


def test_steps_that_wait_for_nothing_have_no_tail(small_network):
    network = small_network((8, 5, 3))
    for step in steps(network):
        runs = step.runs(1, step.inputs, 1)
        wanted = step.outputs - 1 if step.products else 0
        if step.engine in {"xnor", "argmax"}:
            assert tail(step, 1, runs) == wanted
    assert np.all([tail(step, 1, step.runs(1, 1, 1)) >= 0 for step in steps(network)])
