/*
 * SCAN ([0060], [0061]): from the descriptor the source offers, along the list,
 * taking everything that may travel together. For OUT the bytes are copied into
 * D* (batch.data) and a record is made of each descriptor ([0059]); for IN it is
 * enough to count ([0065]).
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include <base/util.h>

/*
 * The table of the ids taken. An entry is 24 bits of the id's hash and the batch's
 * stamp; multiplying with a secret odd key lets nobody choose ids that fall together.
 * Should two ids share those bits and their neighbourhood (once in millions), the
 * batch ends one descriptor early, and nothing else. A quarter full at most: most
 * probes are the first.
 */
static uint32_t seen_size(const struct bh_batch *b)
{
	return 4 * b->record_capacity;
}

/* Puts it into the table. False: it is there already. */
static inline bool remember(const struct bh_engine *e, struct bh_batch *b, uint64_t id)
{
	uint64_t hash = id * e->config.hash_key;
	uint32_t mask = seen_size(b) - 1, i = (uint32_t)(hash >> 44) & mask;
	uint32_t entry = (uint32_t)(hash >> 12 & 0xffffff00u) | b->stamp;

	for (; (uint8_t)b->seen[i] == b->stamp; i = (i + 1) & mask)
		if (b->seen[i] == entry)
			return false;
	b->seen[i] = entry;
	return true;
}

/* A new batch: what the table holds is of older ones. Zero marks what was never used. */
static void next_stamp(struct bh_batch *b)
{
	if (++b->stamp == 0 && b->seen) {
		memset(b->seen, 0, seen_size(b) * sizeof(*b->seen));
		b->stamp = 1;
	}
}

static uint64_t batch_memory(const struct bh_batch *b)
{
	return b->capacity + b->record_capacity * (sizeof(*b->records) + 4 * sizeof(*b->seen));
}

/*
 * The smallest batch, one packet, is always given memory, so that a destination
 * cannot be starved by others; destinations are bounded in number by the devices
 * there are.
 */
static bool may_grow(const struct bh_destination *d, uint64_t by)
{
	return d->batch.count == 0 || d->engine->counters.memory + by <= d->engine->config.max_bytes;
}

static bool more_data(struct bh_destination *d, uint32_t needed)
{
	struct bh_batch *b = &d->batch;
	uint32_t capacity = BH_MAX(b->capacity, d->max_packet);
	uint64_t before = batch_memory(b);
	uint8_t *data;

	while (capacity < needed)
		capacity *= 2;
	if (!may_grow(d, capacity - b->capacity))
		return false;
	data = realloc(b->data, capacity);
	if (!data)
		return false;
	b->data = data;
	b->capacity = capacity;
	bh_engine_account(d->engine, before, batch_memory(b));
	return true;
}

static bool more_records(struct bh_destination *d)
{
	struct bh_batch *b = &d->batch;
	uint32_t old = b->record_capacity, capacity = old ? old * 2 : 8;
	uint64_t before = batch_memory(b);
	struct bh_record *records;
	uint32_t *table;

	if (!may_grow(d, (capacity - old) * (sizeof(*records) + 4 * sizeof(*table))))
		return false;
	table = calloc(capacity * 4u, sizeof(*table));
	if (!table)
		return false;
	records = realloc(b->records, capacity * sizeof(*records));
	if (!records) {
		free(table);
		return false;
	}
	free(b->seen);
	b->records = records;
	b->record_capacity = capacity;
	b->seen = table;
	b->stamp = 1;
	for (uint32_t i = 0; i < b->count; i++)
		remember(d->engine, b, records[i].id);
	bh_engine_account(d->engine, before, batch_memory(b));
	return true;
}

enum taken { TAKEN, TAKEN_BEFORE, NOT_READABLE, NO_MEMORY };

static inline enum taken take(struct bh_destination *d, const struct bh_descriptor *td)
{
	struct bh_source *source = d->engine->source;
	struct bh_batch *b = &d->batch;
	uint32_t bytes = d->in ? d->max_packet : td->length;
	struct bh_record *r;

	if (b->count == b->record_capacity && !more_records(d))
		return NO_MEMORY;
	if (bytes > b->capacity - b->length && !more_data(d, b->length + bytes))
		return NO_MEMORY;
	if (!remember(d->engine, b, td->id))
		return TAKEN_BEFORE;
	r = &b->records[b->count];
	r->id = td->id;
	if (!d->in) {
		if (d->verification.what == BH_VERIFY_TRACE)
			bh_verify_watch(d, r, td);
		if (bytes && !source->ops->read(source, td, 0, b->data + b->length, bytes))
			return NOT_READABLE;
		r->buffer = td->buffer;
		r->token = td->token;
		r->length = td->length;
		r->offset = b->length;
		if (d->verification.what == BH_VERIFY_CHECKSUM)
			bh_verify_keep(d, r);
	}
	b->length += bytes;
	b->count++;
	return TAKEN;
}

/* What a batch of this destination may hold. */
struct limits {
	uint32_t descriptors;
	uint32_t bytes; /* beyond which another packet may not fit */
};

static struct limits limits_of(const struct bh_destination *d)
{
	const struct bh_engine_config *c = &d->engine->config;

	return (struct limits){
		.descriptors = d->single || d->one_at_a_time ? 1 : c->max_batch_descriptors,
		.bytes = c->max_batch_bytes - BH_MIN(c->max_batch_bytes, d->max_packet),
	};
}

/* May SCAN go on after this one, which was taken? */
static inline bool ends_after(const struct bh_destination *d, const struct limits *limits,
                              const struct bh_descriptor *td, enum bh_scan_end *ret_end)
{
	if (td->notify)
		*ret_end = BH_SCAN_NOTIFY;
	else if (td->length < d->max_packet)
		*ret_end = BH_SCAN_SHORT;
	else if (d->batch.count >= limits->descriptors)
		*ret_end = BH_SCAN_DESCRIPTORS;
	else if (d->batch.length > limits->bytes)
		*ret_end = BH_SCAN_BYTES;
	else
		return false;
	return true;
}

/* May this one follow the last? */
static inline bool ends_before(const struct bh_destination *d, const struct bh_descriptor *last,
                        const struct bh_descriptor *td, enum bh_scan_end *ret_end)
{
	if (td->destination != d->key)
		*ret_end = td->in == d->in ? BH_SCAN_DESTINATION : BH_SCAN_DIRECTION;
	else if (td->in != d->in)
		*ret_end = BH_SCAN_DIRECTION;
	else if (td->toggle == last->toggle)
		*ret_end = BH_SCAN_TOGGLE;
	else if (!d->in && td->length > d->max_packet)
		*ret_end = BH_SCAN_INVALID;
	else
		return false;
	return true;
}

static enum bh_scan_end end_of(enum bh_found f)
{
	switch (f) {
	case BH_FOUND_SUBLIST:
		return BH_SCAN_SUBLIST;
	case BH_FOUND_INACTIVE:
		return BH_SCAN_INACTIVE;
	case BH_FOUND_UNREADABLE:
	case BH_FOUND_INVALID:
		return BH_SCAN_INVALID;
	case BH_FOUND:
	case BH_FOUND_END:
		break;
	}
	return BH_SCAN_LIST;
}

/* Why one that was found could not be taken. */
static enum bh_scan_end end_of_taking(enum taken t)
{
	switch (t) {
	case TAKEN_BEFORE:
		return BH_SCAN_RING;
	case NO_MEMORY:
		return BH_SCAN_MEMORY;
	case NOT_READABLE:
	case TAKEN:
		break;
	}
	return BH_SCAN_INVALID;
}

/* Was it a limit of ours, or a lack of memory, that ended SCAN? Then it may have been in the middle of a request. */
static bool is_limit(enum bh_scan_end end)
{
	return end == BH_SCAN_DESCRIPTORS || end == BH_SCAN_BYTES || end == BH_SCAN_MEMORY;
}

/* Is there one behind the last one taken that would have been taken, but for how SCAN ended? */
static bool more_follows(const struct bh_destination *d, const struct bh_descriptor *last)
{
	struct bh_source *source = d->engine->source;
	struct bh_descriptor next;
	enum bh_scan_end end;

	return source->ops->next(source, last, &next) == BH_FOUND && !ends_before(d, last, &next, &end);
}

/* Takes the head, and then along the list what may follow. *ret_taken: what became of the last one tried. */
static enum bh_scan_end take_list(struct bh_destination *d, const struct bh_descriptor *head, enum taken *ret_taken)
{
	struct bh_source *source = d->engine->source;
	struct bh_descriptor either[2], *last = &either[0], *next = &either[1];
	const struct limits limits = limits_of(d);
	enum bh_scan_end end;
	enum bh_found found;

	*next = *head;
	for (;;) {
		struct bh_descriptor *taken = next;

		*ret_taken = take(d, taken);
		if (*ret_taken != TAKEN) {
			end = end_of_taking(*ret_taken);
			d->batch.goes_on = is_limit(end); /* it is what follows */
			return end;
		}
		if (ends_after(d, &limits, taken, &end)) {
			d->batch.goes_on = (is_limit(end) || (end == BH_SCAN_NOTIFY && !d->in)) && more_follows(d, taken);
			return end;
		}
		next = last;
		last = taken;
		found = source->ops->next(source, last, next);
		if (found != BH_FOUND)
			return end_of(found);
		if (ends_before(d, last, next, &end))
			return end;
	}
}

bool bh_scan(struct bh_destination *d, const struct bh_descriptor *head, enum bh_answer *ret_answer)
{
	enum taken taken;
	enum bh_scan_end end = take_list(d, head, &taken);

	if (d->batch.count == 0) { /* not even the head */
		bh_batch_drop(d);
		*ret_answer = taken == NOT_READABLE ? BH_ANSWER_FAULT : BH_ANSWER_BUSY;
		return false;
	}
	d->batch.chain = head->chain;
	d->batch.head = head->id;
	d->batch.zero_packet = !d->in && d->batch.length > 0 && d->batch.records[d->batch.count - 1].length == 0;
	d->batch.end = end;
	d->engine->counters.scan_end[end]++;
	return true;
}

void bh_batch_drop(struct bh_destination *d)
{
	struct bh_batch *b = &d->batch;

	if (d->engine->counters.memory > d->engine->config.max_bytes / 2) {
		bh_batch_free(d);
		return;
	}
	next_stamp(b);
	b->length = b->count = b->skip = 0;
	b->zero_packet = b->goes_on = false;
}

void bh_batch_free(struct bh_destination *d)
{
	bh_engine_account(d->engine, batch_memory(&d->batch), 0);
	free(d->batch.data);
	free(d->batch.records);
	free(d->batch.seen);
	d->batch = (struct bh_batch){0};
}
