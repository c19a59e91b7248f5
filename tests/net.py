"""A network of our own, that can go silently dead: two hosts, and a router between them.

    with net.Link() as link:
        server = link.far.start(["nbdkit", ...])
        client = link.near.start([bulkhead, ..., f"host={link.far.address}"])
        link.cut()      # nothing arrives any more, in either direction, and nobody is told
        link.restore()  # what was sent meanwhile is sent again by TCP, if it has not given up

The hosts are network namespaces: root may have them, and so may anybody where user namespaces are
allowed. A program in one has the files, the Unix sockets and the processes of this machine, and no
other network. Everything started here dies with this process. Nothing of this machine's own network
is changed.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

# Run in a namespace: makes a socket there, and hands it to whoever is at the descriptor that is named.
HAND_OVER = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as there, socket.socket() as made:
    socket.send_fds(there, [b"."], [made.fileno()])
"""


class NetError(Exception):
    """There can be no network of our own here; the message says why."""


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Host:
    """A network namespace, which lasts as long as the process that holds it."""

    def __init__(self, address, holder):
        self.address = address
        self.process = subprocess.Popen([*holder, "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_die_with_parent)
        if self.process.stdout.read(1) != b"\n":
            error = self.process.stderr.read().decode(errors="replace").strip()
            self.close()
            raise NetError(f"no network namespace: {error} (this takes root, or user namespaces)")

    def command(self, *words):
        """What to put in front of a command line that is to run there. It does so in the same process."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.process.pid), *user, "--net", "--", *map(str, words)]

    def run(self, command, timeout=30, **options):
        """What it prints; it has to end well."""
        return subprocess.run(self.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
                              text=True, timeout=timeout, **options).stdout

    def start(self, command, **options):
        return subprocess.Popen(self.command(*command), preexec_fn=_die_with_parent, **options)

    def socket(self):
        """A TCP socket of that host's, for this process to use: it binds, listens and connects there."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.run([sys.executable, "-c", HAND_OVER, str(theirs.fileno())], pass_fds=[theirs.fileno()])
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptors[0])

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in self.process.stdin, self.process.stdout, self.process.stderr:
            pipe.close()


class Link:
    """`near` and `far`, each with an `address`, and all that is between them."""

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def _set_up(self):
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.router = self._host(None, ["unshare", *user, "--net", "--"])
        # In the same user namespace as the router, which is to have a say there.
        inside = self.router.command("unshare", "--net", "--")
        self.near = self._host("10.77.1.2", inside)
        self.far = self._host("10.77.2.2", inside)
        for name, host in ("near", self.near), ("far", self.far):
            self._join(name, host)
        self.restore()

    def _host(self, address, holder):
        host = Host(address, holder)
        self._stack.callback(host.close)
        return host

    def _join(self, name, host):
        gateway = host.address.rpartition(".")[0] + ".1"
        self.router.run(["sh", "-ec", f"ip link add {name} type veth peer name eth0 netns {host.process.pid}\n"
                                      f"ip address add {gateway}/24 dev {name}\nip link set {name} up"])
        host.run(["sh", "-ec", f"ip address add {host.address}/24 dev eth0\nip link set lo up\nip link set eth0 up\n"
                               f"ip route add default via {gateway}"])

    def cut(self):
        """Packets vanish from now on. Both cables stay plugged: neither host hears of it."""
        self._forward(0)

    def restore(self):
        self._forward(1)

    def _forward(self, value):
        self.router.run(["sh", "-ec", f"echo {value} >/proc/sys/net/ipv4/ip_forward"])
