/* "bulkhead export": devices for others, over a socket. */
#ifndef SERVER_EXPORT_H
#define SERVER_EXPORT_H

/* The words after "bulkhead"; returns the exit status. */
int bh_export(int argc, char **argv);

#endif
