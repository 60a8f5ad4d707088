"""Clocks that are estimated, beside those of place and route."""

import json
import runpy
from pathlib import Path

import pytest

from brambling import api, zoo
from brambling.boards.clock import CLOCK_ERROR, LUT_ERROR, fmax, summary
from brambling.boards.parts import PARTS, find_board
from brambling.boards.wiring import total
from brambling.plan import Plan

BENCH = Path(__file__).parents[2] / "bench"
ROWS = [
    row
    for row in json.loads((BENCH / "results" / "designs.json").read_text(encoding="utf-8"))["rows"]
    if row.get("runs")
]


def named(row):
    return " ".join(filter(None, (row["network"], row["part"], row["goal"], row["style"])))


@pytest.fixture(scope="module")
def ratio():
    """Return what says how many times the clock of a row its estimate is."""
    network_of = runpy.run_path(str(BENCH / "samples.py"))["network_of"]

    def made(row) -> float:
        plan, part = Plan.from_toml(row["plan"]), PARTS[row["part"]]
        found = fmax(network_of(row["network"]), plan, part)
        assert found is not None
        assert found.error == CLOCK_ERROR[part.family]
        return found.hz / max(run["mhz"] * 1e6 for run in row["runs"])

    return made


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_clocks_are_within_the_error_that_is_printed(row, ratio):
    assert abs(ratio(row) - 1) <= CLOCK_ERROR[PARTS[row["part"]].family] <= 0.2


def test_some_were_not_fitted_to():
    assert {row["part"] for row in ROWS if row["check"]} >= {"ecp5-25f", "ice40-up5k"}


def test_where_nothing_was_measured_there_is_no_clock():
    network = zoo.load("tfc-w1a1")
    plan = api.plan(network, "arty-a7-35t", "min-area")
    part = find_board("arty-a7-35t").part
    assert fmax(network, plan, part) is None
    need = total(network, plan, part)
    assert summary(network, plan, part) == (
        f"{need.luts:,} LUTs, error not measured, {need.blocks} block RAMs, 0 multipliers, "
        "clock not estimated"
    )


def test_a_summary_has_the_errors_of_all_estimates():
    network = zoo.load("tfc-w1a1")
    plan = api.plan(network, "ulx3s-85f", "min-area")
    part = find_board("ulx3s-85f").part
    need, clock = total(network, plan, part), fmax(network, plan, part)
    assert clock is not None
    assert summary(network, plan, part) == (
        f"{need.luts:,} LUTs ± {LUT_ERROR['ecp5']:.0%}, {need.blocks} block RAMs, 0 multipliers, "
        f"{clock.hz / 1e6:.0f} MHz ± {CLOCK_ERROR['ecp5']:.0%}"
    )
