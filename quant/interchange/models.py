"""Models of other tools, whatever their form: read, as a network, and beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, FileProblem, Mismatch
from brambling.network import Network
from brambling.quant.formats import Fixed
from brambling.quant.interchange.compared import Compared, Report
from brambling.sim import golden

__all__ = ["Model", "read"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Model:
    """A model and the network that was made of it.

    Parameters
    ----------
    path
        The file.
    form
        ``"qonnx"``, ``"tflite"``, or ``"brambling"`` for a network that was exported.
    network
        With its :class:`~brambling.origin.Origin`, but for those that were exported.
    notes
        What was left out, in words.
    made
        What the importer knows.
    """

    path: Path
    form: str
    network: Network
    notes: tuple[str, ...]
    made: Any

    def differences(self, images: NDArray, network: Network | None = None) -> Iterator[Compared]:
        """Compare tensor by tensor; ``network`` in place of the imported one."""
        match self.form:
            case "qonnx":
                from brambling.quant.interchange import check

                return check.differences(self.made, images, network)
            case "tflite":
                from brambling.quant.interchange import tflite_check

                return tflite_check.differences(self.made, self.path, images, network)
        return exported_differences(self.made, network or self.network, images)

    def check(self, images: NDArray, progress: Progress = lambda done, of: None) -> Report:
        """Run the model itself; :class:`Mismatch` where rounding does not explain a difference."""
        match self.form:
            case "qonnx":
                from brambling.quant.interchange import check

                return check.check(self.made, images, progress)
            case "tflite":
                from brambling.quant.interchange import tflite_check

                return tflite_check.check(self.made, self.path, images, progress)
        codes = 0
        for found in self.differences(images):
            if found.differs.any():
                raise Mismatch(f"{self.network.name}: {found.first()}")
            codes += found.differs.size
        progress(len(images), len(images))
        return Report(len(images), codes, {}, 0, 0)


def read(
    path: Path,
    *,
    scale: Fraction | None = None,
    zero: int = 0,
    fmt: Fixed | None = None,
    shape: tuple[int, ...] | None = None,
    argmax: bool = False,
    name: str | None = None,
) -> Model:
    """Read an ``.onnx`` or ``.tflite`` file; see :class:`..importer.Options`.

    A network that :mod:`..exporter` wrote, and nobody changed, comes back as it was.
    """
    if path.suffix.lower() == ".tflite":
        if scale is not None or shape is not None or argmax:
            raise ConfigError(
                f"{path}: says its input's scale and shape itself: leave out --input-… and --argmax"
            )
        from brambling.quant.interchange import tflite_check
        from brambling.quant.interchange.tflite import import_tflite

        made = import_tflite(path, name)
        return Model(path, "tflite", tflite_check.with_origin(made), made.notes, made)
    if path.suffix.lower() != ".onnx":
        raise FileProblem(f"{path}: must be an .onnx or .tflite file: convert it")
    from brambling.quant.interchange import importer, reader, restore

    model = reader.load(path)
    network = restore.restore(model) if scale is None and not argmax else None
    graph = reader.parse(model, path.stem, shape=shape, folder=path.parent)
    if network is not None:
        network = network if name is None else replace(network, name=name)
        return Model(path, "brambling", network, (), graph)
    options = importer.Options(scale, zero, fmt or importer.PIXEL, shape, argmax=argmax, name=name)
    made = importer.import_graph(graph, options)
    return Model(path, "qonnx", made.network, made.notes, made)


def exported_differences(graph: Any, network: Network, images: NDArray) -> Iterator[Compared]:
    """Compare the graph that a network was exported as: its tensors are named for the edges."""
    from brambling.quant.interchange import executor

    frames = golden.frames(network, images)
    edges = golden.run(network, frames)
    x = np.moveaxis(frames, -1, 1) if frames.ndim == 4 else frames
    made = {name for node in graph.nodes for name in node.outputs}
    names = [name for name in edges if name in made]
    model = executor.execute(graph, x, names)
    for name in names:
        mine = edges[name].astype(np.float64)
        mine = np.moveaxis(mine, -1, 1) if mine.ndim == 4 else mine
        seen = model[name].astype(np.float64).reshape(mine.shape)
        differs = seen != mine
        yield Compared(name, name, name, True, seen, mine, differs, np.zeros_like(differs))
