/* "bulkhead devices": what can be attached here. */
#ifndef SERVER_LIST_H
#define SERVER_LIST_H

/* The words after "bulkhead"; returns the exit status. */
int bh_list(int argc, char **argv);

#endif
