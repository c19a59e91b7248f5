/*
 * The USB/IP device from the inside. Files: usbip_session.c is the connection: connecting,
 * importing, cutting up what comes, buffering what goes; usbip_requests.c carries transfers on it;
 * usbip.c is the device; usbip_list.c asks a server what it exports.
 */
#ifndef HOST_USBIP_PRIVATE_H
#define HOST_USBIP_PRIVATE_H

#include <uv.h>

#include <base/list.h>
#include <host/usbip.h>
#include <net/address.h>

#include "real.h"

/* Unanswered requests, whoever still waits for them; beyond that, what comes waits. */
#define BH_USBIP_REQUESTS 256u

/* Bytes that wait for the socket; beyond that, what comes waits before it is made a message. */
#define BH_USBIP_OUTPUT (256u * 1024)

/* What a server answers by itself, whatever its device does, it has to within this time. */
#define BH_USBIP_OWED_MS 8000u

/* Results that were given up, but may still come. */
#define BH_USBIP_LATE 16u

/* Between two imports: at first; doubled, where one comes to nothing, up to; and where the device is of no use. */
#define BH_USBIP_REST_MS      250u
#define BH_USBIP_REST_MAX_MS  4000u
#define BH_USBIP_REST_LONG_MS 60000u

/* A connection that lasted for so long came to something. */
#define BH_USBIP_LASTED_MS 5000u

struct bh_usbip;

/* HOST, where the port may be missing. As bh_address_parse(). */
int bh_usbip_address(const char *host, struct bh_address *ret);

/* --- usbip_session.c: the connection --------------------------------------------------------- */

/* Bytes that wait for the socket: [from, used) of room. */
struct bh_usbip_output {
	uint8_t *bytes;
	size_t from, used, room;
};

struct bh_usbip_session {
	/* configuration */
	struct bh_connector *connector;
	struct bh_usbip_import_request request;
	uv_timer_t *timer; /* for what is owed, a rest, and what is to be done from the loop; on the heap */

	/* state */
	int fd; /* -1: none */
	uv_poll_t *poll;
	uint8_t *buffer; /* what was received at once */
	struct bh_usbip_output output;
	/* What comes next is so many bytes, of which we have some, for take(); unless there is data to come first. */
	uint8_t piece[sizeof(struct bh_usbip_device)];
	size_t have, want;
	void (*take)(struct bh_usbip *u, const uint8_t *piece);
	uint64_t data; /* bytes for bh_usbip_requests_data() */

	bool imported;
	bool broken;     /* to be closed, from the loop */
	uint64_t since_ms; /* of the connection, or of the import */
	uint32_t rest_ms;  /* the next rest */
	bool rest_long;    /* a longer one, once */
	char why[160];     /* it is broken */
	char said[160];    /* what was said last of an import that came to nothing; it is not said twice */
};

int bh_usbip_session_init(struct bh_usbip *u, uv_loop_t *loop, const struct bh_address *a);
void bh_usbip_session_finish(struct bh_usbip *u);

/* A connected socket that does not block, ours from now on: the device is asked for on it. */
void bh_usbip_session_begin(struct bh_usbip *u, int fd);

/* The connection is closed soon, from the loop: bh_usbip_lost() comes. */
void bh_usbip_session_break(struct bh_usbip *u, const char *why);

/* The same, for what the peer did, or did not do. */
void bh_usbip_session_violated(struct bh_usbip *u, const char *what);

/* There is no use in it: broken, without a word, for a long time. */
void bh_usbip_session_leave(struct bh_usbip *u);

/* May something more be sent now? */
bool bh_usbip_session_room(const struct bh_usbip *u);

/* Room for a message; NULL: no memory. Written into at once; then sent, as far as the socket takes it. */
uint8_t *bh_usbip_session_message(struct bh_usbip *u, size_t size);
void bh_usbip_session_send(struct bh_usbip *u);

/* Something is owed from now on. */
void bh_usbip_session_watch(struct bh_usbip *u);

/* --- usbip_requests.c: transfers ---------------------------------------------------------------- */

/* What a control transfer changes, if it succeeds. */
enum bh_usbip_effect { BH_USBIP_NOTHING, BH_USBIP_CONFIGURES, BH_USBIP_SETS_INTERFACE };

/* A transfer that waits to be sent, or a request that is not answered yet. */
struct bh_usbip_request {
	struct bh_list link;          /* bh_usbip.waiting, .sent or .late */
	struct bh_transfer *transfer; /* NULL: nobody waits for the result */
	uint8_t endpoint;             /* bEndpointAddress; control: 0 */
	enum bh_endpoint_type type;
	bool in;             /* data is */
	uint32_t length;     /* bytes of data asked for, or sent */
	uint32_t packets;    /* isochronous */
	uint16_t max_packet;
	uint8_t interval;    /* bInterval */
	enum bh_usbip_effect effect;
	uint8_t interface, value; /* of it */

	/* once it is sent */
	uint32_t seqnum;   /* 0: it waits */
	uint32_t unlink;   /* the seqnum of an unlink that is not answered; 0: none */
	uint64_t since_ms; /* of that */
	bool unlinked_twice;

	/* its result */
	bool answered;       /* has begun to come; */
	bool complete;       /* has come, or is given up; */
	bool lost;           /* because it ended, and the server did not say how */
	int32_t wire_status;
	enum bh_status status;
	uint32_t actual;
	uint32_t offset;  /* of what comes next in what follows the header */
	uint8_t *packed;  /* isochronous: what follows */
};

void bh_usbip_submit(struct bh_usbip *u, struct bh_transfer *t, enum bh_usbip_effect effect, uint8_t interface,
                     uint8_t value);
void bh_usbip_cancel(struct bh_usbip *u, struct bh_transfer *t);

/* Sends what waits, as far as there is room. */
void bh_usbip_pump(struct bh_usbip *u);

/* Ends every transfer with BH_CANCELLED. What is under way is unlinked; with the connection gone, forgotten. */
void bh_usbip_requests_abandon(struct bh_usbip *u);

/* From the session: a message's header, and what follows it, of which it is to be told by session.data. */
void bh_usbip_requests_message(struct bh_usbip *u, const union bh_usbip_message *m);
void bh_usbip_requests_data(struct bh_usbip *u, const uint8_t *bytes, size_t count);

/* Is anything owed? *late: for too long. */
bool bh_usbip_requests_owed(const struct bh_usbip *u, bool *late);

/* --- usbip.c: the device -------------------------------------------------------------------------- */

struct bh_usbip {
	struct bh_real real;
	uv_loop_t *loop;

	/* state */
	struct bh_usbip_session session;
	struct bh_usbip_counters counters;
	uint32_t devid;
	struct bh_list waiting; /* bh_usbip_request, in order */
	struct bh_list sent;
	struct bh_list late;
	unsigned sent_count, late_count;
	uint32_t last_seqnum;
	struct bh_usbip_request *receiving; /* whose result is coming */
};

static inline struct bh_usbip *bh_usbip_of(const struct bh_device *d)
{
	return bh_container_of(bh_container_of(d, struct bh_real, device), struct bh_usbip, real);
}

/* a: NULL, for one whose connections are made by hand. busid has been checked. NULL: no memory. */
struct bh_usbip *bh_usbip_allocate(uv_loop_t *loop, const struct bh_usbip_config *c, const struct bh_address *a);

/* From the session: the server gave us the device; the connection has ended, and is closed after this. */
void bh_usbip_given(struct bh_usbip *u, const struct bh_usbip_device_fields *d);
void bh_usbip_lost(struct bh_usbip *u, const char *why);

#endif
