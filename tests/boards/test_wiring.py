"""Who reads whom, and what stands between: as in the hardware."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brambling.boards.lines import LineBuffer
from brambling.boards.memories import Needs
from brambling.boards.parts import BOARDS, PARTS
from brambling.boards.resources import needs
from brambling.boards.solver import Options
from brambling.boards.wiring import (
    Wiring,
    adapters,
    families,
    links,
    period,
    repixel,
    total,
    width_adapter,
)
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.beat import Beats
from brambling.hw.verilog import to_verilog
from brambling.hw.width import WidthAdapterSpec
from brambling.network import Add, Conv, Dense, DepthToSpace, Flatten, Network, Tensor
from brambling.plan import Plan, Stage, steps
from brambling.quant.formats import Fixed
from brambling.sim.frames import Adapter
from brambling.sim.tracks import Track

PART = PARTS["ecp5-85f"]


def names(network):
    chain = steps(network)
    return chain, [step.name for step in chain]


def test_links_of_a_residual_network(image_network):
    chain, name = names(image_network(True))
    found = {
        (name[link.source] if link.source >= 0 else "input", name[link.reader], link.number)
        for link in links(image_network(True), chain)
    }
    assert ("act1", "sum1", 0) in found
    assert ("act0", "sum1", 1) in found
    assert ("act0", "left", 0) in found
    assert ("input", "stem", 0) in found
    assert len(found) == sum(len(step.sources) for step in chain)


def test_links_look_through_flattening(image_network):
    network = image_network(False)
    chain, name = names(network)
    (link,) = (link for link in links(network, chain) if name[link.reader] == "fc")
    assert (name[link.source], link.flat, link.tensor.shape) == ("pool", True, (3, 3, 6))
    assert not any(link.flat for link in links(network, chain) if name[link.reader] != "fc")


def test_families_of_a_chain(image_network):
    network = image_network(False)
    chain, name = names(network)
    found = [[name[n] for n in members] for members in families(chain, links(network, chain))]
    assert sorted(found) == [["conv1", "act1"], ["conv2"], ["fc", "argmax"], ["pool"]]


def test_families_join_at_sums(image_network):
    network = image_network(True)
    chain, name = names(network)
    found = [[name[n] for n in members] for members in families(chain, links(network, chain))]
    assert ["stem", "act0", "left", "act1", "sum1", "act2"] in found
    assert ["down", "act3", "short", "act4", "sum2"] in found


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_adapters_are_where_the_hardware_has_them(seed, residual, image_network, any_plan):
    assert_adapters(image_network(residual), any_plan, seed)


@pytest.mark.parametrize("seed", range(6))
def test_adapters_where_pixels_are_taken_apart(seed, cnns, any_plan):
    assert_adapters(cnns["shuffled"](seed), any_plan, seed)


def product(make: Any, name, source, *shape):
    return make(name=name, inputs=(source,), weights=np.ones(shape, int), fmt=Fixed(2))


def read_twice(kind):
    """Make a network whose input two engines read."""
    shape, sides = {
        "vectors": ((12,), [[product(Dense, "a", "input", 5, 12)],
                            [product(Dense, "b", "input", 5, 12)]]),
        "pixels": ((6, 5, 6), [[product(Conv, "a", "input", 5, 3, 3, 6)],
                               [product(Conv, "c", "input", 4, 1, 1, 6),
                                product(Conv, "b", "c", 5, 3, 3, 4)]]),
        "both": ((2, 3, 6), [[Flatten(name="flat", inputs=("input",)),
                              product(Dense, "a", "flat", 5, 36)],
                             [product(Conv, "c", "input", 5, 2, 3, 6),
                              Flatten(name="b", inputs=("c",))]]),
    }[kind.removesuffix(", turned")]  # fmt: skip
    first, second = sides[::-1] if kind.endswith("turned") else sides
    last = Add(name="sum", inputs=("a", "b"))
    return Network("twice", Tensor(shape, Fixed(4)), (*first, *second, last))


TWICE = [kind + turned for kind in ("vectors", "pixels", "both") for turned in ("", ", turned")]


@pytest.mark.parametrize("kind", TWICE)
def test_adapters_where_the_input_is_read_twice(kind, any_plan):
    for seed in range(20):
        assert_adapters(read_twice(kind), any_plan, seed)


@pytest.mark.parametrize("kind", TWICE)
def test_adapters_at_the_input_are_in_the_total(kind, any_plan):
    network, counted = read_twice(kind), 0
    chain = steps(network)
    readers = {chain[link.reader].name for link in links(network, chain) if link.source < 0}
    for seed in range(10):
        plan = any_plan(network, seed)
        found = [need for name, need in adapters(network, plan, PART) if name in readers]
        counted += sum(need != Needs() for need in found)
        brought = Wiring(chain, links(network, chain)).brought(plan.stages)
        rows = [
            needs(step, stage, PART, pixels)
            for (step, stage), pixels in zip(plan.pairs(network), brought, strict=True)
        ]
        rows += [need for _, need in adapters(network, plan, PART)]
        assert total(network, plan, PART) == sum(rows, start=Needs())
        polish = Options.of(network, BOARDS["ulx3s-85f"]).polish
        assert polish.total(plan.stages) == total(network, plan, PART)
    assert counted


@pytest.mark.parametrize("kind", TWICE)
def test_line_buffers_at_an_input_that_is_read_twice(kind, any_plan):
    network = read_twice(kind)
    chain = steps(network)
    several = 0
    for seed in range(10):
        plan = any_plan(network, seed)
        brought = Wiring(chain, links(network, chain)).brought(plan.stages)
        nodes = {node.name: node.spec for node in pipeline(network, plan)}
        for step, pixels in zip(chain, brought, strict=True):
            if step.window:
                assert nodes[step.name].feed.source.pixels == pixels
                several += pixels != 1
    assert several or kind != "pixels, turned"


def test_an_adapter_can_need_a_cycle_more_than_its_beats():
    """Exactly as many as in the cycle model."""
    longer = 0
    for elements in range(1, 22):
        for lanes in range(1, elements + 1):
            for target in range(1, elements + 1):
                beats = max(-(-elements // lanes), -(-elements // target))
                found = period(elements, lanes, target)
                if lanes != target:
                    spec = WidthAdapterSpec(i=Beats(Fixed(4), elements, lanes), target=target)
                    model = Adapter(Track(spec.i.count), Track(spec.o.count), spec)
                    assert found == int(model.distance[1][-1, 0])
                assert beats <= found <= beats + 1
                longer += found > beats
    assert longer
    assert period(10, 2, 3) == 6


def assert_adapters(network, any_plan, seed):
    plan = any_plan(network, seed)
    found = {name for name, need in adapters(network, plan, PART) if need != Needs()} - {"gate"}
    engines = {stage.layer for stage in plan.stages}
    readers = {}
    for node in pipeline(network, plan):
        for port in node.sources:
            readers.setdefault(port.node, []).append(node)
    wanted = set()
    for node in pipeline(network, plan):
        if any(part in node.name for part in ("_pixels", "_width", "_full")):
            after = node
            while after.name not in engines:
                (after,) = readers[after.name]
            wanted.add(after.name)
    assert found == wanted


def test_the_total_has_everything(image_network, any_plan):
    network = image_network(True)
    plan = any_plan(network, 3)
    rows = [needs(step, stage, PART) for step, stage in plan.pairs(network)]
    alone = sum(rows, start=Needs())
    between = sum((need for _, need in adapters(network, plan, PART)), start=Needs())
    assert total(network, plan, PART).luts >= alone.luts + between.luts > alone.luts > 0


def test_no_adapter_costs_nothing():
    tensor = Tensor((8, 8, 12), Fixed(4))
    assert width_adapter(tensor, 3, 3) == repixel(PART, tensor, 3, 2, 2) == Needs()
    assert repixel(PART, tensor, 3, 2, 1).blocks >= 2
    assert width_adapter(tensor, 4, 6).luts > width_adapter(tensor, 4, 2).luts > 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("residual", [False, True])
def test_line_buffers_are_those_of_the_hardware(seed, residual, image_network, any_plan):
    assert_line_buffers(image_network(residual), any_plan, seed)


@pytest.mark.parametrize("seed", range(8))
def test_line_buffers_that_take_pixels_apart(seed, cnns, any_plan):
    assert_line_buffers(cnns["shuffled"](seed), any_plan, seed)


@pytest.mark.parametrize(
    ("size", "block", "tables"),
    [((16, 16), (2, 2), 0), ((32, 32), (4, 4), 2), ((32, 32), (2, 4), 0), ((4, 256), (2, 1), 2)],
)
def test_large_tables_are_in_block_ram(size, block, tables):
    """As the hardware has them, beside the lines."""
    x = Tensor((*size, 3 * block[0] * block[1]), Fixed(8))
    layer = DepthToSpace(name="apart", inputs=("input",), block=block)
    network = Network("apart", x, (layer,))
    (step,) = steps(network)
    stage = Stage(layer="apart", engine="shuffle", pe=3, simd=3, queue=9)
    plan = Plan(network="apart", board="ulx3s-85f", goal="hand", clock_hz=1, stages=(stage,))
    assert step.window
    buffer = LineBuffer.of(step, step.window, stage, 1)
    assert len(buffer.tables) == tables
    verilog = to_verilog(Accelerator(pipeline(network, plan)), "apart")
    assert verilog.count('ram_style = "block"') == buffer.banks + tables
    alone = replace(buffer, tables=()).needs(PART, "block").blocks
    assert buffer.needs(PART, "block").blocks >= alone + tables


def assert_line_buffers(network, any_plan, seed):
    plan = any_plan(network, seed)
    nodes = {node.name: node.spec for node in pipeline(network, plan)}
    for step, stage in plan.pairs(network):
        if step.window:
            name = f"{step.name}_sums" if f"{step.name}_sums" in nodes else step.name
            feed = nodes[name].feed
            lines = LineBuffer.of(step, step.window, stage, feed.source.pixels)
            assert lines.banks == feed.banks
            assert lines.words == feed.lines * feed.words
            assert lines.bits == feed.simd * feed.source.fmt.width
