/*
 * The layers there are, and putting them over a device as a text says:
 * "delay:5ms+fault:stall@100+capture:a.pcapng", the first next to the device.
 */
#ifndef LAYER_LAYERS_H
#define LAYER_LAYERS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <usb/device.h>

struct uv_loop_s;
struct bh_layer;

/* What a layer is made with. Kept by it, so it outlives the layer. */
struct bh_layer_context {
	/*
	 * The controller's thread's; runs as long as the layer, and once more. NULL: translate alone is to be had
	 * (-EINVAL), and keeps what nobody goes on with until more comes.
	 */
	struct uv_loop_s *loop;
	void (*log)(void *data, const char *text); /* a line for people; NULL: nowhere */
	void *data;
};

#define BH_LAYER_ERROR_SIZE 256u
#define BH_LAYER_COUNTERS   16u

struct bh_layer_counter {
	const char *name;
	uint64_t value;
};

/* A row of the table. */
struct bh_layer_kind {
	const char *name;
	const char *parameters; /* how they are written: ":TIME[:jitter=TIME]" */
	const char *help;
	/*
	 * parameters: what follows the name and a colon, or "". Makes a layer over below, which is then
	 * the layer's. 0; or a negative errno, one line in error (BH_LAYER_ERROR_SIZE), and below is still
	 * the caller's.
	 */
	int (*create)(const struct bh_layer_context *c, const char *parameters, struct bh_device *below,
	              struct bh_device **ret, char *error);
	/* What it counted; returns how many, at most BH_LAYER_COUNTERS. NULL: nothing. */
	unsigned (*counters)(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS]);
};

/*
 * Puts the layers of the text over *device, one after another, and makes *device the last of
 * them. 0; or a negative errno and one line in error: then *device may be a layer, too, and is the
 * caller's with all that it holds. The context is kept.
 */
int bh_layers_put(const struct bh_layer_context *c, const char *text, struct bh_device **device, char *error);

/* Does the text name that layer? */
bool bh_layers_name(const char *text, const char *name);

/* The device under all layers. */
struct bh_device *bh_layers_bottom(struct bh_device *device);

/*
 * Of a layer or any other device: what it counted, *ret_name its name ("?" of one that is in no
 * table); the device below it, or NULL where it is no layer.
 */
struct bh_device *bh_layer_counters(struct bh_device *device, const char **ret_name,
                                    struct bh_layer_counter ret[BH_LAYER_COUNTERS], unsigned *ret_count);

/* A line for each layer there is. */
void bh_layers_help(FILE *to);

#endif
