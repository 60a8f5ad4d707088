"""Parts and boards as data."""

import difflib
from dataclasses import dataclass

from brambling.errors import ConfigError

__all__ = ["BOARDS", "PARTS", "Board", "Part", "find_board"]

# Words by bits that one block can be read as, widest first.
DP16KD = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # ECP5, 18 kbit
EBR = ((256, 16), (512, 8), (1024, 4), (2048, 2))  # iCE40, 4 kbit
RAMB18 = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # 7 series


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
        Bits of large single-port RAM, beside the block RAMs; nothing is put there yet.
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

    def blocks_for(self, words: int, bits: int) -> int:
        """Fewest block RAMs that hold ``words`` words of ``bits`` bits, all of one geometry."""
        return min(-(-words // deep) * -(-bits // wide) for deep, wide in self.geometries)


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A part on a board.

    Parameters
    ----------
    clock_hz
        Clock that designs are planned for: one that generated designs are likely to reach. On the
        ECP5 boards SFC was placed and routed at 96 MHz with 1,064 synapses a clock, and slower the
        more of the part it fills.
    """

    name: str
    part: Part
    clock_hz: int


def _ecp5(name: str, luts: int, blocks: int, dsps: int) -> Part:
    return Part(
        name=name,
        family="ecp5",
        luts=luts,
        lut_inputs=4,
        blocks=blocks,
        geometries=DP16KD,
        dsps=dsps,
    )


def _ice40(name: str, luts: int, blocks: int, dsps: int = 0, spram_bits: int = 0) -> Part:
    return Part(
        name=name,
        family="ice40",
        luts=luts,
        lut_inputs=4,
        blocks=blocks,
        geometries=EBR,
        lut_ram=False,
        dsps=dsps,
        multiplier=(16, 16),
        spram_bits=spram_bits,
    )


# Lattice FPGA-DS-02012 (ECP5), table 1.1; FPGA-DS-02008 (iCE40 UltraPlus) and FPGA-DS-02029 (iCE40
# LP/HX), table 1.1; Xilinx DS180, table 4, in RAMB18.
PARTS = {
    part.name: part
    for part in (
        _ecp5("ecp5-25f", 24_288, 56, 28),
        _ecp5("ecp5-45f", 43_848, 108, 72),
        _ecp5("ecp5-85f", 83_640, 208, 156),
        _ice40("ice40-up5k", 5_280, 30, 8, 4 << 18),
        _ice40("ice40-hx8k", 7_680, 32),
        Part(
            name="xc7a35t",
            family="xc7",
            luts=20_800,
            lut_inputs=6,
            blocks=100,
            geometries=RAMB18,
            dsps=90,
            multiplier=(25, 18),
        ),
    )
}

BOARDS = {
    board.name: board
    for board in (
        Board(name="ulx3s-25f", part=PARTS["ecp5-25f"], clock_hz=50_000_000),
        Board(name="ulx3s-45f", part=PARTS["ecp5-45f"], clock_hz=50_000_000),
        Board(name="ulx3s-85f", part=PARTS["ecp5-85f"], clock_hz=50_000_000),
        Board(name="icebreaker", part=PARTS["ice40-up5k"], clock_hz=24_000_000),
        Board(name="ice40-hx8k-evn", part=PARTS["ice40-hx8k"], clock_hz=48_000_000),
        Board(name="arty-a7-35t", part=PARTS["xc7a35t"], clock_hz=100_000_000),
    )
}


def find_board(name: str) -> Board:
    """Return the board of that name; the error lists those with a similar name."""
    if name in BOARDS:
        return BOARDS[name]
    near = difflib.get_close_matches(name, BOARDS, n=3, cutoff=0.4) or list(BOARDS)
    raise ConfigError(f"board must be one of {', '.join(near)}, not {name!r}")
