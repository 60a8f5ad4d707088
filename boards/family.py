"""Designs, and what is particular to the families that they are built for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from brambling.boards.parts import Part
from brambling.boards.tools import FAMILIES

__all__ = ["FLOWS", "Flow", "Job", "synthesis_command", "synthesis_of", "synthesis_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A design, and the part that it is for.

    Parameters
    ----------
    files
        By relative name: ``NAME.il``, and constraints.
    device
        Arguments that tell nextpnr the device, its package and its speed.
    constraints
        Arguments that tell nextpnr the files of constraints.
    packing
        Arguments of the program that makes the bitstream.
    clock_hz
        The clock that the design must reach.
    synthesis
        Options of Yosys' ``synth_`` command, beside those that every design gets.
    """

    name: str
    family: str
    part: str
    files: Mapping[str, str | bytes]
    device: tuple[str, ...]
    clock_hz: float
    constraints: tuple[str, ...] = ()
    packing: tuple[str, ...] = ()
    synthesis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What is particular to a family.

    Parameters
    ----------
    synthesis
        Yosys' command.
    routed
        Suffix of the routed design, and the option of nextpnr that has it written.
    suffix
        Suffix of the bitstream.
    packing
        Arguments of the packer, from its input, its output and further arguments.
    resources
        By name: sites of nextpnr's report and how much of it one of each takes; the number that
        there is is that of the first.
    flip_flops
        Prefix of the names of flip-flops in the netlist.
    excused
        Beginning of the names of pins where nextpnr finds hold-time violations that are none.
    """

    synthesis: str
    routed: tuple[str, str]
    suffix: str
    packing: Callable[[str, str, Sequence[str]], list[str]]
    resources: Mapping[str, Mapping[str, int]]
    flip_flops: str
    excused: str = ""


FLOWS = {
    "ecp5": Flow(
        # Without -nowidelut popcounts take nearly twice as many LUTs and are no faster.
        synthesis="synth_ecp5 -nowidelut",
        routed=("config", "--textcfg"),
        suffix="bit",
        packing=lambda i, o, more: ["--input", i, "--bit", o, *(more or ["--compress"])],
        resources={
            "LUT4": {"TRELLIS_COMB": 1},
            "flip-flops": {"TRELLIS_FF": 1},
            "block RAMs": {"DP16KD": 1},
            "multipliers": {"MULT18X18D": 1},
        },
        flip_flops="TRELLIS_FF",
    ),
    "ice40": Flow(
        synthesis="synth_ice40 -dsp",
        routed=("asc", "--asc"),
        suffix="bin",
        packing=lambda i, o, more: [*more, i, o],
        resources={
            "logic cells": {"ICESTORM_LC": 1},
            "block RAMs": {"ICESTORM_RAM": 1},
            "SPRAMs": {"ICESTORM_SPRAM": 1},
            "multipliers": {"ICESTORM_DSP": 1},
        },
        flip_flops="SB_DFF",
    ),
    "gowin": Flow(
        synthesis="synth_gowin -nowidelut",
        routed=("routed.json", "--write"),
        suffix="fs",
        packing=lambda i, o, more: [*more, "-o", o, i],
        resources={
            # Carry cells and RAMs of 16 words by 4 bits lie in the places of LUTs.
            "LUT4": {"LUT4": 1, "ALU": 1, "RAM16SDP4": 4},
            "flip-flops": {"DFF": 1},
            "block RAMs": {"BSRAM": 1},
            "multipliers": {"MULT18X18": 1},
            "9-bit multipliers": {"MULT9X9": 1},
        },
        flip_flops="DFF",
        # nextpnr 0.11 adds up the checks of these pins of single-port block RAMs, which have none:
        # https://github.com/YosysHQ/nextpnr/issues/1803
        excused="ADB",
    ),
}

#: By beginning of a part's name: options of synthesis.
SYNTHESIS = {
    "ice40-up": ("-device", "u"),
    "ice40-lp": ("-device", "lp"),
    "gw1n": ("-family", "gw1n"),
    "gw2a": ("-family", "gw2a"),
}


def synthesis_options(part: Part) -> tuple[str, ...]:
    """Return the options of synthesis that not all parts of a family have."""
    return next((o for start, o in SYNTHESIS.items() if part.name.startswith(start)), ())


def synthesis_command(family: str, options: Sequence[str]) -> str:
    """Return Yosys' command, with options beside those that every design gets."""
    return " ".join((FLOWS[family].synthesis, *options))


def synthesis_of(part: Part) -> str:
    """Return Yosys' command for a part."""
    return synthesis_command(part.family, synthesis_options(part))


assert FLOWS.keys() == FAMILIES.keys()
