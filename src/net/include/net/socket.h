/* Sockets to other machines: what makes them quick, and what makes a dead peer noticed. */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include <stddef.h>

#include <net/address.h>

/*
 * A peer that is gone without a word is noticed after about so long, by a connection with
 * bh_socket_watch_peer(): by probes while nothing is under way, by what stays unacknowledged
 * else.
 */
#define BH_PEER_LOST_MS 3000u

/* TCP without delay, with keep-alive. Of any other socket nothing is changed. */
void bh_socket_tune(int fd);

/*
 * Besides, a peer that is lost ends it within BH_PEER_LOST_MS. Not for a peer that may take its
 * time to read: one whose window stays shut for so long counts as lost, too (TCP_USER_TIMEOUT).
 */
void bh_socket_watch_peer(int fd);

#define BH_SOCKET_NAME_SIZE 128u

/*
 * Listens on an address of this machine, as it is (localhost: 127.0.0.1): no name is looked up,
 * for that could take long. A TCP address, with the port that was chosen, is put into name.
 * The socket, or a negative errno: -EINVAL, the address is none of a machine. The socket of a
 * path is the caller's to remove; one that is there already is -EADDRINUSE.
 */
int bh_socket_listen(const struct bh_address *a, char name[BH_SOCKET_NAME_SIZE]);

/* What to do about an error of bh_socket_listen(): "choose another port", say. */
const char *bh_socket_listen_advice(int error);

#endif
