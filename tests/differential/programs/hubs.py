"""A hub in port 2, with four ports: what its driver asks and sees, and a keyboard behind it."""

from programs import program
from programs.parts import GET_CONFIGURATION, ask, control, request
from uhci import ACTIVE, CSC, EGSM, END, IN, IOC, PE, PORTSC2, RS, SETUP, SUSP, USBCMD, USBSTS

HUB, KEYBOARD = 7, 6  # addresses
CHANGES = 1  # the hub's endpoint
ENABLE, SUSPEND, RESET, POWER, C_CONNECTION, C_ENABLE, C_SUSPEND, C_RESET = 1, 2, 4, 8, 16, 17, 18, 20


def set_feature(c, feature, port):
    ask(c, request(0x23, 3, feature, port), HUB)


def clear_feature(c, feature, port):
    ask(c, request(0x23, 1, feature, port), HUB)


def status(c, label, port):
    """wPortStatus, and wPortChange above it, both as a driver sees them."""
    c.note(f"port: {label}", int.from_bytes(ask(c, request(0xA3, 0, 0, port, 4), HUB, length=4), "little"))


def hub(c, power=True):
    c.ready()
    c.plug("hub")
    c.configure(HUB, port=1)
    if power:
        for port in range(1, 5):
            set_feature(c, POWER, port)
        c.pass_frames(10)
    clean(c)


def clean(c):
    c.write(USBSTS, 0x1F)


def acknowledge(c, port):
    """All changes but those that differ are gone afterwards."""
    for change in (C_CONNECTION, C_ENABLE, C_SUSPEND, C_RESET):
        clear_feature(c, change, port)


def keyboard(c, port=1):
    """Plugged into the hub, found, reset, acknowledged, configured."""
    hub(c)
    c.plug("keyboard", f"2.{port}")
    c.pass_frames(10)
    set_feature(c, RESET, port)
    acknowledge(c, port)
    c.address(KEYBOARD)
    ask(c, request(0x21, 0x0A), KEYBOARD)  # SET_IDLE: for ever
    clean(c)


def changes(c, number, flags=ACTIVE | IOC):
    """The status change endpoint: a bit for each port."""
    c.td(number, END, IN, 1, HUB, CHANGES, flags=flags)
    c.qh(0, element=c.to_td(number))
    c.frame(c.to_qh(0))


@program
def descriptor(c):
    hub(c)
    data = ask(c, request(0xA0, 6, 0x2900, 0, 9), HUB, length=9)
    for at, label in enumerate(("bLength", "bDescriptorType", "bNbrPorts", "characteristics", None, "bPwrOn2PwrGood",
                                "bHubContrCurrent", "DeviceRemovable", "PortPwrCtrlMask")):
        if label:
            c.note(label, data[at])
    yield "read"


@program
def status_of_hub(c):
    hub(c)
    c.note("hub", ask(c, request(0xA0, 0, 0, 0, 4), HUB, length=4))
    yield "read"


@program
def status_of_empty_ports(c):
    hub(c)
    for port in range(1, 5):
        status(c, f"port {port}", port)
    yield "read"


@program
def nothing_changed(c):
    hub(c)
    changes(c, 0)
    yield "waits"


@program
def a_device_comes(c):
    hub(c)
    changes(c, 0)
    yield "waits"
    c.plug("keyboard", "2.3")
    yield "told"
    status(c, "connected", 3)
    clear_feature(c, C_CONNECTION, 3)
    status(c, "acknowledged", 3)
    changes(c, 1)
    yield "no more changes"


@program
def two_devices_come(c):
    hub(c)
    c.plug("keyboard", "2.1")
    c.plug("keyboard", "2.4")
    c.pass_frames(10)
    changes(c, 0)
    yield "both told"
    clear_feature(c, C_CONNECTION, 1)
    changes(c, 1)
    yield "one left"


@program
def a_port_is_reset(c):
    hub(c)
    c.plug("keyboard", "2.2")
    c.pass_frames(10)
    clear_feature(c, C_CONNECTION, 2)
    set_feature(c, RESET, 2)
    status(c, "reset", 2)
    changes(c, 0)
    yield "told"
    clear_feature(c, C_RESET, 2)
    status(c, "acknowledged", 2)
    yield "enabled"


@program
def an_empty_port_is_reset(c):
    hub(c)
    set_feature(c, RESET, 2)
    status(c, "reset", 2)
    yield "not enabled"


@program
def a_port_is_disabled(c):
    keyboard(c)
    clear_feature(c, ENABLE, 1)
    status(c, "disabled", 1)
    c.td(0, END, SETUP, 8, KEYBOARD, data=GET_CONFIGURATION)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "silent"


@program
def a_device_behind_a_hub(c):
    keyboard(c)
    status(c, "enabled", 1)
    control(c, 0, GET_CONFIGURATION, address=KEYBOARD)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "answers"
    control(c, 4, GET_CONFIGURATION, address=HUB)
    c.element(0, c.to_td(4))
    yield "so does the hub"
    control(c, 8, GET_CONFIGURATION)
    c.element(0, c.to_td(8))
    yield "so does the disk"


@program
def a_key_behind_a_hub(c):
    keyboard(c)
    c.td(0, END, IN, 8, KEYBOARD, 1, flags=ACTIVE | IOC)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "waits"
    c.press("q", "2.1")
    yield "pressed"
    c.let_go("q", "2.1")
    c.td(1, END, IN, 8, KEYBOARD, 1, flags=ACTIVE | IOC)
    c.element(0, c.to_td(1))
    yield "released"


@program
def a_device_behind_a_hub_goes(c):
    keyboard(c)
    changes(c, 0)
    yield "waits"
    c.unplug("2.1")
    yield "told"
    status(c, "gone", 1)
    c.td(4, END, SETUP, 8, KEYBOARD, data=GET_CONFIGURATION)
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(1))
    yield "silent"
    clear_feature(c, C_CONNECTION, 1)
    clear_feature(c, C_ENABLE, 1)
    status(c, "acknowledged", 1)
    yield "as before"


@program
def a_device_behind_a_hub_goes_while_asked(c):
    keyboard(c)
    c.td(0, END, IN, 8, KEYBOARD, 1, flags=ACTIVE | IOC)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "waits"
    c.unplug("2.1")
    yield "fails"


@program
def the_hub_itself_goes(c):
    keyboard(c)
    changes(c, 0)
    yield "waits"
    c.unplug("2.1")
    yield "told"
    c.unplug("2")
    yield "gone"
    c.td(1, END, SETUP, 8, HUB, data=GET_CONFIGURATION)
    c.element(0, c.to_td(1))
    yield "silent"


@program
def power_of_a_port(c):
    hub(c, power=False)
    c.plug("keyboard", "2.1")
    set_feature(c, POWER, 1)
    c.pass_frames(10)
    status(c, "on", 1)
    c.pass_frames(2)
    yield "there"


@program
def a_port_suspended_and_resumed(c):
    keyboard(c)
    set_feature(c, SUSPEND, 1)
    status(c, "suspended", 1)
    yield "asleep"
    clear_feature(c, SUSPEND, 1)
    status(c, "resumed", 1)
    changes(c, 0)
    yield "told"
    clear_feature(c, C_SUSPEND, 1)
    status(c, "acknowledged", 1)
    control(c, 4, GET_CONFIGURATION, address=KEYBOARD)
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(1))
    yield "answers"


@program
def a_key_wakes_a_port_of_the_hub(c):
    keyboard(c)
    ask(c, request(0x00, 3, 1), KEYBOARD)  # DEVICE_REMOTE_WAKEUP
    set_feature(c, SUSPEND, 1)
    changes(c, 0)
    yield "asleep"
    c.press("z", "2.1")
    yield "woken"
    status(c, "resumed", 1)
    c.let_go("z", "2.1")
    yield "awake"


@program
def a_key_wakes_everything(c):
    """Port of the hub, port of the controller, and the whole bus are asleep."""
    keyboard(c)
    ask(c, request(0x00, 3, 1), KEYBOARD)
    ask(c, request(0x00, 3, 1), HUB)
    set_feature(c, SUSPEND, 1)
    clean(c)
    c.write(PORTSC2, PE | SUSP | CSC)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    yield "asleep"
    c.press("z", "2.1")
    yield "woken"
    c.let_go("z", "2.1")
    c.write(USBCMD, EGSM)
    c.write(USBCMD, 0)
    c.write(PORTSC2, PE)
    c.write(USBCMD, RS)
    yield "awake"


@program
def a_port_that_there_is_not(c):
    hub(c)
    control(c, 0, request(0x23, 3, RESET, 5), address=HUB)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "refused"


@program
def a_feature_that_there_is_not(c):
    hub(c)
    control(c, 0, request(0x23, 3, 77, 1), address=HUB)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "refused"


@program
def hub_features(c):
    hub(c)
    ask(c, request(0x20, 1, 0, 0), HUB)
    ask(c, request(0x20, 1, 1, 0), HUB)
    control(c, 0, request(0x20, 1, 2, 0), address=HUB)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "two taken, the third refused"


@program
def a_hub_that_is_reset(c):
    """Its ports begin anew; who was behind it has no address any more."""
    keyboard(c)
    c.configure(HUB, port=1)
    set_feature(c, POWER, 1)
    c.pass_frames(10)
    status(c, "port 1", 1)
    clean(c)
    c.td(0, END, SETUP, 8, KEYBOARD, data=GET_CONFIGURATION)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "silent"
