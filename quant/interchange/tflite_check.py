"""A network beside the TFLite model that it was made of, by LiteRT's reference kernels."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, Mismatch, ToolProblem
from brambling.network import Network
from brambling.origin import KEY, Decoding, Encoding, Layout, Origin, Rounding, origin_of
from brambling.quant.interchange.compared import Compared, Report
from brambling.quant.interchange.tflite import Affine, Imported
from brambling.sim import golden

__all__ = ["check", "differences", "with_origin"]


def plain(shape: tuple[int, ...]) -> Layout:
    return Layout(shape, shape, tuple(range(len(shape))))


def with_origin(made: Imported) -> Network:
    """Return the network with what its inputs and outputs are in the model."""
    network, given = made.network, made.input
    assert given.shape is not None
    fmt = given.fmt
    quantiser = Rounding(
        "round" if made.real[0] else "grid",
        (float(given.scale),),
        (float(given.zero_point),),
        (fmt.min,),
        (fmt.max,),
        rounding="half_away",
        behind=made.real[0],
    )
    encoding = Encoding(plain(tuple(given.shape[1:])), (), quantiser)
    shape, edge = network.output.shape or (1,), network.layers[-1].name
    output = made.output
    if output is None:
        decoding = Decoding(edge, plain(()), (1.0,), (0.0,), last="argmax")
    elif made.real[1]:
        gain = float(output.scale)
        decoding = Decoding(edge, plain(shape), (gain,), (-gain * output.zero_point,))
    else:
        decoding = Decoding(edge, plain(shape), (1.0,), (0.0,))
    origin = Origin("tflite", encoding, decoding, made.notes)
    return replace(network, provenance={**network.provenance, KEY: origin.to_json()})


def interpreter_of(path: Path) -> Any:
    """Return LiteRT's interpreter with reference kernels, whose every tensor can be read."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise ConfigError(
            "running a TFLite model needs LiteRT, which is not installed: "
            "pip install 'brambling[check]'"
        ) from None
    try:
        found = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
            num_threads=1,
        )
        found.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ToolProblem(f"{path}: LiteRT cannot run it ({error})") from None
    return found


def differences(
    made: Imported, path: Path, x: NDArray, network: Network | None = None
) -> Iterator[Compared]:
    """Compare every tensor that an edge holds, in the order of the network's edges."""
    origin = origin_of(with_origin(made))
    assert origin is not None
    network = network or made.network
    frames = origin.input.frames(x, network.input)
    edges = golden.run(network, frames)
    names = [name for name, edge in made.edges.items() if edge in edges]
    seen: dict[str, list[NDArray]] = {name: [] for name in names}
    run = interpreter_of(path)
    (given,) = run.get_input_details()
    real = given["dtype"] == np.float32
    for image in range(len(x)):
        codes = frames[image].reshape(given["shape"])
        run.set_tensor(given["index"], values_of(x[image], codes, made.input, real, given))
        run.invoke()
        for name in names:
            seen[name].append(run.get_tensor(made.indices[name]).astype(np.int64).reshape(-1))
    for name in names:
        model = np.stack(seen[name])
        mine = edges[made.edges[name]].astype(np.int64).reshape(len(x), -1)
        differs = model != mine
        nothing = np.zeros_like(differs)
        yield Compared(name, name, made.edges[name], True, model, mine, differs, nothing)


def values_of(
    x: NDArray, codes: NDArray, affine: Affine, real: bool, given: dict[str, Any]
) -> NDArray:
    """Input of an image in the model's type."""
    if not real:
        return codes.astype(given["dtype"])
    if x.dtype.kind == "f":
        return x.astype(np.float32).reshape(given["shape"])
    return ((codes - affine.zero_point) * affine.scale).astype(np.float32)


def check(
    made: Imported,
    path: Path,
    x: NDArray,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Compare a network with its model; any difference is a :class:`Mismatch`."""
    codes = 0
    for found in differences(made, path, x):
        if found.differs.any():
            raise Mismatch(f"{made.network.name}: {found.first()}")
        codes += found.differs.size
    progress(len(x), len(x))
    return Report(len(x), codes, {}, 0, 0)
