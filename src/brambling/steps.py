"""Steps: a network cut into the work of single engines, and how far each can be parallel."""

from dataclasses import dataclass
from math import gcd

from brambling.errors import UnsupportedLayer
from brambling.layers import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Layer,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.layers.image import Window
from brambling.network import Network
from brambling.quant.formats import Bipolar

__all__ = ["ELEMENTWISE", "PARTED", "Runs", "Step", "steps"]

ELEMENTWISE = ("thresholds", "requantise", "table", "add", "concat", "slice")
PARTED = ("concat", "slice", "shuffle")  #: Their lanes divide the parts of a pixel's channels.
LARGEST_KERNEL = 11  #: Rows or columns of a convolution's window.
#: Widths of weights and of activations, in bits, that have an engine.
WEIGHT_BITS, ACTIVATION_BITS = 16, 16
LEVEL_BITS = 8  #: Widest code that thresholds make.


@dataclass(frozen=True, slots=True)
class Runs:
    """Work of a frame: ``groups`` of positions, ``chunks`` by ``folds`` runs each, of ``beats``.

    A run is the slots, one a cycle, that make one output beat.
    """

    groups: int
    chunks: int
    folds: int
    beats: int

    @property
    def cycles(self) -> int:
        """Slots of a frame."""
        return self.groups * self.chunks * self.folds * self.beats


@dataclass(frozen=True, slots=True)
class Step:
    """Layers that one engine computes together, and how far it can be parallel.

    Parameters
    ----------
    engine
        ``"xnor"`` or ``"product"`` (matrix-vector units), ``"depthwise"``, ``"pool"``,
        ``"upsample"``, ``"shuffle"``, ``"thresholds"``, ``"requantise"``, ``"table"``, ``"add"``,
        ``"concat"``, ``"slice"`` or ``"argmax"``.
    layers
        The layers, first to last.
    sources
        Edges that it reads.
    tensors
        What it reads.
    result
        What it makes.
    """

    engine: str
    layers: tuple[Layer, ...]
    sources: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    result: Tensor

    @property
    def name(self) -> str:
        """The first layer's name; a stage is called by it."""
        return self.layers[0].name

    @property
    def output(self) -> str:
        """The last layer's name: the edge that leaves the engine."""
        return self.layers[-1].name

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.tensors[0]

    @property
    def products(self) -> bool:
        """Whether it is a matrix-vector unit."""
        return self.engine in {"xnor", "product"}

    @property
    def window(self) -> Window | None:
        """The window that slides over its input; ``None`` where nothing does."""
        layer = self.layers[0]
        if isinstance(layer, Pool):
            return layer.window(self.x)
        if isinstance(layer, Conv) and not layer.window.point:
            return layer.window
        return Window(kernel=(1, 1)) if isinstance(layer, Upsample | DepthToSpace) else None

    @property
    def chunks(self) -> int:
        """Groups of channels that a matrix-vector unit takes one after the other."""
        layer = self.layers[0]
        return layer.groups if self.products and isinstance(layer, Conv) else 1

    @property
    def inputs(self) -> int:
        """Elements that ``simd`` lanes take: a vector's, or the channels (of a group)."""
        if isinstance(self.layers[0], Dense):
            return self.x.size
        return (1, *self.x.shape)[-1] // self.chunks

    @property
    def outputs(self) -> int:
        """Elements that ``pe`` lanes make: the channels of the result (of a group)."""
        return (1, *self.result.shape)[-1] // self.chunks

    @property
    def grain(self) -> int:
        """Most lanes with which no beat has channels of two parts; see :data:`PARTED`."""
        sizes = [tensor.shape[-1] for tensor in (*self.tensors, self.result)]
        layer = self.layers[0]
        return gcd(*sizes, layer.start) if isinstance(layer, Slice) else gcd(*sizes)

    @property
    def positions(self) -> tuple[int, int]:
        """Rows and columns of the result; a vector is one pixel."""
        rows, columns = (1, 1, 1, *self.result.shape)[-3:-1]
        return rows, columns

    def runs(self, pe: int, simd: int, pixels: int) -> Runs:
        """Return the work of a frame for an engine that wide."""
        rows, columns = self.positions
        taps = self.window.kernel[0] * self.window.kernel[1] if self.window else 1
        groups = rows * -(-columns // pixels)
        lanes = -(-self.inputs // simd)
        if self.products:
            return Runs(groups, self.chunks, -(-self.outputs // pe), taps * lanes)
        if self.engine == "argmax":
            return Runs(1, 1, 1, lanes)
        if self.engine in {"concat", "slice"}:
            most = max(t.shape[-1] for t in (*self.tensors, self.result))
            return Runs(groups, -(-most // simd), 1, taps)
        return Runs(groups, -(-self.outputs // simd), 1, taps)

    def interval(self, pe: int, simd: int, pixels: int) -> int:
        """Cycles a frame that the engine needs when nothing else limits."""
        return max(self.runs(pe, simd, pixels).cycles, self.arrival(simd, pixels))

    def arrival(self, simd: int, pixels: int) -> int:
        """Cycles a frame in which input beats come, ``pixels`` of a row at a time."""
        if isinstance(self.layers[0], Dense):
            return -(-self.inputs // simd)
        rows, columns, channels = (1, 1, 1, *self.x.shape)[-3:]
        return rows * -(-columns // min(pixels, columns)) * -(-channels // simd)


def steps(network: Network) -> tuple[Step, ...]:
    """Cut ``network`` into steps, in order; :class:`UnsupportedLayer` where no engine fits.

    Flattening is free and belongs to no step.
    """
    found = []
    seen: set[str] = set()
    for layer in network.layers:
        if layer.name in seen:
            continue
        group = [layer]
        follower = _absorbed(network, layer)
        if follower is not None:
            group.append(follower)
        seen |= {member.name for member in group}
        if isinstance(layer, Flatten):
            continue
        tensors = network.inputs_of(layer)
        engine = _engine(layer, tensors)
        found.append(
            Step(engine, tuple(group), layer.inputs, tensors, network.tensors[group[-1].name])
        )
    return tuple(found)


def _absorbed(network: Network, layer: Layer) -> Thresholds | None:
    """Thresholds behind ``layer`` that its engine computes on the way out."""
    if not isinstance(layer, (Conv, Dense)):
        return None
    tensors = network.inputs_of(layer)
    if _engine(layer, tensors) != "xnor" or bordered(layer, tensors[0]):
        return None
    consumers = network.consumers(layer.name)
    after = consumers[0] if len(consumers) == 1 else None
    last = network.layers[-1].name == layer.name
    if isinstance(after, Thresholds) and after.fmt == Bipolar() and not last:
        return after
    return None


def bordered(layer: Layer, x: Tensor) -> bool:
    """Whether ``layer`` pads bipolar pixels with zeros, which its engine corrects afterwards."""
    return (
        isinstance(layer, Conv)
        and x.fmt == Bipolar()
        and any(layer.padding)
        and layer.pad_value == 0
    )


def _engine(layer: Layer, tensors: tuple[Tensor, ...]) -> str:
    x = tensors[0]
    match layer:
        case Conv() | Dense():
            return _product(layer, x)
        case Thresholds():
            if layer.levels.shape[1] >= 1 << LEVEL_BITS:
                raise UnsupportedLayer(
                    f"{layer.name}: Thresholds have an engine for codes of up to {LEVEL_BITS} "
                    f"bits, not for {layer.levels.shape[1]} levels: use Requantise"
                )
            return "thresholds"
        case Pool(kind="sum" | "average") if x.fmt == Bipolar() and any(layer.padding):
            raise UnsupportedLayer(
                f"{layer.name}: a sum over bipolar pixels has an engine without padding, not for "
                f"{layer.padding}: pad with a Conv, or use 'max'"
            )
    engines: dict[type[Layer], str] = {
        Requantise: "requantise",
        Table: "table",
        Pool: "pool",
        Upsample: "upsample",
        DepthToSpace: "shuffle",
        Add: "add",
        Concat: "concat",
        Slice: "slice",
        ArgMax: "argmax",
        Flatten: "flatten",
    }
    if type(layer) in engines:
        return engines[type(layer)]
    known = ", ".join(("Conv, Dense, Thresholds", *(kind.__name__ for kind in engines)))
    raise UnsupportedLayer(f"{layer.name}: {type(layer).__name__} has no engine; {known} have")


def _product(layer: Conv | Dense, x: Tensor) -> str:
    if x.fmt.width > ACTIVATION_BITS or layer.fmt.width > WEIGHT_BITS:
        raise UnsupportedLayer(
            f"{layer.name}: products have an engine for weights of up to {WEIGHT_BITS} bits and "
            f"inputs of up to {ACTIVATION_BITS}, not for {layer.fmt} and {x.fmt}: requantise"
        )
    if isinstance(layer, Conv):
        if max(layer.window.kernel) > LARGEST_KERNEL:
            raise UnsupportedLayer(
                f"{layer.name}: kernels have an engine up to {LARGEST_KERNEL} by "
                f"{LARGEST_KERNEL}, not for {layer.window.kernel}: use several smaller ones"
            )
        if bordered(layer, x) and (layer.groups > 1 or layer.fmt != Bipolar()):
            raise UnsupportedLayer(
                f"{layer.name}: zero padding of bipolar inputs has an engine for bipolar weights "
                f"in one group, not for {layer.fmt} weights in {layer.groups}: pad with -1 or +1"
            )
        channels = x.shape[-1]
        if layer.groups == channels == len(layer.weights) and channels > 1:
            return "depthwise"
    return "xnor" if layer.fmt == x.fmt == Bipolar() else "product"
