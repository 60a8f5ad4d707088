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
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from brambling.errors import BramblingError, ConfigError, FileProblem
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
from brambling.quant.formats import parse_format

__all__ = [
    "Add",
    "ArgMax",
    "Concat",
    "Conv",
    "Dense",
    "DepthToSpace",
    "Flatten",
    "Layer",
    "Network",
    "Pool",
    "Requantise",
    "Slice",
    "Table",
    "Tensor",
    "Thresholds",
    "Upsample",
]

VERSION = "1"
INPUT = "input"  #: Name of the network's input edge.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  #: A network's; names files.
LAYER_NAME = re.compile(r"[a-z][a-z0-9_]*")  #: Names signals and tensors.


def canonical(contents: bytes) -> bytes:
    """Order the keys in the header of a safetensors file, which the library leaves to chance."""
    end = 8 + int.from_bytes(contents[:8], "little")
    header = json.dumps(json.loads(contents[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + contents[end:]


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

    def inputs_of(self, layer: Layer) -> tuple[Tensor, ...]:
        """Return what ``layer`` reads."""
        return tuple(self.tensors[name] for name in layer.inputs)

    def macs_of(self, layer: Layer) -> int:
        """Multiply-accumulate operations of ``layer`` in one frame."""
        return layer.macs(*self.inputs_of(layer))

    @property
    def macs(self) -> int:
        return sum(self.macs_of(layer) for layer in self.layers)

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
