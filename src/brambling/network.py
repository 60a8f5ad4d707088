"""The network: integers only, what is computed, nothing about hardware.

A :class:`Network` is a directed acyclic graph of frozen layers; their parameters are read-only
NumPy arrays. A network that exists is valid: names resolve, shapes and formats chain, and no
accumulator can overflow, from the actual weights.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.quant.formats import Bipolar, Fixed, Format, parse_format

__all__ = ["ArgMax", "Dense", "Layer", "Network", "Tensor", "Thresholds"]

VERSION = "1"
INPUT = "input"  #: Name of the network's input edge.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  #: A network's; names files.
LAYER_NAME = re.compile(r"[a-z][a-z0-9_]*")  #: Names signals and tensors.


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape (without the batch) and number format of the values on one edge of the network.

    Channels come last: ``(channels,)``, ``(height, width, channels)``; ``()`` is one value.
    """

    shape: tuple[int, ...]
    fmt: Format

    def __post_init__(self) -> None:
        if not all(type(n) is int and n > 0 for n in self.shape):
            raise ConfigError(f"a shape must be positive integers, not {self.shape}")

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'scalar'}:{self.fmt}"


def frozen(array: NDArray, dtype: type[np.generic], what: str) -> NDArray:
    """Copy ``array`` as read-only ``dtype``; refuse what is not an integer or does not fit."""
    array = np.asarray(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError(f"{what}: values must be finite integers, not NaN or infinity")
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{what}: values must be integers, not {array.dtype}")
    copy = array.astype(dtype)
    if not np.array_equal(copy, array):
        raise ConfigError(f"{what}: values must fit {np.dtype(dtype)}, not {array.dtype}")
    copy.setflags(write=False)
    return copy


def canonical(contents: bytes) -> bytes:
    """Order the keys in the header of a safetensors file, which the library leaves to chance."""
    end = 8 + int.from_bytes(contents[:8], "little")
    header = json.dumps(json.loads(contents[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + contents[end:]


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A node of the network: ``inputs`` are the names of earlier layers, or ``"input"``.

    A subclass says what it makes of its inputs (:meth:`output`), which arrays are its parameters
    (:meth:`arrays`), and how it is written to a file (:meth:`attributes`, :meth:`read`). What its
    values are is the golden model's business, :mod:`brambling.sim.golden`.
    """

    name: str
    inputs: tuple[str, ...]

    kinds: ClassVar[dict[str, type["Layer"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Layer.kinds[cls.__name__] = cls

    def output(self, *inputs: Tensor) -> Tensor:
        """Infer the output; raise :class:`ConfigError` where the inputs do not fit."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray]:
        """Parameters, as they are stored."""
        return {}

    def attributes(self) -> dict[str, Any]:
        """Everything else that :meth:`read` needs, as JSON."""
        return {}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        """Make the layer from what :meth:`attributes` and :meth:`arrays` returned."""
        parameters: dict[str, Any] = {**names, **attributes, **arrays}
        return cls(**parameters)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one frame."""
        return 0

    @property
    def weight_bits(self) -> int:
        """Bits of weights, as stored on chip without compression."""
        return 0

    def _one(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if len(inputs) != 1:
            raise ConfigError(f"{self.name}: needs one input, not {len(inputs)}")
        return inputs[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Layer):
    """Matrix-vector product: ``y[o] = sum(weights[o, i] * x[i])``, exactly.

    Parameters
    ----------
    weights
        Codes, integers ``(outputs, inputs)``.
    fmt
        Format of the weights. ``Bipolar`` weights are -1 and +1.
    """

    weights: NDArray[np.int8 | np.int16]
    fmt: Format

    def __post_init__(self) -> None:
        what = f"{self.name}.weights"
        object.__setattr__(self, "weights", frozen(self.weights, self.fmt.dtype.type, what))
        if self.weights.ndim != 2 or 0 in self.weights.shape:
            raise ConfigError(f"{what}: shape must be (outputs, inputs), not {self.weights.shape}")
        if not self.fmt.holds(self.weights):
            raise ConfigError(f"{what}: every value must be a code of {self.fmt}")

    def bounds(self, x: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Smallest and largest result of each output over every possible input, ``(outputs,)``."""
        w = self.weights.astype(np.int64)
        positive, negative = np.maximum(w, 0).sum(axis=1), np.minimum(w, 0).sum(axis=1)
        low = positive * x.fmt.min + negative * x.fmt.max
        return low, positive * x.fmt.max + negative * x.fmt.min

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        outputs, elements = self.weights.shape
        if x.size != elements:
            raise ConfigError(
                f"{self.name}.weights: takes {elements} inputs, but {self.inputs[0]!r} is {x}"
            )
        if elements * max(-x.fmt.min, x.fmt.max) * max(-self.fmt.min, self.fmt.max) >= 1 << 62:
            raise ConfigError(f"{self.name}: {elements} products of {x.fmt} and {self.fmt} "
                              "could overflow 63 bits")  # fmt: skip
        low, high = self.bounds(x)
        fmt = Fixed.spanning(int(low.min()), int(high.max()), x.fmt.frac + self.fmt.frac)
        return Tensor((outputs,), fmt)

    def arrays(self) -> dict[str, NDArray]:
        if self.fmt == Bipolar():
            return {"weights": np.packbits(self.weights > 0, axis=1, bitorder="little")}
        return {"weights": self.weights}

    def attributes(self) -> dict[str, Any]:
        return {"fmt": str(self.fmt), "elements": self.weights.shape[1]}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        fmt, elements = parse_format(attributes["fmt"]), int(attributes["elements"])
        weights = arrays["weights"]
        what = f"{names['name']}.weights"
        if fmt == Bipolar():
            if weights.dtype != np.uint8:
                raise ConfigError(f"{what}: packed bits must be uint8, not {weights.dtype}")
            if weights.ndim != 2 or weights.shape[1] != -(-elements // 8):
                raise ConfigError(
                    f"{what}: {elements} packed bits a row need shape "
                    f"(outputs, {-(-elements // 8)}), not {weights.shape}"
                )
            bits = np.unpackbits(weights, axis=1, count=elements, bitorder="little")
            weights = 2 * bits.astype(np.int8) - 1
        return cls(**names, weights=weights, fmt=fmt)

    @property
    def macs(self) -> int:
        return self.weights.size

    @property
    def weight_bits(self) -> int:
        return self.weights.size * self.fmt.width


@dataclass(frozen=True, eq=False, kw_only=True)
class Thresholds(Layer):
    """Activation by counting the levels of its channel that ``x`` reaches.

    Counts the levels ``T`` with ``T <= x``, or, where ``falling``, with ``x <= T``. The result is
    the ``count``-th code of ``fmt``: for ``Bipolar`` -1 and +1, else ``fmt.min + count``. This one
    form absorbs batch-norm, scale, bias and quantiser exactly (Umuroglu et al., "FINN", 2017,
    section 4.2.2, for one level).

    Parameters
    ----------
    levels
        Integers, ``(channels, n)``, or ``(1, n)`` for all channels alike; rows in rising order.
    falling
        Booleans, ``(channels,)`` or ``(1,)``.
    fmt
        Format of the output; has at least ``n + 1`` codes.
    """

    levels: NDArray[np.int64]
    falling: NDArray[np.bool_]
    fmt: Format

    def __post_init__(self) -> None:
        what = f"{self.name}.levels"
        object.__setattr__(self, "levels", frozen(self.levels, np.int64, what))
        falling = np.array(self.falling, dtype=bool)
        falling.setflags(write=False)
        object.__setattr__(self, "falling", falling)
        if self.levels.ndim != 2 or 0 in self.levels.shape:
            raise ConfigError(f"{what}: shape must be (channels, n), not {self.levels.shape}")
        if self.falling.shape != self.levels.shape[:1]:
            raise ConfigError(
                f"{self.name}.falling: shape must be {self.levels.shape[:1]}, "
                f"not {self.falling.shape}"
            )
        if (self.levels[:, 1:] < self.levels[:, :-1]).any():
            raise ConfigError(f"{what}: each row must be in rising order")
        codes = 2 if self.fmt == Bipolar() else self.fmt.max - self.fmt.min + 1
        if self.levels.shape[1] >= codes:
            raise ConfigError(
                f"{what}: {self.fmt} has {codes} codes, enough for {codes - 1} levels, "
                f"not {self.levels.shape[1]}"
            )

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        if len(self.levels) not in {1, x.shape[-1] if x.shape else 1}:
            raise ConfigError(
                f"{self.name}.levels: has {len(self.levels)} channels, "
                f"but {self.inputs[0]!r} is {x}"
            )
        return Tensor(x.shape, self.fmt)

    def arrays(self) -> dict[str, NDArray]:
        return {"levels": self.levels, "falling": self.falling}

    def attributes(self) -> dict[str, Any]:
        return {"fmt": str(self.fmt)}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        if arrays["falling"].dtype != np.bool_:
            raise ConfigError(
                f"{names['name']}.falling: values must be bool, not {arrays['falling'].dtype}"
            )
        parameters: dict[str, Any] = {**names, **arrays}
        return cls(**parameters, fmt=parse_format(attributes["fmt"]))


@dataclass(frozen=True, eq=False, kw_only=True)
class ArgMax(Layer):
    """Index of the largest element; of equal ones, the lowest index."""

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        if len(x.shape) != 1:
            raise ConfigError(f"{self.name}: needs a vector, but {self.inputs[0]!r} is {x}")
        return Tensor((), Fixed.spanning(0, x.size - 1))


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in an order in which each comes after its inputs; the last one is the output.

    Parameters
    ----------
    name
        Short name, used for files and modules.
    input
        Shape and format of a frame.
    layers
        The layers.
    classes
        What the output's indices mean; may be empty.
    normalisation
        How a frame is made from an image, in words.
    provenance
        Who made the weights and how: ``script``, ``seed``, ``dataset``, ``accuracy``, …
    """

    name: str
    input: Tensor
    layers: tuple[Layer, ...]
    classes: tuple[str, ...] = ()
    normalisation: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigError(f"a network's name must match {NAME.pattern}, not {self.name!r}")
        if not all(isinstance(text, str) for text in (self.normalisation, *self.classes)):
            raise ConfigError(f"{self.name}: normalisation and classes must be text")
        if not isinstance(self.provenance, Mapping):
            raise ConfigError(f"{self.name}: provenance must be a mapping, not {self.provenance!r}")
        if not self.layers:
            raise ConfigError(f"{self.name}: a network has at least one layer, not 0")
        object.__setattr__(self, "_tensors", dict(self._infer()))

    def _infer(self) -> Iterator[tuple[str, Tensor]]:
        known = {INPUT: self.input}
        yield INPUT, self.input
        for layer in self.layers:
            if not LAYER_NAME.fullmatch(layer.name):
                raise ConfigError(
                    f"{self.name}: a layer's name must match {LAYER_NAME.pattern}, "
                    f"not {layer.name!r}"
                )
            if layer.name in known:
                raise ConfigError(f"{self.name}: two layers are named {layer.name!r}")
            for source in layer.inputs:
                if source not in known:
                    raise ConfigError(f"{layer.name}: no earlier layer is named {source!r}")
            known[layer.name] = layer.output(*(known[source] for source in layer.inputs))
            yield layer.name, known[layer.name]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every edge by the name of the layer that makes it, and ``"input"``, in order."""
        return self._tensors  # type: ignore[attr-defined]

    @property
    def output(self) -> Tensor:
        return self.tensors[self.layers[-1].name]

    def layer(self, name: str) -> Layer:
        """Return the layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers)
        raise ConfigError(f"{self.name} has the layers {known}, not {name!r}")

    def consumers(self, name: str) -> tuple[Layer, ...]:
        """Layers that read the edge ``name``."""
        return tuple(layer for layer in self.layers if name in layer.inputs)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def weight_bits(self) -> int:
        return sum(layer.weight_bits for layer in self.layers)

    def __str__(self) -> str:
        rows = [f"{self.name}: {self.input}"]
        for layer in self.layers:
            sources = ", ".join(layer.inputs)
            rows.append(
                f"  {layer.name:12} {type(layer).__name__}({sources}) -> {self.tensors[layer.name]}"
            )
        return "\n".join(rows)

    # Files ------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the contents of a ``.safetensors`` file; equal networks give equal bytes."""
        tensors, rows = {}, []
        for layer in self.layers:
            for key, array in layer.arrays().items():
                tensors[f"{layer.name}.{key}"] = np.ascontiguousarray(array)
            rows.append({
                "kind": type(layer).__name__,
                "name": layer.name,
                "inputs": list(layer.inputs),
                **layer.attributes(),
            })
        text = json.dumps({
            "name": self.name,
            "input": {"shape": list(self.input.shape), "fmt": str(self.input.fmt)},
            "layers": rows,
            "classes": list(self.classes),
            "normalisation": self.normalisation,
            "provenance": dict(self.provenance),
        }, sort_keys=True)  # fmt: skip
        return canonical(save(tensors, {"brambling": VERSION, "network": text}))

    @property
    def digest(self) -> str:
        """Hash of everything that the network is; for caches and identification."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.digest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to ``path``; an interrupted write leaves the old file as it was."""
        from brambling.files import write_atomically

        write_atomically(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network that :meth:`save` wrote; :class:`FileProblem` for anything else."""
        path = Path(path)
        if not path.is_file():
            raise FileProblem(f"{path}: no such file")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                names = list(file.keys())
                tensors = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise FileProblem(f"{path}: not a whole safetensors file ({error})") from None
        version = metadata.get("brambling")
        if version != VERSION:
            raise FileProblem(f"{path}: network version must be {VERSION!r}, not {version!r}")
        try:
            return cls._parse(json.loads(metadata["network"]), tensors)
        except BramblingError as error:
            raise FileProblem(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise FileProblem(f"{path}: metadata is damaged ({error!r})") from None

    @classmethod
    def _parse(cls, meta: dict[str, Any], tensors: dict[str, NDArray]) -> Self:
        layers = []
        for row in meta["layers"]:
            kind, name, inputs = row.pop("kind"), row.pop("name"), tuple(row.pop("inputs"))
            if kind not in Layer.kinds:
                known = ", ".join(Layer.kinds)
                raise ConfigError(f"{name}: layer kind must be one of {known}, not {kind!r}")
            prefix = name + "."
            arrays = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            try:
                layers.append(Layer.kinds[kind].read(row, arrays, name=name, inputs=inputs))
            except KeyError as error:
                raise ConfigError(f"{name}: tensor {name}.{error.args[0]} is missing") from None
        return cls(
            meta["name"],
            Tensor(tuple(meta["input"]["shape"]), parse_format(meta["input"]["fmt"])),
            tuple(layers),
            tuple(meta["classes"]),
            meta["normalisation"],
            meta["provenance"],
        )
