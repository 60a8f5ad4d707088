"""Where a model, its network and the hardware first differ: edge, channel, pixel, values."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brambling.hw.accelerator import edges, pipeline
from brambling.network import Network
from brambling.origin import origin_of
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.cycles import schedule
from brambling.sim.progress import Progress
from brambling.simulation import MODELS, codes_of, compare, design_of, job_of, runner

if TYPE_CHECKING:
    from brambling.quant.interchange.compared import Compared
    from brambling.quant.interchange.models import Model

__all__ = ["Bisection", "Place", "Stage", "bisect"]


@dataclass(frozen=True, slots=True)
class Place:
    """The first place where two differ.

    Parameters
    ----------
    edge
        Of the network.
    tensor, node
        Of the model; empty where there is none.
    image
        Number of the image.
    pixel, channel
        Row and column, ``()`` in a vector, and channel.
    values
        By who computed it.
    count
        Elements of the edge that differ in all.
    """

    edge: str
    tensor: str
    node: str
    image: int
    pixel: tuple[int, ...]
    channel: int
    values: dict[str, float]
    count: int

    def __str__(self) -> str:
        name = f"edge {self.edge}"
        if self.tensor:
            name += f" (tensor {self.tensor} of {self.node})"
        pixel = f", pixel {self.pixel}" if self.pixel else ""
        values = ", ".join(f"{who} {value:.9g}" for who, value in self.values.items())
        where = f"image {self.image}, channel {self.channel}{pixel}"
        return f"{name}: {where}: {values}; {self.count} differ"


@dataclass(frozen=True, slots=True)
class Stage:
    """Two executions side by side.

    Parameters
    ----------
    name
        Such as ``"model and golden"``.
    edges
        How many were compared; 0 where the stage was left out, as ``note`` says.
    first
        The first difference.
    ties
        Codes that differ within float32's rounding, which is no difference.
    """

    name: str
    edges: int
    first: Place | None = None
    ties: int = 0
    note: str = ""

    def __str__(self) -> str:
        if self.first is not None:
            return f"{self.name}: {self.first}"
        if not self.edges:
            return f"{self.name}: {self.note}"
        ties = f", but for {self.ties} ties of float32" if self.ties else ""
        return f"{self.name}: equal, {self.edges} edges{ties}"


@dataclass(frozen=True, slots=True)
class Bisection:
    """What was found, stage by stage, from the model to the hardware."""

    network: str
    images: int
    stages: tuple[Stage, ...]

    @property
    def differs(self) -> bool:
        return any(stage.first is not None for stage in self.stages)

    def lines(self) -> list[str]:
        """Return a line for each stage."""
        return [f"{self.network}, {self.images} images", *map(str, self.stages)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bisect(
    model: "Model | None",
    network: Network,
    images: NDArray,
    plan: Plan,
    engine: str,
    progress: Progress,
) -> Bisection:
    """Run all on the same images and name the first difference of each pair.

    Parameters
    ----------
    model
        Of another tool; ``None`` for a network without one.
    network
        What was made of it, or another network with the same names of edges.
    images
        In the model's domain, or the network's frames where there is no model.
    engine
        Of the hardware; see :data:`brambling.simulation.ENGINES`.
    """
    origin = origin_of(network) if model is None or model.form != "brambling" else None
    if model is not None and model.form != "brambling":
        origin = origin_of(model.network)
    frames = golden.frames(network, images) if origin is None else origin.input.frames(
        images, network.input
    )  # fmt: skip
    stages = []
    if model is not None:
        progress("model", 0, 1)
        stages.append(compared("model and golden", "model", model.differences(images, network)))
        progress("model", 1, 1)
    stages.append(by_runtime(network, frames))
    stages.append(by_hardware(network, frames, plan, engine, progress))
    return Bisection(network.name, len(images), tuple(stages))


def compared(name: str, who: str, found: "Iterable[Compared]") -> Stage:
    """Find the first difference that rounding does not explain, in the model's order."""
    count = ties = 0
    tied: NDArray[np.bool_] | None = None
    for one in found:
        wrong = one.differs.reshape(len(one.differs), -1)
        own = wrong & one.doubtful.reshape(wrong.shape)
        tied = np.zeros(len(wrong), bool) if tied is None else tied
        bad = (wrong & ~own).any(axis=1) & ~tied
        if bad.any():
            first = one.first(bad)
            # Channels come first in a model's image, and last in ours.
            channel, *pixel = first.place or (0,)
            values = {who: first.model, "golden": first.network}
            place = Place(
                first.edge, first.tensor, first.node, first.image, tuple(pixel), channel, values,
                first.count,
            )  # fmt: skip
            return Stage(name, count + 1, place, ties)
        tied |= own.any(axis=1)
        ties += int(own.sum())
        count += 1
    return Stage(name, count, None, ties)


def by_runtime(network: Network, frames: NDArray) -> Stage:
    """Compare the golden model with the network as QONNX, in a runtime for ONNX."""
    name = "exported network and golden"
    try:
        from brambling.quant.interchange import exporter, reader
        from brambling.quant.interchange.models import exported_differences
    except ImportError as error:
        if error.name not in {"onnx", "google"}:
            raise
        return Stage(name, 0, note="left out: pip install 'brambling[import]'")
    graph = reader.parse(exporter.to_onnx(network), network.name)
    return compared(name, "exported", exported_differences(graph, network, frames))


def by_hardware(
    network: Network, frames: NDArray, plan: Plan, engine: str, progress: Progress
) -> Stage:
    """Compare the golden model with the generated hardware, every edge, value and cycle."""
    name = f"golden and hardware ({engine})"
    if engine in MODELS:
        return Stage(name, 0, note="left out: --engine is a model")
    values = golden.run(network, frames)
    nodes = pipeline(network, plan)
    found = schedule(nodes, len(frames))
    flat = frames.reshape(len(frames), -1)
    trace = runner(engine).run(
        design_of(network, plan, nodes), job_of(nodes, found, flat), vcd=None, progress=progress
    )
    seen = edges(nodes)
    for number, edge in enumerate(seen):
        port = "output" if number == len(seen) - 1 else edge.name
        codes = codes_of(edge, trace, port, len(frames))
        wanted = values[edge.name].reshape(len(frames), -1)
        differs = codes != wanted
        if differs.any():
            image, element = map(int, np.argwhere(differs)[0])
            shape = values[edge.name].shape[1:] or (1,)
            *pixel, channel = map(int, np.unravel_index(element, shape))
            both = {
                "golden": float(wanted[image, element]),
                "hardware": float(codes[image, element]),
            }
            place = Place(edge.name, "", "", image, tuple(pixel), channel, both, int(differs.sum()))
            return Stage(name, number + 1, place)
    compare(nodes, values, found, trace, len(frames))  # The cycles, too.
    return Stage(name, len(seen))
