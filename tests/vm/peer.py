"""The peer: a virtual machine with a real USB stack, and real devices on it, as another machine of the network.

    with peer.Peer(gadgets=[peer.mass_storage(image)]) as p:
        p.run("usbip bind -b " + p.busid(peer.MASS_STORAGE))
        p.start("usbipd", "usbipd", listens=peer.USBIP)
        connect(("127.0.0.1", p.usbip_port))

It has a Debian kernel, and the files of this machine, read-only, as its own: whatever program is
here (Bulkhead, usbipd, tools/qemu, python3) runs there under the same path, with the peer's
devices, as root. Its /tmp, /run and /dev are its own; a file of this machine that is to be changed
after the peer has seen it may look unchanged there. Its devices are gadgets, which the kernel makes
for itself (dummy_hcd), and QEMU's, which `devices` adds as arguments, with controllers of their own.

TCP ports of the peer (`forward`) are reached through ports of `address`, 127.0.0.1: `port()` says
which. QEMU ends those connections itself, in between: whoever wants to see a link go dead has to
cut it between QEMU and himself (see tests/net.py). This machine's own 127.0.0.1 is 10.0.2.2 there.
"""

import base64
import contextlib
import dataclasses
import json
import re
import shlex
import socket
import time

import lab

USBIP = 3240
USBREDIR = 4000
MASS_STORAGE, ACM, ZERO = "0525:a4a5", "0525:a4a7", "0525:a4a0"
HOST = "10.0.2.2"
BOOT_SECONDS = 120  # ten are usual; a busy machine is no fault
VUDC = "usbip-vudc.0"
USBREDIRECT = f"{lab.TOP}/tools/qemu --usbredirect"

# With arguments such as ["-device", "usb-storage,bus=usb1.0,drive=..."]: full speed, high speed, and both.
UHCI = ["-device", "piix3-usb-uhci,id=usb1"]
EHCI = ["-device", "usb-ehci,id=usb2"]
XHCI = ["-device", "nec-usb-xhci,id=usb3"]
QEMU_DISK = "46f4:0001"


def qemu_disk(name, image, bus, **options):
    """A disk of QEMU's, QEMU_DISK, with this serial number, on a bus such as "usb1.0": what Peer() and plug() take.

    Say port="4" if it is to come back to the same place.
    """
    return {"driver": "usb-storage", "id": name, "serial": name, "bus": bus, "drive": f"{name}-image",
            "image": str(image), **options}


@dataclasses.dataclass
class Gadget:
    """A device that the peer's kernel plays. `udc` is its controller, dummy_hcd's if it is not VUDC."""

    kind: str
    identity: str
    serial: str
    udc: str = ""
    image: str = ""


def mass_storage(image=None, megabytes=16, **options):
    """A disk, MASS_STORAGE: a copy of `image`, in the peer's memory, or one that is all zeroes."""
    return Gadget(image=str(image or f"{megabytes}M"),
                  **{"kind": "mass_storage", "identity": MASS_STORAGE, "serial": "peer-disk", **options})


def acm(**options):
    """A serial port, ACM. The other end is the peer's /dev/ttyGS0."""
    return Gadget(**{"kind": "acm", "identity": ACM, "serial": "peer-serial", **options})


def zero(**options):
    """Linux's gadget zero, ZERO: configuration 3 is source and sink, 2 is loopback."""
    return Gadget(**{"kind": "zero", "identity": ZERO, "serial": "peer-zero", **options})


class Failed(lab.LabError):
    """A command in the peer that ended with another status than 0."""

    def __init__(self, command, status, output, log):
        self.status, self.output = status, output
        end = "\n".join(output.splitlines()[-25:])
        super().__init__(f"status {status} from {command!r} in the peer; it said:\n{end}\n(log: {log})")


class Peer:
    """A running peer. `speed` is that of all gadgets on dummy_hcd, "full" or "high".

    `devices` are arguments for QEMU, and devices as plug() takes them. With `udev`, programs there
    hear of what is plugged and unplugged.
    `forward` names the TCP ports that can be reached from outside. `within` is put in front of the
    command line of QEMU: it may run in a network namespace, and listen at another `address`.
    """

    def __init__(self, gadgets=(), devices=(), forward=(USBIP, USBREDIR), speed="full", kernel="bookworm",
                 memory=768, cpus=1, within=(), address="127.0.0.1", udev=False):
        self.gadgets = list(gadgets)
        self.devices = list(devices)
        self.forward = list(forward)
        self.speed = speed
        self.kernel_name = kernel
        self.memory = memory
        self.cpus = cpus
        self.within = list(within)
        self.address = address
        self.udev = udev
        self._ports = {}

    # The machine

    def __enter__(self):
        lab.prepare_peer()
        self.log_file, self.log = lab.open_log("peer")
        self._stack = contextlib.ExitStack()
        try:
            self._start_machine()
            self._set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._stack.close()
        self.log_file.close()

    def _start_machine(self):
        monitor, monitor_fd = self._pair()
        self._agent, agent_fd = self._pair()
        initrd = self._stack.enter_context(lab.scratch("peer-")) / "initrd"
        script = f". /peer.sh; peer_boot '{lab.TOP}' || exit 1; peer_serve"
        initrd.write_bytes(lab.make_initrd(script, kernel=self.kernel_name))
        command = [*self.within, *lab.qemu_command(self.memory, monitor_fd.fileno()),
                   *self._hardware(agent_fd.fileno()), *self._devices(),
                   *lab.kernel_args(self.kernel_name, initrd)]
        self.process = lab._start(command, stdout=self.log_file, stderr=self.log_file,
                                  pass_fds=[monitor_fd.fileno(), agent_fd.fileno()])
        self._stack.callback(lab._kill, self.process)
        monitor_fd.close()
        agent_fd.close()
        self.machine = lab.Machine(self.process, monitor)
        self._stack.callback(self.machine.close)
        self._answers = self._agent.makefile("rb")
        self._stack.callback(self._answers.close)
        self._expect("ready", time.monotonic() + BOOT_SECONDS)

    def _pair(self):
        ours, theirs = socket.socketpair()
        self._stack.enter_context(ours)
        self._stack.enter_context(theirs)
        return ours, theirs

    def _hardware(self, agent_fd):
        network = "".join(["user,id=net"] + [f",hostfwd=tcp:{self.address}:0-:{port}" for port in self.forward])
        return ["-smp", str(self.cpus), "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
                "-chardev", f"socket,id=agent,fd={agent_fd}", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=agent,name=agent",
                "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="]

    def _devices(self):
        for device in self.devices:
            if isinstance(device, dict):
                yield from ["-blockdev", json.dumps(self._image(device))] if "image" in device else []
                # Not as JSON: devices that are given so come after all others.
                words = self._without_image(device)
                yield from ["-device", ",".join([words.pop("driver"), *(f"{key}={value}" for key, value in words.items())])]
            else:
                yield device

    @staticmethod
    def _image(device):
        """As a node of its own, for it to outlive the device."""
        return {"driver": "file", "node-name": device["drive"], "filename": device["image"]}

    @staticmethod
    def _without_image(device):
        return {key: value for key, value in device.items() if key != "image"}

    def _set_up(self):
        speeds = {"full": "is_super_speed=0 is_high_speed=0", "high": "is_super_speed=0 is_high_speed=1"}
        dummies = [gadget for gadget in self.gadgets if not gadget.udc]
        for number, gadget in enumerate(dummies):
            gadget.udc = f"dummy_udc.{number}"
        script = ["modprobe -a usbip_host usbhid hid_generic evdev cdc_acm usbtest usbserial ftdi_sio xhci_pci || exit 1"]
        if dummies:
            script.append(f"modprobe dummy_hcd num={len(dummies)} {speeds[self.speed]} || exit 1")
        if any(gadget.udc == VUDC for gadget in self.gadgets):
            script.append("modprobe usbip_vudc || exit 1")
        if self.udev:
            script.append("inside /lib/systemd/systemd-udevd --daemon || exit 1")
        script += [self._gadget_script(number, gadget) for number, gadget in enumerate(self.gadgets)]
        self.kernel("\n".join(script))

    @staticmethod
    def _gadget_script(number, gadget):
        words = [f"gadget_{gadget.kind}", f"g{number}", gadget.identity, gadget.serial]
        lines = []
        if gadget.kind == "mass_storage":
            words.append(f"/tmp/g{number}.img")
            lines.append(f"truncate -s {gadget.image} {words[-1]}" if re.fullmatch(r"\d+M", gadget.image)
                         else f"cp '/host{gadget.image}' {words[-1]}")
        return "\n".join([*(f"{line} || exit 1" for line in lines),
                          f"{' '.join(words)} || exit 1", f"echo {gadget.udc} >UDC || exit 1"])

    # What runs there

    def run(self, command, timeout=60):
        """What this command of sh prints, run with the files of this machine; its status has to be 0."""
        return self._checked("inside", command, timeout)

    def kernel(self, command, timeout=60):
        """The same with busybox, the kernel's modules, and peer.sh."""
        return self._checked("kernel", command, timeout)

    def attempt(self, command, timeout=60):
        """Status and output, whatever they are. 124 is that of one that did not end in time."""
        return self._ask("inside", command, timeout)

    def _checked(self, where, command, timeout):
        status, output = self._ask(where, command, timeout)
        if status:
            raise Failed(command, status, output, self.log)
        return output

    def _ask(self, where, command, timeout):
        self._note(f"{where}: {command}\n")
        script = base64.b64encode(command.encode()).decode()
        self._send(f"{where} {timeout} {script}\n".encode())
        deadline = time.monotonic() + timeout + 30  # its own timeout comes first, unless it hangs
        status, size = self._expect(r"(\d+) (\d+)", deadline).groups()
        output = self._read(self._answers.read, int(size), deadline).decode(errors="replace")
        self._note(output + f"({where}: status {status})\n")
        return int(status), output

    def _send(self, data):
        try:
            self._agent.sendall(data)
        except OSError:
            raise self._ended() from None

    def _note(self, text):
        self.log_file.write(text.encode())
        self.log_file.flush()

    def _expect(self, pattern, deadline):
        line = self._read(self._answers.readline, -1, deadline).decode(errors="replace").strip()
        match = re.fullmatch(pattern, line)
        if not match:
            raise self._ended()
        return match

    def _ended(self):
        return lab.LabError("the peer has ended\n" + lab.tail(self.log))

    def _read(self, read, size, deadline):
        self._agent.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            return read(size)
        except TimeoutError:
            raise lab.LabError("the peer does not answer\n" + lab.tail(self.log)) from None
        except OSError:
            raise self._ended() from None

    def start(self, name, command, listens=None, timeout=20):
        """Starts a program that stays; `listens` is the TCP port by which one knows that it is ready."""
        self.run(f"setsid sh -c {shlex.quote('exec ' + command)} >/tmp/{name}.log 2>&1 </dev/null &\necho $! >/tmp/{name}.pid")
        if listens:
            status, output = self._ask("kernel", f"wait_listening {listens} $(cat /tmp/{name}.pid) {timeout}", timeout + 5)
            if status:
                raise lab.LabError(f"{name}: {output.strip()}; it said:\n{self.said(name)}")

    def said(self, name):
        """All that this program has printed so far."""
        return self.run(f"cat /tmp/{name}.log")

    def wait_said(self, name, pattern, seconds=20):
        """Until this program has printed something that fits the pattern of grep."""
        try:
            self.wait(f"grep -q -e '{pattern}' /tmp/{name}.log", seconds)
        except lab.LabError as error:
            raise lab.LabError(f"{error}; {name} said:\n{self.said(name)}") from None

    def kill(self, name, signal="KILL"):
        self.run(f"kill -{signal} $(cat /tmp/{name}.pid)")

    def runs(self, name):
        return self.attempt(f"kill -0 $(cat /tmp/{name}.pid)")[0] == 0

    def wait_end(self, name, seconds=20):
        """Until this program is no more."""
        self.wait(f"! kill -0 $(cat /tmp/{name}.pid) 2>/dev/null", seconds)

    def wait(self, condition, seconds=20):
        """Until this command of sh succeeds."""
        if self.attempt(f"until {condition}; do sleep 0.05; done", seconds)[0]:
            raise lab.LabError(f"in the peer, not within {seconds} s: {condition}")

    # Its devices

    def busid(self, identity, serial="", seconds=20):
        """Where the first device VENDOR:PRODUCT, or the one of this serial number, is: "1-1", once it is there."""
        return self.kernel(f"busid {identity} {seconds} {serial}", seconds + 10).strip()

    def attribute(self, busid, name):
        """What sysfs says of a device, such as "speed"."""
        return self.run(f"cat /sys/bus/usb/devices/{busid}/{name}").strip()

    def wait_gone(self, busid):
        self.wait(f"! test -e /sys/bus/usb/devices/{busid}")

    def unplug(self, device):
        """One of QEMU's, a dictionary as plug() takes it. The peer may take a moment to notice."""
        self.machine.monitor("device_del", id=device["id"])

    def plug(self, device):
        """One that was there from the start, again."""
        self.machine.monitor("device_add", **self._without_image(device))

    def unplug_gadget(self, number=0):
        self.kernel(f"echo >/sys/kernel/config/usb_gadget/g{number}/UDC")

    def plug_gadget(self, number=0):
        self.kernel(f"echo {self.gadgets[number].udc} >/sys/kernel/config/usb_gadget/g{number}/UDC")

    # Its network

    def port(self, inside):
        """The port of `address` that leads to this one of the peer's."""
        if not self._ports:
            table = self.machine.monitor("human-monitor-command", **{"command-line": "info usernet"})
            rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", table)
            self._ports = {int(theirs): int(ours) for ours, theirs in rows}
        return self._ports[inside]

    @property
    def usbip_port(self):
        return self.port(USBIP)

    @property
    def usbredir_port(self):
        return self.port(USBREDIR)
