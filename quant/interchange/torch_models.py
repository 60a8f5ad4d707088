"""PyTorch modules as networks: our own layers' by tracing, Brevitas' by its QONNX export."""

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brambling.errors import ConfigError, ToolProblem
from brambling.network import Network
from brambling.quant.floats import fill, first_line, made_by, read_tensors
from brambling.quant.graph import export_graph
from brambling.quant.interchange.importer import name_of

__all__ = ["import_module", "import_named"]


def import_named(
    spec: str,
    weights: Path | None,
    *,
    shape: Sequence[int] | None = None,
    name: str | None = None,
    **options: Any,
) -> Network:
    """Call ``"package.module:function"``, give what it returns its weights, and import it.

    Parameters
    ----------
    weights
        Safetensors file with the module's ``state_dict``; ``None``: it has them already.
    shape, options
        See :func:`import_module`.
    """
    if shape is None:
        raise ConfigError(f"{spec}: a PyTorch module does not say its input: give --input-shape")
    module = made_by(spec)
    if weights is not None:
        fill(module, read_tensors(weights)[0], weights, spec)
    return import_module(
        module.eval(), shape, name=name or name_of(spec.partition(":")[2]), **options
    )


def import_module(
    module: nn.Module, shape: Sequence[int], *, name: str = "network", **options: Any
) -> Network:
    """Make a network of a trained module in evaluation.

    Parameters
    ----------
    module
        Of :mod:`brambling.quant.layers`, which takes pixels; or of Brevitas' layers.
    shape
        ``(channels, rows, columns)``, or of whatever a Brevitas module takes.
    options
        For Brevitas' those of :func:`brambling.quant.interchange.models.read`; else ``argmax``.
    """
    if any(type(part).__module__.partition(".")[0] == "brevitas" for part in module.modules()):
        return of_brevitas(module, shape, name, options)
    if len(shape) != 3:
        raise ConfigError(f"{name}: input shape must be C,H,W, not {tuple(shape)}")
    unknown = sorted(options.keys() - {"argmax"})
    if unknown:
        raise ConfigError(
            f"{name}: a module of brambling.quant takes pixels, which PixelInput scales: leave out "
            "--input-scale"
        )
    channels, rows, columns = shape
    argmax = bool(options.get("argmax", False))
    return export_graph(module, name, (rows, columns, channels), argmax=argmax)


def of_brevitas(
    module: nn.Module, shape: Sequence[int], name: str, options: dict[str, Any]
) -> Network:
    """Let Brevitas write QONNX, and read that."""
    from brambling.quant.interchange import models

    try:
        from brevitas.export import export_qonnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(f"{name}: Brevitas cannot export QONNX ({error})") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        try:
            with redirect_stdout(StringIO()):  # It reports its progress there.
                export_qonnx(module, args=torch.zeros(1, *shape), export_path=str(path))
        except Exception as error:  # Other code: anything may come.
            raise ToolProblem(
                f"{name}: Brevitas cannot export QONNX ({first_line(error)})"
            ) from None
        return models.read(path, name=name, **options).network
