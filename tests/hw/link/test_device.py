"""A device: accelerator and link, spoken to over its pins."""

from brambling.hw.link.device import DeviceSpec
from brambling.protocol import Answer, Kind, Register, bytes_of_frames, results_of_bytes


def test_results_are_those_of_the_golden_model(tiny, play, frames):
    network, spec = tiny()
    images, wanted = frames(network, 2)

    async def host(host):
        for n, payload in enumerate(bytes_of_frames(spec.link.i, images)):
            answer = Answer.decode((await host.ask(Kind.FRAME, payload, n)).payload)
            found = results_of_bytes(spec.link.o, [answer.result])
            assert found.tolist() == wanted[n : n + 1].tolist()
        await host.send(b"\x55\xb7")
        assert await host.register(Register.SKIPPED) == 2

    play(spec, host)


def test_pins_are_those_of_its_link(tiny):
    _, spec = tiny()
    leds = {"led_pass", "led_busy"}
    assert set(spec.build().signature.members) == {"rx", "tx"} | leds
    _, spec = tiny(link="spi")
    assert isinstance(spec, DeviceSpec)
    assert set(spec.build().signature.members) == {"sclk", "cs_n", "mosi", "miso"} | leds
