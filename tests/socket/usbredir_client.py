"""A small usbredir client ("usb-guest"), for tests: what QEMU's usb-redir does, and what it would never do.

Nothing but the standard library. The messages are those of usbredir's protocol 0.7, with 64-bit ids.
"""

import collections
import struct

from usbip_client import Gone, connect, receive

HELLO, DEVICE_CONNECT, DEVICE_DISCONNECT, RESET, INTERFACE_INFO, EP_INFO, SET_CONFIGURATION, GET_CONFIGURATION, \
    CONFIGURATION_STATUS, SET_ALT_SETTING, GET_ALT_SETTING, ALT_SETTING_STATUS, START_ISO_STREAM, STOP_ISO_STREAM, \
    ISO_STREAM_STATUS, START_INTERRUPT_RECEIVING, STOP_INTERRUPT_RECEIVING, INTERRUPT_RECEIVING_STATUS, \
    ALLOC_BULK_STREAMS, FREE_BULK_STREAMS, BULK_STREAMS_STATUS, CANCEL_DATA_PACKET, FILTER_REJECT, FILTER_FILTER, \
    DEVICE_DISCONNECT_ACK, START_BULK_RECEIVING, STOP_BULK_RECEIVING, BULK_RECEIVING_STATUS = range(28)
CONTROL_PACKET, BULK_PACKET, ISO_PACKET, INTERRUPT_PACKET, BUFFERED_BULK_PACKET = range(100, 105)
SUCCESS, CANCELLED, INVAL, IOERROR, STALL, TIMEOUT, BABBLE = range(7)
# connect_device_version, filter, device_disconnect_ack, ep_info_max_packet_size, 64bits_ids, 32bits_bulk_length
CAPABILITIES = 0b1111110

HEADER12, HEADER16 = struct.Struct("<III"), struct.Struct("<IIQ")
CONTROL, BULK, SMALL = struct.Struct("<BBBBHHH"), struct.Struct("<BBHIH"), struct.Struct("<BBH")

Message = collections.namedtuple("Message", "type id body")

__all__ = [name for name in dir() if name.isupper()] + ["Client", "Gone", "Message", "hello"]


def hello(capabilities=CAPABILITIES):
    return HEADER12.pack(HELLO, 68, 0) + b"test".ljust(64, b"\0") + struct.pack("<I", capabilities)


class Client:
    """One that has said hello; until `shown`, what comes is kept in `told`, by type."""

    def __init__(self, address, timeout=10, waits=True):
        self.socket = connect(address, timeout)
        self.told = {}
        self.last = 0
        self.socket.sendall(hello())
        if not waits:
            return
        first = self._message(HEADER12)
        assert first.type == HELLO
        while DEVICE_CONNECT not in self.told:
            m = self.message()
            self.told[m.type] = m

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, kind, body=b"", number=None):
        if number is None:
            self.last += 1
            number = self.last
        self.socket.sendall(HEADER16.pack(kind, len(body), number) + body)
        return number

    def _message(self, header):
        kind, length, number = header.unpack(receive(self.socket, header.size))
        return Message(kind, number, receive(self.socket, length))

    def message(self):
        return self._message(HEADER16)

    def expect(self, kind, number=None):
        """The next message of this type, and of this id; others are passed over."""
        while True:
            m = self.message()
            if m.type == kind and number in (None, m.id):
                return m
            self.told[m.type] = m

    @property
    def vendor(self):
        return struct.unpack_from("<HH", self.told[DEVICE_CONNECT].body, 4)

    def control(self, request_type, request, value=0, index=0, length=0, data=b""):
        """Returns the status, and the data that came."""
        into = request_type & 0x80
        body = CONTROL.pack(into, request, request_type, 0, value, index, len(data) or length) + data
        m = self.expect(CONTROL_PACKET, self.send(CONTROL_PACKET, body))
        assert m.body[1] == request
        return m.body[3], m.body[CONTROL.size:]

    def set_configuration(self, value):
        m = self.expect(CONFIGURATION_STATUS, self.send(SET_CONFIGURATION, bytes([value])))
        assert tuple(m.body) == (SUCCESS, value)

    def set_interface(self, interface, alternate):
        m = self.expect(ALT_SETTING_STATUS, self.send(SET_ALT_SETTING, bytes([interface, alternate])))
        assert tuple(m.body) == (SUCCESS, interface, alternate)

    def start_bulk(self, endpoint, length=0, data=b""):
        size = len(data) or length
        return self.send(BULK_PACKET, BULK.pack(endpoint, 0, size & 0xffff, 0, size >> 16) + data)

    def bulk_result(self, number):
        """(status, bytes moved, data)"""
        m = self.expect(BULK_PACKET, number)
        _, status, low, _, high = BULK.unpack_from(m.body)
        return status, high << 16 | low, m.body[BULK.size:]

    def bulk(self, endpoint, length=0, data=b""):
        return self.bulk_result(self.start_bulk(endpoint, length, data))

    def start_interrupts(self, endpoint):
        m = self.expect(INTERRUPT_RECEIVING_STATUS, self.send(START_INTERRUPT_RECEIVING, bytes([endpoint])))
        return m.body[0]

    def stop_interrupts(self, endpoint):
        m = self.expect(INTERRUPT_RECEIVING_STATUS, self.send(STOP_INTERRUPT_RECEIVING, bytes([endpoint])))
        return m.body[0]
