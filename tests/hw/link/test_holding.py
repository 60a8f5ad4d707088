"""What a design's link is given: a place for bytes that come while the accelerator takes none."""

import pytest

from brambling.hw.beat import Beats
from brambling.hw.link.link import LinkSpec
from brambling.quant.formats import Fixed

U8 = Fixed(8, signed=False)


def link(kind="uart"):
    return LinkSpec(
        i=Beats(U8, 784, 1),
        o=Beats(U8, 1, 1),
        digest=bytes(16),
        clock_hz=12_000_000,
        baud=1_000_000,
        link=kind,
    )


@pytest.mark.parametrize(
    ("interval", "depth"),
    [
        (0, 16),
        (119, 16),  # A byte takes 120 clocks.
        (120, 17),
        (12_000, 116),
        (10_000_000, 2 * (784 + 14)),  # No more than all that can be in flight.
    ],
)
def test_the_buffer_holds_what_comes_in_an_interval(interval, depth):
    assert link().holding(interval).buffer == depth


def test_over_spi_all_that_can_be_in_flight_has_a_place():
    assert link("spi").holding(0).buffer == 2 * (784 + 14)
