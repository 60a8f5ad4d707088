"""The search with adapters: as good as trying all, and never better than its bound."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from brambling import zoo
from brambling.boards.choices import Choices
from brambling.boards.memories import Needs, rom
from brambling.boards.options import Options, available
from brambling.boards.parts import PARTS, Board, find_board
from brambling.boards.polish import vector
from brambling.boards.resources import Engine
from brambling.boards.search import Search
from brambling.boards.solver import Solver
from brambling.hw.lines import Flow
from brambling.hw.window import WindowFeedSpec
from brambling.network import Network
from brambling.plan import steps

ECP5, UP5K = PARTS["ecp5-25f"], PARTS["ice40-up5k"]


def search_of(network: Network, luts: int, blocks: int) -> Search:
    part = replace(ECP5, luts=luts, blocks=blocks, dsps=0)
    return Search(Options.of(network, Board(name="tiny", part=part, clock_hz=1_000_000), 1.0))


def every_choice(search):
    """Interval and needs, with adapters, of every combination of foldings."""
    options = search.options
    members = [n for family in options.families for n in family.members]
    stages = [choices.stages for family in options.families for choices in family.variants[0]]
    rows = []
    for chosen in product(*stages):
        placed = dict(zip(members, chosen, strict=True))
        plan = [placed[n] for n in range(len(members))]
        rows.append((options.polish.slowest(plan), *vector(options.polish.total(plan))))
    return np.array(rows)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_and_results_beside_every_choice(seed, small_network):
    rng = np.random.default_rng(seed)
    network = small_network([int(n) for n in rng.integers(2, 5, 3)], seed)
    search = search_of(network, int(rng.integers(250, 500)), int(rng.integers(1, 6)))
    rows, most = every_choice(search), search.options.most
    fitting = rows[(rows[:, 1:] <= vector(most)).all(axis=1)]
    bound, found = search.shortest(most), search.fastest(most)
    if not len(fitting):
        assert found is None
        return
    assert bound is not None
    assert found is not None
    best = fitting[:, 0].min()
    assert bound <= best == search.options.polish.slowest(found)
    assert search.fits(found, most)
    least = (fitting[:, 1:] @ np.array(search.options.polish.prices)).min()
    slowest = search.options.intervals[-1]
    stages = search.smallest(slowest, most)
    assert stages is not None
    assert search.cheapest(slowest, most) <= least * (1 + 1e-9)
    assert least * (1 - 1e-9) <= search.share(stages) <= least * 1.05


def test_what_is_proven_not_to_fit_never_fits(small_network):
    """Also not with an adapter less than the knapsack without any would allow."""
    network, proven = small_network((24, 18, 10)), 0
    for luts in range(400, 3000, 400):
        search = search_of(network, luts, 12)
        for limit in search.options.intervals[::3]:
            if search.proven(limit, search.options.most):
                proven += 1
                assert search.within(limit, search.options.most) is None
    assert proven > 5


@pytest.mark.parametrize(("name", "part"), [("tfc-w1a1", "ecp5-25f"), ("sfc-w1a1", "ice40-up5k")])
@pytest.mark.parametrize("goal", ["max-fps", "min-area", "fps=5000"])
def test_plans_of_the_zoo_are_near_their_bound(name, part, goal):
    solver = Solver(zoo.load(name), find_board(part))
    plan, bound = solver.fold(goal), solver.bound(goal)
    found = solver.search.share(plan.stages)
    if goal == "max-fps":
        found = solver.search.options.polish.slowest(plan.stages)
    assert bound.value <= found * (1 + 1e-9)
    assert found <= 1.08 * bound.value


def test_what_is_left_out_would_not_fit(image_network):
    """Ways far larger than the part, and those that are as wide or wider."""
    network = image_network(True)
    most = Needs(30, 900, 4, 4)
    left_out = 0
    for step in steps(network):
        if step.engine != "product" and step.engine != "requantise":
            continue
        every = Choices.of(step, UP5K, 1, False)
        some = Choices.of(step, UP5K, 1, False, None, most)
        assert some.fastest == every.fastest
        left_out += len(every.stages) - len(some.stages)
        kept = set(some.stages)
        for stage, row in zip(every.stages, every.rows, strict=True):
            if stage not in kept:
                assert (row[1:] > vector(most)).any()
    assert left_out


# SPRAM ----------------------------------------------------------------------------------------


def test_large_memories_are_counted_in_blocks_of_their_own():
    assert rom(UP5K, "spram", 16_384, 16) == Needs(sprams=1)
    assert rom(UP5K, "spram", 16_385, 16) == Needs(sprams=2)
    assert rom(UP5K, "spram", 2, 17) == Needs(sprams=2)
    assert rom(UP5K, "spram", 1, 64) == Needs()
    assert Needs(1, 2, 3, 4) + Needs(10, 20, 30, 40) == Needs(11, 22, 33, 44)
    assert Needs(1, 2, 3, 4) * 2 == Needs(2, 4, 6, 8)


def test_weights_are_in_spram_where_there_is_some(image_network):
    network = image_network(False)
    for part, wanted in ((UP5K, True), (ECP5, False)):
        for step in steps(network):
            engine = Engine(step, part)
            found = {stage.weights for stage in Choices.of(engine.step, part, 1, False).stages}
            products = step.engine in {"xnor", "product", "depthwise"}
            assert ("spram" in found) == (wanted and products)


def test_lenet_fits_the_up5k_by_its_spram():
    """Its weights are more than all block RAMs hold."""
    network = zoo.load("lenet5-w4a4")
    assert network.weight_bits > UP5K.blocks * 4096
    board = find_board("ice40-up5k")
    solver = Solver(network, board)
    plan = solver.fold("min-area")
    need = solver.search.options.polish.total(plan.stages)
    assert 0 < need.sprams <= 4
    assert {stage.weights for stage in plan.stages} == {"block", "spram"}
    without = Board(name="none", part=replace(UP5K, spram_bits=0), clock_hz=1)
    assert Solver(network, without).search.fastest(available(without, Needs())) is None


# Lines of an image ----------------------------------------------------------------------------


def loop(flow: Flow) -> int:
    """Fewest lines that are possible, one after the other."""
    lines = flow.down.least
    while not flow.possible(lines):
        lines += 1
    return lines


@pytest.mark.parametrize("seed", range(8))
def test_the_fewest_lines_are_the_first_that_are_possible(seed, image_network, any_plan):
    from brambling.hw.accelerator import pipeline

    network = image_network(seed % 2 == 1)
    for node in pipeline(network, any_plan(network, seed)):
        feed = getattr(node.spec, "feed", None)
        if isinstance(feed, WindowFeedSpec):
            flow = Flow(
                feed.stored,
                feed.down,
                need_step=feed.need_step,
                slots=feed.slots,
                release=feed.RELEASE,
            )
            assert flow.lines() == loop(flow) == feed.lines
