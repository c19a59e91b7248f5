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
    def __init__(self, path):
        self.channel = Channel(path)
        self.channel.ask("qmp_capabilities")

    def plug_keyboard(self):
        self.channel.ask("device_add", driver="usb-kbd", id="second", bus="uhci.0", port="2")

    def unplug(self):
        self.channel.ask("device_del", id="second")

    def key(self, name, down):
        key = {"type": "qcode", "data": name}
        self.channel.ask("input-send-event", events=[{"type": "key", "data": {"down": down, "key": key}}])


class OurHands:
    def __init__(self, path):
        self.channel = Channel(path)

    def plug_keyboard(self):
        self.channel.ask("device-add", device="hid,kind=keyboard,port=2")

    def unplug(self):
        self.channel.ask("device-remove", port="2")

    def key(self, name, down):
        self.channel.ask("input", port="2", text=f"{'down' if down else 'up'} {name}")
