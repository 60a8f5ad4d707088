"""A device: an accelerator that is spoken to over pins."""

from dataclasses import dataclass
from typing import Any, Self

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from brambling.digest import digest
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.link.link import LinkSpec
from brambling.hw.link.port import PINS, Port
from brambling.hw.link.selftest import Vectors
from brambling.hw.load import LoaderSpec
from brambling.hw.node import Node
from brambling.network import Network
from brambling.plan import Plan

__all__ = ["Device", "DeviceSpec", "Vectors"]


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """An accelerator of ``nodes`` behind ``link``."""

    nodes: tuple[Node, ...]
    link: LinkSpec

    @classmethod
    def of(
        cls, network: Network, plan: Plan, *, clock_hz: int, interval: int = 0, **options: Any
    ) -> Self:
        """Return the device for ``network`` as planned; ``options`` are those of `LinkSpec`.

        The accelerator may take no byte for ``interval`` clocks, at most those from one frame to
        the next: what comes over the link meanwhile has a place.
        """
        nodes = pipeline(network, plan)
        link = LinkSpec(
            i=nodes[0].spec.i,
            o=nodes[-1].spec.o,
            digest=digest(network),
            clock_hz=clock_hz,
            load_words=LoaderSpec.of(nodes).words,
            **options,
        )
        return cls(nodes=nodes, link=link.holding(interval))

    def build(self) -> "Device":
        return Device(self)


class Device(wiring.Component):
    """Hardware of :class:`DeviceSpec`.

    Members
    -------
    rx, tx or sclk, cs_n, mosi, miso
        Pins of a UART, or of SPI; the inputs need not be synchronous to the clock.
    led_pass, led_busy : ``Out(1)``
        See :class:`brambling.hw.link.link.Link`.
    """

    led_pass: Signal
    led_busy: Signal

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        self.pins = PINS[spec.link.link]
        super().__init__({
            **{name: Out(1) if driven else In(1) for name, driven in self.pins.items()},
            "led_pass": Out(1),
            "led_busy": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec.link
        m.submodules.port = port = Port(spec.link, spec.uart)
        m.submodules.link = link = spec.build()
        m.submodules.accelerator = accelerator = Accelerator(self.spec.nodes, load=True)
        connect(m, link.o, port.i)
        connect(m, link.frames, accelerator.i)
        connect(m, accelerator.o, link.results)
        if spec.load_words:
            connect(m, link.load, accelerator.load)
        for name, driven in self.pins.items():
            outside, inside = getattr(self, name), getattr(port, name)
            m.d.comb += outside.eq(inside) if driven else inside.eq(outside)
        m.d.comb += [
            link.data.eq(port.data),
            link.valid.eq(port.valid),
            link.bad.eq(port.bad),
            self.led_pass.eq(link.led_pass),
            self.led_busy.eq(link.led_busy),
        ]
        return m
