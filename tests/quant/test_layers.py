import pytest

torch = pytest.importorskip("torch")
functional = pytest.importorskip("torch.nn.functional")
layers = pytest.importorskip("brambling.quant.layers")
quantiser = pytest.importorskip("brambling.quant.quantiser")

NEXT = 2.0**-23  # from 1 to the next float32


def test_sign_of_zero_is_plus_one():
    x = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0, float("inf"), -float("inf")])
    assert layers.sign(x).tolist() == [1, 1, 1, -1, 1, -1, 1, -1]


def test_gradient_is_that_of_a_hard_tanh():
    # Hubara et al. 2016, equation 4: g_r = g_q * 1[|r| <= 1].
    r = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 1 + NEXT, -1 - NEXT, 7.0], requires_grad=True)
    g = torch.arange(1.0, 9.0)
    layers.sign(r).backward(g)
    assert r.grad is not None
    assert torch.equal(r.grad, g * (r.detach().abs() <= 1))


def test_linear_is_the_product_with_signs():
    torch.manual_seed(1)
    layer = layers.BipolarLinear(5, 3)
    with torch.no_grad():
        layer.weight[0, 0] = 0.0
    x = torch.tensor([[1.0, -1.0, 1.0, 1.0, -1.0]])
    rows = [[1 if w >= 0 else -1 for w in row] for row in layer.weight.tolist()]
    expected = [sum(w * int(a) for w, a in zip(row, x[0], strict=True)) for row in rows]
    assert layer(x).tolist() == [expected]
    assert layer.eval()(x).tolist() == [expected]


def test_linear_passes_gradients_to_latent_weights_and_inputs():
    layer = layers.BipolarLinear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.25, -1.0]]))
    x = torch.tensor([[1.0, -1.0]], requires_grad=True)
    layer(x).backward(torch.tensor([[3.0]]))
    assert layer.weight.grad.tolist() == [[3.0, -3.0]]
    assert x.grad is not None
    assert x.grad.tolist() == [[3.0, -3.0]]


def test_low_precision_is_for_training_only():
    layer = layers.BipolarLinear(1001, 1, torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    x = torch.ones(1, 1001)
    assert layer(x).item() == 1000  # bfloat16 has 8 significant bits
    assert layer.eval()(x).item() == 1001


def test_clip_keeps_latent_weights_within_one():
    model = layers.BipolarMLP((4, 3, 2))
    with torch.no_grad():
        for dense in model.dense:
            dense.weight.mul_(9)
    model.clip()
    for dense in model.dense:
        assert dense.weight.abs().max() == 1


def test_pixels_from_128_are_plus_one():
    model = layers.BipolarMLP((4, 3, 2))
    pixels = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)
    assert model.binarise(pixels).tolist() == [[-1, -1, 1, 1]]


def test_logits_are_integer_sums_with_one_positive_scale():
    torch.manual_seed(2)
    model = layers.BipolarMLP((8, 5, 4, 3)).eval()
    pixels = torch.randint(0, 256, (20, 8), dtype=torch.uint8)
    sums = model.sums(model.binarise(pixels))
    assert [s.shape[1] for s in sums] == [5, 4, 3]
    for values in sums:
        assert torch.equal(values, values.round())
    assert model.log_scale.exp() > 0
    assert torch.equal(model(pixels), sums[-1] * model.log_scale.exp())


def test_teacher_takes_images():
    assert layers.Teacher(channels=(2, 3, 4), hidden=5)(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_pixels_are_shifted_and_scaled_exactly():
    pixels = torch.arange(256, dtype=torch.uint8)
    result = layers.PixelInput(128, 1 / 64)(pixels)
    assert result.dtype == torch.float32
    assert (result * 64).tolist() == list(range(-128, 128))
    assert torch.equal(layers.PixelInput(128, 1 / 64)(pixels.double()), result)


def product(kind, quantised, **options):
    """Layer with 6 inputs and 4 outputs, and an input for it."""
    if kind == "dense":
        return layers.QuantLinear(6, 4, quantiser=quantised, **options), torch.randn(2, 6)
    layer = layers.QuantConv2d(6, 4, 3, quantiser=quantised, padding=1, **options)
    return layer, torch.randn(2, 6, 5, 5)


def plain(layer, x, weight, bias):
    if isinstance(layer, layers.QuantLinear):
        return functional.linear(x, weight, bias)
    return functional.conv2d(x, weight, bias, padding=1)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("method", ["sign", "lsq"])
def test_product_is_that_with_rounded_weights(kind, method):
    torch.manual_seed(3)
    options = {"channels": 4} if method == "lsq" else {}
    bits = 1 if method == "sign" else 4
    layer, x = product(kind, quantiser.Quantiser(bits, signed=True, method=method, **options))
    assert torch.equal(layer(x), plain(layer, x, layer.quantiser(layer.weight), None))
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias_codes() is None


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_bias_is_rounded_to_its_step(kind):
    torch.manual_seed(4)
    rounded = quantiser.Quantiser(8, signed=True, method="radix", frac=6)
    layer, x = product(kind, rounded, bias=True)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.12, 0.125, -0.125, -3.0]))
    weight = layer.quantiser(layer.weight)
    assert torch.equal(layer(x), plain(layer, x, weight, layer.bias))
    layer.bias_step.fill_(0.25)
    assert layer.bias_codes().tolist() == [0, 1, 0, -12]
    bias = torch.tensor([0.0, 0.25, 0.0, -3.0])
    assert torch.equal(layer(x), plain(layer, x, weight, bias))
    layer(x).sum().backward()
    assert layer.bias.grad.all()
    assert "bias_step" in layer.state_dict()


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_only_latent_weights_of_one_bit_are_clipped(kind):
    one_bit, _ = product(kind, quantiser.Quantiser(1, signed=True, method="sign"))
    wide, _ = product(kind, quantiser.Quantiser(4, signed=True, method="lsq"))
    for layer in (one_bit, wide):
        with torch.no_grad():
            layer.weight.fill_(9)
        layer.clip()
    assert one_bit.weight.unique().tolist() == [1]
    assert wide.weight.unique().tolist() == [9]


def test_activations_of_both_kinds_have_a_relu():
    x = torch.tensor([-3.0, -0.2, 0.3, 0.9])
    for signed, relu, expected in [
        (False, True, [0, 0, 0.5, 1]),
        (True, True, [0, 0, 0.5, 1]),
        (True, False, [-3, 0, 0.5, 1]),
    ]:
        rounded = quantiser.Quantiser(4, signed=signed, method="radix", frac=1)
        assert layers.QuantActivation(rounded, relu=relu)(x).tolist() == expected
