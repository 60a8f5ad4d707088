"""Platforms and projects: every board's data agrees with its platform, and makes its files."""

import re
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.boards import platforms
from brambling.boards import project as project_module
from brambling.boards.catalogue import Link, Pin, Ref, Resource
from brambling.boards.parts import BOARDS, PARTS, find_board
from brambling.boards.project import pll_for, prepare
from brambling.errors import ConfigError
from brambling.hw.link.selftest import Vectors

pytest.importorskip("amaranth_boards")

SUFFIXES = {
    "ecp5": {"il", "lpf"},
    "ice40": {"il", "pcf"},
    "gowin": {"il", "cst", "sdc"},
    "xc7": {"v", "xdc", "tcl"},
}
BARE = {"ecp5": {"il"}, "ice40": {"il"}, "gowin": {"il", "cst", "sdc"}, "xc7": {"v", "xdc"}}


@pytest.fixture(scope="module")
def network(small_network):
    return small_network((6, 4, 3), 2, name="tiny")


class Device(wiring.Component):
    """As little as has the pins of a device: the real one takes a second to be made."""

    led_pass: Signal
    led_busy: Signal

    def __init__(self, link: str) -> None:
        self.inputs = ("rx",) if link == "uart" else ("sclk", "cs_n", "mosi")
        self.output = "tx" if link == "uart" else "miso"
        names = {name: In(1) for name in self.inputs} | {self.output: Out(1)}
        super().__init__({**names, "led_pass": Out(1), "led_busy": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal(3)
        m.d.sync += held.eq(Cat(getattr(self, name) for name in self.inputs))
        m.d.comb += [getattr(self, self.output).eq(held.xor()), self.led_pass.eq(held[0])]
        return m


class Spec:
    """Builds such a device in place of :class:`DeviceSpec`."""

    @classmethod
    def of(cls, network: Any, plan: Any, *, link: str, **options: Any) -> Any:
        return SimpleNamespace(build=lambda: Device(link))


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr(project_module, "DeviceSpec", Spec)


@pytest.fixture(scope="module")
def make(network, hand_plan):
    def run(board, clock_hz=None, **options):
        plan = replace(hand_plan(network), board=board.name, clock_hz=clock_hz or board.clock_hz)
        return prepare(network, plan, board, **options)

    return run


def pins_of(platform, ref):
    """Balls of a resource, or of one signal of it."""
    found = platform.lookup(ref.name, ref.number)
    if ref.signal is not None:
        (found,) = (part for part in found.ios if part.name == ref.signal)
    signals = [found] if hasattr(found.ios[0], "names") else found.ios
    return [
        name for signal in signals for name in signal.ios[0].map_names(platform._conn_pins, signal)
    ]


def device_of(platform):
    """Arguments of nextpnr, by the platform's own tables."""
    family = platform.toolchain
    if family == "Trellis":
        size = platform._nextpnr_device_options[platform.device]
        package = platform._nextpnr_package_options[platform.package].upper()
        return [size, "--package", package, "--speed", platform.speed]
    if family == "IceStorm":
        size = platform._nextpnr_device_options[platform.device]
        return [size, "--package", platform.package.lower()]
    if family == "Apicula":
        return ["--device", platform.part, "--vopt", f"family={platform._chipdb_device}"]
    return []


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_board_agrees_with_its_platform(board):
    platform = platforms.load(board)
    assert list(board.nextpnr) == device_of(platform)
    clock = board.clock or Ref(platform.default_clk, 0)
    assert platform.lookup(clock.name, clock.number).clock.frequency == board.oscillator_hz
    # Whatever a design may use is there, and no two of it share a pin.
    for link in board.links:
        used = [clock, link.resource, *(row.resource for row in board.constants)]
        used += [led for led in (board.led_pass, board.led_busy) if led]
        names = [name for ref in used for name in pins_of(platform, ref)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_is_that_of_a_board(part):
    """Every part is on a board here, in the package that it is built for bare, or nearly."""
    boards = [board for board in BOARDS.values() if board.part is part]
    assert boards
    if part.family != "xc7":
        assert part.nextpnr in {board.nextpnr for board in boards}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_project(board, make):
    check_project(board, make)


@pytest.mark.parametrize(
    "board",
    [
        pytest.param(
            board,
            marks=[] if board.name in {"ulx3s-85f", "tang-nano-9k"} else pytest.mark.slow,
            id=name,
        )
        for name, board in BOARDS.items()
    ],
)
def test_project_of_a_real_device(board, make):
    check_project(board, make)


def check_project(board, make):
    project = make(board)
    assert (project.name, project.board, project.part) == ("tiny", board, board.part)
    assert (project.link, project.baud) == ("uart", board.link("uart").baud)
    wanted = SUFFIXES[board.part.family]
    assert set(project.files) == {f"tiny.{suffix}" for suffix in wanted}
    assert project.clocks == {"design_clk": Fraction(board.clock_hz)}
    assert project.clock_hz == board.clock_hz
    assert project.pll is not None
    assert project.pll.is_direct == (board.clock_hz == board.oscillator_hz)
    assert (project.device, project.packing) == (board.nextpnr, board.pack)
    named = [f"tiny.{suffix}" for suffix in sorted(wanted & {"lpf", "pcf", "cst", "sdc"})]
    assert [word.removeprefix("cst=") for word in project.constraints if "." in word] == named
    check_pins(project, platforms.load(board), board.link("uart"))


def check_pins(project, platform, link):
    """The link's pins are in the constraints, each at its place."""
    suffix = {"ecp5": "lpf", "ice40": "pcf", "gowin": "cst", "xc7": "xdc"}[project.part.family]
    text = project.files[f"tiny.{suffix}"]
    pattern = {
        "lpf": r'LOCATE COMP "(?P<port>\w+)" SITE "(?P<pin>\w+)"',
        "pcf": r"set_io (?P<port>\w+) (?P<pin>\w+)",
        "cst": r'IO_LOC "(?P<port>\w+)" (?P<pin>\w+);',
        "xdc": r'set_property LOC (?P<pin>\w+) \[get_ports "(?P<port>\w+)"\]',
    }[suffix]
    placed = {found["port"]: found["pin"] for found in re.finditer(pattern, text)}
    ref = link.resource
    for signal in ("rx", "tx"):
        (pin,) = pins_of(platform, Ref(ref.name, ref.number, signal))
        assert placed[f"{ref.name}_{ref.number}__{signal}__io"] == pin


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("name", [b.name for b in BOARDS.values() if len(b.links) > 1])
def test_spi(name, make):
    project = make(find_board(name), link="spi")
    assert project.link == "spi"
    text = "".join(
        str(project.files[path]) for path in project.files if path[-3:] in {"lpf", "pcf"}
    )
    for signal in ("clk", "cs", "copi", "cipo") if text else ():
        assert f"link_spi_0__{signal}__io" in text


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_bare_part(part, make):
    project = make(find_board(part.name))
    assert set(project.files) == {f"tiny.{suffix}" for suffix in BARE[part.family]}
    assert (project.link, project.pll, project.baud) == (None, None, 0)
    assert project.clocks == {"clk": part.clock_hz}
    assert project.device == part.nextpnr
    if part.family == "gowin":
        rows = [line.split() for line in project.files["tiny.cst"].splitlines()]
        assert [row[1] for row in rows] == ['"clk"', '"rst"', '"i"', '"o"']
        assert len({row[2] for row in rows}) == 4


@pytest.mark.usefixtures("light")
def test_the_clock_is_the_next_that_can_be_made(make):
    board = find_board("ulx3s-85f")
    project = make(board, 68_000_000)
    assert project.clocks["design_clk"] == Fraction(475_000_000, 7)
    assert project.clock_hz == 67_857_142
    assert pll_for(board, 68_000_000) == project.pll
    assert 'FREQUENCY NET "design_clk" 67857142.857' in project.files["tiny.lpf"]


@pytest.mark.usefixtures("light")
def test_the_gowin_clock_is_constrained(make):
    project = make(find_board("tang-nano-9k"), 50_000_000)
    assert project.clocks["design_clk"] == 49_500_000
    assert (
        project.files["tiny.sdc"]
        == "create_clock -name design_clk -period 20.202020 [get_nets {design_clk}]\n"
    )


def test_a_project_is_reproducible(make):
    board = find_board("icebreaker")
    assert make(board).files == make(board).files


def test_a_selftest_is_built_in(make):
    vectors = Vectors(np.zeros((1, 6), np.int64), np.zeros((1, 1), np.int64))
    board = find_board("icebreaker")
    assert make(board, selftest=vectors).files != make(board).files


# What is refused ----------------------------------------------------------------------------------


def refused(board, make, **options):
    with pytest.raises(ConfigError) as error:
        make(board, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_board_without_the_link(make):
    assert refused(find_board("colorlight-i5"), make, link="spi") == (
        "colorlight-i5: link must be one that the board has (uart), not 'spi'; pins for another go "
        "into its file, see docs/boards.md"
    )


def test_a_clock_that_cannot_be_made(make):
    assert refused(find_board("icebreaker"), make, clock_hz=1_000_000) == (
        "icebreaker: the clock must be at least 12 MHz, the slowest that ice40 makes of 12 MHz, "
        "not 1 MHz: ask for a faster one"
    )


@pytest.mark.usefixtures("light")
def test_a_board_whose_pll_is_not_used(make):
    board = find_board("tang-primer-20k")
    project = make(board, 54_000_000)
    assert (project.clock_hz, project.clocks) == (27_000_000, {"design_clk": 27_000_000})
    assert refused(board, make, clock_hz=20_000_000) == (
        "tang-primer-20k: the clock must be at least 27 MHz, its oscillator's, for its PLL is not "
        "used, not 20 MHz: ask for that"
    )


def test_a_rate_that_cannot_be_made(make):
    assert refused(find_board("icebreaker"), make, baud=11_000_000) == (
        "baud must be 1 to 6000000 with a clock of 24000000 Hz, not 11000000"
    )


def taking(board, pin):
    """The board with its link at a resource of its own, whose rx is at ``pin``."""
    rx, tx = Pin(signal="rx", pin=pin, dir="i"), Pin(signal="tx", pin="45", dir="o")
    more = Resource(name="mine", number=0, pins=(rx, tx))
    link = Link(kind="uart", resource=Ref("mine", 0), baud=115_200, wiring="")
    return replace(board, links=(link,), resources=(*board.resources, more))


@pytest.mark.usefixtures("light")
def test_pins_taken_twice(make):
    board = find_board("icebreaker")
    assert make(taking(board, "46")).link == "uart"
    assert refused(taking(board, "37"), make) == (
        "icebreaker: Resource component led_g_0 uses physical pin 37, but it is already used by "
        "resource component mine_0.rx that was requested earlier: give it other pins in the "
        "board's file"
    )


@pytest.mark.usefixtures("light")
def test_a_resource_that_is_not_there(make):
    board = replace(find_board("icebreaker"), led_pass=Ref("lamp", 3))
    assert refused(board, make) == (
        "icebreaker: Resource lamp#3 does not exist: give it other pins in the board's file"
    )


@pytest.mark.usefixtures("light")
def test_a_resource_that_is_there_twice(make):
    board = find_board("icebreaker")
    row = Resource(name="uart", number=0, pins=(Pin(signal="io", pin="2", dir="i"),))
    message = refused(replace(board, resources=(row,)), make)
    assert re.fullmatch(r"icebreaker: Trying to add .* has the same name and number", message)


@pytest.mark.usefixtures("light")
def test_a_pin_of_a_connector_that_is_not_there(make):
    board = find_board("icebreaker")
    pin = Pin(signal="io", pin="5", dir="o")
    row = Resource(name="lamp", number=0, pins=(pin,), connector=Ref("pmod", 9))
    board = replace(board, resources=(*board.resources, row), led_busy=Ref("lamp", 0))
    assert re.fullmatch(
        r"icebreaker: Resource .* refers to nonexistent connector pin pmod_9:5: give it other pins "
        r"in the board's file",
        refused(board, make),
    )


@pytest.mark.usefixtures("light")
def test_the_package_of_boards_is_missing(make, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "amaranth_boards"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "amaranth_boards", None)
    assert refused(find_board("icebreaker"), make) == (
        "icebreaker: its pins are in the package amaranth-boards, which is not installed or too "
        "old: pip install 'brambling[build]'"
    )


@pytest.mark.usefixtures("light")
def test_the_package_of_boards_is_too_old(make):
    board = replace(find_board("icebreaker"), platform="amaranth_boards.icebreaker:NoPlatform")
    assert refused(board, make) == (
        "icebreaker: amaranth_boards.icebreaker has no NoPlatform: pip install --upgrade "
        "amaranth-boards"
    )
    board = replace(find_board("icebreaker"), platform="amaranth_boards.nothing:NoPlatform")
    assert "which is not installed or too old" in refused(board, make)


def test_a_part_has_no_platform():
    message = r"^ecp5-25f is a part, not a board: it has no pins$"
    with pytest.raises(ConfigError, match=message):
        platforms.load(find_board("ecp5-25f"))
