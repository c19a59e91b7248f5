/*
 * Two runs of one program in lock-step, and the law between them.
 *
 * Seen from the offer of a packet to the bus (bh_bus_offer, interposed by the linker):
 * the run with batches writes down (walk, descriptor, answer, how it was retired), and
 * whatever else happened in between. The oracle, which takes one packet at a time
 * from a device that answers at once, has to make the same offers in the same walks.
 * Where batching answered "busy" its device says NAK: the packet does not get there.
 * Elsewhere it has to give the same answer. Afterwards the two guests have to look
 * the same.
 */
#ifndef TESTS_LAW_RUNS_H
#define TESTS_LAW_RUNS_H

#include <assert.h>
#include <signal.h>
#include <unistd.h>

#include <guest/trace.h>

#include "law_control.h"
#include "law_driver.h"

enum event_kind {
	EVENT_WALK,      /* a look at the schedule begins */
	EVENT_OFFER,
	EVENT_EXTRA,     /* the device has had a packet of which the guest will never hear (W, K, F) */
	EVENT_FAILED,    /* FAILURE (F) */
	EVENT_REQUEST,   /* the device got a control request */
	EVENT_ENDED,     /* and is done with it */
};

struct event {
	enum event_kind kind;
	uint64_t id; /* descriptor; WALK: frame; FAILED: time */
	enum bh_answer answer;
	bool told; /* retire was called, and this is how: */
	enum bh_status status;
	uint32_t actual;
	unsigned endpoint;
	struct packet packet;
	struct bh_setup setup;
	uint32_t length;
	uint8_t data[64];
};

struct run {
	bool oracle;
	struct fake_guest guest;
	struct bh_uhci *uhci;
	struct bh_source_ops ops;
	struct law_device device;
	struct driver driver;
	struct event told; /* by the last retire */
};

/* What the batch run owes the counters. */
struct expected {
	uint64_t ahead, kept, failures;
};

/* Totals over all programs: a test that never meets what it is about proves nothing. */
static struct {
	uint64_t programs, batches, packets, busy, ahead, kept, failures, cancels[BH_CANCEL_COUNT];
	uint64_t failed_changed, failed_withdrawn; /* packets */
	uint64_t mismatches, early, given_up;
} totals;

static struct run batch = {.oracle = false}, oracle = {.oracle = true};
static struct run *running; /* whose turn it is */
static struct {
	struct event *events;
	size_t count, capacity, next;
} record;
static struct event after_offer[4]; /* events in the course of one, that the oracle has to learn of after it */
static unsigned after_count;
static bool in_offer;
static unsigned walks; /* in this look at the schedule */
static bool ended;     /* a transfer */
static struct expected expected;
static struct reference reference;
static uint32_t moment; /* counts the times that both controllers are run */
static char wrong[256];

static uint32_t moment_now(void)
{
	return moment;
}

/* How a run ends at once, where it cannot go on; its memory is lost. */
static sigjmp_buf escape;

#define violated(...)                                                                          \
	do {                                                                                   \
		if (!*wrong)                                                                   \
			snprintf(wrong, sizeof(wrong), __VA_ARGS__);                           \
	} while (0)

/* Also what the code under test runs into when it asserts: that, too, is a violation that can be made smaller. */
_Noreturn void __assert_fail(const char *expression, const char *file, unsigned line, const char *function)
{
	(void)function;
	violated("assertion failed: %s (%s:%u)", expression, file, line);
	siglongjmp(escape, 1);
}

/* A program takes a millisecond. */
#define PATIENCE_S 5u

static void out_of_patience(int number)
{
	(void)number;
	violated("no end after %u s", PATIENCE_S);
	siglongjmp(escape, 1);
}

/* --- the record ------------------------------------------------------------------------------------ */

static struct event *write_down(enum event_kind kind)
{
	if (record.count == record.capacity) {
		record.capacity = 2 * record.capacity + 64;
		record.events = realloc(record.events, record.capacity * sizeof(*record.events));
		assert_non_null(record.events);
	}
	memset(&record.events[record.count], 0, offsetof(struct event, packet));
	record.events[record.count].kind = kind;
	return &record.events[record.count++];
}

static struct bh_endpoint *endpoint_of(const struct run *r, unsigned e)
{
	const struct bh_attached *a = r->device.device.bus_data;
	uint8_t address = endpoints[e].address;

	return a ? a->endpoints[(address & BH_ENDPOINT_IN) != 0][address & 15] : NULL;
}

/* --- what the device reports -------------------------------------------------------------------------- */

/* Is there only one queue that ever had something for the endpoint? */
static bool is_alone(unsigned e)
{
	unsigned n = 0;

	for (unsigned q = 0; q < QUEUES; q++)
		n += acts.seen[q] >> e & 1;
	return n == 1;
}

/* May this be lost? Only what the guest did something about after it was issued. */
static void check_lost(unsigned e, const struct packet *k, bool failed)
{
	uint32_t since = k->issued_at;
	bool taken = acts.taken[e] >= since, changed = acts.changed[e] >= since, reset = acts.reset[e] >= since;

	if (failed) {
		if (acts.unlinked[e] > since && is_alone(e) && !batch.driver.program->withdrawn_fails)
			violated("a FAILURE, and the queue had been taken out of the schedule meanwhile");
		if (!changed && !(batch.driver.program->withdrawn_fails && taken))
			violated("a FAILURE, and endpoint %02x was sent nothing that was changed", endpoints[e].address);
		*(changed ? &totals.failed_changed : &totals.failed_withdrawn) += 1;
	} else if (endpoint_is_in(e)) {
		if (!reset)
			violated("packet %" PRIu64 " of endpoint %02x was fetched and lost", k->number,
			         endpoints[e].address);
	} else if (!taken && !reset && k->status == BH_SUCCESS) {
		violated("packet %" PRIu64 " to endpoint %02x was sent, and the guest never heard of it", k->number,
		         endpoints[e].address);
	} else if (batch.driver.program->withdrawn_fails && !reset && k->status == BH_SUCCESS &&
	           k->length) {
		violated("packet %" PRIu64 " to endpoint %02x was withdrawn, and that is no FAILURE", k->number,
		         endpoints[e].address);
	}
}

static void lose(unsigned e, bool failed)
{
	struct pipe *p = &batch.device.pipes[e];

	for (unsigned i = 0; i < p->pending_count; i++) {
		struct event *event = write_down(EVENT_EXTRA);

		event->endpoint = e;
		event->packet = p->pending[i];
		check_lost(e, &p->pending[i], failed && !p->pending[i].cut);
		if (!endpoint_is_in(e) && p->pending[i].status == BH_SUCCESS && (!failed || p->pending[i].cut))
			expected.ahead += p->pending[i].length;
	}
	p->pending_count = 0;
}

static void device_lost(struct law_device *v, unsigned e, bool was_reset)
{
	if (v->oracle)
		return;
	if (was_reset)
		acts.reset[e] = moment;
	lose(e, false);
}

static uint32_t pending_bytes(unsigned e)
{
	const struct pipe *p = &batch.device.pipes[e];
	uint32_t bytes = 0;

	for (unsigned i = 0; i < p->pending_count; i++)
		bytes += p->pending[i].status == BH_SUCCESS ? p->pending[i].length : 0;
	return bytes;
}

static void device_ends(struct law_device *v, unsigned e)
{
	struct bh_endpoint *ep = endpoint_of(&batch, e);

	if (!v->oracle && endpoint_is_in(e) && ep->destination.cancelling == BH_CANCEL_WITHDRAWN)
		expected.kept += pending_bytes(e);
}

/* Whose packet it is: every record of a batch is one. In a transfer the toggle alternates, whatever a record says. */
static void device_takes(unsigned e, unsigned index, struct packet *k)
{
	const struct bh_batch *b = &endpoint_of(&batch, e)->destination.batch;

	assert(index < b->count);
	k->id = b->records[index].id;
	k->token = b->records[index].token;
	if (index && TD_TOKEN_TOGGLE(k->token) == TD_TOKEN_TOGGLE(b->records[index - 1].token))
		violated("endpoint %02x: a packet went with the wrong toggle", endpoints[e].address);
}

/* Of what was sent, only so much is the outcome: the rest is W, whatever becomes of that. */
static void device_ended(struct law_device *v, unsigned e)
{
	const struct bh_endpoint *ep = endpoint_of(&batch, e);
	struct pipe *p = &v->pipes[e];
	uint32_t end = 0;

	ended = true;
	if (v->oracle || endpoint_is_in(e) || ep->destination.state != BH_DATA)
		return;
	for (unsigned i = 0; i < p->pending_count; i++) {
		end += p->pending[i].length;
		p->pending[i].cut = end > ep->destination.outcome.actual;
	}
}

static struct event *write_down_after(enum event_kind kind)
{
	if (!in_offer)
		return write_down(kind);
	assert_true(after_count < BH_COUNT(after_offer));
	after_offer[after_count].kind = kind;
	return &after_offer[after_count++];
}

static void device_requested(struct law_device *v, const struct bh_transfer *t)
{
	struct event *event = write_down_after(EVENT_REQUEST);

	assert_false(v->oracle);
	event->setup = t->setup;
	event->length = t->length;
	if (!(t->setup.bmRequestType & BH_ENDPOINT_IN))
		bh_transfer_read(t, 0, event->data, t->length);
}

static void device_request_ends(struct law_device *v, bool cancelled, uint32_t moved)
{
	struct event *event = write_down(EVENT_ENDED);

	(void)v;
	event->told = !cancelled;
	event->actual = moved;
	ended = true;
}

/* --- the oracle reads ------------------------------------------------------------------------------------ */

static void mirror_failure(uint64_t since)
{
	struct bh_attached *a = oracle.device.device.bus_data;

	a->failed = true;
	a->failed_since = since;
	a->bus->recent = NULL;
}

/* What a standard request does to endpoints: the oracle's bus has not seen it. */
static void mirror_request(const struct bh_setup *setup)
{
	struct bh_attached *a = oracle.device.device.bus_data;

	for (unsigned e = 0; e < ENDPOINTS; e++)
		if (setup->bmRequestType < 2 ||
		    (setup->bmRequestType == 2 && (uint8_t)bh_get_le16(setup->wIndex) == endpoints[e].address))
			oracle.device.pipes[e].halted = false;
	if (setup->bmRequestType < 2)
		bh_endpoints_reset(a, -1);
}

static void read_event(const struct event *event)
{
	switch (event->kind) {
	case EVENT_EXTRA:
		if (!packet_extra(&oracle.device, event->endpoint, &event->packet))
			violated("endpoint %02x: packet %" PRIu64 " is not the one whose turn it is",
			         endpoints[event->endpoint].address, event->packet.number);
		break;
	case EVENT_FAILED:
		mirror_failure(event->id);
		break;
	case EVENT_REQUEST:
		if (!reference_executed(&reference, &event->setup, event->data, event->length))
			violated("the device got a control request that is not what the guest sent");
		mirror_request(&event->setup);
		break;
	case EVENT_ENDED:
		reference_ended(&reference, !event->told, event->actual);
		break;
	case EVENT_WALK:
	case EVENT_OFFER:
		break;
	}
}

/* Everything up to the next walk or offer. That one, or NULL. */
static const struct event *read_record(void)
{
	while (record.next < record.count) {
		const struct event *event = &record.events[record.next];

		if (event->kind == EVENT_WALK || event->kind == EVENT_OFFER)
			return event;
		record.next++;
		read_event(event);
	}
	return NULL;
}

static void device_was_reset(struct law_device *v)
{
	if (!v->oracle)
		return;
	read_record();
	reference_reset(&reference);
}

/* --- interposed: retire, walks, frames, offers ------------------------------------------------------------- */

static bool law_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	bool accepted = uhci_source_ops.retire(s, d, actual, status);

	running->told.told = accepted;
	running->told.status = status;
	running->told.actual = actual;
	return accepted;
}

bool __real_uhci_walk(struct bh_uhci *u, unsigned frame);
bool __wrap_uhci_walk(struct bh_uhci *u, unsigned frame);
void __real_bh_engine_frame(struct bh_engine *e, uint64_t frame);
void __wrap_bh_engine_frame(struct bh_engine *e, uint64_t frame);
enum bh_answer __real_bh_bus_offer(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d);
enum bh_answer __wrap_bh_bus_offer(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d);

/*
 * How often the controller looks depends on when a device answers; so the oracle looks
 * as often as the run with batches did. How much is looked at in a slice depends on
 * what SCAN reads; so slices here are never too short.
 */
bool __wrap_uhci_walk(struct bh_uhci *u, unsigned frame)
{
	const struct event *event;
	bool progress;

	u->budget = 1u << 20;
	assert(++walks < 10000);
	if (!running->oracle)
		write_down(EVENT_WALK)->id = u->frames_begun;
	if (!running->oracle || running->device.free)
		return __real_uhci_walk(u, frame);
	event = read_record();
	if (!event || event->kind != EVENT_WALK || event->id != u->frames_begun)
		violated("batching did not look as often");
	record.next += event != NULL;
	progress = __real_uhci_walk(u, frame);
	event = read_record();
	u->again = event && event->kind == EVENT_WALK && event->id == u->frames_begun;
	return progress && u->again;
}

/* What the guest no longer wants, for all the engine sees: its INs are kept for others (K). */
static unsigned withdrawn_ins(bool already)
{
	unsigned mask = 0;

	for (unsigned e = 0; e < ENDPOINTS; e++) {
		const struct bh_endpoint *ep = endpoint_of(&batch, e);

		if (endpoint_is_in(e) && ep && ep->destination.engine && ep->destination.state == BH_DATA &&
		    ep->destination.withdrawn == already)
			mask |= 1u << e;
	}
	return mask;
}

static void count_kept(unsigned before)
{
	unsigned mask = before & withdrawn_ins(true);

	for (unsigned e = 0; e < ENDPOINTS; e++)
		if (mask >> e & 1)
			expected.kept += pending_bytes(e);
}

void __wrap_bh_engine_frame(struct bh_engine *e, uint64_t frame)
{
	unsigned before = running->oracle ? 0 : withdrawn_ins(false);

	__real_bh_engine_frame(e, frame);
	if (!running->oracle)
		count_kept(before);
}

/*
 * e: the endpoint under offer, or none. A failure of that one is the answer to the
 * offer; the device was still there for it where another one failed in its course.
 * True: that one.
 */
static bool find_failure(unsigned e)
{
	const struct bh_attached *a = batch.device.device.bus_data;
	bool own = false;

	if (batch.uhci->bus.engine.counters.failures == expected.failures)
		return false;
	expected.failures++;
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		const struct bh_endpoint *ep = endpoint_of(&batch, i);

		if (ep && ep->destination.engine && ep->destination.state == BH_FAILURE) {
			lose(i, true);
			own |= i == e;
		}
	}
	(own ? write_down(EVENT_FAILED) : write_down_after(EVENT_FAILED))->id = a->failed_since;
	return own;
}

/* The packet was made from this descriptor, as far as is verified: or what it was told of is not what was sent. */
static void check_descriptor(unsigned e, const struct packet *k, const struct bh_descriptor *d)
{
	enum bh_verify what = batch.driver.program->verification.what;

	if (endpoint_is_in(e) || what == BH_VERIFY_BUFFER)
		return;
	if (k->id != d->id || (what != BH_VERIFY_TD && k->token != d->token))
		violated("packet %" PRIu64 " to endpoint %02x was told of by another descriptor", k->number,
		         endpoints[e].address);
}

/* An interrupt endpoint answers once in a frame. */
static void check_frame(unsigned e)
{
	struct pipe *p = &batch.device.pipes[e];
	uint64_t frame = batch.uhci->bus.engine.frame;

	if (endpoints[e].type != BH_INTERRUPT)
		return;
	if (p->answered_frame == frame && frame)
		violated("endpoint %02x answered twice in a frame", endpoints[e].address);
	p->answered_frame = frame;
}

/* The guest was told of a packet that the device answered: of which? */
static void account_for(unsigned e, const struct bh_descriptor *d)
{
	struct pipe *p = &batch.device.pipes[e];

	if (!d->in && d->length > endpoints[e].max_packet)
		return;
	if (p->pending_count == 0) {
		violated("endpoint %02x: the guest was told of a packet that the device did not have",
		         endpoints[e].address);
		return;
	}
	check_descriptor(e, &p->pending[0], d);
	check_frame(e);
	memmove(p->pending, p->pending + 1, --p->pending_count * sizeof(*p->pending));
}

static unsigned endpoint_of_token(const struct bh_token *token)
{
	return index_of((uint8_t)(token->endpoint | (token->pid == BH_PID_IN ? BH_ENDPOINT_IN : 0)));
}

static enum bh_answer offer_batch(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	uint64_t unanswered = b->counters.unanswered;
	unsigned before = token->pid == BH_PID_SETUP ? withdrawn_ins(false) : 0, e = endpoint_of_token(token);
	enum bh_answer answer;
	struct event *event;
	bool failed;

	batch.told.told = false;
	after_count = 0;
	in_offer = true;
	answer = __real_bh_bus_offer(b, token, d);
	failed = find_failure(e);
	in_offer = false;
	count_kept(before);
	if (batch.told.told && e < ENDPOINTS && !failed && unanswered == b->counters.unanswered)
		account_for(e, d);
	event = write_down(EVENT_OFFER);
	event->id = d->id;
	event->answer = answer;
	event->told = batch.told.told;
	event->status = batch.told.status;
	event->actual = batch.told.actual;
	for (unsigned i = 0; i < after_count; i++)
		*write_down(EVENT_REQUEST) = after_offer[i];
	return answer;
}

static bool is_heard(const struct bh_bus *b, const struct bh_token *token)
{
	const struct bh_port *p = &b->ports[0];

	return p->connected && p->enabled && !p->suspended && !p->attached->failed && token->address == 0 &&
	       !token->low_speed;
}

static enum bh_answer ask_reference(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	struct reply reply;

	if (reference.owed)
		violated("the guest was told of the end of a control request that the device did not get");
	reply = reference_offer(&reference, token->pid, oracle.guest.memory + d->buffer, d->length);
	return bh_bus_retire(b, d, reply.actual, reply.status);
}

/* What a wire would have shown of a packet to an endpoint: the oracle's engine is not believed, either. */
static struct reply wire_reply(const struct bh_token *token, const struct bh_descriptor *d)
{
	unsigned e = endpoint_of_token(token);
	const struct pipe *p = &oracle.device.pipes[e];
	enum bh_status status;
	uint32_t length;

	if (!is_heard(&oracle.uhci->bus, token) || e == ENDPOINTS || (!d->in && d->length > endpoints[e].max_packet))
		return (struct reply){BH_NO_RESPONSE, 0};
	status = p->halted ? BH_STALL : packet_status(oracle.device.program, e, p->number);
	if (status != BH_SUCCESS)
		return (struct reply){status, 0};
	length = d->in ? packet_length(oracle.device.program, e, p->number) : d->length;
	return length <= d->length ? (struct reply){BH_SUCCESS, length} : (struct reply){BH_BABBLE, 0};
}

static enum bh_answer offer_oracle(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	const struct event *event = read_record();
	bool control = token->endpoint == 0 && is_heard(b, token);
	enum bh_answer answer;
	struct reply wire;

	if (!event || event->kind != EVENT_OFFER || event->id != d->id) {
		violated("other offers: %" PRIx64 " with packets, %" PRIx64 " with batches", d->id,
		         event && event->kind == EVENT_OFFER ? event->id : 0);
		return BH_ANSWER_BUSY;
	}
	record.next++;
	if (event->answer == BH_ANSWER_BUSY) {
		if (control)
			reference_busy(&reference, token->pid);
		return BH_ANSWER_BUSY; /* NAK */
	}
	oracle.told.told = false;
	wire = wire_reply(token, d);
	answer = control ? ask_reference(b, token, d) : __real_bh_bus_offer(b, token, d);
	if (!control && (wire.status != oracle.told.status || wire.actual != oracle.told.actual))
		violated("descriptor %" PRIx64 ": %s, %u bytes on a wire; %s, %u bytes with packets", d->id,
		         bh_status_name(wire.status), wire.actual, bh_status_name(oracle.told.status),
		         oracle.told.actual);
	if (answer != event->answer || oracle.told.told != event->told)
		violated("descriptor %" PRIx64 ": answer %d with packets, %d with batches", d->id, answer,
		         event->answer);
	else if (event->told && (event->status != oracle.told.status || event->actual != oracle.told.actual))
		violated("descriptor %" PRIx64 ": %s, %u bytes with packets; %s, %u bytes with batches", d->id,
		         bh_status_name(oracle.told.status), oracle.told.actual, bh_status_name(event->status),
		         event->actual);
	return answer;
}

/* After the last step: what would the oracle complete that batching does not? */
static enum bh_answer offer_free(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	enum bh_answer answer;

	oracle.told.told = false;
	if (token->endpoint == 0 && reference_hangs(&reference, token->pid))
		return BH_ANSWER_BUSY;
	if (token->endpoint == 0 && is_heard(b, token))
		answer = ask_reference(b, token, d);
	else
		answer = __real_bh_bus_offer(b, token, d);
	return answer;
}

enum bh_answer __wrap_bh_bus_offer(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	if (!running->oracle)
		return offer_batch(b, token, d);
	return running->device.free ? offer_free(b, token, d) : offer_oracle(b, token, d);
}

/* --- one step --------------------------------------------------------------------------------------------- */

/* Guest memory is ours alone, and may be traced. False: this system cannot. */
static bool allow_traces(struct fake_guest *g)
{
	struct bh_memory *m = &g->guest.memory;
	const unsigned flags = BH_MEMORY_READ | BH_MEMORY_WRITE | BH_MEMORY_OURS;

	assert_int_equal(bh_memory_remove(m, 0, FAKE_MEMORY_SIZE, NULL), 0);
	assert_int_equal(bh_memory_add(m, 0, FAKE_MEMORY_SIZE, g->memory, flags), 0);
	return bh_trace_enable(m, BH_TRACE_MPROTECT, NULL) == 0;
}

static struct bh_uhci_config config_of(const struct program *p, bool packets)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	config.pace = p->wire_pace;
	config.engine.withdrawn_fails = p->withdrawn_fails;
	config.engine.linger_us = p->linger_us;
	config.engine.max_batch_bytes = p->batch_bytes ? p->batch_bytes : config.engine.max_batch_bytes;
	config.engine.max_bytes = p->bytes ? p->bytes : config.engine.max_bytes;
	if (packets)
		config.engine.max_batch_descriptors = 1;
	return config;
}

static void power_off(struct run *r)
{
	running = r;
	bh_uhci_destroy(r->uhci);
	r->uhci = NULL;
	fake_guest_finish(&r->guest);
}

/* False: what the program wants verified cannot be, here. */
static bool power_on(struct run *r, const struct program *p)
{
	struct bh_uhci_config config = config_of(p, r->oracle);
	uint8_t command[2] = {0x05, 0}; /* I/O space, bus master */

	running = r;
	fake_guest_init(&r->guest);
	if (p->verification.what == BH_VERIFY_TRACE && !r->oracle && !allow_traces(&r->guest))
		return false;
	r->uhci = bh_uhci_create(&r->guest.guest, &config);
	assert_non_null(r->uhci);
	r->ops = uhci_source_ops;
	r->ops.retire = law_retire;
	r->uhci->source.ops = &r->ops;
	bh_pci_config_write(bh_uhci_pci(r->uhci), 4, command, 2);
	device_init(&r->device, p, r->oracle);
	driver_init(&r->driver, p, &r->guest, r->uhci);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(r->uhci), 0, &r->device.device), 0);
	driver_out(&r->driver, FRBASEADD, 4, FRAME_LIST);
	reset_port(&r->driver);
	driver_out(&r->driver, USBINTR, 2, USBINTR_CRC | USBINTR_IOC | USBINTR_SHORT);
	driver_out(&r->driver, USBCMD, 2, USBCMD_RS);
	return true;
}

static void compare_registers(void)
{
	const struct bh_uhci *a = batch.uhci, *b = oracle.uhci;

	if (a->usbsts != b->usbsts || a->cause_ioc != b->cause_ioc || a->cause_short != b->cause_short)
		violated("USBSTS %02x with packets, %02x with batches", b->usbsts, a->usbsts);
	if (a->portsc[0] != b->portsc[0])
		violated("PORTSC %04x with packets, %04x with batches", b->portsc[0], a->portsc[0]);
	if (batch.guest.line != oracle.guest.line || batch.guest.rises != oracle.guest.rises)
		violated("another interrupt");
	if (a->usbsts & (USBSTS_HSE | USBSTS_HCPE))
		violated("the controller halted");
}

static void compare_memory(void)
{
	const uint8_t *a = batch.guest.memory, *b = oracle.guest.memory;
	uint32_t at = GUEST_BEGIN;

	if (memcmp(a + GUEST_BEGIN, b + GUEST_BEGIN, GUEST_END - GUEST_BEGIN) == 0)
		return;
	while (a[at] == b[at])
		at++;
	violated("guest memory at %05x: %02x with packets, %02x with batches", at, b[at], a[at]);
}

static void compare_guests(void)
{
	if (record.next != record.count && read_record())
		violated("batching made more offers");
	record.next = record.count = 0;
	compare_registers();
	compare_memory();
}

/* The controller is about to see that these queues are not there. */
static void note_unlinked(void)
{
	for (unsigned q = 0; q < QUEUES; q++)
		if (!(batch.driver.linked >> q & 1))
			note_act(acts.unlinked, acts.seen[q]);
}

/* Time goes on by so much in both runs, and both controllers look. */
static void let_time_pass(uint64_t us)
{
	moment++;
	note_unlinked();
	batch.guest.now_us += us;
	oracle.guest.now_us += us;
	running = &batch;
	walks = 0;
	bh_uhci_run(batch.uhci);
	find_failure(ENDPOINTS);
	running = &oracle;
	walks = 0;
	bh_uhci_run(oracle.uhci);
	compare_guests();
}

static void act_in_both(const struct action *a)
{
	running = &batch;
	act(&batch.driver, a);
	running = &oracle;
	read_record();
	act(&oracle.driver, a);
}

static void device_works(bool at_once)
{
	running = &batch;
	ended = false;
	device_goes_on(&batch.device, at_once);
	find_failure(ENDPOINTS);
	if (ended && uhci_running(batch.uhci) && batch.guest.run_at_us > batch.guest.now_us)
		violated("a transfer ended, and the controller does not look at once");
}

/* --- a whole program ---------------------------------------------------------------------------------------- */

static void wait_ms(unsigned ms)
{
	for (unsigned i = 0; i < ms && !*wrong; i += ms > 100 ? 10 : 1) {
		device_works(false);
		let_time_pass(ms > 100 ? 10000 : 1000);
	}
}

static void play_actions(const struct program *p)
{
	static const struct action tend = {.kind = TEND};
	unsigned next = 0;

	for (unsigned step = 1; next < p->count && !*wrong; step++) {
		for (; next < p->count && p->actions[next].step < step && !*wrong; next++)
			if (p->actions[next].kind == WAIT)
				wait_ms(p->actions[next].length);
			else
				act_in_both(&p->actions[next]);
		if (p->diligent && !*wrong)
			act_in_both(&tend);
		device_works(false);
		if (!*wrong)
			let_time_pass(mix(p->seed, 600, step) % 400);
	}
}

/* Until nothing has completed for longer than any batch may linger. Only when the controller asks to. */
static void settle(const struct program *p)
{
	uint64_t completed = batch.uhci->counters.completed, since = batch.guest.now_us;

	while (batch.guest.now_us - since <= 2u * p->linger_us + 5000 && !*wrong) {
		device_works(true);
		if (batch.guest.run_at_us > batch.guest.now_us + 1000) {
			batch.guest.now_us += 1000;
			oracle.guest.now_us += 1000;
			continue;
		}
		let_time_pass(1000);
		if (batch.uhci->counters.completed != completed)
			since = batch.guest.now_us;
		completed = batch.uhci->counters.completed;
	}
}

static void play_tail(const struct program *p)
{
	static const struct action tend = {.kind = TEND};

	for (unsigned round = 0; round < 2 * SLOTS && !*wrong; round++) {
		uint64_t completed = batch.uhci->counters.completed;
		bool any;

		settle(p);
		running = &batch;
		any = do_tend(&batch.driver);
		running = &oracle;
		act(&oracle.driver, &tend);
		if (!any || batch.uhci->counters.completed == completed)
			break;
	}
	settle(p);
}

/* Liveness: with nothing in its way, the oracle completes no more. */
static void let_oracle_free(void)
{
	uint64_t completed = oracle.uhci->counters.completed;

	running = &oracle;
	if (*wrong)
		return;
	oracle.device.free = true;
	oracle.guest.now_us += 1000;
	bh_uhci_run(oracle.uhci);
	if (oracle.uhci->counters.completed != completed)
		violated("packets complete what batches do not");
}

/* After a FAILURE it may have just been plugged out: what is not there is not reset. */
static void let_device_return(void)
{
	const struct bh_attached *a = batch.device.device.bus_data;

	while (a->away && !*wrong)
		let_time_pass(10000);
}

static void compare_streams(void)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		const struct stream *a = &batch.device.pipes[e].stream, *b = &oracle.device.pipes[e].stream;

		if (a->length != b->length || (a->length && memcmp(a->bytes, b->bytes, a->length)))
			violated("endpoint %02x saw other packets (%zu bytes of them with packets, %zu with batches)",
			         endpoints[e].address, b->length, a->length);
	}
}

static void compare_counters(void)
{
	const struct bh_engine_counters *c = &batch.uhci->bus.engine.counters;

	if (reference.owed)
		violated("the guest was told of the end of a control request that the device did not get");
	if (c->ahead_bytes != expected.ahead)
		violated("ahead_bytes is %" PRIu64 ", and should be %" PRIu64, c->ahead_bytes, expected.ahead);
	if (c->kept_bytes != expected.kept)
		violated("kept_bytes is %" PRIu64 ", and should be %" PRIu64, c->kept_bytes, expected.kept);
	if (reference.accepted != reference.delivered + reference.abandoned)
		violated("of %" PRIu64 " bytes of control data %" PRIu64 " were delivered and %" PRIu64 " given up",
		         reference.accepted, reference.delivered, reference.abandoned);
}

static void add_totals(void)
{
	const struct bh_engine_counters *c = &batch.uhci->bus.engine.counters;

	totals.programs++;
	totals.batches += c->batches;
	totals.packets += c->packets_in + c->packets_out;
	totals.busy += c->busy;
	totals.ahead += c->ahead_bytes;
	totals.kept += c->kept_bytes;
	totals.failures += c->failures;
	totals.mismatches += c->mismatches;
	totals.early += reference.accepted;
	totals.given_up += reference.abandoned;
	for (unsigned i = 0; i < BH_CANCEL_COUNT; i++)
		totals.cancels[i] += c->cancels[i];
}

static void play(const struct program *p)
{
	static const struct action reset = {.kind = RESET};

	play_actions(p);
	play_tail(p);
	let_device_return();
	let_oracle_free();
	if (*wrong)
		return;
	record.next = record.count = 0;
	oracle.device.free = false;
	act_in_both(&reset);
	running = &oracle;
	read_record();
	compare_streams();
	compare_counters();
}

/* NULL: the law is kept. */
static const char *run_program(const struct program *p)
{
	*wrong = 0;
	moment = walks = 0;
	in_offer = false;
	acts = (struct acts){0};
	expected = (struct expected){0};
	reference = (struct reference){.program = p};
	record.next = record.count = 0;
	signal(SIGALRM, out_of_patience);
	if (sigsetjmp(escape, true)) {
		fake_guest_finish(&batch.guest); /* ends traces; the controllers are lost */
		fake_guest_finish(&oracle.guest);
		return wrong;
	}
	alarm(PATIENCE_S);
	if (!power_on(&batch, p) || !power_on(&oracle, p))
		violated("guest memory cannot be traced here");
	else
		play(p);
	if (batch.uhci)
		add_totals();
	power_off(&batch);
	power_off(&oracle);
	alarm(0);
	return *wrong ? wrong : NULL;
}

#endif
