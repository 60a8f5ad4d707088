"""Searches against plain loops; applied choices against the integer network."""

import dataclasses
import json

import numpy as np
import pytest

from brambling.errors import ConfigError, FileProblem
from brambling.sim import golden

torch = pytest.importorskip("torch")
radix = pytest.importorskip("brambling.quant.radix")
floats = pytest.importorskip("brambling.quant.floats")
graph = pytest.importorskip("brambling.quant.graph")
layers = pytest.importorskip("brambling.quant.layers")
models = pytest.importorskip("brambling.quant.models")
nn = torch.nn
Bits, Point = radix.Bits, radix.Point
EIGHT = Bits(8, 8, 8)


def model(seed=1):
    """Two convolutions and two dense layers of very different magnitude."""
    torch.manual_seed(seed)
    made = nn.Sequential(
        *(layers.PixelInput(0, 1 / 256), nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4)),
    )
    with torch.no_grad():
        for module, factor in ((made[1], 7), (made[4], 1), (made[7], 0.2)):
            module.weight.mul_(factor)
    return made


def images(count=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def rounded(x, point, signed):
    """Definition: nearest multiple of ``2**-frac``, halves upwards, clipped."""
    high = 2 ** (point.bits - signed) - 1
    codes = np.floor(x * 2.0**point.frac + 0.5)
    return np.clip(codes, -high - 1 if signed else 0, high) * 2.0**-point.frac


def distance(a, b):
    return np.abs(a - b).astype(np.float64).sum()


# Searches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_have_the_nearest_point(bits):
    made = model()
    choice = radix.search(made, images(), Bits(bits, bits, 8))
    assert list(choice.weights) == ["1", "4", "7", "9"]
    for name, point in choice.weights.items():
        w = made.get_submodule(name).weight.detach().numpy()
        trials = {f: distance(w, rounded(w, Point(bits, f), True)) for f in range(-12, 24)}
        assert point.bits == bits
        assert trials[point.frac] == min(trials.values())


def forward(made, choice, x):
    """Activations behind each ReLU of the model with what ``choice`` rounds, by plain loops."""
    found, frac = {}, 8
    for name, module in made.named_children():
        if name in choice.weights:
            weight = rounded(module.weight.detach().numpy(), choice.weights[name], True)
            step = 2.0 ** -(choice.weights[name].frac + frac)
            bias = np.floor(module.bias.detach().numpy() / step + 0.5) * step
            call = nn.functional.linear if weight.ndim == 2 else nn.functional.conv2d
            x = call(x, *(torch.from_numpy(p.astype(np.float32)) for p in (weight, bias)))
        else:
            x = module(x)
        if isinstance(module, nn.ReLU):
            found[name] = x.detach().numpy()
            if name in choice.data:
                frac = choice.data[name].frac
                x = torch.from_numpy(rounded(found[name], choice.data[name], False))
                x = x.to(torch.float32)
    return found


@pytest.mark.parametrize("bits", [3, 8])
def test_data_has_the_nearest_point_layer_by_layer(bits):
    made, x = model(), torch.from_numpy(images()).float().unsqueeze(1)
    choice = radix.search(made, images(), Bits(8, 8, bits))
    assert list(choice.data) == ["2", "5", "8"]
    exact = forward(made, radix.Choice({}), x)
    known = radix.Choice(choice.weights)
    for name, point in choice.data.items():
        # What comes before is rounded already; biases take the step of the input so far.
        values = forward(made, known, x)[name]
        trials = {
            f: distance(exact[name], rounded(values, Point(bits, f), False)) for f in range(-8, 20)
        }
        assert trials[point.frac] == min(trials.values())
        known = radix.Choice(choice.weights, {**known.data, name: point})


def test_static_is_one_point_for_all():
    choice = radix.static(model(), images(), EIGHT)
    assert len(set(choice.weights.values())) == len(set(choice.data.values())) == 1
    assert list(choice.data) == ["2", "5", "8"]


def test_static_weights_have_the_nearest_logits():
    made, x = model(), torch.from_numpy(images()).unsqueeze(1)
    chosen = next(iter(radix.static(made, images(), Bits(4, 4, 8)).weights.values()))
    with torch.no_grad():
        errors = {
            frac: float((radix.apply(made, every(frac))(x) - made(x)).square().sum())
            for frac in range(-4, 9)
        }
    assert errors[chosen.frac] == min(errors.values())


def every(frac):
    return radix.Choice(dict.fromkeys(["1", "4", "7", "9"], Point(4, frac)))


def test_convolutions_and_dense_layers_have_their_own_bits():
    choice = radix.search(model(), images(), Bits(8, 4, 6))
    assert [point.bits for point in choice.weights.values()] == [8, 8, 4, 4]
    assert [point.bits for point in choice.data.values()] == [6, 6, 6]
    assert Bits(8, 4, 8).weights == "8 or 4"
    assert EIGHT.weights == "8"


def test_the_model_is_left_as_it_was():
    made = model().train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    radix.search(made, images(), EIGHT)
    radix.static(made, images(), EIGHT)
    assert made.training
    assert isinstance(made[1], nn.Conv2d)
    assert not isinstance(made[1], layers.QuantConv2d)
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())


# What is made of a choice -------------------------------------------------------------------------


def test_applied_choices_export_exactly():
    made = radix.apply(model(), radix.search(model(), images(), Bits(6, 4, 5))).eval()
    network = graph.export_graph(made, "tiny", (8, 8, 1))
    edges = golden.run(network, images(seed=3)[..., np.newaxis])
    with torch.no_grad():
        logits = made(torch.from_numpy(images(seed=3)).unsqueeze(1)).numpy()
    assert np.array_equal(edges["argmax"], logits.argmax(axis=1))
    step = float(made[9].bias_step)
    assert np.array_equal(edges["bias"] * step, logits)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Requantise") == 4
    for name in ("act1", "act2", "act3", "bias"):
        assert network.layer(name).multiplier.tolist() == [1]


def test_applied_models_keep_shape_and_train():
    base = nn.Sequential(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, bias=False), nn.ReLU())
    made = radix.apply(base, radix.Choice({"0": Point(8, 6)}, {"1": Point(8, 4)}))
    x = torch.rand(2, 4, 6, 6)
    assert made(x).shape == base(x).shape
    assert made[0].bias is None
    assert made.training
    made(x).sum().backward()
    assert made[0].weight.grad.abs().sum() > 0
    assert base[0].weight.grad is None
    assert torch.equal(made[0].weight, base[0].weight)


def test_other_models_keep_their_biases():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(x.flatten(1))

    made = radix.apply(Other(), radix.Choice({"fc": Point(8, 6)}))
    assert not made.fc.bias_step
    assert torch.equal(made.fc.rounded_bias(), made.fc.bias)


# Table --------------------------------------------------------------------------------------------


def test_rows_of_the_table():
    made, x = model(), images(30)
    with torch.no_grad():
        labels = made(torch.from_numpy(x).unsqueeze(1)).argmax(dim=1).numpy()
    told = []
    result = radix.table(
        made, x, labels, widths_tried=(16, 4), progress=lambda *done: told.append(done)
    )
    assert [(row.method, row.bits) for row in result.rows] == [
        ("float", None),
        ("static", Bits(16, 16, 16)),
        ("dynamic", Bits(16, 16, 16)),
        ("static", Bits(4, 4, 4)),
        ("dynamic", Bits(4, 4, 4)),
        ("dynamic", Bits(8, 4, 8)),
    ]
    assert (result.images, result.calibration) == (30, 30)
    assert [row.accuracy for row in result.rows[:3]] == [1, 1, 1]
    assert told == [(n, 6) for n in range(1, 7)]
    static = result.rows[1]
    point = next(iter(static.choice.weights.values()))
    assert static.precision[1] == f"2^{-point.frac}"
    assert [row.precision for row in (result.rows[0], result.rows[2])] == [
        ("-", "-"),
        ("dynamic", "dynamic"),
    ]
    json.dumps(dataclasses.asdict(result))


def test_dynamic_precision_of_few_bits_keeps_more():
    made = model()
    with torch.no_grad():
        made[7].weight.mul_(0.02)  # magnitudes of the layers now differ by more than a code has
        made[7].bias.mul_(0.02)
        x, errors = torch.from_numpy(images(50, 1)).unsqueeze(1), []
        for choose in (radix.static, radix.search):
            choice = choose(made, images(50), Bits(4, 4, 4))
            errors.append(float((radix.apply(made, choice)(x) - made(x)).square().sum()))
    assert errors[0] > 2 * errors[1]


# Errors -------------------------------------------------------------------------------------------


def dead():
    made = model()
    with torch.no_grad():
        made[4].bias.fill_(-1e6)
    return made


def broken(value, key):
    made = model()
    with torch.no_grad():
        getattr(made[4], key).flatten()[0] = value
    return made


@pytest.mark.parametrize("choose", [radix.search, radix.static], ids=["search", "static"])
@pytest.mark.parametrize(
    ("made", "x", "message"),
    [
        (
            model,
            images()[:0],
            "calibration: must be one or more images (n, rows, columns, channels), not (0, 8, 8)",
        ),
        (
            model,
            images()[0],
            "calibration: must be one or more images (n, rows, columns, channels), not (8, 8)",
        ),
        (
            model,
            np.full((5, 8, 8), 7, np.uint8),
            "calibration: images must differ, but every pixel is 7",
        ),
        (
            model,
            np.full((5, 8, 8), np.nan, np.float32),
            "calibration: pixels must be finite, not NaN or infinity",
        ),
        (
            dead,
            images(),
            (
                "5: no calibration image makes this activation positive; use other images, or "
                "train the model"
            ),
        ),
        (
            lambda: broken(float("nan"), "weight"),
            images(),
            "4.weight: must be finite, not nan; train with a lower rate",
        ),
        (
            lambda: broken(-float("inf"), "bias"),
            images(),
            "4.bias: must be finite, not -inf; train with a lower rate",
        ),
        (
            lambda: nn.Sequential(nn.ReLU()),
            images(),
            "Sequential: has no Conv2d and no Linear to round",
        ),
        (
            lambda: nn.Sequential(layers.PixelInput(0, 1), nn.Flatten(), nn.Linear(64, 3)),
            images(),
            "Sequential: has no nn.ReLU, behind which data is rounded",
        ),
        (
            lambda: models.lenet5(8),
            images(),
            "1: must be a float layer, not QuantConv2d",
        ),
    ],
)
def test_errors(choose, made, x, message):
    with pytest.raises(ConfigError) as caught:
        choose(made(), x, EIGHT)
    assert str(caught.value) == message


def test_activations_must_be_finite():
    made = model()
    with torch.no_grad():
        made[1].weight.fill_(3e38)
    with pytest.raises(ConfigError, match=r"^2: activations must be finite, not NaN or infinity$"):
        radix.search(made, images(), EIGHT)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((1, 8, 8), "conv: bits must be 2 to 16, not 1"),
        ((8, 17, 8), "dense: bits must be 2 to 16, not 17"),
        ((8, 8, 0), "data: bits must be 1 to 16, not 0"),
        ((8, 8, 4.5), "data: bits must be 1 to 16, not 4.5"),
    ],
)
def test_bits_have_limits(bits, message):
    with pytest.raises(ConfigError) as caught:
        Bits(*bits)
    assert str(caught.value) == message


def test_each_image_has_a_label():
    with pytest.raises(ConfigError, match=r"^20 images need 20 labels, not 19$"):
        radix.table(model(), images(), np.zeros(19))


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", floats.ARCHITECTURES)
def test_float_files_are_read_again(name, tmp_path):
    make, dataset = floats.ARCHITECTURES[name]
    made, path = make(), tmp_path / "float.safetensors"
    floats.save_float(path, made, name, {"accuracy": 0.5})
    loaded = floats.load_float(path)
    assert (loaded.architecture, loaded.dataset) == (name, dataset)
    assert loaded.facts == {"accuracy": 0.5}
    assert not loaded.module.training
    for key, value in made.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[key])
    before = path.read_bytes()
    floats.save_float(path, loaded.module, name, loaded.facts)
    assert path.read_bytes() == before


def test_damaged_float_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "float.safetensors"

    def refused(pattern):
        with pytest.raises(FileProblem, match=pattern) as caught:
            floats.load_float(path)
        assert "\n" not in str(caught.value)

    refused("no such file$")
    made = models.lenet5(None)
    floats.save_float(path, made, "lenet5", {})
    path.write_bytes(path.read_bytes()[:-1])
    refused("not a whole safetensors file")
    tensors = {key: value.contiguous() for key, value in made.state_dict().items()}
    save_file(tensors, path)
    refused("float model version must be '1', not None$")
    header = {"brambling-float": "1", "architecture": "alexnet"}
    save_file(tensors, path, header)
    refused("architecture must be one of lenet5, cifar-cnn, not 'alexnet'$")
    header["architecture"] = "lenet5"
    save_file({**tensors, "1.bias": torch.zeros(7)}, path, header)
    refused(r"tensor 1.bias must be \(6,\) for lenet5, not \(7,\)$")
    save_file({k: v for k, v in tensors.items() if k != "1.bias"}, path, header)
    refused(r"tensor 1.bias must be \(6,\) for lenet5, not absent$")
    save_file({**tensors, "more": torch.zeros(1)}, path, header)
    refused(r"tensor more must be absent for lenet5, not \(1,\)$")
    save_file(tensors, path, {**header, "facts": "{"})
    refused("metadata is damaged")
