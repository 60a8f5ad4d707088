"""What can go wrong by the user's doing; a message names the value and the rule it broke."""

__all__ = [
    "BramblingError",
    "ClockMissed",
    "ConfigError",
    "DeviceProblem",
    "DoesNotFit",
    "FileProblem",
    "Mismatch",
    "ToolProblem",
    "UnsupportedLayer",
]


class BramblingError(Exception):
    """Base class; the command line prints it without a traceback and exits with status 2."""


class ConfigError(BramblingError, ValueError):
    """A parameter is outside the range that its component supports."""


class FileProblem(BramblingError):
    """A file is absent, damaged, or not what it should be."""


class UnsupportedLayer(BramblingError, TypeError):
    """The network has a layer for which there is no implementation of that kind."""


class Mismatch(BramblingError):
    """Two implementations that must agree do not."""


class ToolProblem(BramblingError):
    """A program that the job needs is missing, or failed."""


class DeviceProblem(BramblingError):
    """A device does not answer, or not as the one that is meant would."""


class DoesNotFit(BramblingError):
    """The design needs more of a resource than the device has.

    ``needed`` and ``available`` carry the numbers; ``remedy`` says what would fit.
    """

    def __init__(
        self, what: str, device: str, resource: str, needed: int, available: int, remedy: str
    ) -> None:
        self.device = device
        self.resource = resource
        self.needed = needed
        self.available = available
        self.remedy = remedy
        super().__init__(
            f"{what} needs {needed:,} {resource}, but {device} has {available:,}; {remedy}"
        )


class ClockMissed(BramblingError):
    """The design was routed, but for a lower clock than it must have.

    ``asked_hz`` and ``reached_hz`` carry the numbers; ``offered_hz`` is the highest clock below
    that can be made, or ``None`` where no clock would help.
    """

    def __init__(
        self, message: str, asked_hz: float, reached_hz: float, offered_hz: float | None
    ) -> None:
        self.asked_hz = asked_hz
        self.reached_hz = reached_hz
        self.offered_hz = offered_hz
        super().__init__(message)
