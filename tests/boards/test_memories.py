"""Memories: block RAMs and LUTs of them."""

import pytest

from brambling.boards.memories import Needs, lut_rom, ram, rom
from brambling.boards.parts import PARTS

ECP5, UP5K, XC7 = PARTS["ecp5-85f"], PARTS["ice40-up5k"], PARTS["xc7a35t"]


def test_needs_add_up():
    assert Needs(1, 2, 3) + Needs(10, 20, 30) == Needs(11, 22, 33)
    assert Needs(1, 2, 3) * 4 == Needs(4, 8, 12)


def test_one_word_needs_no_memory():
    assert rom(ECP5, "block", 1, 100) == rom(ECP5, "lut", 1, 100) == Needs()
    assert lut_rom(ECP5, 1, 100) == 0


def test_a_rom_in_block_ram_takes_no_luts():
    assert rom(ECP5, "block", 512, 36) == Needs(1)
    assert rom(ECP5, "block", 513, 36) == Needs(2)


@pytest.mark.parametrize("part", [ECP5, XC7], ids=lambda part: part.name)
def test_a_rom_in_luts_grows_with_its_words(part):
    sizes = [lut_rom(part, words, 10) for words in (2, 64, 65, 1000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_small_memories_are_luts_or_registers():
    assert ram(ECP5, 16, 8).blocks == ram(UP5K, 8, 8).blocks == 0
    assert ram(ECP5, 0, 8) == Needs()


def test_large_memories_are_block_ram():
    assert ram(ECP5, 4096, 8).blocks == ECP5.blocks_for(4096, 8)
    assert ram(UP5K, 64, 8).blocks == UP5K.blocks_for(64, 8)
    assert ram(ECP5, 40, 8, "block").blocks == 1
    assert ram(ECP5, 4096, 8, "lut").blocks == 0


#: Bits and words of the memories of FIFOs, by what Yosys 0.70 made of them.
FOUND = {
    (ECP5, "lut"): "8x16 8x32 8x64 8x128 16x64 16x80 20x64 12x96 24x48 32x16 32x32 36x32 64x32 "
    "72x32 128x16 128x32",
    (ECP5, "block"): "8x256 8x512 32x64 32x128 64x64 36x48 36x512 100x48",
    (XC7, "lut"): "8x64 8x128 8x256 32x64 72x64",
    (XC7, "block"): "32x128 32x256 72x128 72x256",
    (UP5K, "lut"): "8x2 8x4 8x8 4x8 2x4 1x8",
    (UP5K, "block"): "8x16 16x8 8x32 16x64",
}


@pytest.mark.parametrize(("part", "store"), FOUND, ids=lambda x: getattr(x, "name", x))
def test_fifos_are_where_yosys_puts_them(part, store):
    for text in FOUND[part, store].split():
        bits, words = map(int, text.split("x"))
        blocks = part.blocks_for(words, bits) if store == "block" else 0
        assert ram(part, words, bits).blocks == blocks, text
