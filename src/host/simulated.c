/*
 * The simulated bus and its devices. All that goes on in a frame is worked out at
 * the edge that ends it (carry_out()), and then told (report()); so whoever is
 * told may do what it likes to transfers and devices.
 *
 *	submit -> an endpoint's queue -> bus->ended -> bh_transfer_done()
 */
#include <host/simulated.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#define MAX_ENDPOINTS   31u /* and endpoint 0 */
#define MAX_PACKET      1024u
#define CONTROL_PACKET  64u
#define ONLY_CONFIGURATION 1u

/* Byte times of a frame that may be promised: 90 % (5.6.4). */
#define RESERVABLE (BH_SIMULATED_FRAME_BYTE_TIMES * 9 / 10)

static const struct bh_endpoint_info control_info = {.address = 0, .type = BH_CONTROL, .max_packet = CONTROL_PACKET};

struct simulated;

struct simulated_endpoint {
	const struct bh_endpoint_info *info;
	struct simulated *device;
	struct bh_simulated_count count;
	struct bh_list queue; /* pending, in the order of submission */
	struct bh_list link;  /* bus->ring, while the queue is not empty */
	uint64_t idle_until;  /* frame before which it moves nothing */
	bool halted;
};

/* What a control transfer means to the device. */
enum request { NO_REQUEST, CONFIGURATION, INTERFACE, CLEAR_HALT };

/* A transfer we own. */
struct pending {
	struct bh_transfer *transfer;
	struct simulated_endpoint *endpoint;
	struct bh_list link;  /* endpoint->queue, then bus->ended */
	uint64_t first_frame; /* when it may be on the bus */
	uint32_t moved;       /* bytes */
	uint32_t packets;
	bool begun, cancelled, hangs;
	bool progressed; /* in the frame just over */
	enum bh_status status; /* once ended */
	enum request request;
	uint8_t value, alternate;
};

struct fault {
	struct bh_simulated_fault is;
	const struct pending *bound; /* next_transfer: to this one; its packet is an absolute number then */
	struct bh_list link;         /* simulated->faults */
};

struct simulated {
	struct bh_device device;
	struct bh_simulated_config config;
	struct bh_simulated_bus *bus;
	struct bh_list link; /* bus->devices */
	struct bh_list faults;
	bool configured;
	bool gone;   /* unplugged itself */
	bool leaves; /* and nobody was told yet */
	unsigned endpoint_count;
	struct simulated_endpoint endpoints[1 + MAX_ENDPOINTS]; /* the first is endpoint 0 */
};

static struct simulated *of_device(const struct bh_device *d)
{
	return bh_container_of(d, struct simulated, device);
}

static bool is_in(const struct simulated_endpoint *ep)
{
	return ep->info->address & BH_ENDPOINT_IN;
}

static bool is_isochronous(const struct simulated_endpoint *ep)
{
	return ep->info->type == BH_ISOCHRONOUS;
}

static struct simulated_endpoint *find_endpoint(struct simulated *s, uint8_t address)
{
	for (unsigned i = 0; i < s->endpoint_count; i++)
		if (s->endpoints[i].info->address == address)
			return &s->endpoints[i];
	return NULL;
}

static struct pending *head_of(const struct simulated_endpoint *ep)
{
	return bh_list_empty(&ep->queue) ? NULL : bh_container_of(ep->queue.next, struct pending, link);
}

uint64_t bh_simulated_checksum(uint64_t sum, const uint8_t *bytes, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3u;
	return sum;
}

/* --- transfers end ----------------------------------------------------------------- */

static void drop_fault(struct fault *f)
{
	bh_list_remove(&f->link);
	free(f);
}

/* From here on its result stands; it is told in report(), or before the device goes. */
static void end(struct pending *p, enum bh_status status)
{
	struct simulated_endpoint *ep = p->endpoint;

	bh_list_each(f, &ep->device->faults, struct fault, link)
		if (f->bound == p)
			drop_fault(f);
	p->status = status;
	bh_list_remove(&p->link);
	bh_list_append(&ep->device->bus->ended, &p->link);
	if (bh_list_empty(&ep->queue))
		bh_list_remove(&ep->link);
}

static void end_all(struct simulated *s, enum bh_status status)
{
	for (unsigned i = 0; i < s->endpoint_count; i++)
		for (struct pending *p; (p = head_of(&s->endpoints[i]));)
			end(p, status);
}

static void tell(struct pending *p)
{
	struct bh_transfer *t = p->transfer;
	enum bh_status status = p->status;
	uint32_t moved = p->moved;

	bh_list_remove(&p->link);
	free(p);
	bh_transfer_done(t, status, moved);
}

static struct pending *find_ended(struct simulated *s)
{
	bh_list_each(p, &s->bus->ended, struct pending, link)
		if (p->endpoint->device == s)
			return p;
	return NULL;
}

/* Ends and tells everything now. */
static void flush(struct simulated *s)
{
	end_all(s, BH_CANCELLED);
	for (struct pending *p; (p = find_ended(s));)
		tell(p);
}

/* --- faults ------------------------------------------------------------------------- */

static bool kind_fits(const struct bh_simulated_fault *fault, const struct simulated_endpoint *ep)
{
	switch (fault->kind) {
	case BH_SIMULATED_BUS_ERROR:
	case BH_SIMULATED_NO_RESPONSE:
	case BH_SIMULATED_DISCONNECT:
		return true;
	case BH_SIMULATED_STALL: /* handshakes, which isochronous packets have not (8.5.5) */
		return !is_isochronous(ep);
	case BH_SIMULATED_NAK:
		return !is_isochronous(ep) && fault->value > 0;
	case BH_SIMULATED_HANG:
		return !is_isochronous(ep) && !ep->device->config.finishes;
	case BH_SIMULATED_BABBLE:
		return is_in(ep);
	case BH_SIMULATED_SHORT:
		return is_in(ep) && fault->value < ep->info->max_packet;
	case BH_SIMULATED_LONG:
		return is_in(ep) && fault->value > ep->info->max_packet;
	case BH_SIMULATED_FAULT_COUNT:
		break;
	}
	return false;
}

int bh_simulated_program(struct bh_device *d, const struct bh_simulated_fault *fault)
{
	struct simulated *s = of_device(d);
	struct simulated_endpoint *ep = find_endpoint(s, fault->endpoint);
	struct fault *f;

	if (!ep || !kind_fits(fault, ep) || (!fault->next_transfer && fault->packet < ep->count.packets))
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->is = *fault;
	bh_list_append(&s->faults, &f->link);
	return 0;
}

/* Faults that waited for this transfer to begin get the numbers of its packets. */
static void bind_faults(struct pending *p)
{
	struct simulated_endpoint *ep = p->endpoint;

	bh_list_each(f, &ep->device->faults, struct fault, link)
		if (f->is.next_transfer && !f->bound && f->is.endpoint == ep->info->address) {
			f->bound = p;
			f->is.packet += ep->count.packets;
		}
}

/* The fault that strikes at the endpoint's next packet; it is used up. */
static bool take_fault(struct simulated_endpoint *ep, struct bh_simulated_fault *ret_fault)
{
	bh_list_each(f, &ep->device->faults, struct fault, link)
		if (f->is.endpoint == ep->info->address && f->is.packet == ep->count.packets &&
		    (f->bound || !f->is.next_transfer)) {
			*ret_fault = f->is;
			drop_fault(f);
			return true;
		}
	return false;
}

/* --- packets -------------------------------------------------------------------------- */

static bool out_is_over(const struct pending *p)
{
	const struct bh_transfer *t = p->transfer;
	uint32_t max = p->endpoint->info->max_packet;
	bool zero = t->length == 0 || ((t->flags & BH_TRANSFER_ZERO_PACKET) && t->length % max == 0);

	return p->packets == t->length / max + (t->length % max != 0) + zero;
}

static void count_packet(struct pending *p, uint32_t length)
{
	p->endpoint->count.packets++;
	p->endpoint->count.bytes += length;
	p->packets++;
	p->moved += length;
	p->progressed = true;
}

/* The device takes a packet of an OUT. */
static void hear(struct simulated_endpoint *ep, const struct bh_transfer *t, uint32_t offset, uint32_t length)
{
	const struct bh_simulated_config *config = &ep->device->config;
	uint8_t bytes[MAX_PACKET];

	bh_transfer_read(t, offset, bytes, length);
	ep->count.checksum = bh_simulated_checksum(ep->count.checksum, bytes, length);
	if (config->sink)
		config->sink(config->sink_data, ep->info->address, bytes, length);
}

static void move_out(struct pending *p, uint32_t length)
{
	hear(p->endpoint, p->transfer, p->moved, length);
	count_packet(p, length);
	if (out_is_over(p))
		end(p, BH_SUCCESS);
}

static void move_in(struct pending *p, uint32_t length)
{
	struct simulated_endpoint *ep = p->endpoint;
	const struct bh_transfer *t = p->transfer;
	uint8_t bytes[MAX_PACKET];

	if (length > t->length - p->moved) {
		end(p, BH_BABBLE);
		return;
	}
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = bh_simulated_pattern(ep->count.bytes + i);
	bh_transfer_write(t, p->moved, bytes, length);
	count_packet(p, length);
	if (length < ep->info->max_packet || p->moved == t->length)
		end(p, BH_SUCCESS);
}

static bool has_interface(const struct simulated *s, uint8_t interface)
{
	for (unsigned i = 1; i < s->endpoint_count; i++)
		if (s->endpoints[i].info->interface == interface)
			return true;
	return false;
}

static void clear_halts(struct simulated *s, int interface)
{
	for (unsigned i = 1; i < s->endpoint_count; i++)
		if (interface < 0 || s->endpoints[i].info->interface == interface)
			s->endpoints[i].halted = false;
}

/* False: refused. */
static bool carry_out_request(struct simulated *s, const struct pending *p)
{
	struct simulated_endpoint *ep;

	switch (p->request) {
	case CONFIGURATION:
		if (p->value > ONLY_CONFIGURATION)
			return false;
		s->configured = p->value;
		clear_halts(s, -1);
		return true;
	case INTERFACE:
		if (!s->configured || p->alternate || !has_interface(s, p->value))
			return false;
		clear_halts(s, p->value);
		return true;
	case CLEAR_HALT:
		ep = find_endpoint(s, p->value);
		if (!s->configured || !ep)
			return false;
		ep->halted = false;
		return true;
	case NO_REQUEST:
		break;
	}
	return false;
}

/* SETUP, and after it STATUS of what we know; everything else is stalled. */
static void move_control(struct pending *p)
{
	struct simulated_endpoint *ep = p->endpoint;

	if (p->packets == 0) {
		ep->count.packets++;
		p->packets++;
		return;
	}
	if (!carry_out_request(ep->device, p)) {
		end(p, BH_STALL);
		return;
	}
	ep->count.packets++;
	end(p, BH_SUCCESS);
}

static uint32_t next_length(const struct pending *p);

/*
 * One packet, in its interval or not at all; the next one has its turn in the next, whatever
 * became of this one.
 */
static void move_isochronous(struct pending *p, const struct bh_simulated_fault *f)
{
	struct bh_packet *packet = &p->transfer->packets[p->packets];
	struct simulated_endpoint *ep = p->endpoint;
	uint32_t length = f && f->kind == BH_SIMULATED_SHORT ? f->value : next_length(p);
	uint8_t bytes[MAX_PACKET];

	if (f && f->kind != BH_SIMULATED_SHORT) {
		packet->status = f->kind == BH_SIMULATED_BUS_ERROR     ? BH_BUS_ERROR
		                 : f->kind == BH_SIMULATED_NO_RESPONSE ? BH_NO_RESPONSE
		                                                       : BH_BABBLE;
		ep->count.bytes += f->kind == BH_SIMULATED_LONG ? f->value : 0;
		p->packets++;
	} else if (is_in(ep) && length > packet->length) {
		packet->status = BH_BABBLE;
		p->packets++;
	} else {
		for (uint32_t i = 0; is_in(ep) && i < length; i++)
			bytes[i] = bh_simulated_pattern(ep->count.bytes + i);
		if (is_in(ep))
			bh_transfer_write(p->transfer, packet->offset, bytes, length);
		else
			hear(ep, p->transfer, packet->offset, length);
		packet->actual = length;
		packet->status = BH_SUCCESS;
		count_packet(p, length);
	}
	if (p->packets == p->transfer->packet_count)
		end(p, BH_SUCCESS);
}

static void strike(struct pending *p, const struct bh_simulated_fault *f)
{
	struct simulated_endpoint *ep = p->endpoint;
	struct simulated *s = ep->device;

	if (is_isochronous(ep) && f->kind != BH_SIMULATED_DISCONNECT) {
		move_isochronous(p, f);
		return;
	}
	switch (f->kind) {
	case BH_SIMULATED_STALL:
		ep->halted = ep->info->type != BH_CONTROL;
		end(p, BH_STALL);
		break;
	case BH_SIMULATED_LONG:
		ep->count.bytes += f->value;
		end(p, BH_BABBLE);
		break;
	case BH_SIMULATED_BABBLE:
		end(p, BH_BABBLE);
		break;
	case BH_SIMULATED_BUS_ERROR:
		end(p, BH_BUS_ERROR);
		break;
	case BH_SIMULATED_NO_RESPONSE:
		end(p, BH_NO_RESPONSE);
		break;
	case BH_SIMULATED_HANG:
		p->hangs = true;
		break;
	case BH_SIMULATED_NAK:
		ep->idle_until = s->bus->frame + f->value;
		break;
	case BH_SIMULATED_SHORT:
		move_in(p, f->value);
		break;
	case BH_SIMULATED_DISCONNECT:
		s->gone = s->leaves = true;
		end_all(s, BH_NO_RESPONSE);
		break;
	case BH_SIMULATED_FAULT_COUNT:
		assert(false);
	}
}

/* Bytes of the packet that comes next, as far as the host knows before. */
static uint32_t next_length(const struct pending *p)
{
	const struct bh_transfer *t = p->transfer;
	uint32_t max = p->endpoint->info->max_packet;

	if (is_isochronous(p->endpoint))
		return is_in(p->endpoint) ? max : BH_MIN(max, t->packets[p->packets].length);
	if (p->endpoint->info->type == BH_CONTROL)
		return p->packets == 0 ? sizeof(struct bh_setup) : 0;
	return is_in(p->endpoint) && t->length ? max : BH_MIN(max, t->length - p->moved);
}

static void move_packet(struct pending *p)
{
	struct simulated_endpoint *ep = p->endpoint;
	struct bh_simulated_fault fault;

	if (!p->begun)
		bind_faults(p);
	p->begun = true;
	if (ep->info->type == BH_INTERRUPT)
		ep->idle_until = ep->device->bus->frame + BH_MAX(ep->info->interval, 1u);
	if (is_isochronous(ep)) /* a power of two (9.6.6) */
		ep->idle_until = ep->device->bus->frame + (1u << (BH_MIN(BH_MAX(ep->info->interval, 1u), 16u) - 1));
	if (ep->halted)
		end(p, BH_STALL);
	else if (take_fault(ep, &fault))
		strike(p, &fault);
	else if (is_isochronous(ep))
		move_isochronous(p, NULL);
	else if (ep->info->type == BH_CONTROL)
		move_control(p);
	else if (is_in(ep))
		move_in(p, next_length(p));
	else
		move_out(p, next_length(p));
}

/* --- frames ----------------------------------------------------------------------------- */

static bool has_turn(const struct simulated_endpoint *ep, uint32_t left)
{
	uint64_t frame = ep->device->bus->frame;
	const struct pending *p = head_of(ep);

	return p->first_frame <= frame && !p->hangs && ep->idle_until <= frame &&
	       next_length(p) + BH_SIMULATED_OVERHEAD <= left;
}

/* One packet of the endpoint, if there is one and the frame has room. */
static bool take_turn(struct simulated_endpoint *ep, uint32_t *left)
{
	if (!has_turn(ep, *left))
		return false;
	*left -= next_length(head_of(ep)) + BH_SIMULATED_OVERHEAD;
	move_packet(head_of(ep));
	return true;
}

static struct simulated_endpoint *find_isochronous(const struct bh_simulated_bus *b, uint32_t left)
{
	bh_list_each(ep, &b->ring, struct simulated_endpoint, link)
		if (is_isochronous(ep) && has_turn(ep, left))
			return ep;
	return NULL;
}

/* Packets of the frame under way: isochronous ones, then the others in turn, until nobody has one that fits. */
static void carry_out(struct bh_simulated_bus *b)
{
	uint32_t left = BH_SIMULATED_FRAME_BYTE_TIMES;
	const struct bh_list *refused = NULL; /* the first of those in turn that had none */
	struct simulated_endpoint *first;

	while ((first = find_isochronous(b, left)))
		take_turn(first, &left);

	while (!bh_list_empty(&b->ring) && b->ring.next != refused) {
		struct simulated_endpoint *ep = bh_container_of(b->ring.next, struct simulated_endpoint, link);

		bh_list_remove(&ep->link); /* and to the end; it leaves the ring with its last transfer */
		bh_list_append(&b->ring, &ep->link);
		if (take_turn(ep, &left))
			refused = NULL;
		else if (!refused)
			refused = &ep->link;
	}
}

static struct pending *find_cancelled(const struct bh_simulated_bus *b)
{
	bh_list_each(ep, &b->ring, struct simulated_endpoint, link)
		if (head_of(ep)->cancelled)
			return head_of(ep);
	return NULL;
}

static struct pending *find_progressed(const struct bh_simulated_bus *b)
{
	bh_list_each(ep, &b->ring, struct simulated_endpoint, link)
		if (head_of(ep)->progressed)
			return head_of(ep);
	return NULL;
}

static struct simulated *find_leaving(const struct bh_simulated_bus *b)
{
	bh_list_each(s, &b->devices, struct simulated, link)
		if (s->leaves)
			return s;
	return NULL;
}

/* Whoever is told may change every list: look again from the start each time. */
static void report(struct bh_simulated_bus *b)
{
	struct simulated *s;
	struct pending *p;

	while ((p = find_cancelled(b)))
		end(p, BH_CANCELLED);
	while (!bh_list_empty(&b->ended))
		tell(bh_container_of(b->ended.next, struct pending, link));
	while ((p = find_progressed(b))) {
		p->progressed = false;
		bh_transfer_progress(p->transfer, p->moved);
	}
	while ((s = find_leaving(b))) {
		s->leaves = false;
		bh_device_detach(&s->device);
	}
}

static bool anything_to_do(const struct bh_simulated_bus *b)
{
	return !bh_list_empty(&b->ring);
}

void bh_simulated_run(struct bh_simulated_bus *b, uint64_t now_us)
{
	uint64_t frame = now_us < b->epoch_us ? 0 : (now_us - b->epoch_us) / BH_SIMULATED_FRAME_US;

	assert(!b->running);
	b->running = true;
	while (b->frame < frame && anything_to_do(b)) {
		carry_out(b);
		b->frame++;
		report(b);
	}
	b->frame = BH_MAX(b->frame, frame);
	b->running = false;
}

uint64_t bh_simulated_deadline(const struct bh_simulated_bus *b)
{
	return anything_to_do(b) ? b->epoch_us + (b->frame + 1) * BH_SIMULATED_FRAME_US : UINT64_MAX;
}

void bh_simulated_bus_init(struct bh_simulated_bus *b, uint64_t now_us)
{
	*b = (struct bh_simulated_bus){.epoch_us = now_us};
	bh_list_init(&b->devices);
	bh_list_init(&b->ring);
	bh_list_init(&b->ended);
}

void bh_simulated_bus_finish(struct bh_simulated_bus *b)
{
	assert(bh_list_empty(&b->devices) && bh_list_empty(&b->ended));
	(void)b;
}

/* --- the device seam ----------------------------------------------------------------------- */

static void enqueue(struct simulated_endpoint *ep, struct bh_transfer *t, const struct pending *as)
{
	struct simulated *s = ep->device;
	struct pending *p = malloc(sizeof(*p));

	if (!p || s->gone) {
		free(p);
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	*p = *as;
	p->transfer = t;
	p->endpoint = ep;
	p->first_frame = s->bus->frame + 1;
	t->device_data = p;
	if (bh_list_empty(&ep->queue))
		bh_list_append(&s->bus->ring, &ep->link);
	bh_list_append(&ep->queue, &p->link);
}

static void simulated_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct simulated *s = of_device(d);
	struct simulated_endpoint *ep = t->type == BH_CONTROL ? &s->endpoints[0] : find_endpoint(s, t->endpoint);

	if (!ep || (t->type != BH_CONTROL && (ep->info->type != t->type || !s->configured)))
		bh_transfer_done(t, BH_STALL, 0);
	else
		enqueue(ep, t, &(struct pending){0});
}

/*
 * Answered at the next edge, with what moved until then. One behind another waits
 * for that to end: transfers to an endpoint end in their order.
 */
static void simulated_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct pending *p = t->device_data;

	(void)d;
	p->cancelled = true;
}

static void simulated_reset(struct bh_device *d)
{
	struct simulated *s = of_device(d);

	s->configured = false;
	for (unsigned i = 0; i < s->endpoint_count; i++) {
		s->endpoints[i].halted = false;
		s->endpoints[i].idle_until = 0;
	}
	flush(s);
}

static void simulated_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	enqueue(&of_device(d)->endpoints[0], t, &(struct pending){.request = CONFIGURATION, .value = value});
}

static void simulated_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate,
                                    struct bh_transfer *t)
{
	enqueue(&of_device(d)->endpoints[0], t,
	        &(struct pending){.request = INTERFACE, .value = interface, .alternate = alternate});
}

static void simulated_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	enqueue(&of_device(d)->endpoints[0], t, &(struct pending){.request = CLEAR_HALT, .value = endpoint});
}

static const struct bh_endpoint_info *simulated_endpoint_info(const struct bh_device *d, uint8_t address)
{
	struct simulated *s = of_device(d);
	const struct simulated_endpoint *ep = find_endpoint(s, address);

	return s->configured && ep ? ep->info : NULL;
}

/* Bus time that is the endpoint's in each frame, whatever its interval. */
static uint32_t reserved(const struct bh_endpoint_info *info)
{
	return info->type == BH_ISOCHRONOUS ? info->max_packet + BH_SIMULATED_OVERHEAD : 0;
}

static uint32_t reserved_by_all(const struct simulated *s)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < s->endpoint_count; i++)
		sum += reserved(s->endpoints[i].info);
	return sum;
}

static void simulated_destroy(struct bh_device *d)
{
	struct simulated *s = of_device(d);

	s->gone = true; /* what it tells may not submit more */
	s->leaves = false;
	flush(s);
	bh_list_each(f, &s->faults, struct fault, link)
		drop_fault(f);
	bh_list_remove(&s->link);
	s->bus->reserved -= reserved_by_all(s);
	free(s);
}

static const struct bh_device_ops simulated_ops = {
	.submit = simulated_submit,
	.cancel = simulated_cancel,
	.reset = simulated_reset,
	.set_configuration = simulated_set_configuration,
	.set_interface = simulated_set_interface,
	.clear_halt = simulated_clear_halt,
	.endpoint = simulated_endpoint_info,
	.destroy = simulated_destroy,
};

/* --- making one ------------------------------------------------------------------------------ */

static bool endpoint_can_be(const struct bh_endpoint_info *info)
{
	return (info->address & 15) && !(info->address & 0x70) &&
	       info->type != BH_CONTROL && info->max_packet > 0 &&
	       bh_simulated_packets_per_frame(info->max_packet) > 0 && info->max_packet <= MAX_PACKET;
}

static void add_endpoint(struct simulated *s, const struct bh_endpoint_info *info)
{
	struct simulated_endpoint *ep = &s->endpoints[s->endpoint_count++];

	*ep = (struct simulated_endpoint){
		.info = info,
		.device = s,
		.count = {.checksum = BH_SIMULATED_CHECKSUM},
	};
	bh_list_init(&ep->queue);
	bh_list_init(&ep->link);
}

struct bh_device *bh_simulated_create(struct bh_simulated_bus *b, const struct bh_simulated_config *config)
{
	struct simulated *s;

	if (config->endpoint_count > MAX_ENDPOINTS || !(s = calloc(1, sizeof(*s))))
		return NULL;
	s->device = (struct bh_device){
		.ops = &simulated_ops,
		.speed = BH_SPEED_FULL,
		.control_max_packet = CONTROL_PACKET,
		.finishes = config->finishes,
	};
	s->config = *config;
	s->bus = b;
	bh_list_init(&s->faults);
	add_endpoint(s, &control_info);
	for (unsigned i = 0; i < config->endpoint_count; i++) {
		const struct bh_endpoint_info *info = &config->endpoints[i];

		if (!endpoint_can_be(info) || find_endpoint(s, info->address)) {
			free(s);
			return NULL;
		}
		add_endpoint(s, info);
	}
	if (reserved_by_all(s) > RESERVABLE - b->reserved) {
		free(s);
		return NULL;
	}
	b->reserved += reserved_by_all(s);
	bh_list_append(&b->devices, &s->link);
	return &s->device;
}

struct bh_simulated_count bh_simulated_count(const struct bh_device *d, uint8_t endpoint)
{
	const struct simulated_endpoint *ep = find_endpoint(of_device(d), endpoint);

	return ep ? ep->count : (struct bh_simulated_count){0};
}
