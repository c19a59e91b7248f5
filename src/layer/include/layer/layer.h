/*
 * Layers: devices that hold a device and change, delay, break or watch what passes ([0100]:
 * "yet another interface ... might, for example, convert the data block D*"). To the bus a
 * layer is a device; to the device below it is the bus. So they stack, in any order.
 *
 * Whoever writes a layer puts struct bh_layer first into a structure of its own, from malloc,
 * fills struct bh_layer_ops where it has something to add, and has everything else passed on.
 * docs/layers.md shows how with the smallest one. Everything runs on the controller's thread.
 */
#ifndef LAYER_LAYER_H
#define LAYER_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include <base/list.h>
#include <usb/device.h>

struct bh_layer;

/*
 * A transfer on its way through a layer: submitted to it, by whichever operation, and not ended
 * yet. The base's; the layer's to look at, and to change where it says so.
 */
struct bh_passage {
	struct bh_layer *layer;
	struct bh_list link;        /* of all under way, in the order in which they came */
	struct bh_transfer *above;  /* as it was submitted; its actual is not to be touched */
	struct bh_transfer below;   /* what the device below is given: at first the same; may be changed before it is passed on */
	bool passed;                /* the device below has it */
	bool cancelled;             /* whoever submitted it wants it ended */
	bool over;                  /* it has ended below: */
	enum bh_status status;      /* so; and p->below.actual */

	/* the layer's own, zero at first */
	struct bh_list held; /* in a list of the layer's */
	uint64_t due;
	uint32_t number;
};

/* All optional: what is not there is passed on. */
struct bh_layer_ops {
	/*
	 * A transfer has come. Exactly one bh_layer_end() for it, now or later; in between perhaps
	 * bh_layer_pass(). Transfers to one endpoint have to end in their order.
	 */
	void (*begin)(struct bh_layer *l, struct bh_passage *p);
	/* One that was passed on has ended below, with p->below.actual: bh_layer_end() it, now or later. */
	void (*ended)(struct bh_layer *l, struct bh_passage *p, enum bh_status status);
	/* Some of one that was passed on has moved: p->below.actual says how much so far. */
	void (*progress)(struct bh_layer *l, struct bh_passage *p);
	/*
	 * One that the layer holds is cancelled: bh_layer_end() it soon. Not there: it is ended at once, with the
	 * outcome that it had below, or with BH_CANCELLED. So it is, without a word, when the layer is reset or destroyed.
	 */
	void (*cancel)(struct bh_layer *l, struct bh_passage *p);

	/* The port was reset: after the device below, when nothing is under way. */
	void (*reset)(struct bh_layer *l);
	/*
	 * A device that comes and goes is there; what it is has been taken over (bh_layer_sync()). 0: it
	 * may be shown; -EPROTO: it may not, and why was said.
	 */
	int (*attached)(struct bh_layer *l);
	/* The device is gone: transfers of the layer's own are to be cancelled in here. Those above are, after it. */
	void (*detached)(struct bh_layer *l);
	/* What the device below is was taken over: say what the layer shows instead. */
	void (*sync)(struct bh_layer *l);
	const struct bh_endpoint_info *(*endpoint)(const struct bh_layer *l, uint8_t address); /* as in the device seam */
	bool (*refuses)(const struct bh_layer *l, const struct bh_setup *setup);
	struct bh_descriptors (*descriptors)(const struct bh_layer *l);

	/* Free what the layer has, but not the layer itself. Nothing is under way, the device below is gone. */
	void (*finish)(struct bh_layer *l);
};

struct bh_layer {
	struct bh_device device; /* what it shows */
	struct bh_device *below; /* what it holds, and owns */
	const struct bh_layer_ops *ops;
	const struct bh_layer_kind *kind; /* whose it is; layers.c's */
	struct bh_list passages; /* under way */
	bool ending; /* the device below ends all that it has, for a reset or for good: whoever holds passages passes none on */
};

/*
 * Of a zeroed structure from malloc, which bh_device_destroy() of the layer's device frees. From here on
 * the device below, which is in no port, is the layer's. A hub may be held, too.
 */
void bh_layer_init(struct bh_layer *l, const struct bh_layer_ops *ops, struct bh_device *below);

/*
 * Has the device below carry p->below; done, progress and their data in it are the base's. Once, and
 * ops->ended may be called before it returns.
 */
void bh_layer_pass(struct bh_passage *p);

/* The transfer has ended; p is gone. Not while the device below has it. */
void bh_layer_end(struct bh_passage *p, enum bh_status status, uint32_t actual);

/* Takes over what the device below is. The base does where that may have changed. */
void bh_layer_sync(struct bh_layer *l);

/* The layer that this device is, or NULL. */
struct bh_layer *bh_layer_of(struct bh_device *d);

static inline bool bh_passage_is_in(const struct bh_passage *p)
{
	const struct bh_transfer *t = p->above;

	return (t->type == BH_CONTROL ? t->setup.bmRequestType : t->endpoint) & BH_ENDPOINT_IN;
}

#endif
