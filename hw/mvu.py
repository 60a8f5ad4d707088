"""Matrix-vector unit: dense layers and convolutions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.feed import StreamFeedSpec
from brambling.hw.mac import XNOR, MacSpec
from brambling.hw.products import ProductBankSpec
from brambling.quant.formats import Bipolar

__all__ = ["MvuSpec", "XnorMvuSpec"]


@dataclass(frozen=True, eq=False, kw_only=True)
class MvuSpec(MacSpec):
    """Products of a matrix with the vectors of a feed: dense layers, and convolutions.

    ``pe`` outputs by ``simd`` inputs by ``pixels`` positions a cycle (the first two as in Umuroglu
    et al., "FINN", 2017, section 4.2); none need divide its size, the rest of the last group is
    idle. Fold ``f`` makes the outputs from ``f * pe``.

    Parameters
    ----------
    weights
        ``(chunks, outputs of a chunk, elements of a chunk)``; elements in the order of the feed:
        pixels of the window row by row, then channels.
    pe
        Outputs a cycle.
    """

    pe: int

    def __post_init__(self) -> None:
        super().__post_init__()
        feed, outputs = self.feed, self.outputs
        if not 1 <= self.pe <= outputs:
            raise ConfigError(f"pe must be 1 to {outputs}, not {self.pe}")
        if feed.chunks > 1 and outputs % self.pe:
            raise ConfigError(f"pe must divide the {outputs} outputs of a chunk, not be {self.pe}")
        if feed.chunks > 1 and feed.i.elements % (feed.chunks * feed.simd):
            raise ConfigError(
                f"simd must divide the channels of a chunk, {feed.i.elements} / {feed.chunks}, "
                f"not be {feed.simd}"
            )
        shape = feed.chunks, outputs, self._taps * self._inputs
        if self.weights.shape != shape:
            raise ConfigError(f"weights must be {shape} for the feed, not {self.weights.shape}")
        if feed.folds != -(-outputs // self.pe):
            raise ConfigError(
                f"folds of the feed must be {-(-outputs // self.pe)}, for {outputs} outputs "
                f"{self.pe} a cycle, not {feed.folds}"
            )

    @property
    def outputs(self) -> int:
        """Outputs of a chunk."""
        return self.weights.shape[1]

    @property
    def lanes(self) -> int:
        return self.pe

    @property
    def channels(self) -> int:
        return self.feed.chunks * self.outputs

    @property
    def elements(self) -> int:
        return self.weights.shape[2]

    @property
    def simd(self) -> int:
        return self.feed.simd

    @property
    def bank(self) -> ProductBankSpec:
        style = "planes" if self.style == XNOR else self.style
        return ProductBankSpec(self.feed.i.fmt, self.fmt, self.feed.simd, self.pe, style)

    @property
    def _inputs(self) -> int:
        """Channels of a chunk."""
        return self.feed.i.elements // self.feed.chunks

    @property
    def _taps(self) -> int:
        """Pixels of the window."""
        return self.feed.beats // -(-self._inputs // self.feed.simd)

    def _placed(self, values: NDArray, idle: int) -> NDArray:
        feed, outputs, inputs = self.feed, self.outputs, self._inputs
        groups = feed.beats // self._taps
        shape = feed.chunks, feed.folds * self.pe, self._taps, groups * feed.simd
        placed = np.full(shape, idle, values.dtype)
        placed[:, :outputs, :, :inputs] = values.reshape(feed.chunks, outputs, -1, inputs)
        placed = placed.reshape(feed.chunks, feed.folds, self.pe, feed.beats, feed.simd)
        return placed.swapaxes(2, 3)

    def _sums(self, x: NDArray) -> NDArray[np.int64]:
        weights = self._placed(self.weights.astype(np.int64), 0)
        return np.einsum("ngcbsp,cfbks->ngcfkp", self.feed.operands(x), weights)


class XnorMvuSpec(MvuSpec):
    """Product of a bipolar matrix with bipolar vectors.

    Parameters
    ----------
    weights
        Codes -1 and +1, ``(outputs, inputs)``.
    pe, simd
        Outputs and inputs a cycle.
    levels, falling, weight_store, level_store, queue
        As :class:`MacSpec`.
    """

    def __init__(self, *, weights: NDArray[np.int8], pe: int, simd: int, **options: Any) -> None:
        outputs, inputs = weights.shape
        if not 1 <= pe <= outputs:
            raise ConfigError(f"pe must be 1 to {outputs}, not {pe}")
        if not 1 <= simd <= inputs:
            raise ConfigError(f"simd must be 1 to {inputs}, not {simd}")
        feed = StreamFeedSpec(i=Beats(Bipolar(), inputs, simd), folds=-(-outputs // pe))
        super().__init__(
            feed=feed, weights=weights[None], fmt=Bipolar(), style=XNOR, pe=pe, **options
        )

    @property
    def inputs(self) -> int:
        return self.elements

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Minus the matches at which the accumulator of each output is to be 0, ``(outputs,)``."""
        return -self.needed - (self.inputs + 1) // 2
