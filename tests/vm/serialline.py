"""The other side of a serial line on which a guest runs serialcheck, and how it is reached."""

import array
import contextlib
import os
import socket
import sys
import threading
import tty

WINDOW = 16 << 10  # that each side may send beyond what it has received: see serialcheck.c


class Line(threading.Thread):
    """Plays serialcheck on the host: sends the pattern until it has had the guest's last word."""

    WORDS = WINDOW // 16
    LAST = b"\xff\xff\xff\xff"

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.sent = self.received = 0  # bytes, both without the last word
        self.ended = False             # the guest has sent its last word, or something is wrong
        self.error = None
        self.moved = threading.Condition()

    @classmethod
    def pattern(cls, offset):
        """The bytes from there on, which is a multiple of 4: so many words, the most significant byte first."""
        words = array.array("I", [n * 2654435761 & 0xffffffff for n in range(offset // 4, offset // 4 + cls.WORDS)])
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()

    def run(self):
        receiver = threading.Thread(target=self._guard, args=(self._receive,), daemon=True)
        receiver.start()
        self._guard(self._send)
        receiver.join()

    def _guard(self, work):
        try:
            work()
        except Exception as error:
            self.error = self.error or repr(error)
        finally:
            with self.moved:
                self.ended = True  # one way is the end of both
                self.moved.notify()

    def _send(self):
        while not self.ended:
            self._write(self.pattern(self.sent))
            self.sent += 4 * self.WORDS
            with self.moved:
                self.moved.wait_for(lambda: self.ended or self.sent + 4 * self.WORDS <= self.received + WINDOW)
        self._write(self.LAST)

    def _write(self, data):
        while data:
            data = data[os.write(self.fd, data):]

    def _receive(self):
        expected = pending = b""
        while not (len(pending) >= 4 and pending[:4] == self.LAST):
            data = os.read(self.fd, 65536)
            assert data, "the line was hung up"
            pending += data
            while len(expected) < len(pending):
                expected += self.pattern(self.received + len(expected))
            right = len(os.path.commonprefix([pending, expected])) & ~3
            assert right == len(pending) & ~3 or pending[right:] == self.LAST, \
                f"wrong at byte {self.received + right}: {pending[right:][:16].hex()}"
            with self.moved:
                self.received += right
                self.moved.notify()
            pending, expected = pending[right:], expected[right:]
        assert pending == self.LAST, "more after the last word"


@contextlib.contextmanager
def pseudo_terminal(server, path):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        tty.setraw(fd)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def tcp(server, path):
    found, = [device["other_side"] for device in server.control.execute("devices")["devices"]
              if device["kind"] == "serial"]
    host, port = found.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        yield connection.fileno()
