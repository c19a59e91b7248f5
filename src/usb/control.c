/*
 * The control pipe (USB 2.0, 8.5.3): SETUP, an optional data stage, STATUS.
 *
 *   SETUP accepted  -> SETUP    held; OUT data packets are collected
 *   IN token, or wLength bytes, or STATUS
 *                   -> RUNNING  one host transfer; the guest is told "busy"
 *   it completes    -> ENDED    data packets, or the failure, then STATUS
 *   STATUS answered -> IDLE
 *   SETUP           cancels whatever there is
 *
 * OUT data is accepted before the device has seen it, so its failure shows at
 * STATUS: the one early acceptance there is. SET_ADDRESS is carried out here;
 * SET_CONFIGURATION, SET_INTERFACE and CLEAR_FEATURE(ENDPOINT_HALT) are
 * operations of the device.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#define REQUEST(type, request) ((type) << 8 | (request))
enum {
	SET_ADDRESS = REQUEST(0x00, 5),
	SET_ENDPOINT_FEATURE = REQUEST(0x02, 3),
};

static unsigned request_of(const struct bh_control *c)
{
	return REQUEST(c->setup.bmRequestType, c->setup.bRequest);
}

static bool data_is_in(const struct bh_control *c)
{
	return c->length > 0 && (c->setup.bmRequestType & BH_ENDPOINT_IN);
}

static void forget(struct bh_attached *a)
{
	struct bh_control *c = &a->control;

	if (c->data)
		bh_engine_account(&a->bus->engine, c->length, 0);
	free(c->data);
	c->data = NULL;
	c->state = BH_CONTROL_IDLE;
	c->cancelling = c->status_early = false;
}

/* --- the host transfer ------------------------------------------------------------ */

/* Which endpoint a request names, whole; NULL: none that there is, or the control pipe. */
static const struct bh_endpoint_info *named_endpoint(const struct bh_attached *a, const struct bh_control *c)
{
	uint16_t index = bh_get_le16(c->setup.wIndex);

	return (index & 15) && !(index & ~0x8fu) ? bh_device_endpoint(a->device, (uint8_t)index) : NULL;
}

static struct bh_endpoint *endpoint_in_use(const struct bh_attached *a, const struct bh_control *c)
{
	uint16_t index = bh_get_le16(c->setup.wIndex);

	return a->endpoints[(index & BH_ENDPOINT_IN) != 0][index & 15];
}

/* The device has halted an endpoint: what was fetched from it before is no more to be had. What runs, it ends. */
static void operation_done(struct bh_attached *a)
{
	const struct bh_control *c = &a->control;
	struct bh_endpoint *ep = endpoint_in_use(a, c);

	if (request_of(c) == SET_ENDPOINT_FEATURE && named_endpoint(a, c) && ep && ep->destination.engine &&
	    !bh_destination_running(&ep->destination))
		bh_endpoint_reset(ep);
}

static void transfer_done(struct bh_transfer *t, enum bh_status status)
{
	struct bh_control *c = bh_container_of(t, struct bh_control, transfer);
	struct bh_attached *a = bh_container_of(c, struct bh_attached, control);

	if (status == BH_SUCCESS)
		operation_done(a);
	a->configuring = false;
	c->actual = BH_MIN(t->actual, t->length);
	c->status = status;
	if (c->cancelling && !c->status_early) {
		forget(a); /* a SETUP or a reset wants the pipe */
	} else {
		if (status == BH_CANCELLED)
			c->status = c->cancelling ? BH_SUCCESS : BH_NO_RESPONSE;
		c->moved = data_is_in(c) ? 0 : c->moved;
		c->cancelling = false;
		c->state = BH_CONTROL_ENDED;
	}
	a->bus->source->ops->ready(a->bus->source);
}

static void run_device_operation(struct bh_attached *a, struct bh_transfer *t)
{
	switch (bh_device_operation(a->device, &t->setup)) {
	case BH_OPERATION_SUBMIT:
		break;
	case BH_OPERATION_SET_CONFIGURATION:
		a->configuring = true;
		bh_endpoints_reset(a, -1);
		break;
	case BH_OPERATION_SET_INTERFACE:
		a->configuring = true;
		bh_endpoints_reset(a, bh_get_le16(t->setup.wIndex));
		break;
	case BH_OPERATION_CLEAR_HALT:
		bh_endpoint_reset(endpoint_in_use(a, &a->control));
		break;
	}
	bh_device_request(a->device, t);
}

static void start(struct bh_attached *a)
{
	struct bh_control *c = &a->control;
	struct bh_transfer *t = &c->transfer;

	if (request_of(c) == SET_ADDRESS && c->length == 0) {
		c->status = bh_get_le16(c->setup.wValue) < 128 ? BH_SUCCESS : BH_STALL;
		c->state = BH_CONTROL_ENDED;
		return;
	}
	c->span = (struct iovec){.iov_base = c->data, .iov_len = data_is_in(c) ? c->length : c->moved};
	*t = (struct bh_transfer){
		.type = BH_CONTROL,
		.setup = c->setup,
		.spans = &c->span,
		.span_count = c->span.iov_len ? 1 : 0,
		.length = (uint32_t)c->span.iov_len,
		.done = transfer_done,
	};
	c->state = BH_CONTROL_RUNNING;
	run_device_operation(a, t);
}

/* Ends a running transfer; true where it is over already. */
static bool cancelled(struct bh_attached *a)
{
	struct bh_control *c = &a->control;

	if (!c->cancelling) {
		c->cancelling = true;
		bh_device_cancel(a->device, &c->transfer);
	}
	return c->state != BH_CONTROL_RUNNING;
}

/* --- packets ---------------------------------------------------------------------- */

static enum bh_answer setup_packet(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;
	struct bh_source *source = a->bus->source;
	struct bh_setup setup;
	uint8_t *data = NULL;
	uint32_t length;
	enum bh_answer answer;

	if (d->length != sizeof(setup))
		return bh_bus_retire(a->bus, d, 0, BH_NO_RESPONSE); /* no SETUP a device would take */
	if (c->state == BH_CONTROL_RUNNING) {
		c->status_early = false;
		if (!cancelled(a))
			return BH_ANSWER_BUSY;
	}
	if (!source->ops->read(source, d, 0, &setup, sizeof(setup)))
		return BH_ANSWER_FAULT;
	length = bh_get_le16(setup.wLength);
	if (length && !(data = calloc(1, length)))
		return BH_ANSWER_BUSY;
	answer = bh_bus_retire(a->bus, d, sizeof(setup), BH_SUCCESS);
	if (answer != BH_ANSWER_RETIRED) {
		free(data);
		return answer;
	}
	forget(a);
	c->setup = setup;
	c->data = data;
	c->length = length;
	bh_engine_account(&a->bus->engine, 0, length);
	c->moved = c->actual = 0;
	c->state = BH_CONTROL_SETUP;
	a->bus->counters.setups++;
	bh_endpoints_withdraw_unoffered(a);
	return answer;
}

/* One packet of OUT data, taken on trust. */
static enum bh_answer collect(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;
	struct bh_source *source = a->bus->source;
	uint32_t packet = d->length;
	enum bh_answer answer;

	if (packet > a->device->control_max_packet)
		return bh_bus_retire(a->bus, d, 0, BH_NO_RESPONSE);
	if (packet > c->length - c->moved) {
		answer = bh_bus_retire(a->bus, d, 0, BH_STALL); /* more than it announced */
		if (answer == BH_ANSWER_RETIRED)
			forget(a);
		return answer;
	}
	if (packet && !source->ops->read(source, d, 0, c->data + c->moved, packet))
		return BH_ANSWER_FAULT;
	answer = bh_bus_retire(a->bus, d, packet, BH_SUCCESS);
	if (answer != BH_ANSWER_RETIRED)
		return answer;
	c->moved += packet;
	if (c->moved == c->length)
		start(a);
	return answer;
}

/*
 * The next packet of an IN data stage, or how it failed. After a short end there is nothing
 * but empty ones, for drivers that have queued all of wLength (SeaBIOS, EDK2).
 */
static enum bh_answer hand_out(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;
	struct bh_source *source = a->bus->source;
	uint32_t packet = BH_MIN(a->device->control_max_packet, c->actual - c->moved);
	enum bh_answer answer;

	if (packet == 0 && c->status != BH_SUCCESS) {
		answer = bh_bus_retire(a->bus, d, 0, c->status);
		if (answer == BH_ANSWER_RETIRED)
			forget(a);
		return answer;
	}
	if (packet == 0 && c->moved == c->length)
		return bh_bus_retire(a->bus, d, 0, BH_STALL); /* more than it asked for (8.5.3.1) */
	if (packet > d->length)
		return bh_bus_retire(a->bus, d, 0, BH_BABBLE);
	if (packet && !source->ops->write(source, d, 0, c->data + c->moved, packet))
		return BH_ANSWER_FAULT;
	answer = bh_bus_retire(a->bus, d, packet, BH_SUCCESS);
	if (answer == BH_ANSWER_RETIRED)
		c->moved += packet;
	return answer;
}

static enum bh_answer status_stage(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;
	uint16_t value = bh_get_le16(c->setup.wValue);
	bool set_address = request_of(c) == SET_ADDRESS;
	uint32_t sent = c->status == BH_SUCCESS && !d->in ? d->length : 0; /* nothing, from a driver that keeps to 8.5.3.1 */
	enum bh_answer answer = bh_bus_retire(a->bus, d, sent, c->status);

	if (answer != BH_ANSWER_RETIRED)
		return answer;
	if (c->status == BH_SUCCESS && set_address) {
		a->address = (uint8_t)value;
		a->bus->recent = NULL;
	}
	forget(a);
	return answer;
}

static enum bh_answer in_packet(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;

	if (c->state == BH_CONTROL_SETUP)
		start(a); /* data, or STATUS of a request that sends all it has sent */
	switch (c->state) {
	case BH_CONTROL_ENDED:
		return data_is_in(c) ? hand_out(a, d) : status_stage(a, d);
	case BH_CONTROL_RUNNING:
		return BH_ANSWER_BUSY;
	case BH_CONTROL_IDLE:
	case BH_CONTROL_SETUP:
		break;
	}
	return bh_bus_retire(a->bus, d, 0, BH_STALL); /* no request: protocol error (8.5.3.4) */
}

/* STATUS of a request with IN data, or without having read any of it. */
static enum bh_answer out_status(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;

	if (c->state == BH_CONTROL_SETUP)
		start(a);
	if (c->state == BH_CONTROL_RUNNING) {
		c->status_early = true; /* it has heard enough */
		cancelled(a);
	}
	if (c->state != BH_CONTROL_ENDED)
		return BH_ANSWER_BUSY;
	return status_stage(a, d);
}

static enum bh_answer out_packet(struct bh_attached *a, const struct bh_descriptor *d)
{
	struct bh_control *c = &a->control;

	if (c->state != BH_CONTROL_IDLE && data_is_in(c))
		return out_status(a, d);
	if (c->state == BH_CONTROL_SETUP && c->moved < c->length)
		return collect(a, d);
	if (c->state == BH_CONTROL_RUNNING)
		return BH_ANSWER_BUSY;
	return bh_bus_retire(a->bus, d, 0, BH_STALL);
}

enum bh_answer bh_control_offer(struct bh_attached *a, const struct bh_token *token, const struct bh_descriptor *d)
{
	switch (token->pid) {
	case BH_PID_SETUP:
		return setup_packet(a, d);
	case BH_PID_IN:
		return in_packet(a, d);
	case BH_PID_OUT:
		return out_packet(a, d);
	}
	return bh_bus_retire(a->bus, d, 0, BH_NO_RESPONSE);
}

void bh_control_reset(struct bh_attached *a)
{
	struct bh_control *c = &a->control;

	if (c->state == BH_CONTROL_RUNNING) {
		c->status_early = false;
		cancelled(a);
	} else {
		forget(a);
	}
}

void bh_control_free(struct bh_attached *a)
{
	forget(a);
}
