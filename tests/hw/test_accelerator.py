"""The accelerator: random networks under random plans, at every edge and every clock edge."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator, edges, pipeline
from brambling.hw.beat import Beats
from brambling.hw.gate import FrameGate, GateSpec
from brambling.quant.formats import Bipolar
from brambling.sim import golden
from brambling.sim.cycles import schedule
from brambling.sim.job import Design, Job, pattern
from brambling.sim.pysim import Pysim
from brambling.simulation import compare, design_of, job_of

SEEDS = [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 120))]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_edge_equals_both_models(small_network, random_plan, seed):
    rng = np.random.default_rng(seed)
    hidden = [int(rng.integers(3, 40)) for _ in range(int(rng.integers(2, 4)))]
    network = small_network([*hidden, int(rng.integers(2, 12))], seed, falling=bool(seed % 2))
    plan = random_plan(network, seed)
    assert_equal_to_both_models(network, plan, rng.integers(0, 256, (3, network.input.size)), seed)


def assert_equal_to_both_models(network, plan, images, seed):
    nodes = pipeline(network, plan)
    values = golden.run(network, images)
    flat = images.reshape(len(images), -1)
    for kinds in (("none", "none"), ("random", "burst")):
        patterns = {
            key: pattern(kind, seed) for key, kind in zip(("offer", "accept"), kinds, strict=True)
        }
        found = schedule(nodes, len(images), **patterns)
        job = job_of(nodes, found, flat, **patterns)
        trace = Pysim().run(design_of(network, plan, nodes), job)
        assert compare(nodes, values, found, trace, len(images)) == sum(
            len(images) * edge.beats.count for edge in edges(nodes)
        )


CNN_SEEDS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 40))]


@pytest.mark.parametrize("seed", CNN_SEEDS)
def test_convolutional_networks_equal_both_models(small_cnn, random_plan, random_frames, seed):
    network = small_cnn(seed)
    images = random_frames(network, 2, seed)
    assert_equal_to_both_models(network, random_plan(network, seed), images, seed)


def frames_of(network, seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, network.input.size))


@pytest.fixture
def design(small_network, hand_plan):
    network = small_network([20, 9, 4], 1)
    rows = [(3, 3, 0, 5), (2, 7, 3, 2), (1, 5, 0, 2), (1, 1, 0, 1)]
    nodes = pipeline(network, hand_plan(network, rows))
    return network, nodes


def classes(nodes, beats, outputs):
    made = Design.of("part", lambda: Accelerator(nodes))
    trace = Pysim().run(made, Job(beats=beats, outputs=outputs, limit=5000))
    return nodes[-1].spec.o.unpack(trace["output"].payloads)[:, 0].tolist()


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_a_frame_that_is_too_short_is_filled_up_with_zeros(design, kept):
    network, nodes = design
    images = frames_of(network, 2, 4)
    beats = nodes[0].spec.i.pack(images)
    count = nodes[0].spec.i.count
    cut = np.concatenate([beats[:count], beats[count : count + kept], beats[2 * count :]])
    filled = beats[count : 2 * count].copy()
    filled[kept:] = 0
    images[1] = nodes[0].spec.i.unpack(filled)[0]
    wanted = golden.run(network, images)[network.layers[-1].name]
    assert classes(nodes, cut, 4) == wanted.tolist()


def test_beats_after_a_whole_frame_are_dropped(design):
    network, nodes = design
    images = frames_of(network, 2, 3)
    beats = nodes[0].spec.i.pack(images)
    count = nodes[0].spec.i.count
    stray = np.concatenate([beats[: 2 * count], beats[count + 1 : count + 4], beats[2 * count :]])
    wanted = golden.run(network, images)[network.layers[-1].name]
    assert classes(nodes, stray, 3) == wanted.tolist()


def test_a_stream_that_begins_within_a_frame_waits_for_the_next(design):
    network, nodes = design
    images = frames_of(network, 2, 3)
    beats = nodes[0].spec.i.pack(images)[2:]
    wanted = golden.run(network, images)[network.layers[-1].name]
    assert classes(nodes, beats, 2) == wanted[1:].tolist()


def test_gate_passes_whole_frames_unchanged():
    beats = Beats(Bipolar(), 7, 2)
    x = np.random.default_rng(1).choice([-1, 1], (3, 7))
    made = Design.of("gate", lambda: FrameGate(GateSpec(beats)))
    trace = Pysim().run(made, Job(beats=beats.pack(x), outputs=3 * beats.count, limit=100))
    assert np.array_equal(beats.unpack(trace["output"].payloads), x)
    assert trace["output"].cycles.tolist() == trace["input"].cycles.tolist()


def test_edges_are_those_of_the_network(design):
    network, nodes = design
    assert [edge.name for edge in edges(nodes)] == list(network.tensors)


@pytest.mark.parametrize("name", ["gate", "output"])
def test_a_layer_cannot_be_named_as_a_component_is(small_network, hand_plan, name):
    network = small_network([20, 9, 4], 1)
    layers = list(network.layers)
    layers[1] = replace(layers[1], name=name)
    layers[2] = replace(layers[2], inputs=(name,))
    network = replace(network, layers=tuple(layers))
    message = rf"^two components would be named '{name}': rename the layer$"
    with pytest.raises(ConfigError, match=message):
        pipeline(network, hand_plan(network))
