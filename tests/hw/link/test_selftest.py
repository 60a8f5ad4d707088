"""Self-test: passes with the right accelerator, fails with another, before the link is served."""

from itertools import zip_longest

import numpy as np
import pytest
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.beat import Beats
from brambling.hw.link.selftest import SelfTest, Vectors
from brambling.protocol import Flag, Ident, Kind, Packet, Reason, bytes_of_frames
from brambling.quant.formats import Fixed
from brambling.sim import golden


def test_as_many_results_as_frames():
    some = np.zeros((2, 3), int)
    for frames, results, found in ((some, some[:1], "1 of 2"), (some[:0], some[:0], "0 of 0")):
        with pytest.raises(ConfigError) as caught:
            Vectors(frames, results)
        assert str(caught.value) == (
            f"a self-test has as many results as frames, and at least one, not {found}"
        )


def run(i, o, vectors, answers, flips=()):
    """Play an accelerator that gives ``answers``; return whether the test passed, twice."""
    dut = SelfTest(i, o, vectors)
    passed = []
    wanted = [int.from_bytes(row.tobytes(), "little") for row in i.pack(vectors.frames)]
    given = [int.from_bytes(row.tobytes(), "little") for row in o.pack(answers)]
    given = [beat ^ flip for beat, flip in zip_longest(given, flips, fillvalue=0)]

    async def accelerator(ctx):
        await ctx.tick().repeat(3)
        for _ in range(2):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for n, beat in enumerate(wanted):
                ctx.set(dut.frames.ready, 1)
                payload = dut.frames.payload.as_value()
                (got,) = await ctx.tick().sample(payload).until(dut.frames.valid)
                assert got == beat, n
                ctx.set(dut.frames.ready, 0)
                await ctx.tick().repeat(1 + n % 3)
            for n, beat in enumerate(given):
                ctx.set(dut.results.valid, 1)
                ctx.set(dut.results.payload.as_value(), beat)
                assert ctx.get(dut.busy)
                await ctx.tick().until(dut.results.ready)
                ctx.set(dut.results.valid, 0)
                await ctx.tick().repeat(1 + n % 4)
            await ctx.tick()
            assert not ctx.get(dut.busy)
            passed.append(bool(ctx.get(dut.passed)))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(accelerator)
    sim.run()
    return passed


INPUT, OUTPUT = Beats(Fixed(8, 0, False), 5, 2), Beats(Fixed(5, 0), 5, 3)
RNG = np.random.default_rng(1)
FRAMES, RESULTS = RNG.integers(0, 256, (3, 5)), RNG.integers(-16, 16, (3, 5))


def test_passes_when_all_results_are_right():
    assert run(INPUT, OUTPUT, Vectors(FRAMES, RESULTS), RESULTS) == [True, True]


@pytest.mark.parametrize("where", [0, 7, 14])
def test_fails_when_one_code_is_wrong(where):
    wrong = RESULTS.copy()
    wrong.flat[where] ^= 1
    assert run(INPUT, OUTPUT, Vectors(FRAMES, RESULTS), wrong) == [False, False]


def test_lanes_past_the_last_channel_carry_no_meaning():
    vectors = Vectors(FRAMES[:1], RESULTS[:1])
    idle = 1 << 5 * 3  # In a second beat of which only two lanes are used, the first of those not.
    assert run(INPUT, OUTPUT, vectors, RESULTS[:1]) == [True, True]
    assert run(INPUT, OUTPUT, vectors, RESULTS[:1], [0, idle >> 5]) == [True, True]
    assert run(INPUT, OUTPUT, vectors, RESULTS[:1], [0, idle >> 6]) == [False, False]
    assert run(INPUT, OUTPUT, vectors, RESULTS[:1], [idle >> 5, 0]) == [False, False]


def test_one_frame_of_one_beat_with_one_result():
    i, o = Beats(Fixed(8, 0, False), 1, 1), Beats(Fixed(4, 0, False), 1, 1)
    vectors = Vectors(np.array([[77]]), np.array([[5]]))
    assert run(i, o, vectors, np.array([[5]])) == [True, True]
    assert run(i, o, vectors, np.array([[4]])) == [False, False]


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_in_a_device(tiny, play_bytes, frames, right, small_network, hand_plan):
    network, _ = tiny()
    images, results = frames(network, 3)
    _, spec = tiny(selftest=Vectors(images, results), buffer=64)
    other = next(
        other
        for other in (small_network([5, 4, 3], seed) for seed in range(2, 99))
        if golden.run(other, images)["argmax"].tolist() != results[:, 0].tolist()
    )
    accelerator = Accelerator(spec.nodes if right else pipeline(other, hand_plan(other)))

    async def host(host):
        # What comes while it runs waits.
        reply = await host.ask(Kind.IDENT)
        flags = Flag.LOADED | Flag.HAS_SELFTEST | (Flag.PASSED if right else Flag(0))
        assert Ident.decode(reply.payload).flags == flags
        assert host.ctx.get(host.device.led_pass) == right
        assert (await host.ask(Kind.SELFTEST, sequence=4)) == Packet(
            Kind.SELFTEST | 0x80, 0x1234, 4, bytes([right])
        )
        payload = bytes_of_frames(spec.link.i, images[:1])[0]
        await host.send(Packet(Kind.FRAME, 0x1234, 5, payload).encode())
        refused = Packet(Kind.SELFTEST, 0x1234, 6)
        await host.send(refused.encode())
        assert host.ctx.get(host.device.led_busy)
        assert (await host.reply()).kind == Kind.FRAME | 0x80
        last = await host.reply()
        assert last in (refused.nak(Reason.CREDIT), refused.reply(bytes([right])))

    play_bytes(spec, host, accelerator)
