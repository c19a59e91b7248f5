"""A hub's driver, on top of uhci.py: enough to reach what is plugged in behind it. USB 2.0, chapter 11."""

import struct
import time

import uhci

GET_STATUS, CLEAR_FEATURE, SET_FEATURE = 0, 1, 3
PORT_ENABLE, PORT_SUSPEND, PORT_RESET, PORT_POWER, C_PORT_CONNECTION, C_PORT_RESET = 1, 2, 4, 8, 16, 20
CONNECTED, ENABLED, RESET, POWERED = 0x1, 0x2, 0x10, 0x100


class Hub:
    def __init__(self, device):
        self.uhci, self.device = device.uhci, device
        self.ports = self.uhci.control(device.address, 0xA0, 6, 0x2900, 0, length=9)[2]
        for port in range(1, self.ports + 1):
            self.set(port, PORT_POWER)

    def set(self, port, feature):
        self.uhci.control(self.device.address, 0x23, SET_FEATURE, feature, port)

    def clear(self, port, feature):
        self.uhci.control(self.device.address, 0x23, CLEAR_FEATURE, feature, port)

    def status(self, port):
        """Status and changes."""
        return struct.unpack("<HH", self.uhci.control(self.device.address, 0xA3, GET_STATUS, 0, port, length=4))

    def wait_connected(self, port):
        self.uhci.until(lambda: self.status(port)[0] & CONNECTED, f"connection at the hub's port {port}")

    def enumerate(self, port, address):
        self.wait_connected(port)
        self.set(port, PORT_RESET)
        self.uhci.until(lambda: self.status(port)[0] & (RESET | ENABLED) == ENABLED, "the hub's port to be enabled")
        self.clear(port, C_PORT_RESET)
        packet = self.uhci.descriptor(0, 1, 8, packet=8)[7]
        self.uhci.control(0, 0x00, 5, address, packet=packet)
        time.sleep(0.003)
        return uhci.Device(self.uhci, address, packet)
