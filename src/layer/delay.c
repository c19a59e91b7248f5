/*
 * The layer "delay": what ends below is told a while later, as if the device were far away.
 *
 *   delay:TIME[:jitter=TIME][:rate=BYTES][:seed=N]
 *
 * Every transfer is told TIME after it has ended below, and up to jitter more; with a rate, its
 * bytes take their time on one wire for all endpoints as well. Transfers to one endpoint stay in order.
 * One that is cancelled is no sooner told: a device far away has acted, and the word takes its time as well.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "kinds.h"
#include "timer.h"

struct delay {
	struct bh_layer layer;
	/* configuration */
	uint64_t us, jitter_us, rate; /* bytes/s; 0: any */
	struct bh_timer *timer;

	/* state */
	uint64_t random;
	struct bh_list held; /* passages that have ended below, by due */
	uint64_t last[2][16]; /* when the last transfer of each endpoint is due, [in][number] */
	uint64_t wire_free;   /* when the wire has carried all so far */
	uint64_t transfers, delayed_us;
};

static struct delay *of_layer(const struct bh_layer *l)
{
	return (struct delay *)bh_container_of(l, struct delay, layer);
}

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

static struct bh_passage *first(const struct delay *d)
{
	return bh_list_empty(&d->held) ? NULL : bh_container_of(d->held.next, struct bh_passage, held);
}

static void set_timer(struct delay *d)
{
	struct bh_passage *p = first(d);
	uint64_t now = now_us();

	if (p)
		bh_timer_set(d->timer, p->due > now ? p->due - now : 0);
	else
		bh_timer_stop(d->timer);
}

static void tell(struct bh_passage *p)
{
	bh_layer_end(p, p->status, p->below.actual);
}

static void due(void *data)
{
	struct delay *d = data;
	uint64_t now = now_us();
	struct bh_passage *p;

	/* Those that come while others are told are due later, or wait for the next time round. */
	while ((p = first(d)) && p->due <= now)
		tell(p);
	set_timer(d);
}

/* Bytes that the wire has carried. */
static uint64_t moved(const struct bh_passage *p)
{
	const struct bh_transfer *t = p->above;
	uint64_t bytes = 0;

	if (t->type != BH_ISOCHRONOUS)
		return p->below.actual;
	for (unsigned i = 0; i < t->packet_count; i++)
		bytes += t->packets[i].actual;
	return bytes;
}

/* When this one is to be told. */
static uint64_t due_of(struct delay *d, const struct bh_passage *p, uint64_t now)
{
	uint64_t *last = &d->last[bh_passage_is_in(p) && p->above->type != BH_CONTROL][p->above->endpoint & 15];
	uint64_t at = now;

	if (d->rate) {
		d->wire_free = BH_MAX(d->wire_free, now) + moved(p) * 1000000u / d->rate;
		at = d->wire_free;
	}
	at += d->us + (d->jitter_us ? bh_layer_random(&d->random) % (d->jitter_us + 1) : 0);
	return *last = BH_MAX(*last, at);
}

static void hold(struct delay *d, struct bh_passage *p)
{
	struct bh_list *before = &d->held;

	bh_list_each(other, &d->held, struct bh_passage, held)
		if (before == &d->held && other->due > p->due)
			before = &other->held;
	bh_list_append(before, &p->held); /* last in the list that begins there: in front of it */
	if (first(d) == p)
		set_timer(d);
}

static void delay_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	struct delay *d = of_layer(l);
	uint64_t now = now_us();

	(void)status; /* the passage has it */
	p->due = due_of(d, p, now);
	d->transfers++;
	d->delayed_us += p->due - now;
	hold(d, p);
}

/* It will be told when it is due. */
static void delay_cancel(struct bh_layer *l, struct bh_passage *p)
{
	(void)l, (void)p;
}

/* So long a batch may take without lingering. */
static void delay_sync(struct bh_layer *l)
{
	const struct delay *d = of_layer(l);

	if (d->rate)
		l->device.us_per_kib = (uint32_t)BH_MAX(l->device.us_per_kib, BH_MIN(1024000000u / d->rate, UINT32_MAX / 1024u));
}

/* The device has moved some of it, and nobody is to know yet. */
static void delay_progress(struct bh_layer *l, struct bh_passage *p)
{
	(void)l, (void)p;
}

static void delay_finish(struct bh_layer *l)
{
	bh_timer_close(of_layer(l)->timer);
}

static const struct bh_layer_ops delay_ops = {
	.ended = delay_ended,
	.progress = delay_progress,
	.cancel = delay_cancel,
	.sync = delay_sync,
	.finish = delay_finish,
};

static int parse(struct delay *d, const char *text, char *error)
{
	char item[BH_PARAMETER_SIZE], *value;
	uint64_t seed = 1;
	bool wrong = false, ok = true;

	for (unsigned i = 0; ok && bh_layer_parameter(&text, item, &value, &wrong); i++) {
		if (i == 0)
			ok = !value && bh_layer_time(item, &d->us);
		else if (value && !strcmp(item, "jitter"))
			ok = bh_layer_time(value, &d->jitter_us);
		else if (value && !strcmp(item, "rate"))
			ok = bh_layer_number(value, UINT32_MAX, &d->rate) && d->rate;
		else if (value && !strcmp(item, "seed"))
			ok = bh_layer_number(value, UINT32_MAX, &seed) && seed;
		else
			ok = false;
	}
	if (!ok || wrong || (!d->us && !d->jitter_us && !d->rate))
		return bh_layer_wrong(error, "layers=delay: say delay:TIME[:jitter=TIME][:rate=BYTES][:seed=N], as in delay:5ms:jitter=2ms:rate=1M");
	d->random = seed * 0x9e3779b97f4a7c15u;
	return 0;
}

static int create(const struct bh_layer_context *c, const char *parameters, struct bh_device *below,
                  struct bh_device **ret, char *error)
{
	struct delay *d = calloc(1, sizeof(*d));
	int r = d ? parse(d, parameters, error) : -ENOMEM;

	if (!r && !(d->timer = bh_timer_create(c->loop, due, d)))
		r = -ENOMEM;
	if (r == -ENOMEM)
		bh_layer_wrong(error, "out of memory");
	if (r) {
		free(d);
		return r;
	}
	bh_list_init(&d->held);
	bh_layer_init(&d->layer, &delay_ops, below);
	*ret = &d->layer.device;
	return 0;
}

static unsigned counters(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS])
{
	const struct delay *d = of_layer(l);

	ret[0] = (struct bh_layer_counter){"transfers", d->transfers};
	ret[1] = (struct bh_layer_counter){"delayed_us", d->delayed_us};
	return 2;
}

const struct bh_layer_kind bh_layer_delay = {
	.name = "delay",
	.parameters = ":TIME[:jitter=TIME][:rate=BYTES/S][:seed=N]",
	.help = "ends are told later, by 5ms, 300us or 2s and up to jitter more; with a rate, bytes take their time, too",
	.create = create,
	.counters = counters,
};
