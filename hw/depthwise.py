"""Depthwise unit: each channel has a window of weights of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.mac import XNOR, MacSpec
from brambling.hw.products import ProductBankSpec
from brambling.quant.formats import Format

__all__ = ["DepthwiseSpec", "LaneBank", "LaneBankSpec"]


@dataclass(frozen=True, slots=True)
class LaneBankSpec:
    """Products of ``lanes`` inputs with a weight each: banks of one product, side by side.

    Parameters
    ----------
    x, w, style
        As :class:`ProductBankSpec`.
    lanes
        Products.
    """

    x: Format
    w: Format
    lanes: int
    style: str

    @property
    def each(self) -> ProductBankSpec:
        """The bank of one lane."""
        return ProductBankSpec(self.x, self.w, 1, 1, self.style)

    @property
    def gain(self) -> int:
        return self.each.gain

    @property
    def latency(self) -> int:
        return self.each.latency

    @property
    def width(self) -> int:
        """Bits of the weights of all lanes."""
        return self.lanes * self.each.width

    @property
    def multipliers(self) -> int:
        """Multipliers of the part that the bank takes."""
        return self.lanes * self.each.multipliers

    def excess(self, w: NDArray) -> NDArray[np.int64]:
        """See :meth:`ProductBankSpec.excess`; codes ``(..., lanes, 1)`` to ``(..., lanes)``."""
        return self.each.excess(w)

    def encode(self, w: NDArray) -> NDArray[np.bool_]:
        """Codes ``(..., lanes, 1)`` to bool ``(..., width)``, lane by lane."""
        return self.each.encode(w[..., None]).reshape(*w.shape[:-2], self.width)

    def build(self) -> "LaneBank":
        return LaneBank(self)


class LaneBank(wiring.Component):
    """Circuit of :class:`LaneBankSpec`: ``lanes`` results every cycle, ``spec.latency`` later.

    Members
    -------
    x : ``In(lanes * x.width)``
        Codes, lane 0 lowest.
    w : ``In(spec.width)``
        Weights; see :meth:`LaneBankSpec.encode`.
    o : ``Out(range(low, high + 1)).array(lanes)``
        Results.
    """

    x: Signal
    w: Signal
    o: tuple[Signal, ...]

    def __init__(self, spec: LaneBankSpec) -> None:
        self.spec = spec
        low, high = spec.each.bounds
        super().__init__({
            "x": In(spec.lanes * spec.x.width),
            "w": In(spec.width),
            "o": Out(range(low, high + 1)).array(spec.lanes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        each = self.spec.each
        for n, result in enumerate(self.o):
            m.submodules[f"lane{n}"] = bank = each.build()
            m.d.comb += [
                bank.x.eq(self.x[n * each.x.width :][: each.x.width]),
                bank.w.eq(self.w[n * each.width :][: each.width]),
                result.eq(bank.o[0]),
            ]
        return m


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseSpec(MacSpec):
    """Products of each channel's windows with its own weights, ``simd`` channels a cycle.

    One output for each channel: with several, their order is not that of beats of different
    channels, and a grouped convolution with as many groups as channels does it.

    Parameters
    ----------
    feed
        One fold; as many chunks as groups of lanes.
    weights
        ``(channels, pixels of the window, row by row)``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        feed = self.feed
        groups = -(-feed.i.elements // feed.simd)
        if feed.folds != 1 or feed.chunks != groups:
            raise ConfigError(
                f"the feed of {groups} groups of channels must have 1 fold and {groups} chunks, "
                f"not {feed.folds} and {feed.chunks}"
            )
        shape = feed.i.elements, feed.beats
        if self.weights.shape != shape:
            raise ConfigError(f"weights must be {shape} for the feed, not {self.weights.shape}")

    @property
    def lanes(self) -> int:
        return self.feed.simd

    @property
    def channels(self) -> int:
        return self.feed.i.elements

    @property
    def elements(self) -> int:
        return self.feed.beats

    @property
    def bank(self) -> LaneBankSpec:
        style = "planes" if self.style == XNOR else self.style
        return LaneBankSpec(self.feed.i.fmt, self.fmt, self.feed.simd, style)

    def _placed(self, values: NDArray, idle: int) -> NDArray:
        feed = self.feed
        spare = feed.chunks * feed.simd - self.channels
        placed = np.pad(values, ((0, spare), (0, 0)), constant_values=idle)
        placed = placed.reshape(feed.chunks, 1, feed.simd, feed.beats, 1)
        return placed.swapaxes(2, 3)

    def _sums(self, x: NDArray) -> NDArray[np.int64]:
        weights = self._placed(self.weights.astype(np.int64), 0)
        sums = np.einsum("ngcbsp,cbs->ngcsp", self.feed.operands(x), weights[:, 0, ..., 0])
        return sums[:, :, :, None]
