/*
 * The usbredir device from the inside. Files: usbredir_guard.c looks at the headers of what
 * comes, before the parser does; usbredir_link.c is the connection; usbredir_packets.c carries
 * what is answered packet by packet (control, bulk, interrupt OUT), usbredir_streams.c what
 * flows by itself (interrupt IN, isochronous); usbredir_settings.c has the requests that are
 * messages of their own; usbredir.c the device.
 */
#ifndef HOST_USBREDIR_PRIVATE_H
#define HOST_USBREDIR_PRIVATE_H

#include <usbredirparser.h>
#include <usbredirfilter.h>
#include <uv.h>

#include <base/list.h>
#include <host/usbredir.h>
#include <host/usbredir_guard.h>

#include "real.h"

/* Unanswered messages; beyond that, what comes waits. */
#define BH_REDIR_REQUESTS 256u

/* Bytes that wait for the socket; beyond that, what comes waits before it is made a message. */
#define BH_REDIR_OUTPUT (1u << 20)

/* What a peer answers by itself, whatever its device does, it has to within this time. */
#define BH_REDIR_OWED_MS 8000u

struct bh_redir;

/* --- usbredir_link.c: the connection ------------------------------------------------------------ */

struct bh_redir_link {
	/* configuration */
	struct bh_connector *connector; /* NULL: the socket was passed in */
	uv_timer_t *timer;              /* for what is owed; on the heap, for it is closed late */

	/* state */
	int fd; /* -1: none */
	uv_poll_t *poll;
	struct usbredirparser *parser;
	struct bh_redir_guard guard;
	uint8_t *buffer; /* what was received at once: from .. used */
	size_t from, used;
	size_t budget;   /* bytes that may be received before others get their turn */
	bool greeted;    /* the peer has said hello */
	bool broken;     /* to be closed, from the loop; */
	bool faulty;     /* for what came: that is said differently */
	bool said;       /* that there is none, until there is one */
	uint64_t since_ms;
	char why[160];
};

int bh_redir_link_init(struct bh_redir *u, uv_loop_t *loop);
int bh_redir_link_address(struct bh_redir *u, const char *address);
int bh_redir_link_adopt(struct bh_redir *u, int fd);
void bh_redir_link_finish(struct bh_redir *u);

/* The connection is closed soon, from the loop: bh_redir_lost() comes. */
void bh_redir_link_break(struct bh_redir *u, const char *why);

/* May something be sent now? */
bool bh_redir_link_room(const struct bh_redir *u);

/*
 * Around each message that is handed to the parser to be sent: it drops what it has no memory
 * for without a word, and an answer would never come.
 */
int bh_redir_link_begin(const struct bh_redir *u);
void bh_redir_link_sent(struct bh_redir *u, int begin);

#define bh_redir_send(u, what, ...)                                             \
	do {                                                                    \
		int begin_ = bh_redir_link_begin(u);                            \
		usbredirparser_send_##what((u)->link.parser, ##__VA_ARGS__); \
		bh_redir_link_sent(u, begin_);                                  \
	} while (0)

/* The peer can do this, and so can we. */
bool bh_redir_link_can(const struct bh_redir *u, int capability);

/* Something is owed from now on. */
void bh_redir_link_watch(struct bh_redir *u);

/* --- usbredir_packets.c: what is asked and answered ------------------------------------------------- */

enum bh_redir_kind {
	BH_REDIR_CONTROL,
	BH_REDIR_BULK,
	BH_REDIR_INTERRUPT, /* OUT */
	BH_REDIR_SET_CONFIGURATION,
	BH_REDIR_GET_CONFIGURATION,
	BH_REDIR_SET_ALTERNATE,
	BH_REDIR_GET_ALTERNATE,
	BH_REDIR_START, /* of a stream */
	BH_REDIR_STOP,
};

/* A transfer that waits to be sent, or a message that is not answered yet. */
struct bh_redir_request {
	struct bh_list link; /* bh_redir.waiting or .sent */
	enum bh_redir_kind kind;
	struct bh_transfer *transfer; /* NULL: nobody waits for the answer, if there is one */
	uint8_t endpoint;             /* bEndpointAddress; of settings: the interface */
	uint8_t value;                /* of settings: which one */
	uint16_t max_packet;
	uint32_t moved, piece; /* bytes of the transfer: so far, and what is under way */

	/* once it is sent */
	uint32_t id;
	bool cancelled;
	uint64_t since_ms;
};

/* A request that waits for its turn; the transfer's device_data. NULL: no memory, and the transfer has ended. */
struct bh_redir_request *bh_redir_request_create(struct bh_redir *u, enum bh_redir_kind kind, struct bh_transfer *t);

/* It is on its way, and to be answered: with an id of its own. */
void bh_redir_request_sent(struct bh_redir *u, struct bh_redir_request *r);

/* A message that no transfer is for. Its request; NULL: no memory, and the connection is being dropped. */
struct bh_redir_request *bh_redir_request_message(struct bh_redir *u, enum bh_redir_kind kind, uint8_t endpoint);

/* Its answer: no longer in the list. NULL: it answers nothing, which is counted. */
struct bh_redir_request *bh_redir_request_answered(struct bh_redir *u, enum bh_redir_kind kind, uint64_t id,
                                                   uint8_t endpoint);

/* The transfer ends, if there is one, and the request with it. In no list. */
void bh_redir_request_end(struct bh_redir *u, struct bh_redir_request *r, enum bh_status status);

/* Does the peer owe an answer, whatever its device does? */
bool bh_redir_request_owed(const struct bh_redir_request *r);

/* Sends what waits, as far as there is room. */
void bh_redir_pump(struct bh_redir *u);

/* A transfer to an endpoint that is there. */
void bh_redir_packets_submit(struct bh_redir *u, struct bh_transfer *t, const struct bh_endpoint_info *info);
void bh_redir_control_submit(struct bh_redir *u, struct bh_transfer *t);
void bh_redir_packets_cancel(struct bh_redir *u, struct bh_redir_request *r);

/* Ends every transfer with BH_CANCELLED. What is under way is cancelled there, too; with the connection gone, forgotten. */
void bh_redir_packets_abandon(struct bh_redir *u);

/* The parser's. */
void bh_redir_control_packet(void *priv, uint64_t id, struct usb_redir_control_packet_header *h, uint8_t *data,
                             int length);
void bh_redir_bulk_packet(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data, int length);
void bh_redir_interrupt_answer(struct bh_redir *u, uint64_t id, const struct usb_redir_interrupt_packet_header *h);

/* What the peer's status means. */
enum bh_status bh_redir_status(uint8_t status);

/* --- usbredir_settings.c: requests that are messages of their own ----------------------------------- */

/* Is it one, or to be refused? Then it is taken care of. */
bool bh_redir_settings_submit(struct bh_redir *u, struct bh_transfer *t);

void bh_redir_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t);
void bh_redir_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t);

/* Its turn has come. */
void bh_redir_settings_send(struct bh_redir *u, struct bh_redir_request *r);

/* The parser's. */
void bh_redir_configuration_status(void *priv, uint64_t id, struct usb_redir_configuration_status_header *h);
void bh_redir_alternate_status(void *priv, uint64_t id, struct usb_redir_alt_setting_status_header *h);

/* --- usbredir_streams.c: what flows by itself --------------------------------------------------------- */

struct bh_redir_stream;

void bh_redir_streams_submit(struct bh_redir *u, struct bh_transfer *t, const struct bh_endpoint_info *info);

/* False: it is in no stream. */
bool bh_redir_streams_cancel(struct bh_redir *u, struct bh_transfer *t);

/* Stops what flows: of an endpoint, an interface (its active setting), or all; and ends the transfers there. */
void bh_redir_stream_stop(struct bh_redir *u, uint8_t endpoint);
void bh_redir_streams_stop(struct bh_redir *u, int interface);

/* The connection or the device is gone: everything is forgotten, transfers are ended. */
void bh_redir_streams_finish(struct bh_redir *u);

/* The parser's. */
void bh_redir_interrupt_packet(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h, uint8_t *data,
                               int length);
void bh_redir_iso_packet(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data, int length);
void bh_redir_iso_status(void *priv, uint64_t id, struct usb_redir_iso_stream_status_header *h);
void bh_redir_interrupt_status(void *priv, uint64_t id, struct usb_redir_interrupt_receiving_status_header *h);

/* --- usbredir.c: the device ------------------------------------------------------------------------------ */

struct bh_redir {
	struct bh_real real;
	/* configuration */
	uv_loop_t *loop;
	struct usbredirfilter_rule *filter; /* NULL: any device is taken */
	int filter_count;

	/* state */
	struct bh_redir_link link;
	struct bh_usbredir_counters counters;
	bool there;   /* the peer has a device */
	bool touched; /* since it came or was reset, something was done to it: a reset makes a difference */
	bool described;
	struct usb_redir_interface_info_header interfaces; /* if described */
	struct usb_redir_device_connect_header identity;
	enum bh_speed guessed_speed; /* from its endpoints */
	struct bh_list waiting; /* bh_redir_request, in order */
	struct bh_list sent;
	unsigned sent_count;
	uint32_t last_id;
	uint8_t alternates[BH_SETTINGS_INTERFACES]; /* those of the device over there, whatever the guest thinks */
	struct bh_redir_stream *streams[32];        /* OUT 0 to 15, IN 0 to 15; NULL: not used yet */
};

static inline struct bh_redir *bh_redir_of(const struct bh_device *d)
{
	return bh_container_of(bh_container_of(d, struct bh_real, device), struct bh_redir, real);
}

/* From the link: a hello has come; the connection has ended, and is closed after this. */
void bh_redir_greeted(struct bh_redir *u);
void bh_redir_lost(struct bh_redir *u, const char *why);

/* The parser's callbacks, for a new one. */
void bh_redir_listen(struct bh_redir *u, struct usbredirparser *p);

#endif
