"""PyTorch modules as networks: our own by tracing, Brevitas' by its QONNX export."""

import sys

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.network import Conv, Network
from brambling.sim import golden

from .real_qonnx import run as run_peers

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
torch_models = pytest.importorskip("brambling.quant.interchange.torch_models")

MODULE = """
import torch
from torch import nn
from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.quantiser import Quantiser

def net():
    torch.manual_seed(4)
    def radix(bits, frac, signed=True):
        return Quantiser(bits, signed=signed, method="radix", frac=frac)
    made = nn.Sequential(
        PixelInput(128, 1 / 64), QuantConv2d(3, 4, 3, quantiser=radix(4, 3)), nn.BatchNorm2d(4),
        QuantActivation(radix(4, 2, signed=False)), nn.Flatten(),
        QuantLinear(64, 5, quantiser=radix(4, 2)),
    )
    for place in (1, 5):
        nn.init.normal_(made[place].weight, std=0.5)
    return made
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    (tmp_path / "mine_for_import.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "mine_for_import:net"
    sys.modules.pop("mine_for_import", None)
    sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


def test_module_by_name(run, spec, tmp_path):
    from safetensors.torch import save_file

    argv = ("import", spec, "--input-shape", "3,6,6", "--argmax")
    assert run(*argv, "-o", tmp_path / "a.safetensors")[0] == 0
    made = sys.modules["mine_for_import"].net().eval()
    images = np.random.default_rng(1).integers(0, 256, (30, 6, 6, 3), np.uint8)
    network = Network.load(tmp_path / "a.safetensors")
    with torch.no_grad():
        logits = made(torch.from_numpy(np.moveaxis(images, -1, 1).astype(np.float32)))
    found = golden.run(network, images)["argmax"]
    assert np.array_equal(found, logits.argmax(1).numpy())
    assert len(np.unique(found)) > 1
    state = dict(made.state_dict())
    state["1.weight"] = -state["1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    other = tmp_path / "b.safetensors"
    assert run(*argv, "--weights", tmp_path / "w.safetensors", "-o", other)[0] == 0
    assert Network.load(other) != network


def test_errors(refused, spec):
    assert refused("import", spec) == (
        f"{spec}: a PyTorch module does not say its input: give --input-shape"
    )
    assert (
        refused("import", spec, "--input-shape", "3,6")
        == "net: input shape must be C,H,W, not (3, 6)"
    )
    assert refused("import", spec, "--input-shape", "3,6,6", "--input-scale", "1") == (
        "net: a module of brambling.quant takes pixels, which PixelInput scales: leave out "
        "--input-scale"
    )
    assert refused("import", "mine_for_import:none", "--input-shape", "3,6,6").startswith(
        "mine_for_import:none: cannot be called (AttributeError: "
    )


def test_brevitas_modules_go_through_its_own_export(tmp_path):
    run_peers("import_brevitas.py", tmp_path)
    made, read = (Network.load(tmp_path / f"{name}.safetensors") for name in ("module", "file"))
    assert made == read
    assert sum(isinstance(layer, Conv) for layer in made.layers) == 2


def test_brevitas_that_cannot_export(monkeypatch):
    class Fake(torch.nn.Identity):
        pass

    Fake.__module__ = "brevitas.nn"
    monkeypatch.setitem(sys.modules, "brevitas", None)
    with pytest.raises(ConfigError, match=r"^n: Brevitas cannot export QONNX \(No module"):
        torch_models.import_module(Fake(), (1, 4, 4), name="n")
