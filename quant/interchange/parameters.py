"""Parameters of layers as the constants of an exported model hold them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers.product import packed
from brambling.quant.formats import parse_format

__all__ = ["recovered"]


def recovered(row: Mapping[str, Any], constants: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return the arrays of a layer that ``row`` describes, as :meth:`Layer.arrays` has them.

    ``constants`` are those of the exporter for that layer, by name without the layer's. What
    cannot be found in them is left out; what is found may be wrong where a graph has no use for
    the exact value.
    """
    match row["kind"]:
        case "Dense" | "Conv" if "weights" in constants:
            w = rows_of_weights(row, constants["weights"])
            fmt = parse_format(row["fmt"])
            return {"weights": packed(whole(w).astype(fmt.dtype), fmt)}
        case "Thresholds" if "levels" in constants:
            return levels(constants)
        case "Requantise":
            keys = [key for key in ("multiplier", "bias") if key in constants]
            return {key: whole(constants[key]).reshape(-1) for key in keys}
        case "Table" if "entries" in constants:
            return {"entries": whole(constants["entries"])}
    return {}


def whole(array: NDArray) -> NDArray[np.int64]:
    """Return integers; refuse fractions, infinity and NaN."""
    with np.errstate(invalid="ignore"):
        integers = array.astype(np.int64)
    if not np.array_equal(integers, array):
        raise ConfigError("constants must be integers")
    return integers


def rows_of_weights(row: Mapping[str, Any], array: NDArray) -> NDArray:
    """Return weights with outputs first and channels last."""
    if row["kind"] == "Dense":
        return array.T
    if array.ndim == 3:  # (groups, taps * channels, outputs), of a matrix product.
        return array.transpose(0, 2, 1).reshape(row["shape"])
    return array.transpose(0, 2, 3, 1)


def levels(constants: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return rising rows; where signs are -1 the graph has the opposites."""
    array = whole(constants["levels"])
    array = array.reshape(-1, array.shape[-1])
    falling = np.zeros(len(array), bool)
    if "signs" in constants:
        falling = constants["signs"].reshape(-1) < 0
        array = np.where(falling[:, None], -array[:, ::-1], array)
    return {"levels": array, "falling": falling}
