"""The top of a design, in simulation: pins, reset, lights; and the harness of a bare part."""

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth.build.res import ResourceError
from amaranth.hdl import Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.pads import request, resource
from brambling.hw.pll import PllSpec
from brambling.hw.top import BoardTop, Harness, Pads
from brambling.hw.verilog import to_rtlil

LIGHTS = {"led_pass": Out(1), "led_busy": Out(1)}
DIRECT = PllSpec(family="ecp5", source_hz=25_000_000)


class Uart(wiring.Component):
    """Sends what it receives, inverted, one clock later; counts clocks since reset."""

    rx: Signal
    tx: Signal
    led_pass: Signal
    led_busy: Signal
    count: Signal

    def __init__(self) -> None:
        super().__init__({"rx": In(1), "tx": Out(1), **LIGHTS, "count": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.sync += [self.tx.eq(~self.rx), self.count.eq(self.count + 1)]
        m.d.comb += [self.led_pass.eq(1), self.led_busy.eq(self.count[0])]
        return m


class Spi(wiring.Component):
    """Sends what it receives, while it is selected."""

    sclk: Signal
    cs_n: Signal
    mosi: Signal
    miso: Signal
    led_pass: Signal
    led_busy: Signal

    def __init__(self) -> None:
        inputs = dict.fromkeys(("sclk", "cs_n", "mosi"), In(1))
        super().__init__({**inputs, "miso": Out(1), **LIGHTS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.miso.eq(self.mosi & ~self.cs_n),
            self.led_pass.eq(self.sclk),
            self.led_busy.eq(self.cs_n),
        ]
        return m


def one(direction, **options):
    return io.SimulationPort(direction, 1, **options)


@dataclass
class Bench:
    """A platform of ports that a test can see."""

    ports: dict[tuple[str, int], Any]
    constraints: dict[str, float] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def request(self, name: str, number: int, *, dir: str) -> Any:
        assert dir == "-"
        assert (name, number) not in self.asked
        self.asked.append((name, number))
        return self.ports[name, number]

    def add_clock_constraint(self, clock: Any, hz: float) -> None:
        self.constraints[clock.name] = hz


def bench(**more):
    ports = {
        "clk": one("i"),
        "uart": SimpleNamespace(rx=one("i"), tx=one("o")),
        "spi": SimpleNamespace(
            clk=one("i"), cs=one("i", invert=True), copi=one("i"), cipo=one("o")
        ),
        "led": SimpleNamespace(g=one("o", invert=True), r=one("o")),
        "tie": one("o"),
        "button": one("i", invert=True),
    }
    return Bench({(name, 0): port for name, port in (ports | more).items()})


def pads(link="uart", **more):
    found: dict[str, Any] = {
        "clock": ("clk", 0, None),
        "link": link,
        "link_at": (link, 0, None),
        "led_pass": ("led", 0, "g"),
        "led_busy": ("led", 0, "r"),
        "constants": [(("tie", 0, None), 1)],
    }
    return Pads(**(found | more))


def run(top, board, testbench):
    """Run a testbench whose clock is that of the pin."""
    simulator = Simulator(top.elaborate(board))
    clock = board.ports["clk", 0]

    async def step(ctx, clocks=1):
        for _ in range(clocks):
            ctx.set(clock.i, 1)
            await ctx.delay(5e-9)
            ctx.set(clock.i, 0)
            await ctx.delay(5e-9)

    async def wrapped(ctx):
        await ctx.delay(1e-9)
        await testbench(ctx, step)

    simulator.add_testbench(wrapped)
    simulator.run()


def test_uart_lights_and_levels():
    board, device = bench(), Uart()

    async def testbench(ctx, step):
        uart, led = board.ports["uart", 0], board.ports["led", 0]
        await step(ctx, 4)
        assert ctx.get(board.ports["tie", 0].o) == 1
        assert ctx.get(led.g.o) == 0  # Active low, and lit.
        for level in (1, 0, 0, 1, 0, 1):
            ctx.set(uart.rx.i, level)
            await step(ctx)
            assert ctx.get(uart.tx.o) == 1 - level
            assert ctx.get(led.r.o) == ctx.get(device.count) % 2

    run(BoardTop(device, pads(), DIRECT), board, testbench)
    assert sorted(board.asked) == [("clk", 0), ("led", 0), ("tie", 0), ("uart", 0)]
    assert board.constraints == {"design_clk": 25_000_000}


def test_spi_and_its_output_enable():
    board = bench()

    async def testbench(ctx, step):
        spi, led = board.ports["spi", 0], board.ports["led", 0]
        for select in (0, 1):
            for bit in (0, 1):
                ctx.set(spi.cs.i, 1 - select)  # The pin is active low.
                ctx.set(spi.copi.i, bit)
                ctx.set(spi.clk.i, bit)
                await ctx.delay(1e-9)
                assert ctx.get(spi.cipo.oe) == select
                assert ctx.get(spi.cipo.o) == (bit & select)
                assert ctx.get(led.r.o) == 1 - select
                assert ctx.get(led.g.o) == 1 - bit

    run(BoardTop(Spi(), pads("spi"), DIRECT), board, testbench)


def test_the_reset_is_released_on_a_clock_edge():
    board, device = bench(), Uart()

    async def testbench(ctx, step):
        counts = []
        for _ in range(6):
            await step(ctx)
            counts.append(ctx.get(device.count))
        assert counts == [0, 0, 1, 2, 3, 4]

    run(BoardTop(device, pads(), DIRECT), board, testbench)


def test_the_button_resets():
    board, device = bench(), Uart()

    async def testbench(ctx, step):
        button = board.ports["button", 0]
        ctx.set(button.i, 1)  # Active low: not pressed.
        await step(ctx, 10)
        assert ctx.get(device.count) == 8
        ctx.set(button.i, 0)
        await step(ctx, 3)
        assert ctx.get(device.count) == 0
        ctx.set(button.i, 1)
        await step(ctx, 5)
        assert ctx.get(device.count) == 3

    run(BoardTop(device, pads(reset=("button", 0, None)), DIRECT), board, testbench)


@dataclass
class FakePll:
    """A PLL whose lock the test decides."""

    lock: Signal
    family: str = "ice40"
    hz: Fraction = Fraction(25_000_000)
    is_direct: bool = False
    pads: list[Any] = field(default_factory=list)

    def build(self, pad: Any) -> wiring.Component:
        self.pads.append(pad)
        lock = self.lock

        class Hardware(wiring.Component):
            i: Signal
            o: Signal
            locked: Signal

            def __init__(self) -> None:
                super().__init__({"i": In(1), "o": Out(1), "locked": Out(1)})

            def elaborate(self, platform: Any) -> Module:
                m = Module()
                m.d.comb += [self.o.eq(self.i), self.locked.eq(lock)]
                return m

        return Hardware()


@pytest.mark.parametrize("settle", [0, 1, 5])
def test_the_reset_waits_for_the_lock_and_then_for_block_ram(settle):
    board, device, lock = bench(), Uart(), Signal()
    pll: Any = FakePll(lock)

    async def testbench(ctx, step):
        await step(ctx, 20)
        assert ctx.get(device.count) == 0
        ctx.set(lock, 1)
        waited = 0
        while ctx.get(device.count) == 0 and waited < 50:
            await step(ctx)
            waited += 1
        # Two in the synchroniser of the reset; two in that of the lock and one behind the count.
        assert waited == 3 + (settle + 3 if settle else 0)
        ctx.set(lock, 0)
        await step(ctx, 2)
        assert ctx.get(device.count) == 0

    run(BoardTop(device, pads(), pll, settle=settle), board, testbench)
    assert pll.pads == [None]
    assert board.constraints == {"design_clk": 25_000_000}


def test_a_clock_that_comes_in_at_the_plls_own_pin_has_no_buffer():
    pin = SimpleNamespace(io=object())
    board = bench(clk=pin)
    pll: Any = FakePll(Signal())
    BoardTop(Uart(), pads(), pll, pad=True).elaborate(board)
    assert pll.pads == [pin.io]


def test_a_signal_that_a_resource_lacks():
    top = BoardTop(Uart(), pads(led_pass=("led", 0, "b")), DIRECT)
    with pytest.raises(ConfigError, match=r"^resource led.0 has no signal 'b'$"):
        top.elaborate(bench())


class Refusing:
    def request(self, name: str, number: int, *, dir: str) -> Any:
        raise ResourceError(f"Resource {name}#{number} does not exist")


def test_a_resource_that_there_is_not():
    message = r"^Resource led#7 does not exist: give it other pins in the board's file$"
    with pytest.raises(ConfigError, match=message):
        request(Refusing(), [("led", 7)])


def test_resources_as_data():
    alone = resource("led", 3, [("io", "A1", "o", True)], attrs={"IO_TYPE": "LVCMOS33"})
    assert repr(alone) == "(resource led 3 (pins-n o A1) (attrs IO_TYPE='LVCMOS33'))"
    clock = resource("clk", 0, [("io", "P3", "i", False)], hz=25_000_000)
    assert repr(clock) == "(resource clk 0 (pins i P3) (clock 25000000.0))"
    both = resource(
        "uart", 0, [("rx", "1", "i", False), ("tx", "2", "o", False)], connector=("pmod", 1)
    )
    assert repr(both) == (
        "(resource uart 0 (subsignal rx (pins i pmod_1:1)) (subsignal tx (pins o pmod_1:2)))"
    )


# Harness ------------------------------------------------------------------------------------------


def test_a_harness_has_four_pins_and_keeps_the_accelerator(small_network, hand_plan):
    network = small_network((14, 8, 6), 2)
    harness = Harness(Accelerator(pipeline(network, hand_plan(network))))
    text = to_rtlil(harness, "top")
    module = text[text.index("module \\top\n") :].split("\nend\n")[0]
    ports = [
        line.split()[-1] for line in module.splitlines() if " input " in line or " output " in line
    ]
    assert sorted(ports) == ["\\clk", "\\i", "\\o", "\\rst"]


def test_what_a_harness_folds_depends_on_every_bit_of_a_result(small_network, hand_plan):
    """A frame shifted in comes out, folded; two that differ in their class differ there."""
    network = small_network((14, 8, 6), 2)
    spec = pipeline(network, hand_plan(network))
    harness = Harness(Accelerator(spec))
    simulator = Simulator(harness)
    simulator.add_clock(1e-6)
    seen = []

    async def testbench(ctx):
        state = 1
        for _ in range(3000):
            state = (state >> 1) ^ (0xB400 * (state & 1))
            ctx.set(harness.i, state & 1)
            await ctx.tick()
            seen.append(ctx.get(harness.o))

    simulator.add_testbench(testbench)
    simulator.run()
    assert {0, 1} == set(seen[1000:])
