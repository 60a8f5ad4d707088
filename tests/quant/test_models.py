"""Shapes, sizes, and that every value on the way is a code of its format."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
fx = pytest.importorskip("torch.fx")
layers = pytest.importorskip("brambling.quant.layers")
models = pytest.importorskip("brambling.quant.models")

#: Builder, its arguments, shape of an image, bits of weights, and products.
MODELS = [
    ("cnv", (), (3, 32, 32), 1_542_848, 59_461_376),
    ("resnet8", (), (3, 32, 32), 77_360 * 4 + 4 * (432 + 640), 12_501_632),
    ("resnet_b", (), (3, 32, 32), 679_944 * 4 + 4 * (648 + 1920), 85_600_128),
    ("lenet5", (8,), (1, 28, 28), 8 * 61_470, 416_520),
    ("lenet5", (4,), (1, 28, 28), 4 * 61_470, 416_520),
    ("mnist_cnn", (), (1, 28, 28), 241_184, 3_237_248),
]
FLOATS = [
    ("lenet5", (None,), (1, 28, 28)),
    ("cifar_cnn", (), (3, 32, 32)),
]


def built(name, arguments=(), seed=1):
    torch.manual_seed(seed)
    return getattr(models, name)(*arguments).eval()


def images(shape, count=2, seed=2):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=source, dtype=torch.uint8)


def products(model, x):
    """Multiplications for one image, counted where they happen."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += module.weight[0].numel() * output[0].numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    model(x)
    return total


@pytest.mark.parametrize(("name", "arguments", "shape", "bits", "count"), MODELS, ids=str)
def test_size(name, arguments, shape, bits, count):
    model, x = built(name, arguments), images(shape, 1)
    kept = [m for m in model.modules() if isinstance(m, layers.QuantConv2d | layers.QuantLinear)]
    assert sum(layer.quantiser.bits * layer.weight.numel() for layer in kept) == bits
    assert products(model, x) == count


@pytest.mark.parametrize(("name", "arguments", "shape"), [row[:3] for row in MODELS], ids=str)
def test_logits_of_a_traced_model_are_equal(name, arguments, shape):
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, module_qualified_name):
            return not isinstance(m, torch.nn.Sequential | models.Residual)

    model, x = built(name, arguments), images(shape)
    traced = fx.GraphModule(model, Tracer().trace(model))
    assert torch.equal(traced(x), model(x))
    assert model(x).shape == (2, 10)
    assert torch.equal(model(x.float()), model(x))
    first = next(model.children())
    assert isinstance(first, layers.PixelInput)


@pytest.mark.parametrize(("name", "arguments", "shape"), FLOATS, ids=str)
def test_float_models(name, arguments, shape):
    assert built(name, arguments)(images(shape)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet8", "resnet_b"])
def test_values_between_layers_are_codes(name):
    model = built(name)
    seen = []

    def look(module, inputs, output):
        quantiser = module.quantiser
        codes = (output.detach() / quantiser.scale).numpy()
        assert np.array_equal(codes, codes.round())
        assert quantiser.fmt.holds(codes)
        seen.append(str(quantiser.fmt))

    for module in model.modules():
        if isinstance(module, layers.QuantActivation):
            module.register_forward_hook(look)
    model(images((3, 32, 32)))
    assert set(seen) == {"u4.2", "s8.4", "u8.6"}
    assert seen.count("s8.4") == (5 if name == "resnet8" else 2)


def test_shortcut_is_added():
    torch.manual_seed(3)
    block = models.Residual(4, 4).eval()
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(block(x), block.activation(block.body(x) + x))


def test_scale_keeps_the_order():
    sums = torch.tensor([[3.0, -5.0, 4.0]])
    assert torch.allclose(models.Scale(16)(sums), sums / 4)


def test_float_and_rounded_lenet_share_their_weights():
    floats, rounded = built("lenet5", (None,)), built("lenet5", (8,), seed=5)
    missing, extra = rounded.load_state_dict(floats.state_dict(), strict=False)
    assert not extra
    assert all(key.endswith(("frac", "bias_step")) for key in missing)


def test_calibrated_lenet_is_near_the_float_one():
    floats, rounded = built("lenet5", (None,)), built("lenet5", (8,), seed=5)
    rounded.load_state_dict(floats.state_dict(), strict=False)
    x = images((1, 28, 28), 20)
    models.calibrate(rounded, x)
    expected = floats(x)
    assert (rounded(x) - expected).abs().max() < 0.05 * expected.abs().max()


def test_biases_have_the_step_of_their_accumulator():
    model = built("lenet5", (4,))
    models.calibrate(model, images((1, 28, 28), 20))
    scale = 1 / 256
    for module in model:
        if isinstance(module, layers.QuantActivation):
            scale = module.quantiser.scale.item()
        elif isinstance(module, layers.QuantConv2d | layers.QuantLinear):
            assert module.bias_step.item() == module.quantiser.scale.item() * scale
            codes = module.bias_codes()
            assert (codes * module.bias_step - module.bias).abs().max() <= module.bias_step / 2
