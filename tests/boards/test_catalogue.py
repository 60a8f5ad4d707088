"""Board files: all of the package are right, and one that is wrong is refused in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from brambling.boards.catalogue import FOLDER, LINKS, Attributes, Ref
from brambling.boards.parts import BOARDS, PARTS, SPRAM, Board, find_board, read_board
from brambling.errors import ConfigError, FileProblem

WANTED = {
    *("ulx3s-85f", "ulx3s-45f", "ulx3s-25f", "orangecrab-25f", "orangecrab-85f", "ecpix-5-85f"),
    *("colorlight-i5", "icebreaker", "upduino-v3", "ice40-hx8k-evn", "tinyfpga-bx"),
    *("tang-nano-9k", "tang-primer-20k", "arty-a7-35t", "arty-a7-100t", "pynq-z1"),
}

GOOD = """
part = "ecp5-25f"
clock_hz = 50_000_000
platform = "amaranth_boards.ulx3s:ULX3S_25F_Platform"

[[links]]
kind = "uart"
resource = "uart.0"
baud = 115_200
wiring = "USB"

[[resources]]
name = "more"
number = 0
connector = "gpio.0"
attrs = { IO_TYPE = "LVCMOS33" }
pins = [
  { signal = "a", pin = "0+", dir = "i" },
  { signal = "b", pin = "0-", dir = "o", invert = true },
]

[[constants]]
resource = "more.0.b"
value = 1
"""


def test_the_boards_that_there_must_be():
    assert set(BOARDS) >= WANTED
    assert list(BOARDS) == sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_board(board):
    assert board.title
    assert board.platform
    assert board.oscillator_hz >= 10_000_000
    assert "uart" in {link.kind for link in board.links}
    assert all(link.wiring and link.kind in LINKS for link in board.links)
    assert board.led_pass is not None
    assert board.built_here == bool(board.nextpnr) == (board.part.family != "xc7")
    special = {"icebreaker": "pad", "tang-primer-20k": "none"}
    assert board.pll == special.get(board.name, "core")


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_bare_part(part):
    board = find_board(part.name)
    assert board == Board.bare(part)
    assert (board.part, board.platform, board.links) == (part, None, ())
    assert board.built_here == (part.family != "xc7")
    assert part.ffs > 0
    assert part.block_kind
    assert part.spram_bits == part.sprams * SPRAM[0] * SPRAM[1]
    assert part.sprams == (4 if part.name == "ice40-up5k" else 0)


def test_a_part_has_no_link():
    message = (
        "ecp5-25f: link must be one that the board has (none), not 'uart'; pins for another go "
        "into its file, see docs/boards.md"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        find_board("ecp5-25f").link("uart")


def test_a_link_that_a_board_lacks():
    message = (
        "colorlight-i5: link must be one that the board has (uart), not 'spi'; pins for another go "
        "into its file, see docs/boards.md"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        find_board("colorlight-i5").link("spi")


def test_reading(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    board = read_board(path)
    assert (board.name, board.part, board.clock_hz) == ("mine", PARTS["ecp5-25f"], 50_000_000)
    assert board.link("uart").resource == Ref("uart", 0)
    assert board.resources[0].attrs == Attributes((("IO_TYPE", "LVCMOS33"),))
    assert [pin.invert for pin in board.resources[0].pins] == [False, True]
    assert board.constants[0].resource == Ref("more", 0, "b")
    assert str(board.constants[0].resource) == "more.0.b"
    assert hash(board) == hash(read_board(path))


WRONG = [
    ('part = "ecp5-25f"', "", "part must be one of {parts}, not None"),
    ('"ecp5-25f"', '"ecp5-12f"', "part must be one of {ecp5}, not 'ecp5-12f'"),
    ("clock_hz = 50_000_000", "", "board: clock_hz is missing"),
    ("50_000_000", '"fast"', "board: clock_hz must be int, not 'fast'"),
    ("50_000_000", "0", "board: clock_hz must be at least 1, not 0"),
    ('"amaranth_boards.ulx3s:', '"', "board: platform must be MODULE:CLASS, not '{name}'"),
    ("clock_hz", 'pll = "x"\nclock_hz', "board: pll must be one of core, pad, none, not 'x'"),
    ('part = "', 'name = "x"\npart = "', "board: keys are {keys}, not 'name'"),
    ('"uart"', '"usb"', "board: links[0]: kind must be one of uart, spi, not 'usb'"),
    ('kind = "uart"\n', "", "board: links[0]: kind is missing"),
    ("115_200", "0", "board: links[0]: baud must be at least 1, not 0"),
    ('"uart.0"', '"uart"', "board: links[0]: resource: {ref}, not 'uart'"),
    ('"uart.0"', '"uart.0."', "board: links[0]: resource: {ref}, not 'uart.0.'"),
    ('"uart.0"', "7", "board: links[0]: resource must be str, not 7"),
    ('"gpio.0"', '"gpio.x"', "board: resources[0]: connector: {ref}, not 'gpio.x'"),
    ('"i"', '"io"', "board: resources[0]: pins[0]: a: dir must be one of i, o, oe, not 'io'"),
    ("= true", "= 1", "board: resources[0]: pins[1]: invert must be bool, not 1"),
    ('signal = "b"', 'signal = "a"', "board: resources[0]: more.0: {differ}, not a, a"),
    ('signal = "b"', 'signal = "io"', "board: resources[0]: more.0: {differ}, not a, io"),
    ("attrs", "hz = 9\nattrs", "board: resources[0]: more.0: a clock is one pin, io, not a, b"),
    ('"LVCMOS33"', "1.5", "board: resources[0]: attrs: IO_TYPE must be {scalar}, not 1.5"),
    ("value = 1", "value = 2", "board: constants[0]: value must be 0 or 1, not 2"),
    ("value = 1", "[constants.more]", "board: constants[0]: keys are resource, value, not 'more'"),
    ("pins = [\n", "pins = [\n  3,\n", "board: resources[0]: pins[0] must be a table, not 3"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_a_wrong_file(tmp_path, old, new, message):
    path = tmp_path / "mine.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    message = message.format(
        parts=", ".join(PARTS),
        ecp5="ecp5-25f, ecp5-85f, ecp5-45f",
        keys=", ".join(key for key in Board.__dataclass_fields__ if key not in {"name", "part"}),
        name="ULX3S_25F_Platform",
        ref="a resource is NAME.NUMBER or NAME.NUMBER.SIGNAL",
        differ="signals must differ, and io stands alone",
        scalar="a text, an integer or a boolean",
    )
    with pytest.raises(FileProblem) as error:
        read_board(path)
    assert str(error.value) == f"{path}: {message}"


def test_files_that_are_none(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(FileProblem, match=r"mine.toml: cannot be read \(No such file"):
        read_board(path)
    path.write_text("part = ")
    with pytest.raises(FileProblem, match=r"mine.toml: not TOML \(.*\)$"):
        read_board(path)
    path.write_bytes(b"\xff")
    with pytest.raises(FileProblem, match=r"mine.toml: a board must be UTF-8 text$"):
        read_board(path)


def test_reading_boards_loads_no_hardware():
    code = "import sys, brambling.boards.parts; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"amaranth", "amaranth_boards"} & set(run.stdout.split())


def test_every_family_has_a_page():
    docs = Path(__file__).parents[2] / "docs"
    for family in {part.family for part in PARTS.values()}:
        page = {"xc7": "xilinx"}.get(family, family)
        assert (docs / f"board-{page}.md").is_file()
    table = (docs / "boards.md").read_text(encoding="utf-8")
    for board in BOARDS.values():
        assert f"| `{board.name}` |" in table
