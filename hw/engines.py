"""Which component is the engine of a step, and how it is parametrised."""

from math import prod

import numpy as np

from brambling.errors import ConfigError
from brambling.hw.argmax import ArgMaxSpec
from brambling.hw.beat import Beats
from brambling.hw.border import BorderSpec
from brambling.hw.depthwise import DepthwiseSpec
from brambling.hw.feed import FeedSpec, StreamFeedSpec
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.hw.mvu import MvuSpec
from brambling.hw.node import Spec
from brambling.hw.pool import PoolSpec
from brambling.hw.requantise import RequantiseSpec
from brambling.hw.slice import SliceSpec
from brambling.hw.table import TableSpec
from brambling.hw.thresholds import ThresholdsSpec
from brambling.hw.window import WindowFeedSpec
from brambling.layers import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Pool,
    Requantise,
    Slice,
    Table,
    Thresholds,
    Upsample,
)
from brambling.layers.image import Window
from brambling.plan import Stage, Step
from brambling.steps import bordered

__all__ = ["engine", "inputs", "repixel"]


def inputs(step: Step, stage: Stage, pixels: int) -> tuple[Beats, ...]:
    """How the engine of ``step`` takes each of its inputs.

    ``pixels`` is what the first input brings: a line buffer takes any.
    """
    lanes = stage.simd
    if step.window is None:
        pixels = stage.pixels
    if isinstance(step.layers[0], Dense | ArgMax):
        return (Beats(step.x.fmt, step.x.size, lanes),)
    return tuple(Beats.of(tensor, lanes, pixels) for tensor in step.tensors)


def engine(step: Step, stage: Stage, sources: tuple[Beats, ...]) -> tuple[Spec, ...]:
    """Return the components that compute ``step`` from ``sources``, in a row; mostly one."""
    i, queue = sources[0], stage.queue
    match step.layers[0]:
        case Conv() | Dense() as layer:
            return _product(step, stage, layer, i)
        case Pool() as layer:
            pad = step.x.fmt.min if layer.kind == "max" else 0
            feed = lanewise(i, stage, layer.window(step.x), pad_value=pad)
            kind = "max" if layer.kind == "max" else "sum"
            return (PoolSpec(feed=feed, kind=kind, target=step.result.fmt, queue=queue),)
        case Upsample() as layer:
            feed = lanewise(i, stage, Window(kernel=(1, 1)), factor=layer.factor)
            return (PoolSpec(feed=feed, kind="max", target=step.result.fmt, queue=queue),)
        case DepthToSpace() as layer:
            point = Window(kernel=(1, 1))
            feed = lanewise(i, stage, point, factor=layer.block, split=True)
            return (PoolSpec(feed=feed, kind="max", target=step.result.fmt, queue=queue),)
        case Thresholds() as layer:
            return (
                ThresholdsSpec(
                    i=i,
                    target=layer.fmt,
                    levels=layer.levels,
                    falling=layer.falling,
                    store=stage.levels,
                    queue=queue,
                ),
            )
        case Requantise() as layer:
            low, high = layer.limits
            return (
                RequantiseSpec(
                    i=i,
                    target=layer.fmt,
                    multiplier=layer.multiplier,
                    bias=layer.bias,
                    shift=layer.shift,
                    low=low,
                    high=high,
                    slope=layer.slope,
                    rounding=layer.rounding,
                    style=stage.style,
                    queue=queue,
                ),
            )
        case Table() as layer:
            return (
                TableSpec(
                    i=i, target=layer.fmt, entries=layer.entries, store=stage.levels, queue=queue
                ),
            )
        case Add():
            return (AddSpec(sources=sources, target=step.result.fmt, queue=queue),)
        case Concat():
            return (ConcatSpec(sources=sources, target=step.result.fmt, queue=queue),)
        case Slice() as layer:
            return (SliceSpec(i=i, start=layer.start, stop=layer.stop),)
        case ArgMax():
            return (ArgMaxSpec(source=i.fmt, elements=i.elements, simd=i.lanes, queue=queue),)
    raise ConfigError(f"{step.name}: {type(step.layers[0]).__name__} has no engine")


def lanewise(
    i: Beats,
    stage: Stage,
    window: Window,
    pad_value: int = 0,
    factor: tuple[int, int] = (1, 1),
    split: bool = False,
) -> WindowFeedSpec:
    """Feed of an engine that computes each lane by itself."""
    return WindowFeedSpec(
        source=i,
        window=window,
        pad_value=pad_value,
        pixels=stage.pixels,
        chunks=i.groups // prod(factor) if split else i.groups,
        factor=factor,
        split=split,
        store=stage.lines,
    )


def repixel(i: Beats, pixels: int) -> Spec:
    """Return a component that passes an image on with another number of pixels a beat."""
    feed = WindowFeedSpec(
        source=i, window=Window(kernel=(1, 1)), pixels=pixels, chunks=i.groups, store="block"
    )
    return PoolSpec(feed=feed, kind="max", target=i.fmt)


def _feed(step: Step, stage: Stage, layer: Conv | Dense, i: Beats, pad: int) -> FeedSpec:
    if isinstance(layer, Conv) and step.window:
        return WindowFeedSpec(
            source=i,
            window=step.window,
            pad_value=pad,
            pixels=stage.pixels,
            chunks=step.chunks,
            folds=-(-step.outputs // stage.pe),
            store=stage.lines,
        )
    return StreamFeedSpec(i=i, chunks=step.chunks, folds=-(-step.outputs // stage.pe))


def _product(step: Step, stage: Stage, layer: Conv | Dense, i: Beats) -> tuple[Spec, ...]:
    corrected = bordered(layer, step.x)
    pad = 0
    if isinstance(layer, Conv):
        pad = -1 if corrected else layer.pad_value
    if step.engine == "depthwise":
        window = layer.window if isinstance(layer, Conv) else Window(kernel=(1, 1))
        return (
            DepthwiseSpec(
                feed=lanewise(i, stage, window, pad),
                weights=layer.matrix,
                fmt=layer.fmt,
                style=stage.style,
                weight_store=stage.weights,
                queue=stage.queue,
            ),
        )
    levels = step.layers[1] if len(step.layers) > 1 else None
    assert levels is None or isinstance(levels, Thresholds)
    outputs = len(layer.matrix)
    unit = MvuSpec(
        feed=_feed(step, stage, layer, i, pad),
        weights=layer.matrix.reshape(step.chunks, step.outputs, -1),
        fmt=layer.fmt,
        pe=stage.pe,
        style="xnor" if step.engine == "xnor" else stage.style,
        levels=levels and np.broadcast_to(levels.levels[:, 0], (outputs,)),
        falling=(
            np.broadcast_to(levels.falling, (outputs,)) if levels and levels.falling.any() else None
        ),
        weight_store=stage.weights,
        level_store=stage.levels,
        queue=stage.queue,
    )
    if not corrected or not isinstance(layer, Conv):
        return (unit,)
    height, width, _ = step.x.shape
    border = BorderSpec(
        i=unit.o, window=layer.window, weights=layer.weights, height=height, width=width
    )
    return unit, border
