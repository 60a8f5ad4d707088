"""Projects: all that the tools need to build a design for a board or a bare part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from brambling.boards import platforms
from brambling.boards.catalogue import Ref
from brambling.boards.parts import Board, Part
from brambling.boards.spram import check
from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.link.device import DeviceSpec
from brambling.hw.link.selftest import Vectors
from brambling.hw.pll import FAMILIES, PllSpec
from brambling.hw.top import CLOCK, BoardTop, Harness, Pads
from brambling.hw.verilog import module_name, to_rtlil, to_verilog, unfilled, wide_integers
from brambling.network import Network
from brambling.plan import Plan

__all__ = ["Project", "pll_for", "prepare"]

#: Seconds after configuration in which iCE40 block RAMs read as zeros: 3 µs, with a margin of 5.
SETTLE = Fraction(15, 1_000_000)

#: Files that Amaranth's platforms make and that are needed; the rest are scripts for a shell.
WANTED = (".il", ".lpf", ".pcf", ".cst", ".xdc", ".tcl", ".v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A design, ready for the tools.

    Parameters
    ----------
    name
        Name of the top module, and the stem of its files.
    files
        By relative name: ``NAME.il`` and constraints; for Vivado ``NAME.v``, ``NAME.xdc`` and
        ``NAME.tcl``.
    link
        ``"uart"``, ``"spi"``, or ``None`` for a bare part.
    baud
        Bits a second of the link; 0 without one.
    clock_hz
        The accelerator's clock, rounded down.
    clocks
        Every clock net of the top module, exactly.
    device, constraints, packing
        Arguments: of nextpnr for device and package; of nextpnr for files of constraints; of the
        bitstream packer.
    """

    name: str
    board: Board
    files: Mapping[str, str | bytes]
    link: str | None
    baud: int
    pll: PllSpec | None
    clock_hz: int
    clocks: Mapping[str, Fraction]
    device: tuple[str, ...]
    constraints: tuple[str, ...]
    packing: tuple[str, ...]

    @property
    def part(self) -> Part:
        """The part."""
        return self.board.part


def pll_for(board: Board, clock_hz: int) -> PllSpec:
    """Return how ``board`` makes the fastest clock that is not faster than ``clock_hz``."""
    part = board.part
    family = part.name if part.name in FAMILIES else part.family
    if board.pll == "none":
        if clock_hz < board.oscillator_hz:
            raise ConfigError(
                f"{board.name}: the clock must be at least {board.oscillator_hz / 1e6:g} MHz, its "
                f"oscillator's, for its PLL is not used, not {clock_hz / 1e6:g} MHz: ask for that"
            )
        return PllSpec(family=family, source_hz=board.oscillator_hz)
    try:
        return PllSpec.solve(family, board.oscillator_hz, clock_hz)
    except ConfigError as error:
        raise ConfigError(f"{board.name}: {error}") from None


def prepare(
    network: Network,
    plan: Plan,
    board: Board,
    *,
    link: str = "uart",
    baud: int | None = None,
    selftest: Vectors | None = None,
    interval: int = 0,
) -> Project:
    """Make the files of a design: the accelerator as planned, a link, clock and pins.

    No tool is run, and none needs to be there, but for 7-series parts, whose Verilog needs Yosys
    as :func:`brambling.hw.verilog.to_verilog` does.

    Parameters
    ----------
    plan
        Its clock is the fastest that is wanted; the next one that the PLL can make is taken.
    board
        A bare part gets a harness instead of a link: see :class:`brambling.hw.top.Harness`.
    link
        ``"uart"`` or ``"spi"``.
    baud
        Bits a second of a UART; the board's where ``None``.
    selftest
        Frames and results that the design tries by itself at power-up.
    interval
        Cycles for which the accelerator may take no byte, at most those from one frame to the next:
        what comes meanwhile over the link has a place in a buffer.

    Raises
    ------
    ConfigError
        The board has no such link, its clock cannot be made, its pins are taken twice, or its
        package is not installed.
    """
    check(plan, board)
    if board.platform is None:
        return _bare(network, plan, board)
    way = board.link(link)
    pll = pll_for(board, plan.clock_hz)
    clock_hz = math.floor(pll.hz)
    rate = way.baud if baud is None else baud
    options = {"baud": rate} if link == "uart" else {}
    options |= {"clock_hz": clock_hz, "selftest": selftest, "interval": interval}
    spec = DeviceSpec.of(network, plan, link=link, **options)
    platform = platforms.load(board)
    top = BoardTop(
        spec.build(),
        _pads(board, platform, link),
        pll,
        pad=board.pll == "pad",
        settle=math.ceil(SETTLE * pll.hz) if board.part.family == "ice40" else 0,
    )
    name = module_name(network.name)
    files = _files(board, platform, top, name)
    files |= _gowin_clocks(board, name, pll)
    return Project(
        name=name,
        board=board,
        files=files,
        link=link,
        baud=rate,
        pll=pll,
        clock_hz=clock_hz,
        clocks={CLOCK: pll.hz},
        device=board.nextpnr,
        constraints=_constraints(board.part, files, name),
        packing=board.pack,
    )


def _pads(board: Board, platform: Any, link: str) -> Pads:
    def name(ref: Ref | None) -> Any:
        return None if ref is None else (ref.name, ref.number, ref.signal)

    reset = platform.default_rst
    return Pads(
        clock=name(board.clock or Ref(platform.default_clk, 0)),
        reset=None if reset is None else (reset, 0, None),
        link=link,
        link_at=name(board.link(link).resource),
        led_pass=name(board.led_pass),
        led_busy=name(board.led_busy),
        constants=[(name(row.resource), row.value) for row in board.constants],
    )


def _files(board: Board, platform: Any, top: BoardTop, name: str) -> dict[str, str | bytes]:
    """Return what the platform writes of the design, without scripts and debugging."""
    try:
        with wide_integers():
            made = platform.prepare(top, name, emit_src=False, debug_verilog=False)
    except ConfigError as error:
        raise ConfigError(f"{board.name}: {error}") from None
    return {
        path: unfilled(contents) if path.endswith(".il") else contents
        for path, contents in made.files.items()
        if path.endswith(WANTED) and not path.endswith(".debug.v")
    }


# Constraints --------------------------------------------------------------------------------------


def _constraints(part: Part, files: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Arguments of nextpnr that name the files of constraints."""
    options = {
        "lpf": ("--lpf", f"{name}.lpf"),
        "pcf": ("--pcf", f"{name}.pcf"),
        "cst": ("--vopt", f"cst={name}.cst"),
        "sdc": ("--sdc", f"{name}.sdc"),
    }
    found = [words for suffix, words in options.items() if f"{name}.{suffix}" in files]
    return tuple(word for words in found for word in words)


def _gowin_clocks(board: Board, name: str, pll: PllSpec) -> dict[str, str]:
    """Amaranth's platform has no constraints of clocks for nextpnr: write them."""
    if board.part.family != "gowin":
        return {}
    period = float(1_000_000_000 / pll.hz)
    line = f"create_clock -name {CLOCK} -period {period:.6f} [get_nets {{{CLOCK}}}]\n"
    return {f"{name}.sdc": line}


# Bare parts ---------------------------------------------------------------------------------------


def _bare(network: Network, plan: Plan, board: Board) -> Project:
    """Make the files of a design without a board."""
    name, part = module_name(network.name), board.part
    top = Harness(Accelerator(pipeline(network, plan), load=True))
    files: dict[str, str | bytes]
    if part.family == "xc7":
        files = {f"{name}.v": to_verilog(top, name)}
    else:
        files = {f"{name}.il": to_rtlil(top, name)}
    files |= _bare_constraints(part, name, plan.clock_hz)
    return Project(
        name=name,
        board=board,
        files=files,
        link=None,
        baud=0,
        pll=None,
        clock_hz=plan.clock_hz,
        clocks={"clk": Fraction(plan.clock_hz)},
        device=board.nextpnr,
        constraints=_constraints(part, files, name),
        packing=board.pack,
    )


def _bare_constraints(part: Part, name: str, clock_hz: int) -> dict[str, str | bytes]:
    """Return the clock, and for Gowin pins, without which nextpnr does not begin.

    For ECP5 and iCE40 nextpnr chooses pins, and has the clock from its argument ``--freq``.
    """
    if part.family not in {"gowin", "xc7"}:
        return {}
    clock = f"create_clock -name clk -period {1e9 / clock_hz:.6f} [get_ports {{clk}}]\n"
    if part.family == "xc7":
        return {f"{name}.xdc": clock}
    places = zip(("clk", "rst", "i", "o"), part.pins, strict=True)
    return {
        f"{name}.cst": "".join(f'IO_LOC "{port}" {pin};\n' for port, pin in places),
        f"{name}.sdc": clock,
    }
