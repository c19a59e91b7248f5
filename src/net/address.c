/* Taking an address apart: see net/address.h. */
#include <net/address.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define UNIX_PREFIX "unix:"

static int parse_path(const char *path, struct bh_address *ret)
{
	if (!*path || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -EINVAL;
	*ret = (struct bh_address){.path = strdup(path)};
	return ret->path ? 0 : -ENOMEM;
}

static bool is_port(const char *text, bool listening)
{
	unsigned long port = strtoul(text, NULL, 10);

	return *text && strlen(text) <= 5 && strspn(text, "0123456789") == strlen(text) && port <= 65535 &&
	       (port || listening);
}

int bh_address_parse(const char *text, bool listening, struct bh_address *ret)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (!strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)))
		return parse_path(text + strlen(UNIX_PREFIX), ret);
	if (!length || !is_port(colon + 1, listening))
		return -EINVAL;
	if (text[0] == '[') {
		if (length < 3 || text[length - 1] != ']')
			return -EINVAL;
		text++;
		length -= 2;
	} else if (memchr(text, ':', length)) {
		return -EINVAL;
	}
	*ret = (struct bh_address){.host = strndup(text, length), .port = strdup(colon + 1)};
	if (ret->host && ret->port)
		return 0;
	bh_address_free(ret);
	return -ENOMEM;
}

void bh_address_free(struct bh_address *a)
{
	free(a->host);
	free(a->port);
	free(a->path);
	*a = (struct bh_address){0};
}
