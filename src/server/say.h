/* Telling the user, on standard error. */
#ifndef SERVER_SAY_H
#define SERVER_SAY_H

/* One line; what is in it and would make it several is shown as '?'. */
void bh_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Makes one line of a text: control characters become '?'. Returns it. */
char *bh_one_line(char *text);

#endif
