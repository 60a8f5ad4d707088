"""The folding solver: optimal by exhaustion, and what it says where nothing fits."""

import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest

from brambling import api, zoo
from brambling.boards.choices import SHALLOW
from brambling.boards.parts import BOARDS, PARTS, Board, Part, find_board
from brambling.boards.polish import Polish
from brambling.boards.resources import Needs, interval, needs
from brambling.boards.solver import LUT_SHARE, Options, available, excess, fold
from brambling.boards.wiring import families, links
from brambling.errors import ConfigError, DoesNotFit
from brambling.hw.accelerator import pipeline
from brambling.network import Add, Conv, Dense, Flatten, Network, Requantise, Tensor
from brambling.plan import Stage, steps
from brambling.quant.formats import Fixed
from brambling.sim.cycles import schedule
from brambling.sim.sizing import pace, throughput

GEOMETRIES = (
    ((8, 4), (16, 2), (32, 1)),
    ((4, 8), (8, 4), (16, 2)),
    ((16, 5), (32, 2)),  # Not all of one capacity.
)


def board_of(luts, blocks, geometries=GEOMETRIES[0], *, lut_inputs=4, lut_ram=True):
    part = Part(
        name="tiny-part",
        family="tiny",
        luts=luts,
        lut_inputs=lut_inputs,
        blocks=blocks,
        geometries=geometries,
        lut_ram=lut_ram,
    )
    return Board(name="tiny", part=part, clock_hz=1_000_000)


def every_stage(step):
    """Every folding of ``step``, with memories as the solver chooses them."""
    make = partial(Stage, layer=step.name, engine=step.engine)
    lanes = range(1, step.inputs + 1)
    match step.engine:
        case "argmax":
            return [make(pe=1, simd=n) for n in lanes]
        case "thresholds":
            return [make(pe=n, simd=n) for n in lanes]
    return [
        make(pe=pe, simd=n, levels="lut" if -(-step.outputs // pe) <= SHALLOW else "block")
        for pe in range(1, step.outputs + 1)
        for n in lanes
    ]


def every_plan(network, board):
    """``(interval, blocks, luts)`` of all plans, but of those that another beats in all three."""
    totals = {(0, 0, 0)}
    for step in steps(network):
        rows = set()
        for stage in every_stage(step):
            need = needs(step, stage, board.part)
            rows.add((interval(step, stage), need.blocks, need.luts))
        totals = undominated({
            (max(a[0], b[0]), a[1] + b[1], a[2] + b[2]) for a in totals for b in undominated(rows)
        })
    return totals


def undominated(rows):
    kept = []
    for row in sorted(rows):
        if not any(all(k <= r for k, r in zip(other, row, strict=True)) for other in kept):
            kept.append(row)
    return kept


def fits(board, row):
    most = available(board, Needs())
    return row[1] <= most.blocks and row[2] <= most.luts


def fitting(network, board):
    return [row for row in every_plan(network, board) if fits(board, row)]


def share(board, blocks, luts):
    return blocks / board.part.blocks + luts / board.part.luts


def measure(network, board, stages):
    """``(interval, blocks, luts)`` of stages, without what stands between them."""
    pairs = [*zip(steps(network), stages, strict=True)]
    need = sum((needs(*pair, board.part) for pair in pairs), start=Needs())
    return max(interval(*pair) for pair in pairs), need.blocks, need.luts


def random_case(seed, small_network):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 11, rng.integers(2, 4))
    board = board_of(
        int(rng.integers(250, 1200)),
        int(rng.integers(1, 20)),
        GEOMETRIES[seed % len(GEOMETRIES)],
        lut_inputs=int(rng.choice([4, 6])),
        lut_ram=bool(rng.integers(2)),
    )
    return small_network([int(n) for n in sizes], seed), board


@pytest.mark.parametrize("seed", range(40))
def test_no_folding_that_fits_is_faster_or_smaller(seed, small_network):
    network, board = random_case(seed, small_network)
    options, rows = Options.of(network, board), fitting(network, board)
    if not rows:
        assert options.smallest(Needs()) is None
        with pytest.raises(DoesNotFit):
            fold(network, board, "max-fps")
        return
    fastest = min(row[0] for row in rows)
    assert options.smallest(Needs()) == fastest
    for limit in (fastest, options.intervals[-1]):
        found = measure(network, board, options.best(limit, Needs()))
        assert found[0] <= limit
        assert fits(board, found)
        cheapest = min(share(board, *row[1:]) for row in rows if row[0] <= limit)
        assert share(board, *found[1:]) == pytest.approx(cheapest, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_adapters_fit_too(seed, small_network):
    network, board = random_case(seed, small_network)
    options = Options.of(network, board)
    for goal in ("max-fps", "min-area"):
        try:
            plan = fold(network, board, goal)
        except DoesNotFit:
            continue
        need = api.total(network, plan, board)
        assert excess(need, available(board, Needs())) == Needs()
        limit = max(interval(*pair) for pair in plan.pairs(network))
        best = options.best(limit, Needs())
        assert best is not None
        alone = options.polish.total(best)
        if goal == "max-fps" and excess(alone, available(board, Needs())) == Needs():
            assert share(board, need.blocks, need.luts) <= share(board, alone.blocks, alone.luts)


def test_the_cases_are_of_both_kinds(small_network):
    cases = [bool(fitting(*random_case(seed, small_network))) for seed in range(25)]
    assert True in cases
    assert False in cases


@pytest.mark.parametrize("fps", [1, 20_000, 100_000, 333_333, 1_000_000])
def test_frames_a_second_are_reached(fps, small_network):
    network = small_network((9, 6, 5))
    board = board_of(4000, 200)
    found = measure(network, board, fold(network, board, f"fps={fps}").stages)
    assert found[0] <= 1_000_000 // fps


NAMED = "max-fps, min-latency, min-area, fps=N, power, power=N"


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("fast", f"goal must be one of {NAMED}, not 'fast'"),
        ("", f"goal must be one of {NAMED}, not ''"),
        ("fps=0", f"goal must be one of {NAMED}, not 'fps=0'"),
        ("fps=-3", f"goal must be one of {NAMED}, not 'fps=-3'"),
        ("fps=", f"goal must be one of {NAMED}, not 'fps='"),
        ("fps=nan", f"goal must be one of {NAMED}, not 'fps=nan'"),
        ("fps=2000000", ("goal fps=2000000: at 1 MHz at most 1000000 frames a second "
                        "are possible, not 2000000")),
        ("fps=1e999", ("goal fps=1e999: at 1 MHz at most 1000000 frames a second "
                      "are possible, not 1e999")),
    ],
)  # fmt: skip
def test_refuses_goals(goal, message, small_network):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        fold(small_network((4, 3)), board_of(4000, 100), goal)


def test_refuses_a_clock_that_stands_still(small_network):
    with pytest.raises(ConfigError, match=r"^clock must be at least 1 Hz, not 0$"):
        fold(small_network((4, 3)), board_of(4000, 100), "max-fps", 0)


def test_the_clock_may_be_chosen(small_network):
    plan = fold(small_network((4, 3)), board_of(4000, 100), "max-fps", 12_345)
    assert (plan.clock_hz, plan.board, plan.goal) == (12_345, "tiny", "max-fps")


# What does not fit ----------------------------------------------------------------------------


def test_refuses_a_network_that_has_too_many_weights(small_network):
    network = small_network((64, 32, 10))
    with pytest.raises(DoesNotFit) as error:
        fold(network, board_of(2000, 40), "max-fps")
    found = error.value
    assert (found.device, found.resource, found.available) == ("tiny", "block RAMs", 40)
    assert found.needed > 40
    assert str(found) == (
        f"small needs {found.needed} block RAMs, but tiny has 40; "
        "no folding fits: the next larger part that does is ice40-up5k (icebreaker, upduino-v3)"
    )


def test_refuses_a_network_that_has_too_much_logic(small_network):
    with pytest.raises(DoesNotFit) as error:
        fold(small_network((4, 3)), board_of(100, 100), "max-fps")
    found = error.value
    assert found.needed > found.available == int(LUT_SHARE * 100)
    assert str(found) == (
        f"small needs {found.needed} LUTs (70% of 100), but tiny has 70; "
        "no folding fits: the next larger part that does is ice40-up5k (icebreaker, upduino-v3)"
    )


def test_refuses_a_rate_that_is_too_high_and_names_one_that_works(small_network):
    network = small_network((16, 12, 10))
    board = board_of(1500, 30)
    with pytest.raises(DoesNotFit) as error:
        fold(network, board, "fps=1000000")
    text = str(error.value)
    match = re.fullmatch(
        r"small with goal fps=1000000 needs [\d,]+ (block RAMs|LUTs \(70% of 1,500\)), but tiny "
        r"has [\d,]+; the fastest folding that fits has an interval of (\d+) cycles: (fps=\d+)",
        text,
    )
    assert match, text
    found = fold(network, board, match[3])
    assert measure(network, board, found.stages)[0] == int(match[2])


@pytest.mark.parametrize("clock", [1_000_000, 999_999, 1_000_003])
def test_the_rate_named_is_not_rounded_up(clock, small_network):
    """One frame a second more would need a shorter interval."""
    network = small_network((16, 12, 10))
    with pytest.raises(DoesNotFit) as error:
        fold(network, board_of(1500, 30), f"fps={clock}", clock)
    assert fold(network, board_of(1500, 30), error.value.remedy.split()[-1], clock)


def test_a_part_without_block_ram(small_network):
    """Everything in parallel needs none."""
    network = small_network((4, 3))
    board = board_of(100_000, 0)
    assert measure(network, board, fold(network, board, "max-fps").stages)[:2] == (1, 0)
    with pytest.raises(DoesNotFit):
        fold(network, board_of(100, 0), "max-fps")


# Against the hardware -------------------------------------------------------------------------


def test_intervals_are_those_of_the_hardware(small_network, hand_plan):
    network = small_network((10, 7, 5))
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, s1, s2, s3 = (int(rng.integers(1, n + 1)) for n in (10, 10, 7, 5))
        p1, p2 = (int(rng.integers(1, n + 1)) for n in (7, 5))
        plan = hand_plan(network, [(a, a), (p1, s1), (p2, s2), (1, s3)])
        nodes = {node.name: node for node in pipeline(network, plan)}
        for step, stage in plan.pairs(network):
            assert interval(step, stage) == pace([nodes[step.name]])


@pytest.mark.parametrize("seed", range(12))
def test_intervals_of_images_are_those_of_the_hardware(seed, image_network, any_plan):
    assert_intervals(image_network(seed % 2 == 1), any_plan, seed)


@pytest.mark.parametrize("seed", range(6))
def test_intervals_where_pixels_are_taken_apart(seed, cnns, any_plan):
    assert_intervals(cnns["shuffled"](seed), any_plan, seed)


def assert_intervals(network, any_plan, seed):
    plan = any_plan(network, seed)
    nodes = {node.name: node for node in pipeline(network, plan)}
    for step, stage in plan.pairs(network):
        cycles = pace([nodes[step.name]])
        assert cycles <= interval(step, stage)
        if not step.window or nodes[step.name].spec.feed.source.pixels == 1:
            assert cycles == interval(step, stage)


# Networks of images ---------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
def test_a_plan_of_an_image_network_reaches_its_interval(residual, image_network):
    network = image_network(residual)
    for goal in ("max-fps", "min-area"):
        plan = api.plan(network, "ulx3s-25f", goal)
        planned = max(interval(*pair) for pair in plan.pairs(network))
        assert throughput(network, plan) <= planned
        need = api.total(network, plan, BOARDS["ulx3s-25f"])
        assert excess(need, available(BOARDS["ulx3s-25f"], Needs())) == Needs()


def test_multipliers_are_used_where_they_help(image_network):
    """So few LUTs that nothing fits without."""
    network = image_network(True)
    part = replace(PARTS["ecp5-25f"], luts=3000)
    with pytest.raises(DoesNotFit):
        fold(network, Board(name="tiny", part=replace(part, dsps=0), clock_hz=1), "max-fps")
    board = Board(name="tiny", part=replace(part, dsps=28), clock_hz=1_000_000)
    plan = fold(network, board, "max-fps")
    assert 0 < api.total(network, plan, board).dsps <= 28
    assert any(stage.style == "dsp" for stage in plan.stages)


def test_refuses_a_rate_that_no_board_reaches(image_network):
    """A line buffer takes a pixel a cycle."""
    with pytest.raises(ConfigError) as error:
        fold(image_network(False), BOARDS["ulx3s-85f"], "fps=1e6")
    assert str(error.value) == (
        "goal fps=1e6: at 50 MHz at most 500000 frames a second are possible, not 1e6"
    )


@pytest.mark.parametrize("seed", range(4))
def test_families_share_their_pixels(seed, image_network):
    network = image_network(True)
    board = BOARDS["ulx3s-45f"]
    chain = steps(network)
    options = Options.of(network, board)
    limit = options.intervals[seed * len(options.intervals) // 4]
    stages = options.best(max(limit, options.fastest), Needs())
    assert stages is not None
    for members in families(chain, links(network, chain)):
        assert len({stages[n].pixels for n in members}) == 1


def test_a_vector_of_an_image_comes_a_pixel_at_a_time():
    """A beat of the network's input has channels of one pixel, however many lanes read it."""
    network = flattened((4, 5, 3))
    plan = fold(network, BOARDS["ulx3s-85f"], "max-fps")
    planned = max(interval(*pair) for pair in plan.pairs(network))
    assert Options.of(network, BOARDS["ulx3s-85f"]).fastest == 20
    assert planned <= 20 == pace(pipeline(network, plan))
    with pytest.raises(ConfigError) as error:
        fold(network, BOARDS["ulx3s-85f"], "fps=5e6")
    assert str(error.value) == (
        "goal fps=5e6: at 50 MHz at most 2500000 frames a second are possible, not 5e6"
    )


def flattened(shape):
    weights = np.ones((3, int(np.prod(shape))), int)
    layers = (
        Flatten(name="flat", inputs=("input",)),
        Dense(name="fc", inputs=("flat",), weights=weights, fmt=Fixed(2)),
    )
    return Network("flattened", Tensor(shape, Fixed(4)), layers)


@pytest.mark.parametrize("name", ["binary_cnn", "bordered"])
def test_binary_images_with_borders_are_planned(name, cnns):
    network = cnns[name](1)
    plan = api.plan(network, "ulx3s-85f")
    assert throughput(network, plan) <= max(interval(*pair) for pair in plan.pairs(network))


# Adapters that are slower than the engines ----------------------------------------------------


def pointwise():
    """10 channels of 6 pixels: 2 lanes to 3 take 6 cycles a pixel, though no end has 6 beats."""
    layers = (
        Requantise(
            name="scale",
            inputs=("input",),
            fmt=Fixed(4),
            multiplier=np.array([1]),
            bias=np.array([0]),
            shift=1,
        ),
        Conv(name="mix", inputs=("scale",), weights=np.ones((3, 1, 1, 10), int), fmt=Fixed(2)),
    )
    return Network("pointwise", Tensor((2, 3, 10), Fixed(6)), layers)


def test_lanes_whose_adapter_is_slow_are_exchanged(hand_plan):
    network, board = pointwise(), BOARDS["ulx3s-85f"]
    polish = Options.of(network, board).polish
    polish.prices = 0.0, 0.0, 0.0, 0.0  # Nothing else is better than anything.
    most = available(board, Needs())
    stages = hand_plan(network, [(2, 2), (3, 3)]).stages
    assert polish.slowest(stages) == 36 > max(map(interval, steps(network), stages))
    assert polish.run(stages, 36, most) == stages
    assert polish.slowest(polish.run(stages, 30, most)) <= 30


def branched():
    """Two branches of dense layers, of which wide ones take about all of a small part."""
    rng, s8 = np.random.default_rng(0), Fixed(8)
    layers = []

    def dense(name, source, outputs, inputs):
        weights = rng.integers(-128, 128, (outputs, inputs))
        layers.append(Dense(name=name, inputs=(source,), weights=weights, fmt=s8))

    def scale(name, source, shift):
        one, none = np.array([1]), np.array([0])
        layers.append(
            Requantise(name=name, inputs=(source,), fmt=s8, multiplier=one, bias=none, shift=shift)
        )

    dense("fc1", "input", 14, 3)
    scale("act1", "fc1", 9)
    dense("fc2", "act1", 14, 14)
    scale("act2", "fc2", 11)
    dense("fc3", "input", 14, 3)
    scale("act3", "fc3", 9)
    layers.append(Add(name="sum", inputs=("act2", "act3")))
    scale("act4", "sum", 1)
    dense("fc4", "act4", 3, 14)
    return Network("branched", Tensor((3,), Fixed(8, 0, False)), tuple(layers))


@pytest.mark.parametrize("luts", [*range(16_000, 25_000, 1500), 24_350])
def test_adapters_that_fit_with_much_left_free_only(luts):
    part = replace(PARTS["ecp5-25f"], luts=luts)
    board = Board(name="tiny", part=part, clock_hz=1_000_000)
    network = branched()
    need = api.total(network, fold(network, board, "max-fps"), board)
    assert excess(need, available(board, Needs())) == Needs()


def test_adapters_keep_the_rate_that_is_asked_for(monkeypatch):
    """As if all of them were much too slow: then the engines are folded less."""
    network, board = pointwise(), BOARDS["ulx3s-85f"]
    monkeypatch.setattr(
        Polish,
        "slowest",
        lambda self, stages: 2 * max(map(interval, steps(network), stages)),
    )
    plan = fold(network, board, f"fps={board.clock_hz // 60}")
    assert max(interval(*pair) for pair in plan.pairs(network)) <= 30
    fastest = Options.of(network, board).fastest
    with pytest.raises(ConfigError) as error:
        fold(network, board, f"fps={board.clock_hz // fastest}")
    assert str(error.value) == (
        f"goal fps={board.clock_hz // fastest}: at 50 MHz at most "
        f"{board.clock_hz // fastest // 2} frames a second are possible, "
        f"not {board.clock_hz // fastest}"
    )


# The whole zoo --------------------------------------------------------------------------------


FEW = [("tfc-w1a1", "ecp5-25f"), ("sfc-w1a1", "ice40-up5k"), ("lenet5-w4a4", "ice40-up5k")]
EVERY = [pair for pair in product(zoo.names(), PARTS) if pair not in FEW]


@pytest.mark.parametrize(
    ("name", "part"), [*FEW, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in EVERY)]
)
def test_zoo_fits_or_is_refused(name, part):
    network, board = zoo.load(name), find_board(part)
    try:
        plan = fold(network, board, "max-fps")
    except DoesNotFit as error:
        refusal = error
    else:
        need = api.total(network, plan, board)
        assert excess(need, available(board, Needs())) == Needs()
        assert need.luts <= LUT_SHARE * board.part.luts
        return
    assert refusal.needed > refusal.available


@pytest.mark.parametrize("board", ["ulx3s-85f", "icebreaker"])
def test_a_plan_reaches_its_interval_within_the_board(board):
    """FIFOs and queues included."""
    network = zoo.load("tfc-w1a1")
    plan = api.plan(network, board)
    slowest = max(interval(*pair) for pair in plan.pairs(network))
    assert schedule(pipeline(network, plan), 32).interval == slowest
    assert api.total(network, plan, BOARDS[board]).blocks <= BOARDS[board].part.blocks


def test_refuses_a_plan_whose_fifos_never_fit(monkeypatch, small_network):
    monkeypatch.setattr(
        "brambling.api.total", lambda network, plan, board: Needs(board.part.blocks + 2, 0)
    )
    with pytest.raises(DoesNotFit) as error:
        api.plan(small_network((9, 6)), "ulx3s-85f", "min-area")
    assert str(error.value) == (
        "small with its FIFOs needs 210 block RAMs, but ulx3s-85f has 208; "
        "ask for fewer frames a second, goal min-area or fps=N"
    )
