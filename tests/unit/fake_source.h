/*
 * A source and a carrier of a few lines each: descriptors in an array, a device
 * that completes when the test says so. They keep the engine's two seams honest,
 * for nothing here is USB.
 */
#ifndef TESTS_FAKE_SOURCE_H
#define TESTS_FAKE_SOURCE_H

#include <string.h>

#include <base/util.h>
#include <batch/engine.h>

#define FAKE_MAX    64u
#define FAKE_PACKET 64u

struct fake_descriptor {
	struct bh_descriptor d;
	uint8_t data[256];
	bool active;
	bool broken;            /* its data cannot be read */
	bool untraceable;       /* no write trace on it */
	uint64_t written;       /* stamp of the last write to it, as the traces have it */
	enum bh_found then;     /* what next() finds after it; BH_FOUND: the following entry */
	bool retired;
	uint32_t actual;
	enum bh_status status;
};

struct fake {
	struct bh_source source;
	struct bh_engine engine;
	struct bh_destination destination;
	struct fake_descriptor list[FAKE_MAX];
	unsigned count, head;
	unsigned ready;       /* calls */
	bool refuse_retire;   /* the guest takes it back at the last moment */
	unsigned nexts, reads, equals; /* looks at the list, and at data */
	bool can_trace;       /* with fake_tracing_ops: can_watch */
	uint64_t clock;       /* of the write traces */
	/* the carrier */
	unsigned starts, cancels, fails;
	bool complete_at_once; /* inside start */
	enum bh_status at_once_status;
	uint32_t at_once_actual;
	bool cancel_at_once; /* complete inside cancel */
	uint32_t cancel_actual;
};

static struct fake *fake_of(struct bh_source *s)
{
	return bh_container_of(s, struct fake, source);
}

static struct fake_descriptor *fake_find(struct fake *f, uint64_t id)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->list[i].d.id == id)
			return &f->list[i];
	return NULL;
}

static enum bh_found fake_next(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	struct fake *f = fake_of(s);
	struct fake_descriptor *at = fake_find(f, after->id), *next;

	f->nexts++;
	if (at->then != BH_FOUND)
		return at->then;
	next = &f->list[(unsigned)(at - f->list + 1) % f->count]; /* the array is a ring */
	if (!next->active)
		return BH_FOUND_INACTIVE;
	*ret = next->d;
	return BH_FOUND;
}

static bool fake_read(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	struct fake_descriptor *at = fake_find(fake_of(s), d->id);

	fake_of(s)->reads++;
	if (at->broken)
		return false;
	memcpy(to, at->data + offset, length);
	return true;
}

static bool fake_write(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
                       uint32_t length)
{
	struct fake_descriptor *at = fake_find(fake_of(s), d->id);

	if (at->broken)
		return false;
	memcpy(at->data + offset, from, length);
	return true;
}

static bool fake_equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
                       uint32_t length)
{
	struct fake_descriptor *at = fake_find(fake_of(s), d->id);

	fake_of(s)->equals++;
	return !at->broken && memcmp(at->data + offset, bytes, length) == 0;
}

static bool fake_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	struct fake *f = fake_of(s);
	struct fake_descriptor *at = fake_find(f, d->id);

	if (f->refuse_retire)
		return false;
	at->retired = true;
	at->active = false;
	at->actual = actual;
	at->status = status;
	f->head = (unsigned)(at - f->list + 1) % f->count;
	return true;
}

static void fake_ready(struct bh_source *s)
{
	fake_of(s)->ready++;
}

static const struct bh_source_ops fake_source_ops = {
	.next = fake_next,
	.read = fake_read,
	.write = fake_write,
	.equal = fake_equal,
	.retire = fake_retire,
	.ready = fake_ready,
};

/* Write traces: writes are stamped by fake_written(), whether or not they change anything. */
static inline uint64_t fake_watch(struct bh_source *s, const struct bh_descriptor *d)
{
	return fake_find(fake_of(s), d->id)->untraceable ? 0 : fake_of(s)->clock;
}

static inline bool fake_was_written(struct bh_source *s, const struct bh_descriptor *d, uint64_t since)
{
	return fake_find(fake_of(s), d->id)->written > since;
}

static inline bool fake_can_watch(struct bh_source *s)
{
	return fake_of(s)->can_trace;
}

static inline void fake_written(struct fake *f, unsigned i)
{
	f->list[i].written = ++f->clock;
}

static inline const struct bh_source_ops *fake_tracing_ops(void)
{
	static struct bh_source_ops ops;

	ops = fake_source_ops;
	ops.watch = fake_watch;
	ops.written = fake_was_written;
	ops.can_watch = fake_can_watch;
	return &ops;
}

static void fake_start(struct bh_destination *d)
{
	struct fake *f = bh_container_of(d, struct fake, destination);

	f->starts++;
	if (f->complete_at_once)
		bh_destination_complete(d, f->at_once_status, f->at_once_actual);
}

static void fake_cancel(struct bh_destination *d)
{
	struct fake *f = bh_container_of(d, struct fake, destination);

	f->cancels++;
	if (f->cancel_at_once)
		bh_destination_complete(d, BH_CANCELLED, f->cancel_actual);
}

static void fake_failed(struct bh_destination *d)
{
	bh_container_of(d, struct fake, destination)->fails++;
}

static const struct bh_carrier_ops fake_carrier_ops = {
	.start = fake_start,
	.cancel = fake_cancel,
	.failed = fake_failed,
};

/* count descriptors of 64 bytes; the last asks to be notified. */
static void fake_init(struct fake *f, bool in, unsigned count)
{
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;

	memset(f, 0, sizeof(*f));
	f->source.ops = &fake_source_ops;
	f->clock = 1;
	f->count = count;
	bh_engine_init(&f->engine, &f->source, &config);
	bh_destination_init(&f->destination, &f->engine, &fake_carrier_ops, 7, in, FAKE_PACKET);
	for (unsigned i = 0; i < count; i++) {
		struct fake_descriptor *at = &f->list[i];

		at->active = true;
		at->then = i + 1 < count ? BH_FOUND : BH_FOUND_END;
		at->d = (struct bh_descriptor){
			.id = 0x1000 + 16 * i,
			.chain = 0x100,
			.destination = 7,
			.buffer = 0x8000 + 256 * i,
			.token = 0xe1,
			.length = FAKE_PACKET,
			.in = in,
			.toggle = i & 1,
			.notify = i + 1 == count,
		};
		for (unsigned j = 0; j < sizeof(at->data); j++)
			at->data[j] = in ? 0 : (uint8_t)(i * 7 + j);
	}
}

static void fake_finish(struct fake *f)
{
	if (bh_destination_running(&f->destination))
		bh_destination_complete(&f->destination, BH_NO_RESPONSE, 0);
	bh_destination_finish(&f->destination);
}

static enum bh_answer fake_offer(struct fake *f)
{
	return bh_destination_offer(&f->destination, &f->list[f->head].d);
}

#endif
