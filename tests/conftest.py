"""Small random networks, plans and frames for them."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from brambling.cli import main
from brambling.network import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Layer,
    Network,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.plan import Plan, Stage, steps
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.steps import PARTED


@pytest.fixture(scope="session")
def small_network():
    """Make a binary perceptron with random weights: u8 in, binarised at 128, arg-max out."""

    def make(sizes, seed=0, *, falling=False, name="small", argmax=True):
        rng = np.random.default_rng(seed)
        layers: list[Layer] = [
            Thresholds(
                name="binarise",
                inputs=("input",),
                levels=np.array([[128]]),
                falling=np.array([False]),
                fmt=Bipolar(),
            )
        ]
        for n, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            layers.append(
                Dense(
                    name=f"fc{n}",
                    inputs=(layers[-1].name,),
                    weights=rng.choice([-1, 1], (outputs, inputs)),
                    fmt=Bipolar(),
                )
            )
            if n < len(sizes) - 1:
                reach = int(inputs**0.5) + 1
                layers.append(
                    Thresholds(
                        name=f"act{n}",
                        inputs=(f"fc{n}",),
                        levels=rng.integers(-reach, reach + 1, (outputs, 1)),
                        falling=rng.integers(0, 2, outputs, bool) & falling,
                        fmt=Bipolar(),
                    )
                )
        if argmax:
            layers.append(ArgMax(name="argmax", inputs=(layers[-1].name,)))
        frame = Tensor((sizes[0],), Fixed(8, 0, signed=False))
        return Network(name, frame, tuple(layers))

    return make


@pytest.fixture(scope="session")
def hand_plan():
    """Make a plan from ``(pe, simd)`` of each engine; everything one at a time where not given."""

    def make(network, rows=None, **options):
        chain = steps(network)
        stages = []
        for step, row in zip(chain, rows or [(1, 1)] * len(chain), strict=True):
            pe, simd, fifo, queue = (*row, *(0, 1)[len(row) - 2 :])
            fields = {"queue": queue, "fifo": (fifo,) * len(step.sources)} | options
            stages.append(Stage(layer=step.name, engine=step.engine, pe=pe, simd=simd, **fields))
        return Plan(
            network=network.name,
            board="ulx3s-85f",
            goal="hand",
            clock_hz=100_000_000,
            stages=tuple(stages),
        )

    return make


@pytest.fixture(scope="session")
def random_frames():
    """Make frames of random codes of a network's input format."""

    def make(network, n, seed=0):
        fmt = network.input.fmt
        rng = np.random.default_rng(seed)
        if fmt == Bipolar():
            return rng.choice([-1, 1], (n, *network.input.shape))
        return rng.integers(fmt.min, fmt.max + 1, (n, *network.input.shape)).astype(fmt.dtype)

    return make


class Layers:
    """Adds layers with random parameters one after the other; each returns the name of its edge."""

    def __init__(self, shape, fmt, seed):
        self.rng = np.random.default_rng(seed)
        self.input = Tensor(shape, fmt)
        self.layers: list[Layer] = []
        self.tensors = {"input": self.input}

    def add(self, make, *sources, **parameters):
        name = f"{make.__name__.lower()}{len(self.layers) + 1}"
        if not sources:
            sources = (self.layers[-1].name if self.layers else "input",)
        layer = make(name=name, inputs=sources, **parameters)
        self.tensors[name] = layer.output(*(self.tensors[source] for source in sources))
        self.layers.append(layer)
        return name

    @property
    def last(self):
        return self.tensors[self.layers[-1].name] if self.layers else self.input

    def codes(self, shape, fmt):
        if fmt == Bipolar():
            return self.rng.choice([-1, 1], shape)
        return self.rng.integers(fmt.min, fmt.max, shape, endpoint=True)

    def conv(self, outputs, kernel, fmt, *sources, groups=1, **options):
        x = self.tensors[sources[0]] if sources else self.last
        shape = (outputs, *kernel, x.shape[-1] // groups)
        weights = self.codes(shape, fmt)
        return self.add(Conv, *sources, weights=weights, fmt=fmt, groups=groups, **options)

    def dense(self, outputs, fmt):
        return self.add(Dense, weights=self.codes((outputs, self.last.size), fmt), fmt=fmt)

    def thresholds(self, fmt, *sources, falling=False):
        x = self.tensors[sources[0]] if sources else self.last
        channels = x.shape[-1]
        count = 1 if fmt == Bipolar() else fmt.max - fmt.min
        reach = max(1, x.fmt.max // 4)
        levels = np.sort(self.rng.integers(-reach, reach + 1, (channels, count)), axis=1)
        flips = self.rng.integers(0, 2, channels, bool) & falling
        return self.add(Thresholds, *sources, levels=levels, falling=flips, fmt=fmt)

    def requantise(self, fmt, *sources, shift=None, **options):
        x = self.tensors[sources[0]] if sources else self.last
        shift = max(0, x.fmt.width - fmt.width) if shift is None else shift
        options = {"multiplier": np.array([1]), "bias": np.array([0])} | options
        return self.add(Requantise, *sources, fmt=fmt, shift=shift, **options)

    def network(self, name):
        return Network(name, self.input, tuple(self.layers))


U8, U4, S8, S4 = Fixed(8, 0, False), Fixed(4, 2, False), Fixed(8, 4), Fixed(4, 3)


def binary_cnn(seed):
    net = Layers((7, 6, 3), U8, seed)
    net.conv(5, (3, 3), Bipolar())
    net.thresholds(Bipolar())
    net.conv(6, (3, 2), Bipolar(), padding=(1, 1, 0, 1), pad_value=-1)
    net.thresholds(Bipolar(), falling=True)
    net.add(Pool, kind="max", kernel=(2, 2))
    net.dense(9, Bipolar())
    net.thresholds(Bipolar())
    net.dense(4, Bipolar())
    net.add(ArgMax)
    return net.network("binary_cnn")


def fixed_cnn(seed):
    net = Layers((8, 8, 1), U8, seed)
    net.conv(4, (5, 5), S8, padding=(2, 2, 2, 2))
    net.requantise(U4, low=0)
    net.add(Pool, kind="max", kernel=(2, 2))
    net.conv(6, (3, 3), S4, stride=(1, 1))
    net.requantise(U4, multiplier=net.rng.integers(1, 99, 6), bias=net.rng.integers(-99, 99, 6),
                   shift=12)  # fmt: skip
    net.add(Flatten)
    net.dense(10, S4)
    net.requantise(Fixed(12), bias=net.rng.integers(-50, 50, 10), shift=0)
    net.add(ArgMax)
    return net.network("fixed_cnn")


def residual(seed):
    net = Layers((6, 6, 4), U4, seed)
    net.conv(4, (3, 3), S4, padding=(1, 1, 1, 1))
    start = net.thresholds(U4)
    net.conv(4, (3, 3), S4, padding=(1, 1, 1, 1))
    net.thresholds(U4)
    net.conv(4, (3, 3), S4, padding=(1, 1, 1, 1))
    branch = net.requantise(S8)
    net.add(Add, branch, start)
    middle = net.requantise(U4, shift=2)
    net.conv(6, (3, 3), S4, middle, stride=(2, 2), padding=(1, 1, 1, 1))
    left = net.requantise(S8)
    net.conv(6, (1, 1), S4, middle, stride=(2, 2))
    right = net.requantise(S8)
    net.add(Add, left, right)
    net.requantise(U4, shift=3)
    net.add(Pool, kind="sum", kernel=None)
    net.dense(3, S8)
    return net.network("residual")


def shortcut(seed):
    net = Layers((5, 4, 2), U4, seed)
    start = net.requantise(U4, shift=1)
    net.conv(2, (3, 3), S4, padding=(1, 1, 1, 1))
    branch = net.requantise(S8)
    net.add(Add, branch, start)
    return net.network("shortcut")


def separable(seed):
    net = Layers((5, 6, 4), S4, seed)
    net.conv(4, (3, 3), S4, groups=4, padding=(1, 1, 1, 1))
    net.requantise(U4)
    net.conv(6, (1, 1), S4)
    both = net.requantise(Fixed(6, 2), slope=(8, 1), shift=6)
    a = net.add(Slice, both, start=0, stop=2)
    b = net.add(Slice, both, start=2, stop=6)
    a = net.add(Table, a, entries=net.rng.integers(0, 16, 64), fmt=U4)
    net.add(Concat, a, b)
    net.add(Upsample, factor=(2, 2))
    net.conv(2, (3, 3), Ternary(), dilation=(2, 2), stride=(2, 2))
    return net.network("separable")


def bordered(seed):
    net = Layers((5, 5, 4), Bipolar(), seed)
    net.conv(6, (3, 3), Bipolar(), padding=(1, 1, 1, 1))
    net.thresholds(Fixed(2, 0, False))
    net.conv(4, (3, 3), Bipolar(), stride=(2, 2), padding=(0, 1, 0, 1))
    return net.network("bordered")


def sequence(seed):
    net = Layers((1, 20, 6), Fixed(3), seed)
    net.conv(8, (1, 5), S4, groups=2, stride=(1, 2), padding=(0, 0, 2, 2))
    net.requantise(U4)
    net.conv(4, (1, 3), Ternary(), dilation=(1, 2))
    net.add(Pool, kind="average", kernel=(1, 2))
    net.add(ArgMax) if len(net.last.shape) == 1 else None
    return net.network("sequence")


def shuffled(seed):
    net = Layers((3, 3, 2), U4, seed)
    start = net.requantise(U4, shift=1)
    net.conv(8, (2, 2), S4, padding=(1, 0, 0, 1))
    net.requantise(U4)
    fine = net.add(DepthToSpace, block=(2, 2))
    coarse = net.add(Upsample, start, factor=(2, 2))
    net.add(Add, fine, coarse)
    net.requantise(U4, shift=1)
    net.conv(3, (2, 2), S4, stride=(2, 2))
    net.add(DepthToSpace, block=(1, 3))
    return net.network("shuffled")


CNNS = {
    make.__name__: make
    for make in (binary_cnn, fixed_cnn, residual, shortcut, separable, bordered, sequence, shuffled)
}


@pytest.fixture(scope="session")
def cnns():
    """Small convolutional networks by name: functions of a seed that draws their weights."""
    return CNNS


@pytest.fixture(scope="session", params=CNNS)
def small_cnn(request):
    """Each of them."""
    return CNNS[request.param]


def random_stage(step, rng):
    """Any legal stage of ``step``: lanes that divide nothing, FIFOs and queues of any depth."""

    def lanes(most, whole):
        if whole:
            return int(rng.choice([n for n in range(1, whole + 1) if whole % n == 0]))
        return int(rng.integers(1, most + 1))

    simd = lanes(step.inputs, step.inputs if step.chunks > 1 else 0)
    pe = lanes(step.outputs, step.outputs if step.chunks > 1 else 0)
    if step.engine in PARTED:
        simd = lanes(0, step.grain)
    style = str(
        rng.choice(["dsp", "lut", "planes"] if step.engine == "product" else ["lut", "dsp"])
    )
    return Stage(
        layer=step.name,
        engine=step.engine,
        pe=1 if step.engine == "argmax" else pe if step.products else simd,
        simd=simd,
        pixels=int(rng.integers(1, min(4, step.positions[1]) + 1)),
        style=style,
        weights=str(rng.choice(["lut", "block"])),
        levels=str(rng.choice(["lut", "block"])),
        lines=str(rng.choice(["lut", "block"])),
        fifo=tuple(
            int(rng.choice([0, 0, 3, 4, 7]) if len(step.sources) == 1 else rng.integers(3, 200))
            for _ in step.sources
        ),
        queue=int(rng.integers(1, 9)),
    )


@pytest.fixture(scope="session")
def random_plan():
    """Make any legal plan for a network."""

    def make(network, seed):
        rng = np.random.default_rng(seed)
        stages = tuple(random_stage(step, rng) for step in steps(network))
        return Plan(network=network.name, board="ulx3s-85f", goal="hand", clock_hz=1, stages=stages)

    return make


class Fakes:
    """Programs in a folder that behave as those of a build would; see ``boards/fake_tool.py``."""

    NAMES = ("yosys", "nextpnr-ice40", "icepack", "openFPGALoader")

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        source = (Path(__file__).parent / "boards" / "fake_tool.py").read_text(encoding="utf-8")
        for name in self.NAMES:
            path = folder / name
            path.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
            path.chmod(0o755)
        self.do()

    def do(self, **behaviour):
        """Say what programs do, ``_`` for ``-`` in their names; all that is not said works."""
        told = {name.replace("_", "-"): what for name, what in behaviour.items()}
        (self.folder / "behaviour.json").write_text(json.dumps(told))

    @property
    def named(self):
        return {name: str(self.folder / name) for name in self.NAMES}

    @property
    def calls(self):
        """Name, process and arguments of every call, but those for the version."""
        log = self.folder / "calls.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def fakes(tmp_path):
    """Programs of a build for iCE40 that do what a test says."""
    return Fakes(tmp_path / "fakes")


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line; return its status, standard output and standard error."""

    monkeypatch.setattr("brambling.sim.progress.PATIENCE", float("inf"))

    def call(*argv):
        status = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def refused(run):
    """Run a command line that must fail; return the one line that it says."""

    def call(*argv):
        status, out, err = run(*argv)
        assert status == 2
        assert not out
        assert err.count("\n") == 1
        assert err.startswith("brambling: error: ")
        return err.removeprefix("brambling: error: ").rstrip("\n")

    return call
