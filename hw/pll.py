"""Phase-locked loops: the clock of a design, made from the board's oscillator."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Self

from amaranth.hdl import Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError

__all__ = ["FAMILIES", "Limits", "Pll", "PllSpec"]

MHZ = 1_000_000
Span = tuple[int, int]  #: Least and most, Hz.
Dividers = tuple[int, int, Sequence[int]]


def span(least: float, most: float) -> Span:
    """Two numbers of MHz, in Hz."""
    return int(least * MHZ), int(most * MHZ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a PLL can do: its reference, multiplied in an oscillator, divided again.

    Parameters
    ----------
    source, compared, oscillator, output
        Ranges: of the clock that comes in, of what the phase detector sees, of the oscillator, of
        the clock that goes out.
    dividers
        Every ``(reference, multiplier, outputs)``: the oscillator has
        ``source / reference * multiplier``, the output that divided by one of ``outputs``.
    """

    primitive: str
    source: Span
    compared: Span
    oscillator: Span
    output: Span
    dividers: Callable[[], Iterator[Dividers]]


def _ecp5() -> Iterator[Dividers]:
    return product(range(1, 41), range(1, 81), [range(1, 129)])


def _ice40() -> Iterator[Dividers]:
    return product(range(1, 17), range(1, 129), [(2, 4, 8, 16, 32, 64)])


def _gowin() -> Iterator[Dividers]:
    # The feedback comes from behind the output's divider.
    outputs = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
    for reference, feedback, output in product(range(1, 65), range(1, 65), outputs):
        yield reference, feedback * output, (output,)


def _xc7() -> Iterator[Dividers]:
    return product(range(1, 57), range(2, 65), [range(1, 129)])


# The slowest speed grade that a board here has. Lattice FPGA-DS-02012, sysCLOCK PLL timing, and
# FPGA-TN-02200 (ECP5); FPGA-DS-02029, sysCLOCK PLL timing, and FPGA-TN-02052 (iCE40; UltraPlus has
# the same); Gowin DS117 and DS102, PLL parameters, and UG286 (rPLL); Xilinx DS181, PLL switching
# characteristics, speed grade -1, and UG472.
FAMILIES = {
    "ecp5": Limits(
        primitive="EHXPLLL",
        source=span(8, 400),
        compared=span(10, 400),
        oscillator=span(400, 800),
        output=span(3.125, 400),
        dividers=_ecp5,
    ),
    "ice40": Limits(
        primitive="SB_PLL40",
        source=span(10, 133),
        compared=span(10, 133),
        oscillator=span(533, 1066),
        output=span(16, 275),
        dividers=_ice40,
    ),
    "gw1nr-9c": Limits(
        primitive="rPLL",
        source=span(3, 400),
        compared=span(3, 400),
        oscillator=span(400, 1200),
        output=span(3.125, 600),
        dividers=_gowin,
    ),
    "gw2a-18c": Limits(
        primitive="rPLL",
        source=span(3, 500),
        compared=span(3, 500),
        oscillator=span(500, 1250),
        output=span(3.90625, 625),
        dividers=_gowin,
    ),
    "xc7": Limits(
        primitive="PLLE2_BASE",
        source=span(19, 800),
        compared=span(19, 450),
        oscillator=span(800, 1600),
        output=span(6.25, 800),
        dividers=_xc7,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PllSpec:
    """A PLL with its dividers; without one where ``reference`` is 0: the source is the clock.

    Parameters
    ----------
    family
        Key of :data:`FAMILIES`.
    source_hz
        Clock that comes in.
    reference, multiplier, output
        The oscillator runs at ``source_hz / reference * multiplier``, the clock that is made at
        that divided by ``output``.
    """

    family: str
    source_hz: int
    reference: int = 0
    multiplier: int = 1
    output: int = 1

    @property
    def is_direct(self) -> bool:
        """Whether there is no PLL."""
        return not self.reference

    @property
    def compared_hz(self) -> Fraction:
        """What the phase detector compares."""
        return Fraction(self.source_hz, max(1, self.reference))

    @property
    def oscillator_hz(self) -> Fraction:
        """The oscillator inside."""
        return self.compared_hz * self.multiplier

    @property
    def hz(self) -> Fraction:
        """The clock that is made, exactly."""
        return self.oscillator_hz / self.output

    @classmethod
    def choices(cls, family: str, source_hz: int, most_hz: int) -> Iterator[Self]:
        """Yield the source, and of each reference and multiplier the output next to ``most_hz``.

        None is faster than ``most_hz``.
        """
        if source_hz <= most_hz:
            yield cls(family=family, source_hz=source_hz)
        least, most = FAMILIES[family].output
        most = min(most_hz, most)
        for reference, multiplier, outputs in _oscillators(family, source_hz):
            inside = source_hz * multiplier
            output = next((n for n in outputs if inside <= most * reference * n), None)
            if output is not None and least * reference * output <= inside:
                yield cls(
                    family=family,
                    source_hz=source_hz,
                    reference=reference,
                    multiplier=multiplier,
                    output=output,
                )

    @classmethod
    def solve(cls, family: str, source_hz: int, wanted_hz: int) -> Self:
        """Return the fastest clock that is not faster than ``wanted_hz``.

        Of several ways to make it, none comes first, then the one whose phase detector is fastest,
        then the one whose oscillator is nearest to the middle of its range.

        Raises
        ------
        ConfigError
            Every clock that can be made is faster; the message names the slowest.
        """
        if family not in FAMILIES:
            raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
        if best := max(
            cls.choices(family, source_hz, wanted_hz), key=lambda spec: spec.rank, default=None
        ):
            return best
        raise ConfigError(
            f"the clock must be at least {_mhz(cls.slowest(family, source_hz))} MHz, the slowest "
            f"that {family} makes of {_mhz(source_hz)} MHz, not {_mhz(wanted_hz)} MHz: ask for a "
            "faster one"
        )

    @staticmethod
    def slowest(family: str, source_hz: int) -> Fraction:
        """Return the slowest clock that can be made."""
        least, _ = FAMILIES[family].output
        made = [
            Fraction(source_hz * multiplier, reference * output)
            for reference, multiplier, outputs in _oscillators(family, source_hz)
            for output in outputs
            if least * reference * output <= source_hz * multiplier
        ]
        return min([*made, Fraction(source_hz)])

    @property
    def rank(self) -> tuple[Any, ...]:
        """Larger is better."""
        least, most = FAMILIES[self.family].oscillator
        return (
            self.hz,
            self.is_direct,
            self.compared_hz,
            -abs(2 * self.oscillator_hz - least - most),
        )

    def build(self, pad: Any = None) -> "Pll":
        """Return the hardware; ``pad``: the pin whose own PLL it is (iCE40)."""
        return Pll(self, pad)


def _within(limits: Span, value: int, divider: int) -> bool:
    return limits[0] * divider <= value <= limits[1] * divider


def _oscillators(family: str, source_hz: int) -> Iterator[Dividers]:
    """Dividers of which reference and oscillator are in their ranges."""
    limits = FAMILIES[family]
    if not _within(limits.source, source_hz, 1):
        return
    for reference, multiplier, outputs in limits.dividers():
        # Integers: fractions for all of them would take seconds.
        if _within(limits.compared, source_hz, reference) and _within(
            limits.oscillator, source_hz * multiplier, reference
        ):
            yield reference, multiplier, outputs


def _mhz(hz: Fraction | int) -> str:
    return f"{float(hz) / MHZ:.6f}".rstrip("0").rstrip(".")


class Pll(wiring.Component):
    """Hardware of :class:`PllSpec`, which must have a PLL.

    Parameters
    ----------
    pad
        iCE40: the pin that the clock comes in at, where it is the PLL's own; ``i`` is then unused.

    Members
    -------
    i : ``In(1)``
        Clock of ``spec.source_hz``.
    o : ``Out(1)``
        Clock of ``spec.hz``.
    locked : ``Out(1)``
        ``o`` is what it should be; not synchronous to anything.
    """

    i: Signal
    o: Signal
    locked: Signal

    def __init__(self, spec: PllSpec, pad: Any = None) -> None:
        if spec.is_direct:
            raise ConfigError(f"{spec.source_hz} Hz is the source itself: there is no PLL to build")
        self.spec = spec
        self.pad = pad
        super().__init__({"i": In(1), "o": Out(1), "locked": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        build = {
            "EHXPLLL": self.ehxplll,
            "SB_PLL40": self.sb_pll40,
            "rPLL": self.rpll,
            "PLLE2_BASE": self.plle2,
        }[FAMILIES[self.spec.family].primitive]
        build(m)
        return m

    def ehxplll(self, m: Module) -> None:
        """ECP5: the feedback comes from CLKOP; the clock from CLKOS where its divider differs."""
        spec = self.spec
        feedback = ecp5_feedback(spec)
        first = Signal()
        second = first if feedback == spec.output else self.o
        if second is first:
            m.d.comb += self.o.eq(first)
        m.submodules.pll = Instance(
            "EHXPLLL",
            # The loop filter, as Lattice's tool sets it for any dividers.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            a_FREQUENCY_PIN_CLKI=_mhz(spec.source_hz),
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=spec.reference,
            p_CLKFB_DIV=spec.multiplier // feedback,
            **ecp5_output("CLKOP", feedback),
            **({} if second is first else ecp5_output("CLKOS", spec.output)),
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_CLKI=self.i,
            i_CLKFB=first,
            i_ENCLKOP=Const(0),
            i_ENCLKOS=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            i_PLLWAKESYNC=Const(0),
            o_CLKOP=first,
            **({} if second is first else {"o_CLKOS": second}),
            o_LOCK=self.locked,
        )

    def sb_pll40(self, m: Module) -> None:
        """iCE40: from the fabric, or from the PLL's own pin, which then has no other use."""
        spec = self.spec
        source = {"i_REFERENCECLK": self.i} if self.pad is None else {"i_PACKAGEPIN": self.pad}
        m.submodules.pll = Instance(
            "SB_PLL40_CORE" if self.pad is None else "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=Const(spec.reference - 1, 4),
            p_DIVF=Const(spec.multiplier - 1, 7),
            p_DIVQ=Const(spec.output.bit_length() - 1, 3),
            p_FILTER_RANGE=Const(ice40_filter(spec), 3),
            **source,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.o,
            o_LOCK=self.locked,
        )

    def rpll(self, m: Module) -> None:
        """Gowin."""
        spec = self.spec
        m.submodules.pll = Instance(
            "rPLL",
            p_FCLKIN=_mhz(spec.source_hz),
            p_DEVICE={"gw1nr-9c": "GW1NR-9C", "gw2a-18c": "GW2A-18C"}[spec.family],
            p_IDIV_SEL=spec.reference - 1,
            p_FBDIV_SEL=spec.multiplier // spec.output - 1,
            p_ODIV_SEL=spec.output,
            p_CLKFB_SEL="internal",
            p_DYN_IDIV_SEL="false",
            p_DYN_FBDIV_SEL="false",
            p_DYN_ODIV_SEL="false",
            p_DYN_DA_EN="false",
            p_PSDA_SEL="0000",
            p_DUTYDA_SEL="1000",
            i_CLKIN=self.i,
            i_CLKFB=Const(0),
            i_RESET=Const(0),
            i_RESET_P=Const(0),
            i_FBDSEL=Const(0, 6),
            i_IDSEL=Const(0, 6),
            i_ODSEL=Const(0, 6),
            i_PSDA=Const(0, 4),
            i_DUTYDA=Const(0, 4),
            i_FDLY=Const(0, 4),
            o_CLKOUT=self.o,
            o_LOCK=self.locked,
        )

    def plle2(self, m: Module) -> None:
        """7 series."""
        spec = self.spec
        feedback, made = Signal(), Signal()
        m.submodules.pll = Instance(
            "PLLE2_BASE",
            p_CLKIN1_PERIOD=1e9 / spec.source_hz,
            p_DIVCLK_DIVIDE=spec.reference,
            p_CLKFBOUT_MULT=spec.multiplier,
            p_CLKOUT0_DIVIDE=spec.output,
            i_CLKIN1=self.i,
            i_CLKFBIN=feedback,
            i_RST=Const(0),
            i_PWRDWN=Const(0),
            o_CLKFBOUT=feedback,
            o_CLKOUT0=made,
            o_LOCKED=self.locked,
        )
        m.submodules.buffer = Instance("BUFG", i_I=made, o_O=self.o)


def ecp5_feedback(spec: PllSpec) -> int:
    """Return the divider of CLKOP, which the feedback is taken from.

    It is the output's where that divides the multiplier, else the smallest that does and leaves
    CLKOP within its range.
    """
    if spec.multiplier % spec.output == 0:
        return spec.output
    limits = FAMILIES["ecp5"].output
    return next(
        divider
        for divider in range(1, spec.multiplier + 1)
        if not spec.multiplier % divider and spec.oscillator_hz <= limits[1] * divider
    )


def ecp5_output(name: str, divider: int) -> dict[str, Any]:
    """Parameters of one output, without a shift of its phase."""
    return {
        f"p_{name}_ENABLE": "ENABLED",
        f"p_{name}_DIV": divider,
        f"p_{name}_CPHASE": divider - 1,
        f"p_{name}_FPHASE": 0,
    }


def ice40_filter(spec: PllSpec) -> int:
    """Return FILTER_RANGE for the clock at the phase detector (as Lattice's tool chooses it)."""
    bounds = (17, 26, 44, 66, 101)
    return 1 + sum(spec.compared_hz >= bound * MHZ for bound in bounds)
