import pytest

torch = pytest.importorskip("torch")
layers = pytest.importorskip("brambling.quant.layers")

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
