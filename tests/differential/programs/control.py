"""Control transfers: the stages, what is refused, addresses and configurations."""

from controller import ADDRESS
from programs import program
from programs.parts import (BULK_IN, GET_CONFIGURATION, GET_DEVICE_DESCRIPTOR, chain, control, control_packets,
                            request)
from uhci import ACTIVE, END, IN, OUT, PE, PORTSC1, PR, SETUP, SPD


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


def of_request(name, setup, **shape):
    def run(c):
        c.ready()
        control(c, 0, setup, **shape)
        queue(c)
        yield "done"

    run.__name__, run.__module__ = name, __name__
    return program(run)


for _name, _setup, _shape in (
    ("get_device_descriptor", GET_DEVICE_DESCRIPTOR, {"masked": True}),
    ("get_configuration_descriptor", request(0x80, 6, 0x0200, 0, 255), {"masked": True}),
    ("get_head_of_a_descriptor", request(0x80, 6, 0x0100, 0, 8), {"masked": True}),
    ("get_nothing_of_a_descriptor", request(0x80, 6, 0x0100, 0, 0), {}),
    ("get_languages", request(0x80, 6, 0x0300, 0, 255), {}),
    ("get_a_descriptor_nobody_has", request(0x80, 6, 0x2900, 0, 18), {}),
    ("get_configuration", GET_CONFIGURATION, {}),
    ("get_interface", request(0x81, 10, 0, 0, 1), {}),
    ("get_status_of_device", request(0x80, 0, 0, 0, 2), {"masked": True}),
    ("get_status_of_interface", request(0x81, 0, 0, 0, 2), {}),
    ("get_status_of_endpoint", request(0x82, 0, 0, 0x81, 2), {}),
    ("get_status_of_an_endpoint_nobody_has", request(0x82, 0, 0, 0x87, 2), {}),
    ("set_configuration", request(0x00, 9, 1), {}),
    ("set_configuration_nobody_has", request(0x00, 9, 7), {}),
    ("set_interface", request(0x01, 11, 0, 0), {}),
    ("set_interface_nobody_has", request(0x01, 11, 3, 0), {}),
    ("clear_halt", request(0x02, 1, 0, 0x81), {}),
    ("clear_a_feature_nobody_has", request(0x00, 3, 77), {}),
    ("a_vendors_request_in", request(0xC0, 0x5C, 0, 0, 8), {}),
    ("a_vendors_request_without_data", request(0x40, 0x77), {}),
    ("a_vendors_request_out", request(0x40, 0x5B, 0, 0, 16), {}),
    ("get_max_lun", request(0xA1, 0xFE, 0, 0, 1), {}),
    ("mass_storage_reset", request(0x21, 0xFF), {}),
):
    of_request(_name, _setup, **_shape)


@program
def get_a_descriptor_in_more_packets_than_it_takes(c):
    """Without short packet detection the IN after the last has to end too: with nothing."""
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 255), spd=0, status=False, masked=True)
    queue(c)
    yield "data"


@program
def short_data_then_status_in_a_second_queue(c):
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 255), spd=SPD, status=False, masked=True)
    queue(c)
    yield "data"
    c.td(20, END, OUT, 0, toggle=1)
    c.element(0, c.to_td(20))
    yield "status"


@program
def stages_one_by_one(c):
    c.ready()
    c.td(0, END, SETUP, 8, data=GET_CONFIGURATION)
    queue(c)
    yield "setup"
    c.td(1, END, IN, 1, toggle=1)
    c.element(0, c.to_td(1))
    yield "data"
    c.td(2, END, OUT, 0, toggle=1)
    c.element(0, c.to_td(2))
    yield "status"


@program
def early_status(c):
    """The host has enough after the first packet."""
    c.ready()
    c.td(0, c.to_td(1, True), SETUP, 8, data=request(0x80, 6, 0x0200, 0, 255))
    c.td(1, END, OUT, 0, toggle=1)
    queue(c)
    yield "ended early"
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "the next is not disturbed"


@program
def a_setup_replaces_another(c):
    c.ready()
    c.td(0, c.to_td(1, True), SETUP, 8, data=request(0x80, 6, 0x0200, 0, 255))
    control(c, 1, GET_CONFIGURATION)
    queue(c)
    yield "the second counts"


@program
def a_setup_after_a_refusal(c):
    c.ready()
    control(c, 0, request(0x40, 0x77))
    queue(c)
    yield "refused"
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "the next is served"


@program
def data_without_a_setup(c):
    c.ready()
    c.td(0, END, IN, 8)
    queue(c)
    yield "in"


@program
def out_without_a_setup(c):
    c.ready()
    c.td(0, END, OUT, 8, data=bytes(8))
    queue(c)
    yield "out"


@program
def a_setup_of_seven_bytes(c):
    c.ready()
    c.td(0, END, SETUP, 7, data=GET_CONFIGURATION)
    queue(c)
    yield "tried"


@program
def a_setup_of_nine_bytes(c):
    c.ready()
    c.td(0, END, SETUP, 9, data=GET_CONFIGURATION + b"\0")
    queue(c)
    yield "tried"


@program
def a_setup_to_a_bulk_endpoint(c):
    c.ready()
    c.td(0, END, SETUP, 8, endpoint=BULK_IN, data=GET_CONFIGURATION)
    queue(c)
    yield "tried"


@program
def status_with_data(c):
    """An OUT status stage of some bytes, where none are expected."""
    c.ready()
    packets = control_packets(GET_CONFIGURATION)
    packets[-1] = (OUT, 4, 0, b"abcd", 0)
    chain(c, 0, packets)
    queue(c)
    yield "tried"


@program
def address_taken_after_status(c):
    c.ready()
    c.td(0, END, SETUP, 8, data=request(0x00, 5, 9))
    queue(c)
    yield "setup"
    c.td(1, END, IN, 0, toggle=1)
    c.element(0, c.to_td(1))
    yield "status, still at the old address"
    control(c, 4, GET_CONFIGURATION, address=9)
    c.element(0, c.to_td(4))
    yield "at the new one"
    c.td(8, END, SETUP, 8, address=ADDRESS, data=GET_CONFIGURATION)
    c.element(0, c.to_td(8))
    yield "and not at the old one"


@program
def address_not_taken_without_status(c):
    c.ready()
    c.td(0, c.to_td(1, True), SETUP, 8, data=request(0x00, 5, 9))
    control(c, 1, GET_CONFIGURATION)
    queue(c)
    yield "still at the old one"


@program
def a_reset_takes_the_address_away(c):
    c.ready()
    c.write(PORTSC1, PR)
    c.write(PORTSC1, 0)
    c.write(PORTSC1, PE)
    c.td(0, END, SETUP, 8, data=GET_CONFIGURATION)
    queue(c)
    yield "nobody at the old address"
    control(c, 4, GET_DEVICE_DESCRIPTOR, address=0, masked=True)
    c.element(0, c.to_td(4))
    yield "at address 0"
    control(c, 8, GET_CONFIGURATION, address=0)
    c.element(0, c.to_td(8))
    yield "and not configured"


@program
def deconfigured(c):
    c.ready()
    control(c, 0, request(0x00, 9, 0))
    queue(c)
    yield "configuration 0"
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "asked"


@program
def halted_by_a_feature(c):
    c.ready()
    control(c, 0, request(0x02, 3, 0, 0x81))
    queue(c)
    yield "SET_FEATURE"
    control(c, 4, request(0x82, 0, 0, 0x81, 2))
    c.element(0, c.to_td(4))
    yield "status"
    c.td(8, END, IN, 13, endpoint=BULK_IN, flags=ACTIVE)
    c.element(0, c.to_td(8))
    yield "halted"
    control(c, 12, request(0x02, 1, 0, 0x81))
    c.element(0, c.to_td(12))
    yield "CLEAR_FEATURE"
