/*
 * Requests and answers, in the manner of QEMU's QMP: {"execute": NAME, "arguments": {...},
 * "id": ANY} is answered by {"return": {...}, "id": ANY} or {"error": {"class", "desc"}, "id": ANY}.
 * Each command is a line of a table and a function.
 */
#include "commands.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "options.h"
#include "say.h"

#define MAX_ARGUMENTS 2

/* A request that is being answered. */
struct request {
	struct bh_commands *commands;
	struct bh_session *session;
	json_t *id; /* owned; NULL: none */
	const char *arguments[MAX_ARGUMENTS];
	struct bh_removal removal;
};

struct command {
	const char *name;
	const char *arguments[MAX_ARGUMENTS]; /* their names; all are texts, and have to be there */
	/* Ends with succeed() or fail(), now or later. */
	void (*run)(struct request *q);
};

/* --- answers -------------------------------------------------------------------------- */

static void answer(struct request *q, const char *key, json_t *value)
{
	json_t *o = json_object();

	json_object_set_new(o, key, value);
	if (q->id)
		json_object_set(o, "id", q->id);
	bh_session_answer(q->session, o);
	json_decref(q->id);
	free(q);
}

static void succeed(struct request *q, json_t *value)
{
	answer(q, "return", value);
}

static void fail(struct request *q, const char *class, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void fail(struct request *q, const char *class, const char *format, ...)
{
	char text[BH_ERROR_SIZE];
	json_t *desc;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	bh_one_line(text);
	desc = json_string(text);
	if (!desc) { /* cut in the middle of a character */
		for (char *p = text; *p; p++)
			*p = (unsigned char)*p > 0x7e ? '?' : *p;
		desc = json_string(text);
	}
	answer(q, "error", json_pack("{s:s, s:o}", "class", class, "desc", desc));
}

static const char *class_of(int r)
{
	return r == -ENODEV ? "DeviceNotFound" : "GenericError";
}

/* --- commands ---------------------------------------------------------------------------- */

static void device_add(struct request *q)
{
	char place[BH_PLACE_SIZE], error[BH_ERROR_SIZE];
	int r = bh_plugs_add(q->commands->plugs, q->arguments[0], place, error);

	if (r)
		fail(q, class_of(r), "%s", error);
	else
		succeed(q, json_pack("{s:s}", "port", place));
}

static void removed(struct bh_removal *removal)
{
	struct request *q = bh_container_of(removal, struct request, removal);

	if (removal->error)
		fail(q, "GenericError", "removed, but not flushed: %s; what was written last may be lost",
		     strerror(-removal->error));
	else
		succeed(q, json_object());
}

static void device_remove(struct request *q)
{
	char error[BH_ERROR_SIZE];
	int r;

	q->removal.done = removed;
	r = bh_plugs_remove(q->commands->plugs, q->arguments[0], &q->removal, error);
	if (r)
		fail(q, class_of(r), "%s", error);
}

static void devices(struct request *q)
{
	succeed(q, json_pack("{s:o}", "devices", bh_plugs_list(q->commands->plugs)));
}

static void input(struct request *q)
{
	char error[BH_ERROR_SIZE];
	int r = bh_plugs_input(q->commands->plugs, q->arguments[0], q->arguments[1], error);

	if (r)
		fail(q, class_of(r), "%s", error);
	else
		succeed(q, json_object());
}

static void statistics(struct request *q)
{
	succeed(q, q->commands->statistics(q->commands->context));
}

static const struct command commands[] = {
	{.name = "device-add", .arguments = {"device"}, .run = device_add},
	{.name = "device-remove", .arguments = {"port"}, .run = device_remove},
	{.name = "devices", .run = devices},
	{.name = "input", .arguments = {"port", "text"}, .run = input},
	{.name = "statistics", .run = statistics},
};

/* --- requests ------------------------------------------------------------------------------- */

static bool is_known(const char *key, const char *const *keys, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (keys[i] && !strcmp(keys[i], key))
			return true;
	return false;
}

/* Those of q->arguments, which point into the object. NULL, or what is wrong, for fail(). */
static const char *take_arguments(struct request *q, const struct command *c, json_t *object, const char **ret_name)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		if (!is_known(key, c->arguments, MAX_ARGUMENTS)) {
			*ret_name = key;
			return "has no such argument";
		}
	}
	for (size_t i = 0; i < MAX_ARGUMENTS && c->arguments[i]; i++) {
		q->arguments[i] = json_string_value(json_object_get(object, c->arguments[i]));
		if (!q->arguments[i]) {
			*ret_name = c->arguments[i];
			return "needs this argument, a string";
		}
	}
	return NULL;
}

static void run(struct request *q, const char *name, json_t *arguments)
{
	for (size_t i = 0; i < BH_COUNT(commands); i++) {
		const char *wrong, *which;

		if (strcmp(commands[i].name, name))
			continue;
		wrong = take_arguments(q, &commands[i], arguments, &which);
		if (wrong)
			fail(q, "GenericError", "%s %s: '%.100s'", commands[i].name, wrong, which);
		else
			commands[i].run(q);
		return;
	}
	fail(q, "CommandNotFound", "there is no command '%.100s'", name);
}

static void run_object(struct request *q, json_t *o)
{
	static const char *const keys[] = {"execute", "arguments", "id"};
	json_t *arguments = json_object_get(o, "arguments");
	const char *name = json_string_value(json_object_get(o, "execute")), *key;
	json_t *value;

	q->id = json_incref(json_object_get(o, "id"));
	json_object_foreach(o, key, value) {
		if (!is_known(key, keys, BH_COUNT(keys))) {
			fail(q, "GenericError", "a request has no member '%.100s'", key);
			return;
		}
	}
	if (!name)
		fail(q, "GenericError", "a request is an object with \"execute\", a string");
	else if (arguments && !json_is_object(arguments))
		fail(q, "GenericError", "\"arguments\" is an object");
	else
		run(q, name, arguments);
}

void bh_commands_run(struct bh_commands *c, struct bh_session *s, const char *text, size_t length)
{
	struct request *q = calloc(1, sizeof(*q));
	json_error_t error;
	json_t *o;

	if (!q) {
		bh_session_answer(s, json_pack("{s:{s:s, s:s}}", "error", "class", "GenericError", "desc", "out of memory"));
		return;
	}
	q->commands = c;
	q->session = s;
	o = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	if (!o)
		fail(q, "GenericError", "no JSON: %s", error.text);
	else
		run_object(q, o);
	json_decref(o);
}
