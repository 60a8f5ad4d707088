"""Run where Brevitas is: imports a module, and the file that Brevitas exports it as."""
# pyright: reportMissingImports=false

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

import brevitas_models  # noqa: E402
import torch  # noqa: E402
from brevitas.export import export_qonnx  # noqa: E402

from brambling.quant.interchange import models  # noqa: E402
from brambling.quant.interchange.torch_models import import_module  # noqa: E402


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(2)
    make, shape, _ = brevitas_models.MODELS["lenet"]
    module = make()
    brevitas_models.calibrated(module, shape)
    import_module(module, shape, name="same").save(folder / "module.safetensors")
    export_qonnx(module, args=torch.zeros(1, *shape), export_path=str(folder / "same.onnx"))
    models.read(folder / "same.onnx", name="same").network.save(folder / "file.safetensors")


main()
