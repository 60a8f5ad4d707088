"""Jobs, patterns, designs and traces: what they refuse, and what they say."""

import numpy as np
import pytest
from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError, FileProblem, Mismatch
from brambling.sim.job import Design, EdgeTrace, Job, OutOfCycles, Trace, pattern, waveform

BEATS = np.zeros((3, 2), np.uint8)
EDGES = (("input", 9), ("fc1", 64), ("output", 4))


def make():
    return wiring.Component({
        "i": In(stream.Signature(data.StructLayout({"first": 1, "data": 8}))),
        "o": Out(stream.Signature(unsigned(4))),
        "tap_fc1": Out(wiring.Signature({"valid": Out(1), "payload": Out(unsigned(64))})),
    })


@pytest.mark.parametrize("kind", ["none", "random", "burst", "alternate"])
def test_patterns_are_the_same_for_the_same_seed(kind):
    for seed in range(5):
        flags = pattern(kind, seed, 400)
        assert flags.dtype == bool
        assert flags.shape == (400,)
        assert flags.any()
        assert flags.all() == (kind == "none")
        assert np.array_equal(flags, pattern(kind, seed, 400))
    if kind in {"random", "burst"}:
        assert not np.array_equal(pattern(kind, 0), pattern(kind, 1))


def test_random_has_several_densities():
    density = pattern("random", 1, 3200).reshape(-1, 32).mean(axis=1)
    assert density.min() < 0.3
    assert density.max() > 0.8


def test_a_pattern_always_has_a_cycle():
    assert all(pattern("random", seed, 1).any() for seed in range(20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("often",), "pattern must be none, alternate, random or burst, not 'often'"),
        (("none", 0, 0), "length must be at least 1, not 0"),
    ],
)
def test_pattern_rejects(arguments, message):
    with pytest.raises(ConfigError) as caught:
        pattern(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": 0}, "outputs must be at least 1, not 0"),
        ({"limit": 0}, "limit must be at least 1 cycle, not 0"),
        ({"beats": BEATS[0]}, "beats must be uint8 of shape (n, bytes), not uint8 of shape (2,)"),
        (
            {"beats": BEATS.astype(int)},
            "beats must be uint8 of shape (n, bytes), not int64 of shape (3, 2)",
        ),
        ({"offer": np.zeros(0, bool)}, "offer must be a row of flags, not of shape (0,)"),
        ({"accept": np.ones((2, 2))}, "accept must be a row of flags, not of shape (2, 2)"),
    ],
)
def test_job_rejects(change, message):
    with pytest.raises(ConfigError) as caught:
        Job(**{"beats": BEATS, "outputs": 1, "limit": 9, **change})
    assert str(caught.value) == message


def test_design_of_reads_the_ports():
    assert Design.of("toy", make).edges == EDGES
    assert Design.of("toy", make).taps == EDGES[1:2]


@pytest.mark.parametrize(
    ("name", "edges", "message"),
    [
        ("sfc-w1a1", EDGES, "a name must match [a-z][a-z0-9_]*, not 'sfc-w1a1'"),
        ("toy", (("input", 1), ("x y", 1)), "a name must match [a-z][a-z0-9_]*, not 'x y'"),
        ("toy", EDGES[:2], "edges must run from input to output, not input, fc1"),
        (
            "toy",
            (*EDGES[:2], *EDGES[1:]),
            "edges must have different names, not input, fc1, fc1, output",
        ),
        (
            "toy",
            (EDGES[0], ("output", 0)),
            "output must have a payload of at least 1 bit, not 0",
        ),
    ],
)
def test_design_rejects(name, edges, message):
    with pytest.raises(ConfigError) as caught:
        Design(name, make, edges)
    assert str(caught.value) == message


def test_design_checks_the_beats():
    design = Design("toy", make, EDGES)
    design.check(Job(beats=BEATS, outputs=1, limit=1))
    with pytest.raises(ConfigError) as caught:
        design.check(Job(beats=BEATS[:, :1], outputs=1, limit=1))
    assert str(caught.value) == "beats must have 2 bytes for the 9 bits of the input of toy, not 1"
    high = BEATS.copy()
    high[1:, 1] = 2
    with pytest.raises(ConfigError) as caught:
        design.check(Job(beats=high, outputs=1, limit=1))
    assert str(caught.value) == "beats must fit the 9 bits of the input of toy, beat 1 does not"


def test_edge_trace_of_integers():
    edge = EdgeTrace.of([(3, 0x1FF), (5, 2)], 9)
    assert edge.cycles.tolist() == [3, 5]
    assert edge.payloads.tolist() == [[0xFF, 1], [2, 0]]
    assert [edge.value(0), edge.value(1)] == [0x1FF, 2]
    assert EdgeTrace.of([], 9).payloads.shape == (0, 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([(1, 7), (2, 8), (4, 9)], None),
        ([(1, 7), (3, 0), (4, 9)], "beat 1 in cycle 3, not 2"),
        ([(1, 7), (2, 15), (5, 9)], "beat 1 is 0xf, not 0x8"),
        ([(1, 7), (2, 8)], "2 beats, not 3"),
    ],
)
def test_first_difference(other, message):
    right, seen = EdgeTrace.of([(1, 7), (2, 8), (4, 9)], 4), EdgeTrace.of(other, 4)
    assert right.difference(seen) == message
    if message is None:
        Trace({"fc1": right, "fc2": right}).check(Trace({"fc1": seen}), "icarus")
        return
    with pytest.raises(Mismatch) as caught:
        Trace({"fc1": right}).check(Trace({"fc1": seen}), "icarus")
    assert str(caught.value) == f"icarus, fc1: {message}"


def test_a_waveform_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "new" / "wave.vcd"
    with waveform(path) as beside:
        assert beside is not None
        beside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with waveform(None) as beside:
        assert beside is None


@pytest.mark.parametrize("error", [OutOfCycles("pysim", 1, 2, 3), KeyboardInterrupt()])
def test_a_waveform_is_kept_if_cycles_ran_out(error, tmp_path):
    path = tmp_path / "wave.vcd"

    def simulate():
        with waveform(path) as beside:
            assert beside is not None
            beside.write_text("part")
            raise error

    with pytest.raises(type(error)):
        simulate()
    assert path.exists() == isinstance(error, OutOfCycles)
    assert len([*tmp_path.iterdir()]) == path.exists()


def test_a_waveform_in_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "wave.vcd"
    with pytest.raises(FileProblem) as caught, waveform(path):
        pass
    assert str(caught.value) == f"{path}: cannot be written (File exists)"
