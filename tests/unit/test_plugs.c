/*
 * What the server keeps of its devices: however one goes, it is closed as its kind has to be,
 * and whoever is to know is told. The kinds are two of our own; the bus is real.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_device.h"
#include "options.h"
#include "plugs.h"

static struct bh_bus bus;
static struct bh_plugs plugs;
static char told[256]; /* what happened, word by word */

static void tell(const char *word, const char *what)
{
	size_t used = strlen(told);

	snprintf(told + used, sizeof(told) - used, "%s%s %s", used ? ", " : "", word, what);
}

#define assert_told(text)                     \
	do {                                  \
		assert_string_equal(told, text); \
		told[0] = 0;                  \
	} while (0)

/* --- devices, which are closed when the test says ------------------------------------------- */

struct late {
	struct fake_device fake; /* first */
	char name[8];
	void (*closed)(void *data, int error);
	void *data;
};

static struct late *last[8];
static unsigned made;

static void hub_connected(struct bh_device *d, unsigned port, bool connected)
{
	(void)d;
	(void)port;
	(void)connected;
}

static const struct bh_hub_ops hub_ops = {.connected = hub_connected};

static int create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	struct late *l = calloc(1, sizeof(*l));

	(void)loop;
	(void)error;
	fake_device_init(&l->fake, BH_SPEED_FULL);
	snprintf(l->name, sizeof(l->name), "%.7s", bh_options_get(o, "name"));
	l->fake.device.sticky = !strcmp(o->kind, "sticky");
	if (!strcmp(o->kind, "hub")) {
		l->fake.device.hub = &hub_ops;
		l->fake.device.hub_ports = 4;
	}
	last[made++] = l;
	*ret = &l->fake.device;
	return 0;
}

static void closes(struct bh_device *d, void (*closed)(void *data, int error), void *data)
{
	struct late *l = (struct late *)fake_device_of(d);

	assert_ptr_equal(d->ops, &fake_device_ops);
	l->closed = closed;
	l->data = data;
	tell("close", l->name);
}

static void end(unsigned i, int error)
{
	struct late *l = last[i];

	l->closed(l->data, error);
	free(l);
}

static const struct bh_device_kind kinds[] = {
	{.name = "fake", .create = create, .close = closes},
	{.name = "sticky", .create = create, .close = closes},
	{.name = "hub", .create = create, .close = closes, .hub = true},
};

const struct bh_device_kind *bh_device_kind(const char *name)
{
	for (size_t i = 0; i < BH_COUNT(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

int bh_device_options_check(const struct bh_device_kind *kind, const struct bh_options *o, char *error)
{
	(void)kind;
	(void)o;
	(void)error;
	return 0;
}

int bh_device_verification(const struct bh_options *o, struct bh_verification *ret, char *error)
{
	(void)o;
	(void)error;
	*ret = (struct bh_verification){0};
	return 0;
}

/* --- around them -------------------------------------------------------------------------------- */

static void shows(void *context, const char *place, const char *kind, bool there)
{
	(void)context;
	assert_string_equal(kind, "sticky");
	tell(there ? "arrived" : "departed", place);
}

static void gone(void *context, const char *place, const char *kind)
{
	(void)context;
	(void)kind;
	tell("gone", place);
}

static void failed(void *context, const char *place, const char *kind, int error)
{
	(void)context;
	(void)kind;
	assert_int_equal(error, -EIO);
	tell("failed", place);
}

static const struct bh_plugs_ops plugs_ops = {.shows = shows, .gone = gone, .failed = failed};

static void bus_connected(struct bh_bus *b, unsigned port, bool connected)
{
	(void)b;
	(void)port;
	(void)connected;
}

static void bus_wakeup(struct bh_bus *b, unsigned port)
{
	(void)b;
	(void)port;
}

static const struct bh_bus_upcalls upcalls = {.connected = bus_connected, .wakeup = bus_wakeup};

static void add(const char *text)
{
	char place[BH_PLACE_SIZE], error[BH_ERROR_SIZE];

	assert_int_equal(bh_plugs_add(&plugs, text, place, error), 0);
}

static void removed(struct bh_removal *r)
{
	tell("removed", r->error ? "badly" : "well");
}

static int setup(void **state)
{
	static struct bh_source source;

	(void)state;
	bh_bus_init(&bus, 2, &source, &upcalls, &BH_ENGINE_DEFAULTS);
	bh_plugs_init(&plugs, NULL, &bus, NULL, &plugs_ops, NULL);
	made = 0;
	told[0] = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_true(bh_list_empty(&plugs.all));
	assert_int_equal(plugs.count, 0);
	bh_bus_finish(&bus);
	return 0;
}

/* --- tests ---------------------------------------------------------------------------------------- */

static void what_goes_by_itself_is_told_and_closed(void **state)
{
	(void)state;
	add("fake,name=a");
	bh_device_detach(&last[0]->fake.device);
	bh_bus_tick(&bus, 1000);
	assert_told("gone 1, close a");
	assert_null(bh_port_device(bh_bus_port(&bus, "1")));
	add("fake,name=b"); /* the port is free before the other is closed */
	end(0, 0);
	assert_told("");
	bh_plugs_clear(&plugs);
	assert_told("close b");
	end(1, 0);
}

static void a_hub_that_goes_by_itself_takes_the_others_along(void **state)
{
	(void)state;
	add("hub,name=a");
	add("hub,name=b,port=1.4");
	add("fake,name=c,port=1.4.1");
	add("fake,name=d");
	bh_device_detach(&last[0]->fake.device);
	bh_bus_tick(&bus, 1000);
	assert_told("gone 1.4.1, close c, gone 1.4, close b, gone 1, close a");
	assert_int_equal(plugs.count, 1);
	bh_plugs_clear(&plugs);
	assert_told("close d");
	for (unsigned i = 0; i < 4; i++)
		end(i, 0);
}

static void a_removal_ends_with_the_last_that_is_closed(void **state)
{
	struct bh_removal r = {.done = removed};
	char error[BH_ERROR_SIZE];

	(void)state;
	add("hub,name=a");
	add("fake,name=b,port=1.1");
	assert_int_equal(bh_plugs_remove(&plugs, "1", &r, error), 0);
	assert_told("close b, close a");
	end(0, 0);
	assert_told("");
	end(1, -EIO);
	assert_told("failed 1.1, removed badly");
}

static void nobody_at_the_other_end_is_no_failure(void **state)
{
	struct bh_removal r = {.done = removed};
	char error[BH_ERROR_SIZE];

	(void)state;
	add("fake,name=a");
	assert_int_equal(bh_plugs_remove(&plugs, "1", &r, error), 0);
	assert_told("close a");
	end(0, -ENOTCONN);
	assert_told("removed well");
}

static void a_failure_after_it_went_by_itself_is_told(void **state)
{
	(void)state;
	add("fake,name=a,port=2");
	bh_device_detach(&last[0]->fake.device);
	bh_bus_tick(&bus, 1000);
	assert_told("gone 2, close a");
	end(0, -EIO);
	assert_told("failed 2");
}

/* It keeps its place, and comes back into it. */
static void what_comes_and_goes_is_told_and_stays_plugged_in(void **state)
{
	struct bh_removal r = {.done = removed};
	char error[BH_ERROR_SIZE];
	struct bh_device *d;

	(void)state;
	add("sticky,name=a,port=2");
	d = &last[0]->fake.device;
	bh_device_detach(d); /* it was not there */
	assert_told("");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bh_device_attach(d), 0);
		assert_int_equal(bh_device_attach(d), 0);
		assert_told("arrived 2");
		bh_device_detach(d);
		bh_bus_tick(&bus, 1000);
		assert_told("departed 2");
		assert_int_equal(plugs.count, 1);
	}
	d->speed = BH_SPEED_HIGH;
	assert_int_equal(bh_device_attach(d), -EPROTO); /* it does not say what could be translated */
	assert_told("");
	assert_int_equal(bh_plugs_remove(&plugs, "2", &r, error), 0);
	assert_told("close a");
	end(0, 0);
	assert_told("removed well");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_goes_by_itself_is_told_and_closed),
		TEST(a_hub_that_goes_by_itself_takes_the_others_along),
		TEST(a_removal_ends_with_the_last_that_is_closed),
		TEST(nobody_at_the_other_end_is_no_failure),
		TEST(a_failure_after_it_went_by_itself_is_told),
		TEST(what_comes_and_goes_is_told_and_stays_plugged_in),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
