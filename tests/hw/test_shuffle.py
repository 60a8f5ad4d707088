"""Depth to space, as an engine: values and cycles against both models."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.engines import engine, inputs
from brambling.hw.node import Node
from brambling.hw.pool import PoolSpec
from brambling.hw.window import WindowFeedSpec
from brambling.layers import DepthToSpace
from brambling.layers.image import Window
from brambling.network import Network, Tensor
from brambling.plan import Stage, steps
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.sim import golden
from brambling.sim.cycles import schedule

U4 = Fixed(4, signed=False)


@dataclass(frozen=True)
class Case:
    """Channels are those of the result; ``brought`` are the pixels of an input beat."""

    size: tuple[int, int]
    channels: int
    block: tuple[int, int]
    simd: int = 1
    pixels: int = 1
    brought: int = 1
    fmt: Format = U4
    lines: str = "block"

    @property
    def network(self) -> Network:
        parts = self.block[0] * self.block[1]
        layer = DepthToSpace(name="apart", inputs=("input",), block=self.block)
        x = Tensor((*self.size, self.channels * parts), self.fmt)
        return Network("apart", x, (layer,))

    @property
    def spec(self) -> PoolSpec:
        (step,) = steps(self.network)
        stage = Stage(
            layer="apart",
            engine="shuffle",
            pe=self.simd,
            simd=self.simd,
            pixels=self.pixels,
            lines=self.lines,
            queue=3,
        )
        stage.check(step)
        (spec,) = engine(step, stage, inputs(step, stage, self.brought))
        assert isinstance(spec, PoolSpec)
        return spec

    @property
    def feed(self) -> WindowFeedSpec:
        feed = self.spec.feed
        assert isinstance(feed, WindowFeedSpec)
        return feed

    def images(self, frames: int) -> np.ndarray:
        fmt, rng = self.fmt, np.random.default_rng(11)
        codes = np.array([-1, 1]) if fmt == Bipolar() else np.arange(fmt.min, fmt.max + 1)
        return rng.choice(codes, (frames, self.network.input.size))


CASES = {
    "one lane": Case((2, 3), 3, (2, 2)),
    "every lane": Case((3, 3), 3, (2, 2), simd=3),
    "some lanes, signed": Case((2, 3), 6, (2, 2), simd=2, fmt=Fixed(5, 2)),
    "one channel": Case((3, 2), 1, (3, 3), fmt=Bipolar()),
    "no block": Case((3, 4), 4, (1, 1), simd=2, pixels=3, brought=2),
    "rows only": Case((3, 4), 2, (3, 1), pixels=2, fmt=Ternary()),
    "columns only": Case((1, 5), 2, (1, 4), simd=2),
    "block not square": Case((2, 3), 2, (2, 3), simd=2, pixels=4, fmt=Fixed(3)),
    "as many pixels as columns of the block": Case((3, 3), 2, (2, 2), pixels=2),
    "pixels across blocks": Case((3, 5), 2, (2, 2), pixels=3, simd=2),
    "pixels of several blocks": Case((2, 3), 1, (2, 2), pixels=6),
    "pixels past the last column": Case((2, 3), 2, (2, 2), simd=2, pixels=4),
    "input by two": Case((2, 4), 2, (2, 2), brought=2),
    "input by two to two": Case((3, 4), 2, (2, 2), pixels=2, brought=2, simd=2),
    "input by two to three, in LUT RAM": Case(
        (2, 3), 4, (2, 2), pixels=3, brought=2, simd=2, lines="lut"
    ),
    "input by three that do not divide": Case((2, 4), 1, (2, 2), pixels=4, brought=3),
    "first place in the later word": Case((2, 2), 1, (2, 3), pixels=2, brought=2, fmt=Fixed(6)),
    "input by a row": Case((3, 3), 2, (1, 2), pixels=5, brought=3),
    "one pixel": Case((1, 1), 2, (3, 2), simd=2, pixels=2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_both_models(run_component, stalls, case):
    spec, network, x = case.spec, case.network, case.images(3)
    wanted = golden.run(network, x)["apart"].reshape(len(x), -1)
    assert np.array_equal(spec.reference(x), wanted)
    found = run_component(spec, x, **stalls)["output"].payloads
    assert np.array_equal(spec.o.unpack(found), wanted)
    marks = np.unpackbits(found, axis=1, bitorder="little")[:, spec.o.width - 1]
    assert np.flatnonzero(marks).tolist() == [*range(0, len(found), spec.o.count)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_shapes_equal_both_models(run_component, stalls, seed):
    rng = np.random.default_rng(seed)
    size, block = ((int(rng.integers(1, 5)), int(rng.integers(1, 5))) for _ in range(2))
    channels = int(rng.integers(1, 7))
    case = Case(
        size,
        channels,
        block,
        simd=int(rng.choice([n for n in range(1, channels + 1) if channels % n == 0])),
        pixels=int(rng.integers(1, size[1] * block[1] + 1)),
        brought=int(rng.integers(1, size[1] + 1)),
        lines=str(rng.choice(["block", "lut"])),
    )
    test_equals_both_models(run_component, stalls, case)


@pytest.mark.parametrize("block", [(2, 2), (1, 3), (4, 1)], ids=str)
@pytest.mark.parametrize("simd", [1, 2])
def test_one_pixel_in_and_out_at_a_time_loses_no_cycle(block, simd):
    spec = replace(Case((4, 6), 4, block, simd=simd).spec, queue=None)
    (step,) = steps(Case((4, 6), 4, block).network)
    found = schedule((Node("apart", spec, (), step),), 20)
    assert found.interval == spec.i.count == step.interval(simd, simd, 1)


def test_a_beat_leaves_when_its_own_part_is_there():
    """Not when the pixel's last channel is."""
    need = Case((1, 4), 2, (2, 2), simd=2).feed.need
    assert need[:8].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert need[8:].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


def test_a_line_is_read_once_for_each_row_of_the_block():
    case = Case((3, 2), 2, (4, 1))
    assert (case.feed.rows, case.feed.bands, case.feed.passes) == (12, 3, 4)
    o = case.spec.o
    assert (o.rows, o.columns, o.elements) == (12, 2, 2)


def test_rejects_lanes_of_two_parts():
    with pytest.raises(ConfigError) as caught:
        Case((2, 2), 6, (2, 2), simd=4).spec  # noqa: B018
    assert str(caught.value) == (
        "apart: simd must divide 6, so that no beat has channels of two parts, not 4"
    )


def test_rejects_chunks_that_are_not_those_of_a_part():
    feed = WindowFeedSpec(
        source=Beats(U4, 8, 1, 2, 2), window=Window(kernel=(1, 1)), factor=(2, 2), split=True
    )
    with pytest.raises(ConfigError) as caught:
        PoolSpec(feed=feed, kind="max", target=U4)
    assert str(caught.value) == (
        "the feed of a pool of 2 groups of lanes must have 1 fold and 2 chunks, not 1 and 1"
    )
