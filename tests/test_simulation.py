"""Simulations: engines agree, results say what the issue promises, and a difference is told."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError, Mismatch
from brambling.hw.accelerator import edges, pipeline
from brambling.network import ArgMax, Dense, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim import golden
from brambling.sim.cycles import schedule
from brambling.sim.job import EdgeTrace, Trace
from brambling.simulation import ENGINES, compare, simulate

FRAMES = 4
ROWS = [(4, 4), (3, 5), (2, 8), (1, 3)]


@pytest.fixture(scope="module")
def network(small_network):
    return small_network((14, 8, 6), 2, falling=True)


@pytest.fixture(scope="module")
def plan(network, hand_plan):
    return hand_plan(network, ROWS)


@pytest.fixture(scope="module")
def images(network, random_frames):
    return random_frames(network, FRAMES, 3)


@pytest.fixture(scope="module")
def results(network, plan, images):
    labels = golden.run(network, images)["argmax"].copy()
    labels[0] = (labels[0] + 1) % 6
    return {
        engine: simulate(network, plan, images, labels, engine=engine)
        for engine in ("golden", "cycles", "pysim")
    }


def test_engines_agree(network, images, results):
    wanted = golden.run(network, images)["fc2"]
    for engine, result in results.items():
        assert result.engine == engine
        assert np.array_equal(result.outputs, wanted)
        assert result.outputs.dtype == np.int64
        assert (result.frames, result.accuracy, result.accuracy_images) == (4, 0.75, 4)
    for key in ("latency_cycles", "interval_cycles", "latency_s", "fps"):
        assert len({getattr(result, key) for result in results.values()}) == 1


def test_only_rtl_says_that_it_is_equal(results):
    for engine, result in results.items():
        expected = (True, True) if engine == "pysim" else (None, None)
        assert (result.equal_to_golden, result.cycles_equal_to_model) == expected
        assert all((x.cycles_simulated is None) == (engine != "pysim") for x in result.layers)
    # 4 beats in, 4 after the first engine; 3 twice (products, bits); 3, and the winner.
    assert results["pysim"].beats_compared == FRAMES * (4 + 4 + 3 + 3 + 3 + 1)
    assert results["golden"].beats_compared == 0


def test_predicted_and_simulated_cycles_are_equal(results):
    for layer in results["pysim"].layers:
        assert layer.cycles_simulated == layer.cycles > 0


def test_latency_and_interval_are_the_cycle_models(network, plan, results):
    found = schedule(pipeline(network, plan), 40)
    for result in results.values():
        assert result.latency_cycles == found.latency
        assert result.interval_cycles == found.interval
        assert result.latency_s == found.latency / 100e6
        assert result.fps == 100e6 / found.interval


def test_layers(results):
    rows = results["cycles"].layers
    assert [(x.name, x.engine, x.pe, x.simd, x.macs, x.weight_bits, x.interval) for x in rows] == [
        ("binarise", "thresholds", 4, 4, 0, 0, 4),
        ("fc1", "xnor", 3, 5, 112, 112, 9),
        ("fc2", "xnor", 2, 8, 48, 48, 3),
        ("argmax", "argmax", 1, 3, 0, 0, 2),
    ]
    assert results["cycles"].bottleneck.name == "fc1"


def test_json(results):
    for engine, result in results.items():
        table = json.loads(json.dumps(result.to_json()))
        # What the issue promises to scripts.
        assert table.keys() >= {
            "engine", "frames", "equal_to_golden", "cycles_equal_to_model", "latency_cycles",
            "interval_cycles", "clock_hz", "latency_s", "fps", "accuracy", "layers",
        }  # fmt: skip
        promised = {"name", "engine", "pe", "simd", "weight_bits", "brams", "cycles"}
        assert all(layer.keys() >= promised for layer in table["layers"])
        assert table.keys() - {"latency_s", "fps", "bottleneck"} == set(result.__slots__) - {
            "outputs"
        }
        assert table["engine"] == engine
        assert table["clock_hz"] == 100_000_000
        assert table["layers"][1]["weight_bits"] == 112
        assert isinstance(table["accuracy"], float)


def test_frames_are_the_first_ones(network, plan, images):
    result = simulate(network, plan, images, engine="pysim", frames=2)
    assert result.frames == 2
    assert np.array_equal(result.outputs, golden.run(network, images[:2])["fc2"])
    assert (result.accuracy, result.accuracy_images) == (None, 0)


def test_more_frames_than_there_are(network, plan, images):
    assert simulate(network, plan, images, engine="cycles", frames=100).frames == FRAMES


def test_one_frame(network, plan, images):
    result = simulate(network, plan, images[:1], engine="pysim")
    assert result.equal_to_golden
    assert result.interval_cycles == schedule(pipeline(network, plan), 32).interval


def test_accuracy_is_of_all_images(network, plan, images):
    labels = golden.run(network, images)["argmax"].copy()
    labels[-1] += 1
    result = simulate(network, plan, images, labels, engine="cycles", frames=1)
    assert (result.frames, result.accuracy, result.accuracy_images) == (1, 0.75, FRAMES)


def test_a_waveform(network, plan, images, tmp_path):
    simulate(network, plan, images, engine="pysim", frames=1, vcd=tmp_path / "a" / "wave.vcd")
    assert "$enddefinitions" in (tmp_path / "a" / "wave.vcd").read_text(encoding="utf-8")
    assert len(list((tmp_path / "a").iterdir())) == 1


# Other chains ---------------------------------------------------------------------------------


def test_without_arg_max(small_network, hand_plan, random_frames):
    network = small_network((9, 5), argmax=False)
    plan = hand_plan(network, [(3, 3), (2, 4)])
    images = random_frames(network, 3)
    result = simulate(network, plan, images, engine="pysim")
    assert result.equal_to_golden
    assert np.array_equal(result.outputs, golden.run(network, images)["fc1"])


def test_labels_need_a_class(small_network, hand_plan, random_frames):
    network = small_network((9, 5), argmax=False)
    images = random_frames(network, 3)
    with pytest.raises(ConfigError, match=r"^small ends in 5:s5\.0, not in a class: no accuracy$"):
        simulate(network, hand_plan(network), images, np.zeros(3, int), engine="cycles")


def test_thresholds_of_several_levels(hand_plan, random_frames):
    rng = np.random.default_rng(0)
    fc = Dense(name="fc", inputs=("input",), weights=rng.choice([-1, 1], (5, 7)), fmt=Bipolar())
    act = Thresholds(
        name="act",
        inputs=("fc",),
        levels=np.sort(rng.integers(-5, 6, (5, 3)), axis=1),
        falling=rng.integers(0, 2, 5, bool),
        fmt=Fixed(2),
    )
    network = Network("net", Tensor((7,), Bipolar()), (fc, act))
    images = random_frames(network, 5)
    result = simulate(network, hand_plan(network, [(2, 3), (3, 3)]), images, engine="pysim")
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert np.array_equal(result.outputs, golden.run(network, images)["act"])


@pytest.mark.parametrize(
    "fmt",
    [Bipolar(), Fixed(3), Fixed(3, 0, signed=False)],
    ids=str,
)
def test_arg_max_ignores_idle_lanes(fmt, hand_plan):
    """Also where all real elements are the smallest code."""
    layer = ArgMax(name="argmax", inputs=("input",))
    network = Network("net", Tensor((5,), fmt), (layer,))
    images = np.full((3, 5), fmt.min)
    images[1, 4] = images[2, 3] = fmt.max
    result = simulate(network, hand_plan(network, [(1, 3)]), images, engine="pysim")
    assert result.equal_to_golden


# What differs is told -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(network, plan, images):
    """Everything that :func:`compare` takes, with a trace that agrees."""
    nodes = pipeline(network, plan)
    values = golden.run(network, images)
    found = schedule(nodes, FRAMES)
    rows = edges(nodes)
    trace = {}
    for n, edge in enumerate(rows):
        codes = values[edge.name].reshape(FRAMES, -1)
        if edge.port == "products":  # Accumulators stand for the products.
            offsets = edge.decode(np.zeros((1, codes.shape[1]), np.int64))
            codes = (codes - offsets) // 2
        name = "output" if n == len(rows) - 1 else edge.name
        trace[name] = EdgeTrace(found.cycles[edge.name].copy(), edge.beats.pack(codes))
    return nodes, values, found, trace


def tampered(trace, name, cycles=lambda cycles: cycles, payloads=lambda payloads: payloads):
    edge = trace[name]
    changed = EdgeTrace(cycles(edge.cycles.copy()), payloads(edge.payloads.copy()))
    return Trace({**trace, name: changed})


def flip(beat):
    def change(payloads):
        payloads[beat, 0] ^= 1
        return payloads

    return change


def late(beat):
    def change(cycles):
        cycles[beat] += 1
        return cycles

    return change


def differs(seen, trace, message):
    nodes, values, found, _ = seen
    with pytest.raises(Mismatch, match=f"^{re.escape(message)}$"):
        compare(nodes, values, found, trace, FRAMES)


def test_an_untouched_trace_is_equal(seen):
    nodes, values, found, trace = seen
    assert compare(nodes, values, found, Trace(trace), FRAMES) == FRAMES * 18


@pytest.mark.parametrize(
    ("name", "edge", "beat", "frame", "element"),
    [
        ("input", "input", 5, 1, 4),
        ("binarise", "binarise", 3, 0, 12),
        ("act1", "act1", 4, 1, 3),
        ("output", "argmax", 2, 2, 0),
    ],
)
def test_a_wrong_value_is_told(seen, name, edge, beat, frame, element):
    _, values, _, trace = seen
    wanted = int(values[edge][frame].reshape(-1)[element])
    got = -wanted if values[edge].min() < 0 else wanted ^ 1
    differs(
        seen,
        tampered(trace, name, payloads=flip(beat)),
        f"{edge}: frame {frame}, element {element} is {got}, golden is {wanted}",
    )


def test_a_wrong_accumulator_is_told_as_the_product(seen):
    _, values, _, trace = seen
    message = f"fc1: frame 0, element 0 is .*, golden is {values['fc1'][0, 0]}"
    nodes, values, found, _ = seen
    with pytest.raises(Mismatch, match=f"^{message}$"):
        compare(nodes, values, found, tampered(trace, "fc1", payloads=flip(0)), FRAMES)


@pytest.mark.parametrize(
    ("name", "edge"),
    [("input", "input"), ("fc1", "fc1"), ("act1", "act1"), ("fc2", "fc2"), ("output", "argmax")],
)
@pytest.mark.parametrize("beat", [0, 3])
def test_a_wrong_cycle_is_told(seen, name, edge, beat):
    _, _, found, trace = seen
    says = found.cycles[edge][beat]
    differs(
        seen,
        tampered(trace, name, cycles=late(beat)),
        f"{edge}: beat {beat} in cycle {says + 1}, the model says {says}",
    )


def test_missing_frames_are_told(seen):
    _, _, _, trace = seen
    short = tampered(trace, "act1", lambda cycles: cycles[:-1], lambda payloads: payloads[:-1])
    differs(seen, short, "act1: 3 frames, not 4")


def test_hardware_that_computes_something_else(network, plan, images, monkeypatch):
    """From end to end: the RTL of one network against the golden model of another."""
    fc2 = network.layer("fc2")
    assert isinstance(fc2, Dense)
    weights = fc2.weights.copy()
    weights[4, 7] *= -1
    other = replace(network, layers=(*network.layers[:3], replace(fc2, weights=weights),
                                     network.layers[-1]))  # fmt: skip
    nodes = pipeline(other, plan)
    monkeypatch.setattr("brambling.simulation.pipeline", lambda network, plan: nodes)
    with pytest.raises(Mismatch, match=r"^fc2: frame 0, element 4 is -?\d+, golden is -?\d+$"):
        simulate(network, plan, images, engine="pysim")


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "spice"},
            f"engine must be one of {', '.join(ENGINES)}, not 'spice'",
        ),
        ({"frames": 0}, "frames must be at least 1, not 0"),
        ({"frames": -1}, "frames must be at least 1, not -1"),
        (
            {"vcd": "wave.vcd"},
            "a waveform needs an RTL engine (pysim, verilator, cxxrtl, icarus), not 'golden'",
        ),
        ({"labels": np.zeros(3, int)}, "4 images need 4 labels, not 3"),
    ],
)
def test_refuses(network, plan, images, options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        simulate(network, plan, images, **options)


def test_refuses_a_plan_for_another_network(small_network, plan, images):
    with pytest.raises(ConfigError, match=r"^the plan must have one stage for 'fc3', not 0$"):
        simulate(small_network((14, 8, 6, 5)), plan, images, engine="cycles")


def test_refuses_a_plan_for_an_unknown_board(network, plan, images):
    unknown = replace(plan, board="ulx4s")
    with pytest.raises(ConfigError, match=r"^board must be one of ulx3s-85f, .*, not 'ulx4s'$"):
        simulate(network, unknown, images, engine="cycles")
