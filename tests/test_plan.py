"""Plans: steps of a network, files, and what is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError, FileProblem, UnsupportedLayer
from brambling.network import Conv, Dense, Flatten, Layer, Network, Pool, Tensor, Thresholds
from brambling.plan import STORES, Plan, Stage, steps
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.steps import Runs

SIZES = (12, 8, 6, 4)


def refused(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


@pytest.fixture
def network(small_network):
    return small_network(SIZES)


@pytest.fixture
def plan(network, hand_plan):
    return hand_plan(network, [(3, 3), (2, 4), (6, 8), (1, 3), (1, 2)])


# Steps ----------------------------------------------------------------------------------------


def test_steps_fuse_products_and_thresholds(network):
    assert [(s.engine, s.name, s.output, s.inputs, s.outputs) for s in steps(network)] == [
        ("thresholds", "binarise", "binarise", 12, 12),
        ("xnor", "fc1", "act1", 12, 8),
        ("xnor", "fc2", "act2", 8, 6),
        ("xnor", "fc3", "fc3", 6, 4),
        ("argmax", "argmax", "argmax", 4, 1),
    ]
    assert [len(step.layers) for step in steps(network)] == [1, 2, 2, 1, 1]


def layer_of(kind, name, source, **options):
    return kind(name=name, inputs=(source,), **options)


def thresholds(name, source, levels=((0,),), fmt=None):
    return Thresholds(
        name=name,
        inputs=(source,),
        levels=np.array(levels),
        falling=np.zeros(1, bool),
        fmt=fmt or Bipolar(),
    )


def dense(name, source, fmt=None, shape=(3, 3)):
    return Dense(name=name, inputs=(source,), weights=np.ones(shape, int), fmt=fmt or Bipolar())


def chain(*layers, source=None):
    return Network("net", Tensor((3,), source or Bipolar()), layers)


def test_thresholds_of_several_levels_are_an_engine_of_their_own():
    net = chain(dense("fc", "input"), thresholds("act", "fc", ((0, 1),), Fixed(2)))
    assert [(step.engine, step.name) for step in steps(net)] == [
        ("xnor", "fc"),
        ("thresholds", "act"),
    ]


def conv(name, source, fmt=None, shape=(1, 3, 3, 4), **options):
    weights = np.ones(shape, int)
    return Conv(name=name, inputs=(source,), weights=weights, fmt=fmt or Bipolar(), **options)


def image(*layers, source=None, shape=(14, 14, 4)):
    return Network("net", Tensor(shape, source or Bipolar()), layers)


BORDER = {"padding": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("layer", "source", "engine"),
    [
        (conv("a", "input"), Bipolar(), "xnor"),
        (conv("a", "input"), Fixed(8), "product"),
        (conv("a", "input", Ternary()), Bipolar(), "product"),
        (conv("a", "input", shape=(4, 3, 3, 1), groups=4), Fixed(8), "depthwise"),
        (conv("a", "input", shape=(8, 3, 3, 1), groups=4), Fixed(8), "product"),
        (conv("a", "input", shape=(4, 3, 3, 2), groups=2), Fixed(8), "product"),
        (conv("a", "input", **BORDER), Bipolar(), "xnor"),
    ],
)
def test_engine_of_a_convolution(layer, source, engine):
    assert [step.engine for step in steps(image(layer, source=source))] == [engine]


def test_work_of_a_frame():
    layer = conv("a", "input", shape=(6, 3, 3, 2), groups=2, stride=(2, 2))
    (step,) = steps(image(layer, source=Fixed(8)))
    assert (step.inputs, step.outputs, step.chunks, step.positions) == (2, 3, 2, (6, 6))
    assert step.runs(pe=2, simd=1, pixels=4) == Runs(groups=12, chunks=2, folds=2, beats=18)
    assert step.interval(pe=2, simd=1, pixels=4) == 12 * 2 * 2 * 18
    assert step.interval(pe=3, simd=2, pixels=6) == 6 * 2 * 9
    assert step.arrival(simd=1, pixels=4) == 14 * 4 * 4


def test_thresholds_behind_corrected_padding_are_an_engine_of_their_own():
    sums, act = conv("a", "input", **BORDER), thresholds("b", "a")
    assert [step.engine for step in steps(image(sums, act))] == ["xnor", "thresholds"]
    padded = conv("a", "input", **BORDER, pad_value=1)
    assert [
        step.engine for step in steps(image(padded, act, conv("c", "b", shape=(1, 3, 3, 1))))
    ] == ["xnor", "xnor"]


def test_flattening_belongs_to_no_step():
    net = image(Flatten(name="flat", inputs=("input",)), dense("fc", "flat", shape=(3, 784)))
    assert [(step.name, step.sources, step.inputs) for step in steps(net)] == [
        ("fc", ("flat",), 784)
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: chain(dense("a", "input"), source=Fixed(17)),
            (
                "a: products have an engine for weights of up to 16 bits and inputs of up to 16, "
                "not for bipolar and s17.0: requantise"
            ),
        ),
        (
            lambda: chain(dense("a", "input", Fixed(17))),
            (
                "a: products have an engine for weights of up to 16 bits and inputs of up to 16, "
                "not for s17.0 and bipolar: requantise"
            ),
        ),
        (
            lambda: chain(thresholds("a", "input", (tuple(range(256)),), Fixed(10))),
            (
                "a: Thresholds have an engine for codes of up to 8 bits, not for 256 levels: use "
                "Requantise"
            ),
        ),
        (
            lambda: image(conv("a", "input", shape=(1, 12, 3, 4))),
            "a: kernels have an engine up to 11 by 11, not for (12, 3): use several smaller ones",
        ),
        (
            lambda: image(conv("a", "input", Ternary(), **BORDER)),
            (
                "a: zero padding of bipolar inputs has an engine for bipolar weights in one group, "
                "not for ternary weights in 1: pad with -1 or +1"
            ),
        ),
        (
            lambda: image(conv("a", "input", shape=(4, 3, 3, 2), groups=2, **BORDER)),
            (
                "a: zero padding of bipolar inputs has an engine for bipolar weights in one group, "
                "not for bipolar weights in 2: pad with -1 or +1"
            ),
        ),
        (
            lambda: image(
                Pool(name="a", inputs=("input",), kind="sum", kernel=(3, 3), padding=(1, 1, 1, 1))
            ),
            (
                "a: a sum over bipolar pixels has an engine without padding, not for (1, 1, 1, 1): "
                "pad with a Conv, or use 'max'"
            ),
        ),
    ],
)
def test_refuses_what_has_no_engine(make, message):
    with refused(UnsupportedLayer, message):
        steps(make())


def test_refuses_layers_of_an_unknown_kind(monkeypatch):
    monkeypatch.setattr(Layer, "kinds", dict(Layer.kinds))

    class Same(Layer):
        def output(self, *inputs):
            return inputs[0]

    message = (
        "x: Same has no engine; Conv, Dense, Thresholds, Requantise, Table, Pool, Upsample, "
        "DepthToSpace, Add, Concat, Slice, ArgMax, Flatten have"
    )
    with refused(UnsupportedLayer, message):
        steps(chain(Same(name="x", inputs=("input",))))


# Stages ---------------------------------------------------------------------------------------


def test_pairs(network, plan):
    pairs = plan.pairs(network)
    assert [(step.name, stage.layer) for step, stage in pairs] == [
        (name, name) for name in ("binarise", "fc1", "fc2", "fc3", "argmax")
    ]


def with_stages(plan, change):
    return replace(plan, stages=tuple(change(list(plan.stages))))


def swap(stages):
    return [stages[0], stages[2], stages[1], *stages[3:]]


STARTS = "binarise, fc1, fc2, fc3, argmax"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda stages: [*stages, replace(stages[1], layer="conv9")],
            f"the plan has a stage for 'conv9', but the engines of small start at {STARTS}",
        ),
        (
            lambda stages: [*stages, replace(stages[1], layer="act1")],
            f"the plan has a stage for 'act1', but the engines of small start at {STARTS}",
        ),
        (lambda stages: stages[:2] + stages[3:], "the plan must have one stage for 'fc2', not 0"),
        (lambda stages: [], "the plan must have one stage for 'binarise', not 0"),
        (lambda stages: [*stages, stages[1]], "the plan must have one stage for 'fc1', not 2"),
        (
            swap,
            f"the plan's stages must be in the order {STARTS}, not binarise, fc2, fc1, fc3, argmax",
        ),
    ],
    ids=["unknown", "fused", "missing", "none", "twice", "order"],
)
def test_refuses_stages_that_are_not_the_networks(network, plan, change, message):
    with refused(ConfigError, message):
        with_stages(plan, change).pairs(network)


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        ("fc1", {"pe": 0}, "fc1: pe must be 1 to 8, not 0"),
        ("fc1", {"pe": 9}, "fc1: pe must be 1 to 8, not 9"),
        ("fc1", {"simd": 0}, "fc1: simd must be 1 to 12, not 0"),
        ("fc1", {"simd": -1}, "fc1: simd must be 1 to 12, not -1"),
        ("fc2", {"simd": 9}, "fc2: simd must be 1 to 8, not 9"),
        ("binarise", {"pe": 13}, "binarise: pe must be 1 to 12, not 13"),
        ("binarise", {"pe": 4}, "binarise: pe must equal simd, 3, not 4"),
        ("argmax", {"pe": 2}, "argmax: pe must be 1 to 1, not 2"),
        ("argmax", {"simd": 5}, "argmax: simd must be 1 to 4, not 5"),
        ("fc3", {"engine": "dsp"}, "fc3: engine must be 'xnor', not 'dsp'"),
        ("argmax", {"engine": "xnor"}, "argmax: engine must be 'argmax', not 'xnor'"),
    ],
)
def test_refuses_impossible_foldings(network, plan, layer, changes, message):
    stages = [replace(s, **changes) if s.layer == layer else s for s in plan.stages]
    with refused(ConfigError, message):
        replace(plan, stages=tuple(stages)).pairs(network)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fifo": (2,)}, "fc: fifo must be 0 or at least 3, not 2"),
        ({"fifo": (-2,)}, "fc: fifo must be 0 or at least 3, not -2"),
        ({"queue": 0}, "fc: queue must be at least 1, not 0"),
        ({"weights": "dram"}, "fc: a memory must be one of block, lut, spram, not 'dram'"),
        ({"levels": "spram"}, "fc: a memory must be one of block, lut, not 'spram'"),
        ({"lines": "spram"}, "fc: a memory must be one of block, lut, not 'spram'"),
        ({"levels": ""}, "fc: a memory must be one of block, lut, not ''"),
    ],
)
def test_refuses_impossible_memories(changes, message):
    stage = Stage(layer="fc", engine="xnor", pe=1, simd=1)
    with refused(ConfigError, message):
        replace(stage, **changes)


def test_refuses_a_clock_that_stands_still(plan):
    with refused(ConfigError, "clock_hz must be at least 1, not 0"):
        replace(plan, clock_hz=0)


# Files ----------------------------------------------------------------------------------------

TEXT = """\
# Edited by hand.
network = "small"
board = "icebreaker"
goal = "hand"
clock_hz = 24_000_000

[[stage]]
layer = "fc1"
engine = "xnor"
pe = 2
simd = 3

[[stage]]
layer = "argmax"
engine = "argmax"
pe = 1
simd = 4
weights = "lut"
levels = "block"
fifo = [16]  # Because I can.
queue = 2
"""


def test_round_trip(plan, tmp_path):
    stages = [replace(s, fifo=(4,), queue=3, weights=STORES[1]) for s in plan.stages]
    plan = replace(plan, stages=tuple(stages))
    plan.save(tmp_path / "deep" / "plan.toml")
    assert Plan.load(tmp_path / "deep" / "plan.toml") == plan
    assert Plan.from_toml(plan.to_toml()).to_toml() == plan.to_toml()


def test_a_plan_written_by_hand(tmp_path):
    (tmp_path / "plan.toml").write_text(TEXT, encoding="utf-8")
    assert Plan.load(tmp_path / "plan.toml") == Plan(
        network="small",
        board="icebreaker",
        goal="hand",
        clock_hz=24_000_000,
        stages=(
            Stage(layer="fc1", engine="xnor", pe=2, simd=3),
            Stage(
                layer="argmax",
                engine="argmax",
                pe=1,
                simd=4,
                weights="lut",
                levels="block",
                fifo=(16,),
                queue=2,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "goal =",
            "gaol =",
            "plan: keys are network, board, goal, clock_hz, not 'gaol'",
        ),
        ('board = "icebreaker"\n', "", "plan: board is missing"),
        ("24_000_000", "24e6", "plan: clock_hz must be int, not 24000000.0"),
        ("24_000_000", "-5", "clock_hz must be at least 1, not -5"),
        ('network = "small"', "network = 3", "plan: network must be str, not 3"),
        (
            "simd = 3",
            "smid = 3",
            (
                "stage 0: keys are layer, engine, pe, simd, pixels, style, weights, levels, lines, "
                "fifo, queue, not 'smid'"
            ),
        ),
        ("simd = 4\n", "", "stage 1: simd is missing"),
        ("pe = 2", 'pe = "2"', "stage 0: pe must be int, not '2'"),
        ("pe = 2", "pe = true", "stage 0: pe must be int, not True"),
        ("fifo = [16]", "fifo = [1]", "argmax: fifo must be 0 or at least 3, not 1"),
        ("queue = 2", "queue = 0", "argmax: queue must be at least 1, not 0"),
        ('"lut"', '"ultra"', "argmax: a memory must be one of block, lut, spram, not 'ultra'"),
        ("[[stage]]", "[[layer]]", "plan: keys are network, board, goal, clock_hz, not 'layer'"),
    ],
)  # fmt: skip
def test_refuses_files(tmp_path, old, new, message):
    path = tmp_path / "plan.toml"
    text = TEXT.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    with refused(FileProblem, f"{path}: {message}"):
        Plan.load(path)


def test_refuses_stages_that_are_no_list(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(TEXT.split("[[stage]]")[0] + "[stage]\npe = 1\n", encoding="utf-8")
    with refused(FileProblem, f"{path}: stages must be written as [[stage]] tables"):
        Plan.load(path)


def test_refuses_what_is_not_toml(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("network = small", encoding="utf-8")
    with pytest.raises(FileProblem, match=rf"^{re.escape(str(path))}: not TOML \(.*line 1.*\)$"):
        Plan.load(path)


def test_refuses_what_is_not_text(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_bytes(b'network = "\xff"')
    with refused(FileProblem, f"{path}: a plan must be UTF-8 text"):
        Plan.load(path)


def test_refuses_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "plan.toml"
    with refused(FileProblem, f"{path}: cannot be read (No such file or directory)"):
        Plan.load(path)
    with refused(FileProblem, f"{tmp_path}: cannot be read (Is a directory)"):
        Plan.load(tmp_path)
