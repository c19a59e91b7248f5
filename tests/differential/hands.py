"""Hands that plug devices in, pull them out and press keys: QEMU's monitor, and our control channel.

Both speak JSON, a line at a time, with a greeting first.
"""

import json
import socket
import time

PATIENCE = 10


class Refused(Exception):
    pass


class Channel:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()

    def close(self):
        self.lines.close()
        self.socket.close()

    def ask(self, execute, **arguments):
        self.socket.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        while "event" in (answer := json.loads(self.lines.readline())):
            pass
        if "error" in answer:
            raise Refused(answer["error"]["desc"])
        return answer["return"]


class QemuHands:
    DEVICES = {"keyboard": {"driver": "usb-kbd"}, "hub": {"driver": "usb-hub", "ports": 4, "port-power": True},
               "listener": {"driver": "usb-audio", "audiodev": "silence"}}
    LISTENER = (1, 1, 1)  # configuration, interface and endpoint of what takes isochronous packets

    def __init__(self, path):
        self.channel = Channel(path)
        self.channel.ask("qmp_capabilities")

    def plug(self, what, place):
        self.channel.ask("device_add", id=f"in{place}", bus="uhci.0", port=place, **self.DEVICES[what])

    def unplug(self, place):
        self.channel.ask("device_del", id=f"in{place}")

    def key(self, name, down, place):
        key = {"type": "qcode", "data": name}
        self.channel.ask("input-send-event", events=[{"type": "key", "data": {"down": down, "key": key}}])


class OurHands:
    DEVICES = {"keyboard": "hid,kind=keyboard", "hub": "hub,ports=4",
               "listener": "zero,pattern=2,iso-interval=1"}
    LISTENER = (3, 0, 2)

    def __init__(self, path):
        self.channel = Channel(path)

    def plug(self, what, place):
        self.channel.ask("device-add", device=f"{self.DEVICES[what]},port={place}")

    def unplug(self, place):
        self.channel.ask("device-remove", port=place)

    def key(self, name, down, place):
        self.channel.ask("input", port=place, text=f"{'down' if down else 'up'} {name}")
