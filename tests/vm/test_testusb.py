"""Our testusb, against Linux's own gadget zero: what passes here and fails elsewhere is not testusb's fault.

The gadgets are inside the guest, at full speed on the kernel's dummy controllers, which have no
isochronous transfers, and have no interrupt endpoints. One boot for each kernel.
"""

import types

import lab
import pytest
import usbtest

ROWS = [row for row in usbtest.ROWS if row.setting == 0]
DEVICES = {0: "1-1", 1: "2-1"}
BY_TEST = {row.test: row for row in ROWS}

GADGETS = """
modprobe dummy_hcd num=2 is_super_speed=0 is_high_speed=0 || exit 1
modprobe -a libcomposite usb_f_ss_lb || exit 1
mount -t configfs none /sys/kernel/config || exit 1
for pattern in 0 1; do
    gadget=/sys/kernel/config/usb_gadget/zero$pattern
    mkdir -p $gadget && cd $gadget || exit 1
    echo 0x0525 >idVendor
    echo 0xa4a0 >idProduct
    mkdir -p configs/c.3 functions/SourceSink.$pattern || exit 1
    echo $pattern >functions/SourceSink.$pattern/pattern
    ln -s functions/SourceSink.$pattern configs/c.3/
    echo dummy_udc.$pattern >UDC || exit 1
done
cd /
wait_for /sys/bus/usb/devices/1-1:3.0 && wait_for /sys/bus/usb/devices/2-1:3.0 || exit 1
"""

# What has to go wrong, and how testusb has to tell it.
WRONG = """
testusb 0525:a4a1 0 2>/dev/null; say no_device=$?
testusb 1-1 30 2>/dev/null; say no_test=$?
echo 0 >/sys/module/usbtest/parameters/pattern
testusb 1-1 1,9-10 iterations=1 >/tmp/out; say good=$?-$(cut -d ' ' -f 1,2 </tmp/out | tr ' \\n' -,)
testusb 1-1 1,4,25 iterations=8 vary=100 >/tmp/out; say bad=$?-$(cut -d ' ' -f 1,2 </tmp/out | tr ' \\n' -,)
echo 1 >/sys/module/usbtest/parameters/pattern
testusb 1-1 1-2 >/tmp/out; say pattern=$?-$(cut -d ' ' -f 1,2 </tmp/out | tr ' \\n' -,)
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"] if usbtest.LONG else ["bookworm"])
def ran(request):
    script = usbtest.FUNCTIONS + GADGETS + usbtest.script(ROWS, DEVICES) + WRONG
    run = lab.run_guest(script, [], kernel=request.param, name="testusb", timeout=180)
    return types.SimpleNamespace(values=run.values)


@pytest.mark.parametrize("test", BY_TEST)
def test_passes_with_a_gadget_of_linux(ran, test):
    for pattern in BY_TEST[test].patterns:
        assert usbtest.result(ran.values, test, pattern)[0] == "passed"


def test_says_what_became_of_each_test(ran):
    assert ran.values["good"] == "0-1-passed,9-passed,10-passed,"


def test_says_what_failed_and_what_cannot_be_tested(ran):
    # Reads of less than a whole packet do not fit; there is no interrupt endpoint.
    assert ran.values["bad"] == "1-1-passed,4-EOVERFLOW,25-unsupported,"


def test_notices_another_pattern(ran):
    # The gadget halts at what it is sent; the driver looks at what it reads.
    assert ran.values["pattern"] == "1-1-EPIPE,2-EINVAL,"


def test_says_what_it_cannot_do(ran):
    assert ran.values["no_device"] == ran.values["no_test"] == "2"
