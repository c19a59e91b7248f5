/*
 * The layer "fault": breaks transfers, for testing what comes after.
 *
 *   fault:KIND[@N][:every=N][:p=PERCENT][:count=N][:endpoint=0xNN][:seed=N]
 *
 * KIND: stall (a halt, until the guest clears it), babble, error (bus error), timeout (no response),
 * short (an IN that ends half way, the rest of it being lost; OUT: as error), hang (it
 * never ends, but when it is cancelled), disconnect (the device is gone for a second). Which
 * transfers: the N-th, every N-th, or by chance; of all but control transfers, or of one endpoint
 * (0: control); at most count times. The N-th alone where nothing else is said: the first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "kinds.h"
#include "timer.h"

#define AWAY_US 1000000u

enum fault_kind { STALL, BABBLE, BUS_ERROR, NO_RESPONSE, SHORT, HANG, DISCONNECT, KIND_COUNT };

static const char *const names[KIND_COUNT] = {"stall", "babble", "error", "timeout", "short", "hang", "disconnect"};

struct fault {
	struct bh_layer layer;
	/* configuration */
	enum fault_kind kind;
	uint64_t at, every, most; /* 0: not said */
	double percent;           /* the same */
	int endpoint; /* -1: any but control */
	struct bh_timer *timer;

	/* state */
	uint64_t random;
	uint64_t transfers, faults;
	uint16_t halts[2]; /* [in], a bit for each endpoint number */
	bool hidden; /* the device below, which comes and goes, is not there; */
	bool gone;   /* or the guest does not see it: nothing is passed on */
};

static struct fault *of_layer(const struct bh_layer *l)
{
	return (struct fault *)bh_container_of(l, struct fault, layer);
}

static bool concerns(const struct fault *f, const struct bh_passage *p)
{
	if (p->above->type == BH_CONTROL)
		return f->endpoint == 0;
	return f->endpoint < 0 || f->endpoint == p->above->endpoint;
}

/* Does it hit this one? */
static bool strikes(struct fault *f, const struct bh_passage *p)
{
	bool hit;

	if (!concerns(f, p))
		return false;
	f->transfers++;
	if (f->percent > 0)
		hit = (double)(bh_layer_random(&f->random) >> 11) < f->percent * 0x1p53 / 100;
	else if (f->every)
		hit = f->transfers % f->every == 0;
	else
		hit = f->transfers == f->at;
	if (!hit || f->faults == f->most)
		return false;
	f->faults++;
	return true;
}

/* --- halts: until the guest clears them (9.4.5) ---------------------------------------- */

static uint16_t *halts_of(struct fault *f, uint8_t address)
{
	return &f->halts[(address & BH_ENDPOINT_IN) != 0];
}

static bool is_halted(struct fault *f, const struct bh_passage *p)
{
	return p->above->type != BH_CONTROL && *halts_of(f, p->above->endpoint) >> (p->above->endpoint & 15) & 1;
}

/* Those of one interface's endpoints, as its setting still has them. */
static void clear_halts(struct fault *f, uint8_t interface)
{
	for (unsigned i = 0; i < 32; i++) {
		uint8_t address = (uint8_t)(i % 16 | (i / 16 ? BH_ENDPOINT_IN : 0));
		const struct bh_endpoint_info *info =
			f->halts[i / 16] >> (i % 16) & 1 ? bh_device_endpoint(f->layer.below, address) : NULL;

		if (info && info->interface == interface)
			f->halts[i / 16] &= (uint16_t) ~(1u << (i % 16));
	}
}

static void note_request(struct fault *f, const struct bh_setup *setup)
{
	uint8_t index = setup->wIndex.b[0];

	switch (bh_device_operation(&f->layer.device, setup)) {
	case BH_OPERATION_CLEAR_HALT:
		*halts_of(f, index) &= (uint16_t) ~(1u << (index & 15));
		break;
	case BH_OPERATION_SET_CONFIGURATION:
		memset(f->halts, 0, sizeof(f->halts));
		break;
	case BH_OPERATION_SET_INTERFACE:
		clear_halts(f, index);
		break;
	case BH_OPERATION_SUBMIT:
		break;
	}
}

/* --- the device that goes and comes back -------------------------------------------------- */

static void back(void *data)
{
	struct fault *f = data;

	f->gone = f->hidden;
	if (!f->hidden)
		bh_device_attach(&f->layer.device);
}

/* It keeps its port, whatever it is that it holds. Cancels what is under way. */
static void disconnect(struct fault *f)
{
	f->layer.device.sticky = true;
	f->gone = true;
	bh_timer_set(f->timer, AWAY_US);
	bh_device_detach(&f->layer.device);
}

static int fault_attached(struct bh_layer *l)
{
	of_layer(l)->hidden = of_layer(l)->gone = false;
	return 0;
}

static void fault_detached(struct bh_layer *l)
{
	of_layer(l)->hidden = of_layer(l)->gone = true;
}

/* --- transfers: in order, each with its verdict from the start ------------------------------------- */

enum verdict { PASSES, STRUCK }; /* p->number */

/* Every packet of an isochronous transfer ends so; it has no other way to. */
static void end_packets(struct bh_passage *p, enum bh_status status)
{
	for (unsigned i = 0; i < p->above->packet_count; i++)
		p->above->packets[i].status = status;
}

static void end_broken(struct bh_passage *p, enum bh_status status)
{
	end_packets(p, status);
	bh_layer_end(p, status, 0);
}

static void strike(struct fault *f, struct bh_passage *p)
{
	enum bh_endpoint_type type = p->above->type;

	switch (f->kind) {
	case STALL: /* isochronous endpoints have no handshake to stall with, and no halt */
		if (type == BH_BULK || type == BH_INTERRUPT)
			*halts_of(f, p->above->endpoint) |= (uint16_t)(1u << (p->above->endpoint & 15));
		end_broken(p, type == BH_ISOCHRONOUS ? BH_NO_RESPONSE : BH_STALL);
		return;
	case BABBLE:
		end_broken(p, bh_passage_is_in(p) ? BH_BABBLE : BH_BUS_ERROR);
		return;
	case BUS_ERROR:
		end_broken(p, BH_BUS_ERROR);
		return;
	case NO_RESPONSE:
		end_broken(p, BH_NO_RESPONSE);
		return;
	case SHORT: /* what the device took it would have to count: it gets nothing */
		end_broken(p, BH_BUS_ERROR);
		return;
	case HANG:
	case DISCONNECT:
	case KIND_COUNT:
		return; /* not ended here: see next() */
	}
}

static bool same_pipe(const struct bh_passage *a, const struct bh_passage *b)
{
	return a->above->endpoint == b->above->endpoint && (a->above->type == BH_CONTROL) == (b->above->type == BH_CONTROL);
}

/* Does the layer end this one, now that it is its turn? */
static bool is_broken(struct fault *f, const struct bh_passage *p)
{
	return is_halted(f, p) || (p->number == STRUCK && !(f->kind == SHORT && bh_passage_is_in(p)));
}

/* The first transfer of the pipe that can go on: to its end, if all before it have ended, or to the device. NULL: none. */
static struct bh_passage *next(struct fault *f, const struct bh_passage *pipe)
{
	bool first = true;

	bh_list_each(p, &f->layer.passages, struct bh_passage, link) {
		if (!same_pipe(p, pipe))
			continue;
		if (!p->passed && is_broken(f, p))
			return first && !(p->number == STRUCK && f->kind == HANG && !is_halted(f, p)) ? p : NULL;
		if (!p->passed)
			return p;
		first = false;
	}
	return NULL;
}

/* What waits on the pipe, as far as it may. Ends may bring more in here. */
static void advance(struct fault *f, const struct bh_transfer *pipe_of)
{
	struct bh_transfer above = {.endpoint = pipe_of->endpoint, .type = pipe_of->type};
	const struct bh_passage pipe = {.above = &above};
	struct bh_passage *p;

	while (!f->gone && !f->layer.ending && (p = next(f, &pipe))) {
		if (is_halted(f, p))
			end_broken(p, BH_STALL);
		else if (is_broken(f, p))
			strike(f, p);
		else
			bh_layer_pass(p);
	}
}

/* GET_STATUS of an endpoint that is halted here, whatever the device thinks of it (9.4.5). */
static bool tells_halt(const struct fault *f, struct bh_passage *p)
{
	const struct bh_setup *setup = &p->above->setup;
	uint8_t index = setup->wIndex.b[0];

	if (setup->bmRequestType != 0x82 || setup->bRequest != 0 || setup->wIndex.b[1] ||
	    !(f->halts[(index & BH_ENDPOINT_IN) != 0] >> (index & 15) & 1) || p->above->length < 2)
		return false;
	bh_transfer_write(p->above, 0, (const uint8_t[2]){1, 0}, 2);
	bh_layer_end(p, BH_SUCCESS, 2);
	return true;
}

static void fault_begin(struct bh_layer *l, struct bh_passage *p)
{
	struct fault *f = of_layer(l);
	struct bh_transfer pipe = {.endpoint = p->above->endpoint, .type = p->above->type};

	if (p->above->type == BH_CONTROL) {
		note_request(f, &p->above->setup);
		if (tells_halt(f, p))
			return;
	}
	p->number = !is_halted(f, p) && strikes(f, p) ? STRUCK : PASSES;
	if (p->number == STRUCK && f->kind == DISCONNECT)
		disconnect(f); /* cancels it, as all others */
	else
		advance(f, &pipe);
}

static uint32_t cut_short(struct bh_passage *p)
{
	for (unsigned i = 0; i < p->above->packet_count; i++)
		p->above->packets[i].actual /= 2;
	return p->below.actual / 2;
}

static void fault_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	struct bh_transfer pipe = {.endpoint = p->above->endpoint, .type = p->above->type};
	uint32_t actual = p->below.actual;

	if (p->number == STRUCK && status == BH_SUCCESS)
		actual = cut_short(p);
	bh_layer_end(p, status, actual);
	advance(of_layer(l), &pipe);
}

/* What waited behind it goes on. */
static void fault_cancel(struct bh_layer *l, struct bh_passage *p)
{
	struct bh_transfer pipe = {.endpoint = p->above->endpoint, .type = p->above->type};

	bh_layer_end(p, BH_CANCELLED, 0);
	advance(of_layer(l), &pipe);
}

static void fault_reset(struct bh_layer *l)
{
	memset(of_layer(l)->halts, 0, sizeof(of_layer(l)->halts));
}

static void fault_finish(struct bh_layer *l)
{
	bh_timer_close(of_layer(l)->timer);
}

static const struct bh_layer_ops fault_ops = {
	.begin = fault_begin,
	.ended = fault_ended,
	.cancel = fault_cancel,
	.reset = fault_reset,
	.attached = fault_attached,
	.detached = fault_detached,
	.finish = fault_finish,
};

/* --- the row of the table -------------------------------------------------------------------------- */

static bool parse_kind(struct fault *f, char *item)
{
	char *at = strchr(item, '@');

	if (at) {
		*at++ = '\0';
		if (!bh_layer_number(at, UINT32_MAX, &f->at) || !f->at)
			return false;
	}
	for (unsigned i = 0; i < KIND_COUNT; i++)
		if (!strcmp(item, names[i])) {
			f->kind = (enum fault_kind)i;
			return true;
		}
	return false;
}

static bool parse_endpoint(struct fault *f, const char *value)
{
	char *end;
	unsigned long number = strtoul(value, &end, 0);

	if (end == value || *end || number > 0xff || number & 0x70 || number == BH_ENDPOINT_IN)
		return false;
	f->endpoint = (int)number;
	return true;
}

static bool parse_percent(struct fault *f, const char *value)
{
	char *end;

	f->percent = strtod(value, &end);
	return end != value && !*end && f->percent > 0 && f->percent <= 100;
}

static bool parse_one(struct fault *f, const char *key, const char *value, uint64_t *seed)
{
	if (!strcmp(key, "every"))
		return bh_layer_number(value, UINT32_MAX, &f->every) && f->every;
	if (!strcmp(key, "p"))
		return parse_percent(f, value);
	if (!strcmp(key, "count"))
		return bh_layer_number(value, UINT32_MAX, &f->most) && f->most;
	if (!strcmp(key, "endpoint"))
		return parse_endpoint(f, value);
	if (!strcmp(key, "seed"))
		return bh_layer_number(value, UINT32_MAX, seed) && *seed;
	return false;
}

static int parse(struct fault *f, const char *text, char *error)
{
	char item[BH_PARAMETER_SIZE], *value;
	bool wrong = false, ok = *text;
	uint64_t seed = 1;

	for (unsigned i = 0; ok && bh_layer_parameter(&text, item, &value, &wrong); i++)
		ok = i == 0 ? !value && parse_kind(f, item) : value && parse_one(f, item, value, &seed);
	if (!ok || wrong || !!f->at + !!f->every + (f->percent > 0) > 1)
		return bh_layer_wrong(error, "layers=fault: say fault:KIND[@N][:every=N][:p=PERCENT][:count=N][:endpoint=0xNN][:seed=N], "
		                             "as in fault:stall@100 or fault:error:p=1; KIND is stall, babble, error, timeout, short, hang or disconnect");
	if (!f->at && !f->every && f->percent <= 0)
		f->at = 1;
	if (!f->most)
		f->most = UINT64_MAX;
	f->random = seed * 0x9e3779b97f4a7c15u;
	return 0;
}

static int create(const struct bh_layer_context *c, const char *parameters, struct bh_device *below,
                  struct bh_device **ret, char *error)
{
	struct fault *f = calloc(1, sizeof(*f));
	int r = -ENOMEM;

	if (f) {
		f->endpoint = -1;
		r = parse(f, parameters, error);
	}
	if (!r && f->kind == DISCONNECT && below->hub)
		r = bh_layer_wrong(error, "layers=fault:disconnect: not over a hub: put it over what hangs from it");
	if (!r && !(f->timer = bh_timer_create(c->loop, back, f)))
		r = -ENOMEM;
	if (r == -ENOMEM)
		bh_layer_wrong(error, "out of memory");
	if (r) {
		free(f);
		return r;
	}
	bh_layer_init(&f->layer, &fault_ops, below);
	*ret = &f->layer.device;
	return 0;
}

static unsigned counters(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS])
{
	const struct fault *f = of_layer(l);

	ret[0] = (struct bh_layer_counter){"transfers", f->transfers};
	ret[1] = (struct bh_layer_counter){"faults", f->faults};
	return 2;
}

const struct bh_layer_kind bh_layer_fault = {
	.name = "fault",
	.parameters = ":KIND[@N][:every=N][:p=PERCENT][:count=N][:endpoint=0xNN][:seed=N]",
	.help = "breaks the N-th transfer, every N-th or some by chance; stall, babble, error, timeout, short, hang, disconnect",
	.create = create,
	.counters = counters,
};
