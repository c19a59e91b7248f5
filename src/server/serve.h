/* One controller with its devices, served to one client after another. */
#ifndef SERVER_SERVE_H
#define SERVER_SERVE_H

#include <stddef.h>

struct bh_serve_config {
	const char *socket_path; /* listen here; or */
	int fd;                  /* a socket that was passed in: listening, or connected; -1: none */
	const char *controller;  /* "uhci,ports=4" */
	const char *const *devices;
	size_t device_count;
	const char *statistics; /* file written at SIGUSR1 and at the end; NULL: none */
	const char *control;    /* listen for commands here; NULL: nowhere */
};

/* The exit status: 0, 1 where something broke while serving, 2 where it could not begin. */
int bh_serve(const struct bh_serve_config *config);

#endif
