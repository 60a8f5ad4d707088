"""The real ``qonnx`` package as an oracle: executes models in its own environment."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["MODELS", "Exported", "execute", "models", "require"]

HERE = Path(__file__).parent
PEERS = HERE.parents[2] / ".venv-peers"
#: Names of what ``brevitas_models.py`` makes.
MODELS = (
    "lenet",
    "residual-alike",
    "residual-unlike",
    "perceptron",
    "separable",
    "binary",
    "qcdq",
)


@dataclass(frozen=True, eq=False)
class Exported:
    """A model that Brevitas made and exported.

    Parameters
    ----------
    file
        The exported model.
    inputs
        A batch of float32.
    outputs
        What Brevitas itself makes of them.
    qonnx
        What the ``qonnx`` package makes of them by the exported model.
    """

    file: Path
    inputs: NDArray
    outputs: NDArray
    qonnx: NDArray


def require():
    """Skip a test where the environment of the other tools has not been made."""
    if not (PEERS / ".peers").exists():
        pytest.skip("qonnx and brevitas are not installed: make .venv-peers/.peers")


def run(script: str, *arguments: str | Path):
    """Run a program of this folder in the other tools' environment, on one core."""
    require()
    python = PEERS / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [python, "-W", "ignore", HERE / script, *arguments]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        command, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def execute(jobs: Sequence[tuple[Path, NDArray]]) -> list[dict[str, NDArray]]:
    """Execute models, each on a batch of inputs; all in one process.

    Returns
    -------
    list
        For each job what its nodes compute, and its input, by name. What depends on the input has
        the batch in front; for what does not (a weight's quantiser), the tensor as it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "jobs.json").write_text(json.dumps([os.fspath(file) for file, _ in jobs]))
        for n, (_, inputs) in enumerate(jobs):
            np.save(at / f"{n}.npy", inputs)
        run("run_qonnx.py", at)
        wrong = [f"{jobs[int(file.stem)][0]}: {file.read_text()}" for file in at.glob("*.txt")]
        assert not wrong, "\n".join([f"{len(wrong)} of {len(jobs)} jobs failed", *sorted(wrong)])
        return [_tensors(at / f"{n}.npz") for n in range(len(jobs))]


def models(folder: Path, names: Sequence[str] = MODELS, *, seed: int = 1) -> list[Exported]:
    """Make models with Brevitas, calibrate, export and execute them; some seconds each."""
    run("brevitas_models.py", folder, str(seed), *names)
    made = []
    for name in names:
        with np.load(folder / f"{name}.npz") as arrays:
            made.append(Exported(folder / f"{name}.onnx", **arrays))
    return made


def _tensors(file: Path) -> dict[str, NDArray]:
    with np.load(file) as arrays:
        names = json.loads(str(arrays["names"]))
        return {name: arrays[str(n)] for n, name in enumerate(names)}
