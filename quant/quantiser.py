"""One module that rounds to integer codes and lets the gradient through: :class:`Quantiser`.

A real value ``x`` has the code ``clip(floor(x / scale + 1/2), low, high)``, for weights and
activations alike: nearest, halves towards +infinity, which is what an adder and a shifter do. The
*methods* differ in where the scale comes from:

========== ============================================================================== ==========
method     scale                                                                          codes
========== ============================================================================== ==========
sign       1; the gradient is that of a hard tanh (Hubara et al. 2016, equation 4)        -1, +1
ternary    mean magnitude of the weights beyond a threshold (Li, Zhang and Liu 2016)      -1, 0, +1
radix      ``2**-frac``, ``frac`` chosen from data (Qiu et al. 2016, section 5.2)         all
statistics largest magnitude over the largest code (Krishnamoorthi 2018, section 3.1)     symmetric
lsq        learned (Esser et al. 2020, "Learned Step Size Quantization")                  all
dorefa     1 over the largest code, of values pressed into -1 to 1 (Zhou et al. 2016)     symmetric
pact       learned clipping level over the largest code (Choi et al. 2018)                all
========== ============================================================================== ==========

"All" codes are those of ``Fixed(bits, 0, signed)``; "symmetric" leaves out the smallest of a signed
format, so that the largest magnitudes of both signs have a code. Gradients pass straight through
the rounding (Bengio, Léonard and Courville 2013), and stop where the clipping acts.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from brambling.errors import ConfigError
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

__all__ = ["METHODS", "Quantiser", "round_half_up", "sign"]

METHODS = ("sign", "ternary", "radix", "statistics", "lsq", "dorefa", "pact")
SYMMETRIC = {"statistics", "dorefa"}  #: Methods without the smallest code of a signed format.
#: Methods that know one kind of codes only.
SIGNED = {"sign": True, "ternary": True, "statistics": True, "pact": False}
WIDTH = {"sign": 1, "ternary": 2}  #: Methods of one width.
WIDEST = 16  #: Bits of the other methods; float32 has 24.
PACT_LEVEL = 6.0  #: First clipping level, which is that of ReLU6.
ABOVE_ONE = 1 + 2**-23  #: The float32 after 1.
SMALLEST = 2.0**-24  #: Of a scale, so that a channel of zeros divides by something.
TRIALS = 9  #: Radix points that :meth:`Quantiser.calibrate` tries.
TERNARY_THRESHOLD = 0.7  #: Of the mean magnitude: Li, Zhang and Liu 2016, equation 6.


class _Sign(torch.autograd.Function):
    """Sign with the straight-through estimator of equation 4: the gradient of a hard tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.copysign(torch.ones((), dtype=x.dtype), x + 0.0)  # -0.0 + 0.0 is 0.0

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # One pass over memory; its bounds are exclusive, so they are the floats next to 1.
        return torch.ops.aten.hardtanh_backward(grad_outputs[0], x, -ABOVE_ONE, ABOVE_ONE)


class _Grid(torch.autograd.Function):
    """Nearest point of a fixed grid; the gradient stops beyond the outermost points."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frac: int, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        step = 2.0**-frac
        ctx.limits = (low - 0.5) * step, (high + 0.5) * step
        # Four passes over memory; exact, since the step is a power of two.
        half = torch.full((), 0.5, dtype=x.dtype)
        return torch.add(half, x, alpha=1 / step).floor_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        low, high = ctx.limits
        grad = torch.ops.aten.hardtanh_backward(grad_outputs[0], x, low, high)
        return grad, None, None, None


class _Round(torch.autograd.Function):
    """``floor(x + 1/2)``; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x + 0.5).floor_()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


class _ScaleGradient(torch.autograd.Function):
    """``x`` itself; its gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0] * ctx.factor, None


def applied(result: Any) -> Tensor:
    """Return the result of a function whose type PyTorch does not tell."""
    assert isinstance(result, Tensor)
    return result


def sign(x: Tensor) -> Tensor:
    """-1 where ``x < 0``, else +1 (zero too); the gradient passes where ``|x| <= 1``. float32."""
    return applied(_Sign.apply(x))


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``, float; the gradient passes unchanged."""
    return applied(_Round.apply(x))


class Quantiser(nn.Module):
    """Rounds floats to ``codes * scale``, with the straight-through gradient.

    What a scale is measured on is kept as a buffer, renewed in each forward pass of training, so in
    evaluation the codes depend on nothing but the input and the state.

    Parameters
    ----------
    bits
        Width of a code; 1 for ``sign``, 2 for ``ternary``.
    signed
        Whether codes may be negative.
    method
        One of :data:`METHODS`; see the module's table. ``ternary``, ``statistics`` and a signed
        ``dorefa`` measure the tensor that they round, so they are for weights; ``pact`` is for
        activations.
    channels
        Length of the tensor's first dimension, for a scale each; ``None``: one scale for all.
    frac
        Of ``radix``, until :meth:`calibrate` chooses it: a code ``n`` stands for ``n * 2**-frac``.
    """

    frac: Tensor
    step: Tensor
    limit: Tensor

    def __init__(
        self,
        bits: int,
        *,
        signed: bool,
        method: str,
        channels: int | None = None,
        frac: int = 0,
    ) -> None:
        super().__init__()
        check(bits, signed, method, channels)
        self.bits, self.signed, self.method, self.channels = bits, signed, method, channels
        self.shape = () if channels is None else (channels,)
        match method:
            case "radix":
                self.register_buffer("frac", torch.full(self.shape, frac, dtype=torch.int32))
            case "lsq":
                self.step = nn.Parameter(torch.zeros(self.shape))  # 0: not measured yet
            case "pact":
                self.step = nn.Parameter(torch.full(self.shape, PACT_LEVEL / self.high))
            case "statistics" | "ternary":
                self.register_buffer("step", torch.zeros(self.shape))
            case "dorefa":
                self.register_buffer("step", torch.full(self.shape, 1 / self.high))
        if method == "ternary" or (method == "dorefa" and signed):
            self.register_buffer("limit", torch.zeros(self.shape))

    def extra_repr(self) -> str:
        kind = "signed" if self.signed else "unsigned"
        each = "" if self.channels is None else f", {self.channels} channels"
        return f"{self.bits} bits, {kind}, {self.method}{each}"

    # What an exporter reads -----------------------------------------------------------------------

    @property
    def fmt(self) -> Format:
        """Format of the codes; its radix point is that of one ``radix``, else 0 and nominal."""
        if self.method == "sign":
            return Bipolar()
        if self.method == "ternary":
            return Ternary()
        known = self.method == "radix" and self.channels is None
        return Fixed(self.bits, int(self.frac) if known else 0, self.signed)

    @property
    def low(self) -> int:
        """Smallest code in use."""
        return -self.high if self.method in SYMMETRIC and self.signed else self.fmt.min

    @property
    def high(self) -> int:
        """Largest code in use."""
        return 1 if self.method in WIDTH else (1 << self.bits - self.signed) - 1

    @property
    def scale(self) -> Tensor:
        """Real value of the code 1, float32 ``()`` or ``(channels,)``, exactly as it is used."""
        if self.method == "sign":
            return torch.ones(())
        if self.method == "radix":
            return torch.exp2(-self.frac.float())
        return self.step.detach().abs().clamp_min(SMALLEST)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x``, int64, same shape, with the scale as it is."""
        if self.method == "sign":
            return sign(x).long()
        self._measure(x, only_first=True)
        return self._round(x, self._along(self.scale, x)).long()

    # Rounding -------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """``codes(x) * scale``, float, same shape."""
        if self.method == "sign":
            return sign(x)
        if self.method == "radix" and self.channels is None:
            return applied(_Grid.apply(x, int(self.frac), self.low, self.high))
        self._measure(x.detach(), only_first=not self.training)
        scale = self._along(self._scale(x), x)
        return self._round(x, scale) * scale

    def _round(self, x: Tensor, scale: Tensor) -> Tensor:
        """Codes of ``x`` as floats."""
        if self.method == "ternary":
            # Halves are rounded at the threshold if twice the threshold is 1. The gradient passes
            # up to the weights that 1 stands for, and stops beyond three thresholds.
            scale = self._along(2 * self.limit, x)
        elif self.method == "dorefa":
            x = x.tanh() / self._along(self.limit, x) if self.signed else x
        return round_half_up((x / scale).clamp(self.low, self.high))

    def _scale(self, x: Tensor) -> Tensor:
        """Scale with the gradient of its method; ``x`` is what it will scale."""
        if self.method == "pact":
            return self.step.abs().clamp_min(SMALLEST)
        if self.method == "lsq":
            # Esser et al. 2020, section 2.2: balances updates of steps and of weights.
            count = x.numel() / (self.channels or 1)
            step = applied(_ScaleGradient.apply(self.step, 1 / math.sqrt(count * self.high)))
            return step.abs().clamp_min(SMALLEST)
        return self.scale

    def _along(self, values: Tensor, x: Tensor) -> Tensor:
        """Values of each channel, in the shape that goes with ``x``."""
        return values if self.channels is None else values.view(-1, *[1] * (x.dim() - 1))

    # Scales from data -----------------------------------------------------------------------------

    def _rows(self, x: Tensor) -> Tensor:
        """Elements of ``x`` that share a scale, ``(channels or 1, elements)``."""
        return x.float().reshape(self.channels or 1, -1)

    @torch.no_grad()
    def _measure(self, x: Tensor, only_first: bool) -> None:
        """Set what the method measures on ``x``; ``only_first``: unless it has measured before."""
        known = self.limit if hasattr(self, "limit") else getattr(self, "step", None)
        if known is None or ((only_first or self.method in {"lsq", "pact"}) and known.any()):
            return
        rows = self._rows(x)
        sizes = rows.abs()
        if self.method == "lsq":
            # Esser et al. 2020, section 2.1.
            self.step.copy_((2 * sizes.mean(dim=1) / math.sqrt(self.high)).view(self.shape))
        elif self.method == "statistics":
            self.step.copy_((sizes.amax(dim=1) / self.high).view(self.shape))
        elif self.method == "ternary":
            limit = (TERNARY_THRESHOLD * sizes.mean(dim=1, keepdim=True)).clamp_min(SMALLEST)
            kept = sizes >= limit
            mean = (sizes * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1)
            self.limit.copy_(limit.view(self.shape))
            self.step.copy_(mean.view(self.shape))
        elif self.signed:
            self.limit.copy_(sizes.amax(dim=1).tanh().clamp_min(SMALLEST).view(self.shape))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the scale from a tensor of samples, or leave it where the method knows no samples.

        ``radix`` takes the power of two whose rounding has the smallest squared error, between
        the one that clips nothing and one :data:`TRIALS` places further right.
        """
        if self.method != "radix":
            self._measure(x, only_first=False)
            return
        rows = self._rows(x)
        largest = rows.abs().amax(dim=1).clamp_min(SMALLEST)
        first = torch.floor(torch.log2(self.high / largest))
        trials = torch.stack([first + places for places in range(TRIALS)])
        errors = []
        for frac in trials:
            step = torch.exp2(-frac).unsqueeze(1)
            rounded = (rows / step + 0.5).floor().clamp(self.low, self.high) * step
            errors.append((rounded - rows).square().sum(dim=1))
        best = trials.gather(0, torch.stack(errors).argmin(dim=0, keepdim=True))
        self.frac.copy_(best.view(self.shape))


def check(bits: int, signed: bool, method: str, channels: int | None) -> None:
    """Raise where a quantiser of these arguments would have no meaning."""
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if bits != WIDTH.get(method, bits):
        raise ConfigError(f"{method}: bits must be {WIDTH[method]}, not {bits}")
    if method not in WIDTH and not 1 + signed <= bits <= WIDEST:
        raise ConfigError(f"{method}: bits must be {1 + signed} to {WIDEST}, not {bits}")
    if signed != SIGNED.get(method, signed):
        raise ConfigError(f"{method}: signed must be {SIGNED[method]}, not {signed}")
    if channels is not None and (channels < 1 or method in {"sign", "pact"}):
        raise ConfigError(f"{method}: channels cannot be {channels}")
