"""Tensors of a file as arrays; what a tensor claims is checked against what there is of it."""

from collections.abc import Iterable
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from brambling.errors import FileProblem
from brambling.quant.interchange.limits import MAX_RANK, MAX_TENSOR, brief

__all__ = ["load"]

#: Bits of the types that a file packs tighter than bytes.
_PACKED = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
_PACKED |= {"FLOAT6E2M3": 6, "FLOAT6E3M2": 6}


def load(tensor: TensorProto, where: str, folder: Path | None = None) -> NDArray:
    """Return a tensor's values; data beside the model only from inside ``folder``.

    Parameters
    ----------
    tensor
        Of the file.
    where
        What to call it in messages.
    folder
        That the model lies in; ``None`` where it came from no file.
    """
    bits = _bits(tensor, where)
    if len(tensor.dims) > MAX_RANK or any(size < 0 for size in tensor.dims):
        raise FileProblem(
            f"{where}: dimensions {_listed(tensor.dims)}: not a shape; export it anew"
        )
    count = prod(tensor.dims)
    if count * bits > 8 * MAX_TENSOR:
        raise FileProblem(
            f"{where}: claims {count * bits // 8:,} bytes: at most {MAX_TENSOR:,}; export it anew"
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _with_external(tensor, where, folder, -(-count * bits // 8))
    _check_amount(tensor, where, count, bits)
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # of another package, on a damaged file
        raise FileProblem(f"{where}: cannot be read ({brief(error)}); export it anew") from None


def _listed(dims: Iterable[int]) -> str:
    sizes = [str(size) for size in dims][:8]
    return f"({', '.join(sizes)})"


def _bits(tensor: TensorProto, where: str) -> int:
    """Return the bits that an element takes in raw data."""
    types = TensorProto.DataType
    if tensor.HasField("segment"):
        raise FileProblem(f"{where}: is in segments, which no tool writes; export it anew")
    if tensor.data_type not in types.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise FileProblem(f"{where}: element type {tensor.data_type}: not known; export it anew")
    if tensor.data_type == TensorProto.STRING:
        raise FileProblem(f"{where}: holds text, not numbers; take it out of the model")
    name = types.Name(tensor.data_type)
    return _PACKED.get(name) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _check_amount(tensor: TensorProto, where: str, count: int, bits: int) -> None:
    """Compare the shape with the amount of data before anything is made of either."""
    if tensor.HasField("raw_data"):
        there, needed, unit = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        per = 8 // bits if bits < 8 and bits != 6 else 1
        parts = 2 if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128} else 1
        there, needed, unit = len(getattr(tensor, field)), -(-count * parts // per), "values"
        if bits == 6:
            needed = there  # two layouts are in use; the reading below tells
    if there != needed:
        raise FileProblem(
            f"{where}: shape {_listed(tensor.dims)} needs {needed:,} {unit}, but the file has "
            f"{there:,}; export it anew"
        )


def _with_external(
    tensor: TensorProto, where: str, folder: Path | None, needed: int
) -> TensorProto:
    """Return the tensor with the data that lies in another file."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise FileProblem(f"{where}: has its data in another file; read the model from its file")
    path = _inside(facts.get("location", ""), where, folder)
    offset, length = (_number(facts, key, where) for key in ("offset", "length"))
    size = path.stat().st_size
    offset, length = offset or 0, needed if length is None else length
    if length != needed:
        raise FileProblem(
            f"{where}: shape {_listed(tensor.dims)} needs {needed:,} bytes, but {length:,} are "
            f"said to be in {path.name}; export it anew"
        )
    if offset + length > size:
        raise FileProblem(
            f"{where}: bytes {offset:,} to {offset + length:,} of {path.name}: the file has "
            f"{size:,} only; copy it again"
        )
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(length)
    whole = TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    whole.raw_data = raw
    return whole


def _inside(location: str, where: str, folder: Path) -> Path:
    """Return the path of external data; refuse what leads out of the model's folder."""
    said = f"{where}: data in {location!r}"
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    outside = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or "\0" in location or outside or ".." in parts:
        raise FileProblem(f"{said}: must be inside the model's folder; put it there")
    try:
        base, path = folder.resolve(), (folder / location).resolve()
        if not path.is_relative_to(base):
            raise FileProblem(f"{said}: leads out of the model's folder; put the file there")
        if not path.is_file():
            raise FileProblem(f"{said}: no such file in the model's folder; copy it there")
        path.open("rb").close()
    except (OSError, RuntimeError, ValueError) as error:
        raise FileProblem(f"{said}: cannot be read ({brief(error)})") from None
    return path


def _number(facts: dict[str, str], key: str, where: str) -> int | None:
    text = facts.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise FileProblem(f"{where}: {key} {text[:40]!r}: not a number; export it anew")
    return int(text)
