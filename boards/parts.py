"""Parts and boards as data."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brambling.boards import catalogue
from brambling.boards.catalogue import Attributes, Constant, Link, Ref, Resource
from brambling.errors import ConfigError, FileProblem

__all__ = ["BOARDS", "PARTS", "SPRAM", "Board", "Part", "find_board", "nearest", "read_board"]

# Words by bits that one block can be read as, widest first.
DP16KD = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # ECP5, 18 kbit
EBR = ((256, 16), (512, 8), (1024, 4), (2048, 2))  # iCE40, 4 kbit
RAMB18 = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # 7 series
BSRAM = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # Gowin, 18 kbit
NOTHING = Attributes()
SPRAM = (16384, 16)  #: Words by bits of one large RAM of iCE40 UltraPlus.


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """An FPGA: what it has.

    Parameters
    ----------
    luts, lut_inputs
        Look-up tables, and inputs of each.
    blocks
        Block RAMs.
    geometries
        ``(words, bits)`` that one block can be read as.
    lut_ram
        Whether look-up tables can be small RAMs.
    dsps, multiplier
        Multipliers, and the widest signed factors of each, in bits.
    spram_bits
        Bits of large single-port RAM, beside the block RAMs, in blocks of :data:`SPRAM`.
    ffs
        Flip-flops.
    block_kind
        Name of the block RAM's cell.
    clock_hz
        Clock that designs for the bare part are planned for.
    nextpnr
        Arguments that choose this part, in a package that it comes in; empty: not built here.
    pins
        Of that package: clock, reset, data in, data out; empty where the tools choose themselves.
    """

    name: str
    family: str
    luts: int
    lut_inputs: int
    blocks: int
    geometries: tuple[tuple[int, int], ...]
    lut_ram: bool = True
    dsps: int = 0
    multiplier: tuple[int, int] = (18, 18)
    spram_bits: int = 0
    ffs: int = 0
    block_kind: str = ""
    clock_hz: int = 50_000_000
    nextpnr: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()

    @property
    def block_bits(self) -> int:
        """Bits of one block RAM."""
        return max(words * bits for words, bits in self.geometries)

    def blocks_for(self, words: int, bits: int) -> int:
        """Fewest block RAMs that hold ``words`` words of ``bits`` bits, all of one geometry."""
        return min(-(-words // deep) * -(-bits // wide) for deep, wide in self.geometries)

    @property
    def sprams(self) -> int:
        """Large RAMs of :data:`SPRAM` each."""
        return self.spram_bits // (SPRAM[0] * SPRAM[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A part on a board, or bare: then ``platform`` is ``None``, and pins do not matter.

    Parameters
    ----------
    clock_hz
        Clock that designs are planned for: one that generated designs are likely to reach. On the
        ECP5 boards SFC was placed and routed at 96 MHz with 1,064 synapses a clock, and slower the
        more of the part it fills.
    platform
        ``"module:class"`` of what knows its pins: of ``amaranth_boards``, or of
        ``amaranth.vendor`` with ``attributes`` for what a board adds to it.
    oscillator_hz
        Clock that comes in; a PLL makes the design's of it.
    clock
        Resource of that clock; ``None``: the platform's default.
    pll
        ``"core"``; on iCE40 ``"pad"`` where the clock comes in at the PLL's own pin; ``"none"``
        where the tools cannot use it: then the only clock is the oscillator's.
    nextpnr, pack, programmer
        Arguments: of place and route for device and package, of the bitstream packer beyond files,
        of openFPGALoader.
    led_pass, led_busy
        Lights, where there are such.
    resources
        Pins that the platform does not name.
    constants
        Outputs that must have a level.
    built_here
        Whether the open tools make its bitstream; else the vendor's must.
    """

    name: str
    part: Part
    clock_hz: int
    title: str = ""
    platform: str | None = None
    attributes: Attributes = NOTHING
    oscillator_hz: int = 0
    clock: Ref | None = None
    pll: str = "core"
    nextpnr: tuple[str, ...] = ()
    pack: tuple[str, ...] = ()
    programmer: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    led_pass: Ref | None = None
    led_busy: Ref | None = None
    resources: tuple[Resource, ...] = ()
    constants: tuple[Constant, ...] = ()
    built_here: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.clock_hz < 1:
            raise ConfigError(f"clock_hz must be at least 1, not {self.clock_hz}")
        if self.platform is not None and self.platform.count(":") != 1:
            raise ConfigError(f"platform must be MODULE:CLASS, not {self.platform!r}")
        if self.pll not in {"core", "pad", "none"}:
            raise ConfigError(f"pll must be one of core, pad, none, not {self.pll!r}")

    @classmethod
    def bare(cls, part: Part) -> Self:
        """Return a part alone: built into a harness of few pins, for its size and clock."""
        return cls(
            name=part.name,
            part=part,
            clock_hz=part.clock_hz,
            title=f"{part.name}, no board",
            nextpnr=part.nextpnr,
            built_here=bool(part.nextpnr),
        )

    def link(self, kind: str) -> Link:
        """Return the link of that kind; :class:`ConfigError` where there is none."""
        for link in self.links:
            if link.kind == kind:
                return link
        known = ", ".join(dict.fromkeys(link.kind for link in self.links)) or "none"
        raise ConfigError(
            f"{self.name}: link must be one that the board has ({known}), not {kind!r}; pins for "
            "another go into its file, see docs/boards.md"
        )


def _ecp5(name: str, size: str, luts: int, blocks: int, dsps: int) -> Part:
    return Part(
        name=name,
        family="ecp5",
        luts=luts,
        lut_inputs=4,
        ffs=luts,
        blocks=blocks,
        block_kind="DP16KD",
        geometries=DP16KD,
        dsps=dsps,
        nextpnr=(f"--{size}", "--package", "CABGA381", "--speed", "6"),
    )


def _ice40(
    name: str, device: str, luts: int, blocks: int, clock_hz: int, dsps: int = 0, sprams: int = 0
) -> Part:
    size, package = device.split(":")
    return Part(
        name=name,
        family="ice40",
        luts=luts,
        lut_inputs=4,
        ffs=luts,
        blocks=blocks,
        block_kind="SB_RAM40_4K",
        geometries=EBR,
        lut_ram=False,
        dsps=dsps,
        multiplier=(16, 16),
        spram_bits=sprams * SPRAM[0] * SPRAM[1],
        clock_hz=clock_hz,
        nextpnr=(f"--{size}", "--package", package),
    )


def _gowin(
    name: str, device: str, family: str, luts: int, ffs: int, blocks: int, dsps: int, pins: str
) -> Part:
    return Part(
        name=name,
        family="gowin",
        luts=luts,
        lut_inputs=4,
        ffs=ffs,
        blocks=blocks,
        block_kind="BSRAM",
        geometries=BSRAM,
        dsps=dsps,
        clock_hz=27_000_000,
        nextpnr=("--device", device, "--vopt", f"family={family}"),
        pins=tuple(pins.split()),
    )


def _xc7(name: str, luts: int, blocks: int, dsps: int) -> Part:
    return Part(
        name=name,
        family="xc7",
        luts=luts,
        lut_inputs=6,
        ffs=2 * luts,
        blocks=blocks,
        block_kind="RAMB18E1",
        geometries=RAMB18,
        dsps=dsps,
        multiplier=(25, 18),
        clock_hz=100_000_000,
    )


# Lattice FPGA-DS-02012 (ECP5), table 1.1; FPGA-DS-02008 (iCE40 UltraPlus) and FPGA-DS-02029 (iCE40
# LP/HX), table 1.1; Gowin DS117 (GW1NR) and DS102 (GW2A), the tables of the series, with 18 × 18
# multipliers counted, and as nextpnr counts them; Xilinx DS180, table 4 (7 series), and DS190
# (Zynq), table 1, in RAMB18.
PARTS = {
    part.name: part
    for part in (
        _ecp5("ecp5-25f", "25k", 24_288, 56, 28),
        _ecp5("ecp5-45f", "45k", 43_848, 108, 72),
        _ecp5("ecp5-85f", "85k", 83_640, 208, 156),
        _ice40("ice40-up5k", "up5k:sg48", 5_280, 30, 24_000_000, 8, 4),
        _ice40("ice40-hx8k", "hx8k:ct256", 7_680, 32, 48_000_000),
        _ice40("ice40-lp8k", "lp8k:cm81", 7_680, 32, 32_000_000),
        _gowin(
            "gw1nr-9c",
            "GW1NR-LV9QN88PC6/I5",
            "GW1N-9C",
            8_640,
            6_480,
            26,
            20,
            "52 3 18 17",
        ),
        _gowin(
            "gw2a-18c",
            "GW2A-LV18PG256C8/I7",
            "GW2A-18C",
            20_736,
            15_552,
            46,
            48,
            "H11 T10 T13 M11",
        ),
        _xc7("xc7a35t", 20_800, 100, 90),
        _xc7("xc7a100t", 63_400, 270, 240),
        _xc7("xc7z020", 53_200, 280, 220),
    )
}


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the names most like ``name``; all where none is."""
    known = list(known)
    return difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known


def find_part(name: Any) -> Part:
    """Return the part of that name; the error lists those with a similar name."""
    if not isinstance(name, str) or name not in PARTS:
        raise ConfigError(
            f"part must be one of {', '.join(nearest(str(name), PARTS))}, not {name!r}"
        )
    return PARTS[name]


def read_board(path: Path) -> Board:
    """Read a board's file, whose name is the board's; :class:`FileProblem` where it is wrong."""
    table = catalogue.read(path)
    try:
        part = find_part(table.pop("part", None))
        return catalogue.fill(Board, table, "board", name=path.stem, part=part)
    except ConfigError as error:
        raise FileProblem(f"{path}: {error}") from None


BOARDS = {board.name: board for board in map(read_board, sorted(catalogue.FOLDER.glob("*.toml")))}


def find_board(name: str) -> Board:
    """Return the board of that name, or the bare part; the error lists similar names."""
    if name in BOARDS:
        return BOARDS[name]
    if name in PARTS:
        return Board.bare(PARTS[name])
    near = nearest(name, (*BOARDS, *PARTS))
    raise ConfigError(f"board must be one of {', '.join(near)}, not {name!r}")
