/*
 * The smallest layer that does something: it looks at every transfer that ends, and counts the bytes.
 * docs/layers.md explains it line by line. Its user, below, puts it over a test device, and asks that
 * for its device descriptor.
 *
 *   cc layer.c $(pkg-config --cflags --libs bulkhead) && ./a.out
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <function/zero.h>
#include <layer/layer.h>

/* --- the layer ------------------------------------------------------------------------- */

struct count {
	struct bh_layer layer; /* first: the base frees it */
	uint64_t bytes[2];     /* [in] */
};

static void count_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	((struct count *)l)->bytes[bh_passage_is_in(p)] += p->below.actual;
	bh_layer_end(p, status, p->below.actual);
}

static const struct bh_layer_ops count_ops = {
	.ended = count_ended, /* everything else is passed on */
};

static struct count *count_over(struct bh_device *below)
{
	struct count *c = calloc(1, sizeof(*c));

	if (c)
		bh_layer_init(&c->layer, &count_ops, below);
	return c;
}

/* --- somebody who uses it ------------------------------------------------------------------ */

static void done(struct bh_transfer *t, enum bh_status status)
{
	printf("%" PRIu32 " bytes, %s\n", t->actual, bh_status_name(status));
}

int main(void)
{
	uint8_t descriptor[18];
	struct iovec span = {descriptor, sizeof(descriptor)};
	struct bh_transfer t = {
		.type = BH_CONTROL,
		.setup = {.bmRequestType = 0x80, .bRequest = 6, .wValue = {{0, 1}}, .wLength = {{18, 0}}},
		.spans = &span,
		.span_count = 1,
		.length = sizeof(descriptor),
		.done = done,
	};
	struct bh_device *zero;
	struct count *c;

	if (bh_zero_create(&(struct bh_zero_config){.pattern = 0}, &zero) || !(c = count_over(zero))) {
		fputs("out of memory\n", stderr);
		return 1;
	}
	bh_device_submit(&c->layer.device, &t);
	printf("in: %" PRIu64 ", out: %" PRIu64 "\n", c->bytes[1], c->bytes[0]);
	bh_device_destroy(&c->layer.device);
	return 0;
}
