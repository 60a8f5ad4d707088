"""Boards and parts: block RAM arithmetic, and finding a board."""

import re
from itertools import product

import pytest

from brambling.boards.parts import BOARDS, PARTS, Part, find_board
from brambling.errors import ConfigError


def capacity(geometry):
    return geometry[0] * geometry[1]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_part_is_plausible(part):
    assert part.luts > 0
    assert part.blocks > 0
    assert part.lut_inputs in {4, 6}
    deep = [words for words, _ in part.geometries]
    wide = [bits for _, bits in part.geometries]
    assert deep == sorted(deep)
    assert wide == sorted(wide, reverse=True)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_board_is_found_by_name(board):
    assert find_board(board.name) is board
    assert board.part is PARTS[board.part.name]
    assert board.clock_hz > 1_000_000


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ulx3s", "ulx3s-85f, ulx3s-45f, ulx3s-25f"),
        ("ULX3S-85F", "ulx3s-85f"),
        ("icebraker", "icebreaker, ice40-hx8k-evn, ice40-up5k"),
        ("arty", "arty-a7-35t, arty-a7-100t"),
        ("up5k", "ice40-up5k"),
        ("", ", ".join((*BOARDS, *PARTS))),
        ("zzz", ", ".join((*BOARDS, *PARTS))),
    ],
)
def test_unknown_board_lists_similar_names(name, near):
    with pytest.raises(ConfigError, match=r"^board must be one of .*, not '.*'$") as error:
        find_board(name)
    assert str(error.value) == f"board must be one of {near}, not {name!r}"


def blocks_by_placing(part, words, bits):
    """Blocks of a grid of whole blocks, counted one by one, for the best geometry."""
    best = None
    for deep, wide in part.geometries:
        grid = [(w, b) for w in range(0, words, deep) for b in range(0, bits, wide)]
        best = len(grid) if best is None else min(best, len(grid))
    return best


@pytest.mark.parametrize("name", ["ecp5-85f", "ice40-up5k"])
def test_blocks_for(name):
    part = PARTS[name]
    depths = (1, 2, 255, 256, 257, 511, 512, 513, 1024, 1025, 5000, 20000)
    for words, bits in product(depths, (1, 2, 3, 4, 5, 9, 16, 17, 18, 35, 36, 37, 100, 1000)):
        blocks = part.blocks_for(words, bits)
        assert blocks == blocks_by_placing(part, words, bits)
        assert blocks * max(map(capacity, part.geometries)) >= words * bits


@pytest.mark.parametrize(
    ("words", "bits", "blocks"),
    [(1, 1, 1), (8, 4, 1), (9, 4, 2), (16, 2, 1), (17, 2, 2), (8, 5, 2), (16, 3, 2), (20, 7, 6)],
)
def test_blocks_for_of_two_geometries(words, bits, blocks):
    part = Part(name="p", family="f", luts=1, lut_inputs=4, blocks=1, geometries=((8, 4), (16, 2)))
    assert part.blocks_for(words, bits) == blocks


def test_a_board_has_the_part_that_its_name_says():
    """An ULX3S has an ECP5 of the size in its name."""
    for name, board in BOARDS.items():
        if match := re.fullmatch(r"ulx3s-(\d+f)", name):
            assert board.part.name == f"ecp5-{match[1]}"
