"""Estimates of whole designs, beside what Yosys and nextpnr made of them."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from brambling.boards.clock import LUT_ERROR
from brambling.boards.memories import Needs, blocks, lut_ram, lut_rom
from brambling.boards.parts import PARTS
from brambling.boards.resources import seen_bits
from brambling.boards.wiring import total
from brambling.layers import Dense, Requantise, Tensor, Thresholds
from brambling.network import Network
from brambling.plan import Plan
from brambling.quant.formats import Bipolar, Fixed
from brambling.steps import steps

BENCH = Path(__file__).parents[2] / "bench"
EVERY = json.loads((BENCH / "results" / "designs.json").read_text(encoding="utf-8"))["rows"]
ROWS = [row for row in EVERY if "luts" in row]
IN_PARTS = [row for row in EVERY if "components" in row and row["part"].startswith("ecp5")]
ECP5, UP5K = PARTS["ecp5-85f"], PARTS["ice40-up5k"]


def named(row):
    return " ".join(filter(None, (row["network"], row["part"], row["goal"], row["style"])))


def family(row):
    return PARTS[row["part"]].family


@pytest.fixture(scope="module")
def estimate():
    """Return what makes an estimate of a row."""
    network_of = runpy.run_path(str(BENCH / "samples.py"))["network_of"]

    def made(row) -> Needs:
        return total(network_of(row["network"]), Plan.from_toml(row["plan"]), PARTS[row["part"]])

    return made


def taken(row):
    """LUTs after synthesis; logic cells after packing where a lone flip-flop takes one, too."""
    if family(row) != "ice40":
        return row["luts"]
    if not row.get("runs"):
        return None
    return row["runs"][0]["used"]["ICESTORM_LC"] - row["harness"]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_block_rams_and_multipliers_are_those_of_synthesis(row, estimate):
    need = estimate(row)
    assert (need.blocks, need.dsps) == (row["blocks"], row["dsps"])
    assert need.sprams == row["cells"].get("SB_SPRAM256KA", 0)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_luts_are_within_the_error_that_is_printed(row, estimate):
    if (found := taken(row)) is None:
        pytest.skip("not packed: logic cells are not known")
    assert abs(estimate(row).luts / found - 1) <= LUT_ERROR[family(row)] <= 0.15


def test_the_error_that_is_printed_is_no_larger_than_seen(estimate):
    seen: dict[str, float] = {}
    for row in ROWS:
        if found := taken(row):
            error = abs(estimate(row).luts / found - 1)
            seen[family(row)] = max(seen.get(family(row), 0), error)
    assert set(seen) == set(LUT_ERROR)
    for name, error in seen.items():
        assert LUT_ERROR[name] - 0.01 < error <= LUT_ERROR[name], name


@pytest.mark.parametrize("row", IN_PARTS, ids=named)
def test_luts_of_the_parts_add_up(row, estimate):
    """Nothing merged across the borders of the parts, which makes a design a little larger."""
    found = sum(part["luts"] for part in row["components"].values())
    assert abs(estimate(row).luts / found - 1) < 0.05


def test_there_are_designs_that_nothing_was_fitted_to():
    checks = [row for row in ROWS if row["check"]]
    assert len(checks) >= 4
    assert not {row["network"] for row in checks} & {
        row["network"] for row in ROWS if not row["check"]
    }


# Rules -------------------------------------------------------------------------------------------


def test_yosys_takes_a_block_more_where_that_spares_a_multiplexer():
    assert ECP5.blocks_for(7424, 36) == 15
    assert blocks(ECP5, 7424, 36) == 16
    assert blocks(ECP5, 4032, 152) == 34


def test_yosys_fills_the_ninth_bits_of_blocks_that_are_only_read():
    assert ECP5.blocks_for(48_000, 4) == blocks(ECP5, 48_000, 4, written=True) == 12
    assert blocks(ECP5, 48_000, 4) == 11  # 24 pieces of 2,048 words are 96 bits.
    assert blocks(ECP5, 512, 36) == blocks(UP5K, 256, 16) == 1


def test_columns_of_a_few_words_are_shared():
    assert lut_rom(ECP5, 9, 4096) < 600
    assert lut_rom(ECP5, 9, 8) == 10


def test_lut_ram_is_a_row_of_four_bits_at_a_time():
    assert lut_ram(ECP5, 16, 1) == lut_ram(ECP5, 16, 4) == 4
    assert lut_ram(ECP5, 16, 5) == 8
    assert lut_ram(ECP5, 17, 4) > 8


def first_step(*layers):
    return steps(Network("n", Tensor((8,), Fixed(8, 0, signed=False)), layers))[0]


@pytest.mark.parametrize(
    ("levels", "falling", "bits"),
    [([[128]], False, 1), ([[64]], False, 2), ([[127]], True, 1), ([[127]], False, 8)],
)
def test_comparing_with_a_power_of_two_looks_at_few_bits(levels, falling, bits):
    layer = Thresholds(
        name="a",
        inputs=("input",),
        levels=np.array(levels),
        falling=np.array([falling]),
        fmt=Bipolar(),
    )
    assert seen_bits(first_step(layer)) == bits


def test_other_engines_look_at_every_bit():
    one, none = np.ones(1, int), np.zeros(1, int)
    scale = Requantise(
        name="a", inputs=("input",), fmt=Fixed(4), multiplier=one, bias=none, shift=4
    )  # fmt: skip
    dense = Dense(name="a", inputs=("input",), weights=np.ones((1, 8), int), fmt=Fixed(2))
    assert seen_bits(first_step(scale)) == seen_bits(first_step(dense)) == 8
