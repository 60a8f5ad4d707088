"""What identifies a network on a chip: what it computes, whoever trained it, whatever it is called.

The digest covers the input's shape and format, and of each layer its kind, inputs, attributes and
parameters, in order. It leaves out the names of network and layers (inputs are told by number), the
classes' names, how a frame is made from an image, and provenance: two networks with equal digests
have equal results.
"""

import hashlib
import json
from typing import Any

import numpy as np

from brambling.network import INPUT, Network

__all__ = ["LENGTH", "digest"]

LENGTH = 16  #: Bytes.


def digest(network: Network) -> bytes:
    """Return the first 16 bytes of the SHA-256 of what ``network`` computes."""
    found = hashlib.sha256(b"brambling network 1\n")
    numbers = {INPUT: 0} | {layer.name: n for n, layer in enumerate(network.layers, start=1)}
    _add(found, {"shape": list(network.input.shape), "fmt": str(network.input.fmt)})
    for layer in network.layers:
        arrays = layer.arrays()
        _add(found, {
            "kind": type(layer).__name__,
            "inputs": [numbers[source] for source in layer.inputs],
            "attributes": layer.attributes(),
            "arrays": {key: list(array.shape) for key, array in arrays.items()},
        })  # fmt: skip
        for key in sorted(arrays):
            # Whatever type an array is stored in, equal values are equal bytes.
            found.update(np.ascontiguousarray(arrays[key]).astype("<i8").tobytes())
    return found.digest()[:LENGTH]


def _add(found: Any, row: dict[str, Any]) -> None:
    """Add a line of JSON with its keys in order."""
    found.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
