"""What is found where a network is compared with a model: see :mod:`..interchange.check`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Compared", "Difference", "Report"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place of a tensor where both differ.

    Parameters
    ----------
    node, tensor, edge
        The model's node and tensor, and the network's edge that stands for it.
    image, place
        Image, and index in the model's tensor.
    model, network
        Values.
    tie
        Whether float32's rounding explains it.
    count
        Elements that differ in all.
    """

    node: str
    tensor: str
    edge: str
    image: int
    place: tuple[int, ...]
    model: float
    network: float
    tie: bool
    count: int

    def __str__(self) -> str:
        what = "a tie within float32's rounding" if self.tie else "no tie"
        return (
            f"{self.tensor} of {self.node} (edge {self.edge}): image {self.image}, element "
            f"{self.place} is {self.model:.9g} in the model and {self.network:.9g} in the network, "
            f"{what} ({self.count} differ)"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared.

    Parameters
    ----------
    images, codes
        Images, and codes of all quantisers on them.
    ties
        By node: codes that differ where the argument is within float32's rounding of a step.
    carried
        Codes that differ further on in images with a tie.
    outputs
        Images whose outputs differ by more than rounding; each has a tie.
    """

    images: int
    codes: int
    ties: Mapping[str, int]
    carried: int
    outputs: int

    def __add__(self, other: "Report") -> "Report":
        names = [*self.ties, *(name for name in other.ties if name not in self.ties)]
        return Report(
            self.images + other.images,
            self.codes + other.codes,
            {name: self.ties.get(name, 0) + other.ties.get(name, 0) for name in names},
            self.carried + other.carried,
            self.outputs + other.outputs,
        )

    def __str__(self) -> str:
        ties = ", ".join(f"{name} {count}" for name, count in self.ties.items() if count)
        return (
            f"{self.images:,} images: {self.codes:,} codes equal but for float ties "
            f"({ties or 'none'}) and {self.carried} that follow from them; outputs equal but for "
            f"{self.outputs} images with a tie"
        )


@dataclass(frozen=True, eq=False)
class Compared:
    """A tensor in both, ``(n, *shape)``.

    Parameters
    ----------
    node, tensor, edge
        As in :class:`Difference`.
    rounds
        Whether it holds a quantiser's codes.
    model, network
        Values.
    differs, doubtful
        Where they differ, and where float32's rounding may explain that.
    """

    node: str
    tensor: str
    edge: str
    rounds: bool
    model: NDArray
    network: NDArray
    differs: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]

    def first(self, images: NDArray[np.bool_] | None = None) -> Difference:
        """Describe the first place that differs, of some images only."""
        differs = self.differs if images is None else self.differs.copy()
        if images is not None:
            differs[~images] = False
        place = tuple(np.argwhere(differs)[0].tolist())
        return Difference(
            self.node,
            self.tensor,
            self.edge,
            place[0],
            tuple(place[1:]),
            float(self.model[place]),
            float(self.network[place]),
            bool(self.doubtful[place]),
            int(differs.sum()),
        )
