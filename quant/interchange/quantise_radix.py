"""Radix points from data: the power of two whose rounding has the smallest squared error.

The method is that of :meth:`brambling.quant.quantiser.Quantiser.calibrate`, which needs PyTorch:
the same trials, the same error, and so the same choice.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import frexp, log10

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.quant.interchange import executor
from brambling.quant.interchange.graph import Graph

__all__ = [
    "Errors",
    "Format",
    "Runs",
    "activation_errors",
    "best_weights",
    "decibels",
    "round_rows",
]

TRIALS = 9  #: Radix points that are tried: the one that clips nothing, and places to its right.
SMALLEST = 2.0**-24  #: Of a largest magnitude.
BATCH = 32  #: Images that are computed at a time.
MEMORY = 2**28  #: Elements that are kept rather than computed again.


@dataclass(frozen=True)
class Format:
    """Codes of ``bits`` bits, whatever they stand for."""

    bits: int
    signed: bool

    @property
    def low(self) -> int:
        """Smallest code."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return (1 << self.bits - self.signed) - 1


def first_trial(fmt: Format, largest: float) -> int:
    """Return the last radix point with which nothing up to ``largest`` is clipped."""
    return frexp(fmt.high / max(largest, SMALLEST))[1] - 1  # the floor of its logarithm


def round_rows(rows: NDArray, fmt: Format, steps: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Round each row to its own step.

    Returns
    -------
    codes : int64, as ``rows``
    errors : squared, summed over each row
    clipped : in each row
    """
    steps = np.broadcast_to(steps, len(rows))[:, np.newaxis]
    nearest = np.rint(rows / steps)
    codes = nearest.clip(fmt.low, fmt.high)
    clipped = (codes != nearest).sum(axis=1)
    return codes.astype(np.int64), np.square(codes * steps - rows).sum(axis=1), clipped


def best_weights(rows: NDArray, fmt: Format) -> NDArray[np.int64]:
    """Return the best radix point of each row of weights; of rows of zeros, the smallest of all."""
    largest = np.abs(rows).max(axis=1)
    first = np.array([first_trial(fmt, float(size)) for size in largest])
    trials = first[:, np.newaxis] + np.arange(TRIALS)
    errors = [round_rows(rows, fmt, np.ldexp(1.0, -frac))[1] for frac in trials.T]
    best = trials[np.arange(len(rows)), np.argmin(errors, axis=0)]
    some = largest > 0
    best[~some] = best[some].min() if some.any() else 0
    return best


# Activations --------------------------------------------------------------------------------------


class Runs:
    """Tensors of a model on some images, a batch at a time; computed once if they fit in memory."""

    def __init__(
        self,
        graph: Graph,
        images: NDArray,
        names: Sequence[str],
        tell: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.graph, self.images, self.names, self.tell = graph, images, names, tell
        sizes = (np.prod(graph.shapes[name], dtype=np.int64) for name in names)
        self.fits = len(images) * sum(sizes) <= MEMORY
        self.kept: list[dict[str, NDArray]] = []

    def __iter__(self) -> Iterator[dict[str, NDArray]]:
        if len(self.kept) * BATCH >= len(self.images):
            yield from self.kept
            return
        for start in range(0, len(self.images), BATCH):
            found = executor.execute(self.graph, self.images[start : start + BATCH], self.names)
            part = {name: found[name] for name in self.names}
            self.tell(min(start + BATCH, len(self.images)))
            if self.fits:
                self.kept.append(part)
            yield part


@dataclass(frozen=True)
class Errors:
    """What rounding one activation costs, by radix point.

    Parameters
    ----------
    squared
        Summed squared error.
    clipped
        Elements that are clipped.
    signal
        Summed square of the activation itself.
    elements
        How many there are.
    """

    squared: Mapping[int, float]
    clipped: Mapping[int, int]
    signal: float
    elements: int


def largest_of(runs: Runs, names: Collection[str]) -> dict[str, float]:
    """Return the largest magnitude of activations; refuse those in which nothing happens."""
    largest = dict.fromkeys(runs.names, 0.0)
    for part in runs:
        for name, values in part.items():
            if not np.isfinite(values).all():
                raise ConfigError(
                    f"{name}: activations must be finite, not NaN or infinity; "
                    "use other images, or train the model again"
                )
            largest[name] = max(largest[name], float(np.abs(values).max()))
    for name in names:
        if not largest[name]:
            raise ConfigError(
                f"{name}: no calibration image makes this activation other than 0; "
                "use other images, or train the model"
            )
    return largest


def trials_of(
    formats: Mapping[str, Format], largest: Mapping[str, float], group: Mapping[str, str]
) -> dict[str, range]:
    """Return the radix points worth trying, which are the same for all of a group."""
    first = {name: first_trial(fmt, largest[name]) for name, fmt in formats.items()}
    start: dict[str, int] = {}
    for name, frac in first.items():
        start[group[name]] = min(frac, start.get(group[name], frac))
    return {name: range(start[group[name]], start[group[name]] + TRIALS) for name in formats}


def activation_errors(
    runs: Runs,
    formats: Mapping[str, Format],
    group: Mapping[str, str],
    fixed: Mapping[str, int],
) -> dict[str, Errors]:
    """Measure what rounding each activation costs.

    Parameters
    ----------
    runs
        The float model on the images that calibrate.
    formats
        Of each activation.
    group
        Name that all activations with one radix point share.
    fixed
        Radix points of groups that have no choice.
    """
    trials = trials_of(formats, largest_of(runs, formats), group)
    trials |= {
        name: range(fixed[group[name]], fixed[group[name]] + 1)
        for name in formats
        if group[name] in fixed
    }
    squared = {name: np.zeros(len(fracs)) for name, fracs in trials.items()}
    clipped = {name: np.zeros(len(fracs), np.int64) for name, fracs in trials.items()}
    signal, elements = dict.fromkeys(formats, 0.0), dict.fromkeys(formats, 0)
    for part in runs:
        for name, fmt in formats.items():
            row = part[name].astype(np.float64).reshape(1, -1)
            signal[name] += float(np.square(row).sum())
            elements[name] += row.size
            for n, frac in enumerate(trials[name]):
                _, error, beyond = round_rows(row, fmt, np.ldexp(1.0, [-frac]))
                squared[name][n] += error[0]
                clipped[name][n] += beyond[0]
    return {
        name: Errors(
            dict(zip(trials[name], squared[name].tolist(), strict=True)),
            dict(zip(trials[name], clipped[name].tolist(), strict=True)),
            signal[name],
            elements[name],
        )
        for name in formats
    }


def decibels(signal: float, noise: float) -> float | None:
    """Signal to quantisation noise; ``None`` where one of both is absent."""
    return 10 * log10(signal / noise) if signal and noise else None
