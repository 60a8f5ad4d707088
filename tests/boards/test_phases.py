"""What is read of the logs of Yosys and nextpnr; the lines are theirs."""

import pytest

from brambling.boards.phases import (
    Violations,
    nextpnr_phase,
    overflow,
    violations,
    yosys_phase,
)


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        (
            "2.4.1. Executing PROC_CLEAN pass (remove empty switches).",
            "2.4.1 PROC_CLEAN",
        ),
        ("1. Executing RTLIL frontend.", "1 RTLIL"),
        ("2.46.14.5. Executing ABC9.", "2.46.14.5 ABC9"),
        ("Found and reported 0 problems.", None),
        ("", None),
    ],
)
def test_passes_of_yosys(line, phase):
    assert yosys_phase(line) == phase


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("Info: Packing carries...", "packing"),
        ("Info: Pack IOBs...", "packing"),
        ("Info: Creating initial analytic placement for 47 cells, random wirelen = 5", "placing"),
        (
            "Info:     at iteration #11, type ALL: wirelen solved = 231, spread = 445",
            "placing, iteration 11",
        ),
        ("Info: Routing 25345 arcs.", "routing, 25,345 arcs"),
        (
            "Info:       1356 |       99        239 |   99   239 |     12030|       2.50",
            "routing, 12,030 arcs left",
        ),
        (
            "Info:     iter=7 wires=12 overused=1034 overuse=1100 archfail=NA",
            "routing, iteration 7, 1,034 wires used twice",
        ),
        ("Info: Critical path report for clock 'clk' (posedge -> posedge):", "timing"),
        ("Info: Checksum: 0x24282bd7", None),
    ],
)
def test_phases_of_nextpnr(line, phase):
    assert nextpnr_phase(line) == phase


USED = """
Info: Device utilisation:
Info: \t                 VCC:       1/      1   100%
Info: \t         ICESTORM_LC:    5900/   5280   111%
Info: \t        ICESTORM_RAM:      41/     30   136%
Info: \t          DUMMY_CELL:       4/      0     0%
"""


def test_what_does_not_fit_is_found():
    assert overflow(USED) == ("ICESTORM_RAM", 41, 30)
    assert overflow(USED.replace("41/", "30/").replace("5900/", "5280/")) is None


HOLDS = """
Info: Max frequency for clock 'clk': 191.17 MHz (PASS at 50.00 MHz)
Warning: Hold/min time violation for clock 'posedge clk':
Info:       type curr  total name
Info:   clk-to-q  0.20  0.20 Source a_DFFR_Q_6.Q
Info:    routing  0.17  0.37 Net a[1] (49,10) -> (49,9)
Info:                          Sink mem.0.0.ADB6
Info:       hold -0.12  0.25 Source mem.0.0.ADB6
Warning: Hold/min time violation for clock 'posedge clk':
Info:       hold -0.02 -0.11 Source b.D
"""


def test_hold_times_are_counted():
    assert violations("Info: Program finished normally.") == Violations()
    assert violations(HOLDS) == Violations(2, ("mem.0.0.ADB6", "b.D"))
    more = HOLDS + "Warning: 17 Hold/min time violations (showing 10 worst paths):\n"
    assert violations(more).count == 17


@pytest.mark.parametrize(
    ("found", "excused", "real"),
    [
        (Violations(), "ADB", 0),
        (Violations(2, ("m.ADB6", "b.D")), "ADB", 1),
        (Violations(2, ("m.ADB6", "b.D")), "", 2),
        (Violations(17, ("m.ADB6",) * 10), "ADB", 0),
        (Violations(3), "ADB", 3),
    ],
)
def test_some_hold_times_are_a_mistake(found, excused, real):
    assert found.real(excused) == real
