"""Codes by brute force in exact arithmetic; gradients against the papers' formulas."""

import math
from fractions import Fraction

import pytest

from brambling.errors import ConfigError
from brambling.quant.formats import Bipolar, Fixed, Ternary

torch = pytest.importorskip("torch")
quantiser = pytest.importorskip("brambling.quant.quantiser")
Quantiser = quantiser.Quantiser

#: Arguments of a quantiser of each kind: bits, signed, method, channels.
KINDS = [
    (1, True, "sign", None),
    (2, True, "ternary", None),
    (2, True, "ternary", 3),
    (4, True, "radix", None),
    (8, False, "radix", None),
    (4, True, "radix", 3),
    (8, True, "statistics", None),
    (4, True, "statistics", 3),
    (4, True, "lsq", None),
    (3, False, "lsq", None),
    (4, True, "lsq", 3),
    (4, True, "dorefa", None),
    (2, True, "dorefa", 3),
    (2, False, "dorefa", None),
    (2, False, "pact", None),
]


def make(bits, signed, method, channels=None, **options):
    return Quantiser(bits, signed=signed, method=method, channels=channels, **options)


def sample(seed=1, shape=(3, 4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def along(scale, x):
    return scale if scale.dim() == 0 else scale.view(-1, *[1] * (x.dim() - 1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_result_is_codes_times_scale(kind, training):
    module, x = make(*kind).train(training), sample()
    y = module(x)
    codes = module.codes(x)
    assert codes.dtype == torch.int64
    assert module.fmt.holds(codes.numpy())
    assert module.low <= codes.min() <= codes.max() <= module.high
    assert module.scale.shape == (() if kind[3] is None else (3,))
    assert module.scale.dtype == torch.float32
    assert module.scale.min() > 0
    assert torch.equal(y, codes * along(module.scale, x))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_evaluation_depends_on_input_and_state_only(kind):
    module, x = make(*kind), sample()
    module(x)
    module.eval()
    expected = module(x)
    module(9 * sample(2))
    assert torch.equal(module(x), expected)
    other = make(*kind).eval()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), expected)
    assert torch.equal(other.codes(x), module.codes(x))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_are_finite_and_reach_the_input(kind):
    module, x = make(*kind), sample().requires_grad_()
    module(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()
    for value in module.parameters():
        assert value.grad is not None
        assert value.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "fmt"),
    [
        ((1, True, "sign"), Bipolar()),
        ((2, True, "ternary"), Ternary()),
        ((8, True, "lsq", 3), Fixed(8, 0)),
        ((4, False, "pact"), Fixed(4, 0, signed=False)),
    ],
    ids=str,
)
def test_format(kind, fmt):
    assert make(*kind).fmt == fmt


def test_format_of_a_radix_has_its_point():
    assert make(8, True, "radix", frac=5).fmt == Fixed(8, 5)
    assert make(8, True, "radix", 3, frac=5).fmt == Fixed(8, 0)


@pytest.mark.parametrize("channels", [None, 1])
@pytest.mark.parametrize(("signed", "low", "high"), [(True, -4, 3), (False, 0, 7)])
def test_halves_are_rounded_up(channels, signed, low, high):
    module = make(3, signed, "radix", channels, frac=1)
    x = torch.arange(-40, 41).float() / 8
    expected = [
        min(max(math.floor(Fraction(value) * 2 + Fraction(1, 2)), low), high)
        for value in x.tolist()
    ]
    assert module.codes(x[None])[0].tolist() == expected
    assert (module(x[None])[0] * 2).tolist() == expected


def test_radix_has_the_gradient_of_a_clip():
    module = make(3, True, "radix", frac=1)  # -2 to 1.5; what rounds there without clipping
    x = torch.tensor([-2.3, -2.2, -0.1, 0.3, 1.7, 1.8], requires_grad=True)
    module(x).backward(torch.arange(1.0, 7.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]


def test_radix_is_exact_in_bfloat16():
    module = make(4, False, "radix", frac=2)
    x = torch.arange(0, 61).bfloat16() / 16
    y = module(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y.float(), module(x.float()))


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("signed", [True, False])
def test_calibration_finds_the_smallest_error(channels, signed):
    x = sample(3, (3, 400)) * torch.tensor([[0.01], [1.0], [300.0]])
    x = x if signed else x.relu()
    module = make(4, signed, "radix", channels)
    module.calibrate(x)

    def error(rows, frac):
        rounded = make(4, signed, "radix", frac=frac)(rows)
        return (rounded - rows).square().sum().item()

    rows = [x] if channels is None else list(x)
    best = [min(range(-12, 16), key=lambda f, row=row: error(row, f)) for row in rows]
    assert module.frac.reshape(-1).tolist() == best


def test_calibration_of_nothing():
    module = make(4, True, "radix")
    module.calibrate(torch.zeros(5))
    assert module(torch.zeros(5)).tolist() == [0] * 5


def test_ternary_is_that_of_the_paper():
    # Li, Zhang and Liu 2016, equations 3 and 6: beyond 0.7 E|w|, the mean of what is beyond.
    w = sample(4, (2, 50))
    module = make(2, True, "ternary", 2)
    y = module(w)
    for row, result, scale in zip(w, y, module.scale, strict=True):
        beyond = row.abs() >= 0.7 * row.abs().mean()
        assert scale == pytest.approx(row[beyond].abs().mean().item())
        assert torch.equal(result != 0, beyond)
        assert torch.equal(result.sign()[beyond], row.sign()[beyond])


def test_statistics_reach_the_largest_magnitude():
    w = torch.tensor([[0.5, -1.4, 0.1], [0.0, 0.0, 0.0]])
    module = make(4, True, "statistics", 2)
    assert module(w)[0].tolist() == pytest.approx([0.6, -1.4, 0.2], abs=0.11)
    assert module.codes(w).tolist() == [[3, -7, 1], [0, 0, 0]]


@pytest.mark.parametrize("channels", [None, 2])
def test_lsq_has_the_gradient_of_the_paper(channels):
    # Esser et al. 2020, equations 3 and 5, and section 2.2: a scale of 1/sqrt(N Q_P).
    v = sample(5, (2, 30))
    module = make(3, True, "lsq", channels)
    module.calibrate(v)
    module.step.data.mul_(0.7)  # so that something is clipped
    x, g = v.clone().requires_grad_(), sample(6, (2, 30))
    module(x).backward(g)
    s = along(module.scale, v)
    ratio = v / s
    inside = (ratio > -4) & (ratio < 3)
    of_step = torch.where(inside, (ratio + 0.5).floor() - ratio, ratio.clamp(-4, 3))
    count = 60 if channels is None else 30
    expected = (of_step * g).sum(dim=() if channels is None else 1) / math.sqrt(count * 3)
    assert not inside.all()
    assert module.step.grad is not None
    assert torch.allclose(module.step.grad, expected, atol=1e-5)
    assert x.grad is not None
    assert torch.allclose(x.grad, g * inside)


def test_lsq_begins_with_the_step_of_the_paper():
    # Esser et al. 2020, section 2.1: 2 E|v| / sqrt(Q_P).
    w = sample(7)
    module = make(4, True, "lsq", 3)
    module(w)
    expected = 2 * w.abs().mean(dim=(1, 2)) / math.sqrt(7)
    assert torch.allclose(module.scale, expected)
    module(5 * w)
    assert torch.allclose(module.scale, expected)


def test_dorefa_presses_weights_into_one():
    w = torch.tensor([0.0, 0.5, -3.0])
    module = make(3, True, "dorefa")
    codes = [round(math.tanh(value) / math.tanh(3) * 3) for value in w.tolist()]
    y = module(w)
    assert module.codes(w).tolist() == codes
    assert y.tolist() == pytest.approx([code / 3 for code in codes])


def test_dorefa_clips_activations_at_one():
    x = torch.tensor([-1.0, 0.2, 0.5, 2.0])
    assert make(2, False, "dorefa").codes(x).tolist() == [0, 1, 2, 3]


def test_pact_learns_its_level_from_what_it_clips():
    # Choi et al. 2018, equation 3: the level's gradient is 1 beyond it, but for the rounding.
    module = make(4, False, "pact")
    level = 15 * module.scale
    assert level.item() == pytest.approx(6.0)
    x = torch.tensor([7.0, 100.0, -1.0], requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]
    assert module.step.grad is not None
    assert module.step.grad.item() / 15 == pytest.approx(2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            (4, True, "nearest"),
            (
                "method must be one of sign, ternary, radix, statistics, lsq, dorefa, pact, not "
                "'nearest'"
            ),
        ),
        ((2, True, "sign"), "sign: bits must be 1, not 2"),
        ((1, True, "lsq"), "lsq: bits must be 2 to 16, not 1"),
        ((17, False, "radix"), "radix: bits must be 1 to 16, not 17"),
        ((4, True, "pact"), "pact: signed must be False, not True"),
        ((4, False, "statistics"), "statistics: signed must be True, not False"),
        ((1, True, "sign", 3), "sign: channels cannot be 3"),
        ((4, True, "lsq", 0), "lsq: channels cannot be 0"),
    ],
    ids=str,
)
def test_refused(kind, message):
    with pytest.raises(ConfigError) as caught:
        make(*kind)
    assert str(caught.value) == message
