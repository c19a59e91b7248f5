"""The lab: starts and watches Bulkhead servers and virtual machines.

    with lab.disk("bulkhead", image) as disk:
        guest = lab.run_guest(SCRIPT, disk)
        assert guest.values["sum"] == ...

    with lab.Server(["hub,port=1", "zero,port=1.3"], control=True) as server:
        guest = lab.run_guest(SCRIPT, server, answers={"unplug": unplug})

`disk("qemu", ...)` is QEMU's own piix3-usb-uhci with its usb-storage: the same guest on
somebody else's controller, which tells a fault of ours from a fault of a test.
A guest answers in lines "BH key=value" on its serial port (tests/vm/guest/bh.sh). Where it
needs its host to do something first, it asks: see ASK.
Everything started here dies with this process; everything said is kept in build/lab/logs.
"""

import collections
import contextlib
import ctypes
import io
import itertools
import json
import mmap
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
LAB = TOP / "build" / "lab"
LOGS = LAB / "logs"
LOGS_KEPT = 60
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class LabError(Exception):
    """Something the lab itself noticed; the message says what and where to look."""


def bulkhead_binary():
    return pathlib.Path(os.environ.get("BULKHEAD", TOP / "build" / "bulkhead")).resolve()


def prepare():
    """Fetches QEMU and builds the guest, once for all runs; says so where it takes long."""
    for tool in (["tools/qemu", "--prepare"], ["tools/guest"]):
        if subprocess.run([TOP / tool[0], *tool[1:]], stdin=subprocess.DEVNULL).returncode:
            raise LabError(f"{' '.join(tool)} failed: see the line above")


def prepare_peer():
    """The same for what a peer needs besides (see peer.py)."""
    if subprocess.run([TOP / "tools" / "qemu", "--usbredirect", "--help"], stdin=subprocess.DEVNULL,
                      stdout=subprocess.DEVNULL).returncode:
        raise LabError("tools/qemu --usbredirect failed: see the line above")


@contextlib.contextmanager
def scratch(prefix="lab-"):
    """A directory of our own for disk images, under build/, for /tmp may be small."""
    parent = LAB / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob("*-pid*-*"):  # of runs that were killed
        if not pathlib.Path("/proc", old.name.split("-pid")[1].split("-")[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"{prefix}pid{os.getpid()}-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def open_log(name):
    LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(LOGS.glob("*.log"), key=_age)[LOGS_KEPT:]:
        old.unlink(missing_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=LOGS)
    return os.fdopen(handle, "wb"), pathlib.Path(path)


def _age(path):
    with contextlib.suppress(FileNotFoundError):
        return -path.stat().st_mtime
    return 0  # another run has just removed it


def tail(path, lines=25):
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(["--- end of " + str(path.relative_to(TOP)) + ":", *text])


def _start(command, stdin=subprocess.DEVNULL, **options):
    def die_with_parent():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # A session of its own: Ctrl-C reaches us alone, and we put things away in order.
    return subprocess.Popen(command, stdin=stdin, start_new_session=True,
                            preexec_fn=die_with_parent, **options)


def _kill(process):
    if process.poll() is None:
        process.kill()
        process.wait()


class Refused(LabError):
    """A command that was answered with an error: `kind` is its class, the message its description."""

    def __init__(self, command, error):
        super().__init__(f"{command}: {error}")
        self.kind = error.get("class")


class Control:
    """A channel of lines of JSON, one command at a time: Bulkhead's own, and QEMU's QMP.

        control.execute("device-add", device="zero,port=1.3", id="z")

    returns what "return" holds, or raises Refused. Whatever else is said meanwhile, such as
    a greeting or an event, is kept in `events`.
    """

    def __init__(self, connection, seconds=20):
        self.socket = connection
        self.socket.settimeout(seconds)
        self.lines = self.socket.makefile("rb")
        self.events = []

    @classmethod
    def connect(cls, path, seconds=20):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return cls(connection, seconds)

    def execute(self, command, **arguments):
        return self.send({"execute": command, **({"arguments": arguments} if arguments else {})})

    def send(self, message):
        command = message.get("execute")
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            while line := self.lines.readline():
                answer = json.loads(line)
                if "error" in answer:
                    raise Refused(command, answer["error"])
                if "return" in answer:
                    return answer["return"]
                self.events.append(answer)
        except OSError as error:
            raise LabError(f"no answer to {command}: {error}") from None
        raise LabError(f"no answer to {command}: the channel was closed")

    def close(self):
        self.lines.close()
        self.socket.close()


def disk_device(image, **options):
    """The text for --device of a disk over `image`: disk_device(image, readonly="on", port="1.3")."""
    file = str(image).replace(",", ",,")
    return "".join(["disk,file=", file, *(f",{key}={value}" for key, value in options.items() if value)])


class QemuDisk:
    """A disk on QEMU's own UHCI. Writes are ended by the guest's flush, as ours are."""

    name = "qemu"
    numbers = itertools.count()

    def __init__(self, image, serial=None, readonly=False):
        file = str(image).replace(",", ",,")
        number = next(self.numbers)
        drive = f"if=none,id=disk{number},format=raw,cache=writeback,file={file}"
        device = f"usb-storage,bus=uhci{number}.0,drive=disk{number}"
        self.args = ["-drive", drive + (",readonly=on" if readonly else ""),
                     "-device", f"piix3-usb-uhci,id=uhci{number}",
                     "-device", device + (f",serial={serial}" if serial else "")]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def check_alive(self):
        pass

    def open_files(self):
        return []

    def leaked_files(self, before):
        return []


class Server:
    """A Bulkhead server with any devices, or none. Several guests may use it, one after the other.

    `devices` are texts for --device; `controller` and further `options` go to the server as they
    are; `environment` is added to ours. With `control`, `self.control` is its control channel.
    `within` is put in front of its command line, such as a network of its own (tests/net.py).
    """

    name = "bulkhead"

    def __init__(self, devices=(), controller="uhci", options=(), environment=None, control=False, within=()):
        self.devices = list(devices)
        self.within = list(within)
        self.controller = controller
        self.options = list(options)
        self.environment = {**os.environ, **(environment or {})}
        self.wants_control = control
        self.control = None
        self.args = []
        self.process = None

    def __enter__(self):
        binary = bulkhead_binary()
        if not binary.exists():
            raise LabError(f"no {binary}: run make first")
        # Not under build/: a socket's path has at most 107 characters.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-"))
        self.socket = self.directory / "usb.sock"
        self.control_socket = self.directory / "control.sock"
        self.statistics_file = self.directory / "statistics.json"
        command = [*self.within, binary, "serve", "--socket-path", self.socket, "--controller", self.controller,
                   "--statistics", self.statistics_file]
        for device in self.devices:
            command += ["--device", device]
        if self.wants_control:
            command += ["--control", self.control_socket]
        log, self.log = open_log("bulkhead")
        with log:
            self.process = _start([*command, *self.options], stdout=log, stderr=log, env=self.environment)
        try:
            self._wait_for_socket(self.socket, 10)
            if self.wants_control:
                self._wait_for_socket(self.control_socket, 10)
                self.control = Control.connect(self.control_socket)
        except BaseException:
            self._put_away()
            raise
        address = {"path": str(self.socket), "type": "unix"}
        self.args = ["-device", json.dumps({"driver": "vfio-user-pci", "socket": address})]
        return self

    def _wait_for_socket(self, path, seconds):
        deadline = time.monotonic() + seconds
        while not path.is_socket():
            if self.process.poll() is not None:
                raise LabError(f"bulkhead ended at once with status {self.process.returncode}\n"
                               + tail(self.log))
            if time.monotonic() > deadline:
                raise LabError(f"bulkhead made no socket in {seconds} s\n" + tail(self.log))
            time.sleep(0.01)

    def check_alive(self):
        if self.process.poll() is not None:
            raise LabError(f"bulkhead died with status {self.process.returncode}\n" + tail(self.log))

    def leaked_files(self, before, seconds=5):
        """What is open and was not `before`, once the server has noticed that its guest is gone."""
        deadline = time.monotonic() + seconds
        while True:
            now = collections.Counter(self.open_files())
            now.subtract(before)
            leaked = {name: count for name, count in now.items() if count}
            if not leaked or time.monotonic() > deadline:
                return leaked
            time.sleep(0.02)

    def resident(self):
        """Bytes of memory the server has."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self):
        """What the server's file descriptors are."""
        found = []
        for link in pathlib.Path("/proc", str(self.process.pid), "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(re.sub(r"\[\d+\]", "", os.readlink(link)))
        return found

    def statistics(self, seconds=20):
        """The server's counters as they are now."""
        before = self._statistics_inode()
        self.check_alive()
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + seconds
        while self._statistics_inode() == before:
            self.check_alive()
            if time.monotonic() > deadline:
                raise LabError(f"bulkhead wrote no statistics in {seconds} s\n" + tail(self.log))
            time.sleep(0.005)
        return json.loads(self.statistics_file.read_text())

    def _statistics_inode(self):
        return self.statistics_file.stat().st_ino if self.statistics_file.exists() else None

    def stop(self, seconds=20):
        """Ends the server as a service manager does; it has to end well and in time."""
        self.check_alive()
        self.process.terminate()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"bulkhead did not end {seconds} s after SIGTERM\n" + tail(self.log)) from None
        if status:
            raise LabError(f"bulkhead ended with status {status} on SIGTERM\n" + tail(self.log))

    def _put_away(self):
        if self.control:
            self.control.close()
        _kill(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.stop()
        finally:
            self._put_away()


class BulkheadDisk(Server):
    """A server whose first device is a disk; more of them are `options`."""

    def __init__(self, image, serial=None, readonly=False, speed=None, **options):
        text = disk_device(image, readonly="on" if readonly else None, serial=serial, speed=speed)
        super().__init__([text], **options)


def disk(controller, image, **options):
    """QEMU's own knows but the options of the image itself."""
    return {"qemu": QemuDisk, "bulkhead": BulkheadDisk}[controller](image, **options)


class Run:
    """What became of a virtual machine: its answers, exit status, log and duration.

    `values` is of the last boot to say so, `boots` how often the Linux guest came up.
    """

    def __init__(self, log):
        self.log = log
        self.values = {}
        self.boots = 0
        self.status = None
        self.seconds = 0.0


class Machine:
    """A running virtual machine, for those who want to do something to it meanwhile."""

    def __init__(self, process, monitor):
        self.process = process
        self.pid = process.pid
        self._monitor = Control(monitor)
        self._ready = False

    def tell(self, line):
        """A line to the guest's serial port."""
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def monitor(self, command, **arguments):
        """A command of QMP, such as system_reset."""
        if not self._ready:
            self._monitor.execute("qmp_capabilities")
            self._ready = True
        return self._monitor.execute(command, **arguments)

    def close(self):
        self._monitor.close()


class GuestMemory:
    """The memory of a running machine, by its physical address: what its drivers' descriptors name."""

    def __init__(self, process):
        for link in pathlib.Path("/proc", str(process.pid), "fd").iterdir():
            if os.readlink(link).startswith("/memfd:memory-backend-memfd"):
                with open(link, "r+b") as file:
                    self.bytes = mmap.mmap(file.fileno(), 0)
                return
        raise LabError("QEMU has no memory that we know of")


def qemu_command(memory, monitor, reboots=False):
    """A machine of so many megabytes, with nothing in it; QMP is at the descriptor `monitor`."""
    ram = f"memory-backend-memfd,id=ram,size={memory}M,share=on"
    return [TOP / "tools" / "qemu", "-accel", "tcg", "-m", str(memory), "-object", ram,
            "-machine", "pc,memory-backend=ram", "-nodefaults", "-no-user-config",
            *([] if reboots else ["-no-reboot"]), "-display", "none", "-serial", "stdio",
            "-chardev", f"socket,id=monitor,fd={monitor}", "-qmp", "chardev:monitor"]


def run_vm(args, servers, name="vm", timeout=60, memory=512, on_line=None, on_tick=None, on_start=None,
           answers=None, reboots=False, firmware_log=None):
    """Runs QEMU to its end. `servers` are one disk or server, or several, each a controller.

    `on_line(line)` sees the serial port, `on_tick()` the time pass. `on_start(machine)` is called
    first of all; QEMU may not have come to anything yet. `answers` has a function for each name
    that the guest may ask for (see ASK). A reset ends the machine but where `reboots` are wanted.
    `firmware_log` is a file for what the firmware says on its debug port.
    """
    servers = servers if isinstance(servers, (list, tuple)) else [servers]
    monitor, theirs = socket.socketpair()
    command = qemu_command(memory, theirs.fileno(), reboots)
    if firmware_log:
        command += ["-debugcon", f"file:{firmware_log}", "-global", "isa-debugcon.iobase=0x402"]
    for server in servers:
        command += server.args
    log, path = open_log(f"{name}-{servers[0].name if servers else 'alone'}")
    run = Run(path)
    start = time.monotonic()
    process = _start([*command, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                     pass_fds=[theirs.fileno()])
    theirs.close()
    machine = Machine(process, monitor)
    try:
        if on_start:
            on_start(machine)
        with log:
            for line in _lines(process.stdout.fileno(), log, start + timeout, on_tick):
                _heed(line, run, machine, answers or {})
                if on_line:
                    on_line(line)
        run.status = process.wait(max(1, start + timeout - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise LabError(f"the virtual machine did not end in {timeout} s\n" + tail(path)
                       + (f"\n{tail(firmware_log)}" if firmware_log else "")) from None
    finally:
        _kill(process)
        machine.close()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    run.seconds = time.monotonic() - start
    for server in servers:
        server.check_alive()
    return run


def _heed(line, run, machine, answers):
    """What a line of the guest's means to us."""
    if "Kernel panic - not syncing" in line:
        raise LabError("the guest's kernel panicked\n" + tail(run.log))
    if not line.startswith("BH ") or "=" not in line:
        return
    key, value = line[3:].split("=", 1)
    if key == "boot":
        run.boots += 1
    if key != "ask":
        run.values[key] = value
        return
    name, *words = value.split()
    if name not in answers:
        raise LabError(f"the guest asks for {value!r}, which this test does not know")
    answer = answers[name](*words)
    if answer is not NO_ANSWER:
        machine.tell(str("done" if answer is None else answer))


def _lines(fd, log, deadline, on_tick):
    pending = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not select.select([fd], [], [], min(left, 0.25))[0]:
            if on_tick:
                on_tick()
            continue
        data = os.read(fd, 65536)
        log.write(data)
        log.flush()
        *whole, pending = (pending + data).split(b"\n")
        for line in whole if data else filter(None, [pending]):
            yield line.decode(errors="replace").rstrip("\r")
        if not data:
            return


def guest_directory(kernel="bookworm"):
    """Where tools/guest put that release's vmlinuz and initramfs."""
    return LAB / f"guest-{kernel}"


NO_ANSWER = object()  # of one who asked, and is reset meanwhile: the next boot is not to hear it

# For a guest's script, which may say ". /ask.sh". ask NAME WORDS...: has the host do answers[NAME](WORDS...)
# and prints what that returned, once it is done. The script goes on only then.
ASK = """
stty -F /dev/ttyS0 -echo # our own words are not to come back as the guest's
ask() {
    echo "BH ask=$*" >/dev/ttyS0
    read -r answer </dev/ttyS0
    echo "$answer"
}
"""


def make_initrd(script, files=(), kernel="bookworm"):
    """The initrd of a guest that runs `script`, with further `files`, (name, bytes) each."""
    archive = cpio({"run.sh": script.encode(), "ask.sh": ASK.encode(), **dict(files)})
    return (guest_directory(kernel) / "initramfs").read_bytes() + archive


def kernel_args(kernel, initrd, options=""):
    return ["-kernel", guest_directory(kernel) / "vmlinux", "-initrd", initrd, "-append",
            f"console=ttyS0 quiet panic=-1 {options}"]


def run_guest(script, servers, kernel_options="", name="linux", files=(), kernel="bookworm", **options):
    """Boots the Linux guest, which runs `script` and powers off. Any failed step is an error.

    `kernel` is the release of Debian whose kernel it is: bookworm (6.1) or trixie (6.12).
    """
    with scratch("initrd-") as directory:
        initrd = directory / "initrd"
        initrd.write_bytes(make_initrd(script, files, kernel))
        run = run_vm(kernel_args(kernel, initrd, kernel_options), servers, name=name, **options)
    if run.status != 0:
        raise LabError(f"QEMU ended with status {run.status}\n" + tail(run.log))
    if run.values.get("exit") != "0":
        raise LabError("the guest's script failed or never ended\n" + tail(run.log))
    return run


def cpio(files):
    """An archive the kernel accepts behind its initramfs ("newc": hexadecimal, 4-aligned)."""
    out = io.BytesIO()

    def pad():
        out.write(bytes(-out.tell() % 4))

    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")]):
        path = name.encode() + b"\0"
        mode = 0o100755 if name != "TRAILER!!!" else 0
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        pad()
        out.write(data)
        pad()
    return out.getvalue()
