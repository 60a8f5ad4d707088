"""The verb ``boards``: what it lists, and what it finds to fit."""

import argparse
import json

import pytest

from brambling import api, verbs_boards
from brambling.boards.parts import BOARDS, PARTS
from brambling.errors import DoesNotFit
from brambling.verbs_boards import Fit, boards_verb, fit, fits

SMALL = ("tfc-w1a1",)


def show(capsys, **options):
    assert boards_verb(argparse.Namespace(**({"json": False, "fits": False} | options))) == 0
    return capsys.readouterr().out


def test_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line.split() for line in show(capsys).splitlines()]
    assert lines[0] == ["board", "part", "LUTs", "RAM", "kbit", "DSP", "MHz", "links", "bitstream"]
    assert [line[0] for line in lines[1:]] == [*BOARDS, *PARTS]
    rows = {line[0]: " ".join(line[1:]) for line in lines[1:]}
    assert rows["ulx3s-85f"] == "ecp5-85f 83,640 3,744 156 50 uart, spi here"
    assert rows["icebreaker"] == "ice40-up5k 5,280 1,144 8 24 uart, spi here"
    assert rows["colorlight-i5"] == "ecp5-25f 24,288 1,008 28 50 uart here"
    assert rows["pynq-z1"] == "xc7z020 53,200 5,040 220 100 uart, spi by Vivado"
    assert rows["ecp5-45f"] == "the part alone 43,848 1,944 72 50 – figures only"


def test_json(capsys):
    found = json.loads(show(capsys, json=True))
    assert [row["name"] for row in found["boards"]] == list(BOARDS)
    assert [row["name"] for row in found["parts"]] == list(PARTS)
    assert found["fits"] == []
    (row,) = (row for row in found["boards"] if row["name"] == "ulx3s-85f")
    assert row["links"]["uart"] == {"baud": 1_000_000, "at": "USB connector US1, its FT231X"}
    (row,) = (row for row in found["parts"] if row["name"] == "gw2a-18c")
    assert (row["blocks"], row["block_kind"], row["block_bits"]) == (46, "BSRAM", 18_432)


def test_the_command_line(run):
    status, out, error = run("boards", "--json")
    assert (status, error) == (0, "")
    assert len(json.loads(out)["boards"]) == len(BOARDS)


def test_fit(small_network):
    network = small_network((14, 8, 6), 2)
    found = fit(network, PARTS["ice40-up5k"])
    assert found.fits
    assert found.why == ""
    assert found.luts
    assert 0 < found.luts < PARTS["ice40-up5k"].luts


def test_what_does_not_fit(monkeypatch, small_network):
    def plan(network, board, goal):
        assert (board.part, goal) == (PARTS["gw1nr-9c"], "min-area")
        raise DoesNotFit("small", "gw1nr-9c", "LUTs", 9000, 8640, "take a larger part")

    monkeypatch.setattr(api, "plan", plan)
    assert fit(small_network((14, 8, 6), 2), PARTS["gw1nr-9c"]) == Fit(
        network="small",
        part="gw1nr-9c",
        why="small needs 9,000 LUTs, but gw1nr-9c has 8,640; take a larger part",
    )


def test_every_network_is_tried_on_every_part(monkeypatch, small_network):
    monkeypatch.setattr(verbs_boards, "fit", lambda network, part: (network.name, part.name))
    networks = [small_network((4, 3), name=name) for name in "ab"]
    told = []
    found = fits(
        networks, [PARTS["ecp5-25f"], PARTS["ice40-hx8k"]], lambda *what: told.append(what)
    )
    assert found == [(n, p) for p in ("ecp5-25f", "ice40-hx8k") for n in "ab"]
    assert told == [("networks on parts", done, 4) for done in range(4)]


@pytest.mark.parametrize("as_json", [False, True])
def test_fits_are_shown(capsys, monkeypatch, as_json):
    def found(network, part):
        if part.name == "ice40-hx8k":
            return Fit(network=network.name, part=part.name, why="too large")
        return Fit(network=network.name, part=part.name, luts=part.luts // 4, blocks=1, dsps=0)

    monkeypatch.setattr(verbs_boards, "fit", found)
    monkeypatch.setattr(verbs_boards.zoo, "names", lambda: SMALL)
    monkeypatch.setenv("COLUMNS", "160")
    out = show(capsys, fits=True, json=as_json)
    if as_json:
        rows = json.loads(out)["fits"]
        assert [row["part"] for row in rows] == list(PARTS)
        assert [row["part"] for row in rows if not row["fits"]] == ["ice40-hx8k"]
        return
    (row,) = (line.split() for line in out.splitlines() if line.startswith("tfc-w1a1"))
    assert row[1:] == ["–" if part == "ice40-hx8k" else "25" for part in PARTS]
