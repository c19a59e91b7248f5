/* One line at a time, whatever was put into it. */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>

char *bh_one_line(char *text)
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	return text;
}

void bh_say(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "bulkhead: %s\n", bh_one_line(text));
}
