#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <uv.h>

#include <base/util.h>

#define LINES_AT_ONCE 16u

static bool may_say(struct bh_lines *l)
{
	uint64_t now = uv_now(l->loop), seconds = (now - l->said_ms) / 1000;

	l->said -= (unsigned)BH_MIN(seconds, l->said);
	l->said_ms += seconds * 1000;
	if (l->said == LINES_AT_ONCE) {
		l->unsaid++;
		return false;
	}
	l->said++;
	return true;
}

void bh_lines_say(struct bh_lines *l, const char *format, ...)
{
	char text[400], line[sizeof(text) + 48];
	va_list args;

	if (!l->log.line || !may_say(l))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (l->unsaid)
		snprintf(line, sizeof(line), "(%llu lines left out) %s", (unsigned long long)l->unsaid, text);
	else
		snprintf(line, sizeof(line), "%s", text);
	l->unsaid = 0;
	l->log.line(l->log.data, line);
}
