"""The host's side of the link: frames to a device, results back, every loss told."""

from brambling.host.device import Device
from brambling.host.exchange import Exchange, Losses
from brambling.host.model import ModelDevice
from brambling.host.transport import BAUD, SerialTransport, Transport, find_port

__all__ = [
    "BAUD",
    "Device",
    "Exchange",
    "Losses",
    "ModelDevice",
    "SerialTransport",
    "Transport",
    "find_port",
]
