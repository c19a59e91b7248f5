/* Kinds and layers together: see stack.h. */
#include "stack.h"

#include <errno.h>
#include <stdio.h>

#include <layer/layers.h>

#include "say.h"

static void say_line(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

/* Is there a device below that may turn out faster than a guest's port? */
static bool wants_translation(const struct bh_device *d, const char *layers)
{
	return !d->hub && (d->sticky || d->speed > BH_SPEED_FULL) && !(layers && bh_layers_name(layers, "translate"));
}

/* As long as there is a loop there is this. */
static const struct bh_layer_context *layer_context(uv_loop_t *loop)
{
	static struct bh_layer_context context = {.log = say_line};

	context.loop = loop; /* the program's only one */
	return &context;
}

int bh_device_make(uv_loop_t *loop, const struct bh_device_kind *kind, const struct bh_options *o, bool for_guest,
                   struct bh_device **ret, char *error)
{
	const char *layers = bh_options_get(o, "layers");
	const struct bh_layer_context *context = layer_context(loop);
	bool translate = true;
	int r = bh_options_bool(o, "translate", &translate, error);

	if (!r && !translate && layers && bh_layers_name(layers, "translate")) {
		snprintf(error, BH_ERROR_SIZE, "%s: translate=off and layers=translate contradict each other", kind->name);
		r = -EINVAL;
	}
	if (!r)
		r = kind->create(loop, o, ret, error);
	if (r)
		return r;
	if (layers)
		r = bh_layers_put(context, layers, ret, error);
	if (!r && for_guest && translate && wants_translation(*ret, layers))
		r = bh_layers_put(context, "translate", ret, error);
	if (r)
		bh_device_destroy(*ret);
	return r;
}

json_t *bh_device_statistics(const struct bh_device_kind *kind, struct bh_device *device)
{
	struct bh_device *bottom = bh_layers_bottom(device);
	json_t *o = kind->statistics ? kind->statistics(bottom) : json_object(), *layers = json_array();

	while (device != bottom) {
		struct bh_layer_counter counters[BH_LAYER_COUNTERS];
		const char *name;
		unsigned count;
		json_t *layer = json_object();

		device = bh_layer_counters(device, &name, counters, &count);
		json_object_set_new(layer, "layer", json_string(name));
		for (unsigned i = 0; i < count; i++)
			json_object_set_new(layer, counters[i].name, json_integer((json_int_t)counters[i].value));
		json_array_insert_new(layers, 0, layer); /* the one next to the device first, as they are written */
	}
	if (json_array_size(layers))
		json_object_set_new(o, "layers", layers);
	else
		json_decref(layers);
	return o;
}
