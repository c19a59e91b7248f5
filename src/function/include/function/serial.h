/*
 * An emulated serial line: a CDC-ACM device (USB class definitions for communications
 * devices 1.1, with its PSTN subclass), connected to a pseudo-terminal, a TCP connection or a
 * file of the host. A guest finds it as /dev/ttyACM0 or as a COM port.
 *
 * No byte is lost, doubled or put in another order, in either direction:
 *   - What the guest sends waits in a buffer of BH_SERIAL_BUFFER bytes until the other side
 *     takes it. When the buffer is full, be it because the other side is slow or because there
 *     is none, the guest's transfers wait (NAK), as they do on a line with hardware flow
 *     control. Who does not want that connects it to a file.
 *   - What the other side sends is read only while the buffer for it has room.
 * What the guest has got is the guest's to lose, and Linux does: its terminal layer drops what comes
 * faster than it finds the time to look at (more than 64 kB before its worker ran), which
 * happens to a guest that is busy, for this line is far faster than any wire. See rate.
 * The exceptions here are the host's: what it accepted for a peer that then goes away without
 * having read it. What is still in the buffer is the next one's.
 *
 * Whether there is another side is told to the guest as carrier and DSR. Rate, parity and
 * breaks are remembered and counted, and change nothing.
 */
#ifndef FUNCTION_SERIAL_H
#define FUNCTION_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <usb/device.h>

#define BH_SERIAL_BUFFER 65536u /* bytes, in each direction */

struct uv_loop_s;

/* Read while the device is made, not kept. Exactly one of pty, tcp, tcp_listen and file. */
struct bh_serial_config {
	/* A pseudo-terminal of our own, in raw mode; the other side is there while somebody has it open. */
	bool pty;
	const char *link; /* with pty: made a symbolic link to it, and removed at the end; NULL: none */
	/* HOST:PORT, [IPV6]:PORT or unix:PATH: connects, and again after a while when that fails or ends. */
	const char *tcp;
	/* ADDRESS:PORT of this machine, or localhost: listens there (port 0: any), serves one connection after the other. */
	const char *tcp_listen;
	/* What the guest sends is appended to it; made if it is not there. */
	const char *file;
	const char *input; /* with file: read, from begin to end, as what the guest receives; NULL: nothing */
	uint32_t rate;     /* bytes/s that the guest gets at most; 0: as many as it takes */
	enum bh_speed speed; /* BH_SPEED_HIGH; any other: full */
};

/* Since creation; bytes. */
struct bh_serial_counters {
	uint64_t from_guest; /* taken from it */
	uint64_t to_guest;
	uint64_t from_peer;
	uint64_t to_peer;     /* accepted by the host for it; from_guest - to_peer are waiting */
	uint64_t connections; /* how often another side came */
	uint64_t failures;    /* attempts to connect, reads and writes that failed */
	uint64_t breaks;      /* SEND_BREAK */
};

/* What the guest has set, and whether there is another side. */
struct bh_serial_state {
	bool connected;
	bool dtr, rts;
	uint32_t rate; /* bits/s */
	uint8_t stop_bits, parity, data_bits; /* as in the line coding: bCharFormat, bParityType, bDataBits */
};

/*
 * Make the device, which is the caller's until bh_bus_attach() takes it. The loop, and every
 * call, belong to the controller's thread; the loop has to run while the device is there,
 * and until it is closed. A name to listen on is looked up in here, which may take time.
 *
 * 0, or a negative errno: then error holds one line for the user, which names the path or
 * address and says what to do, and *ret is untouched.
 */
int bh_serial_create(struct uv_loop_s *loop, const struct bh_serial_config *config, struct bh_device **ret,
                     char *error, size_t error_size);

/*
 * Destroy, and say when: transfers still owned are cancelled, and what the guest has sent is
 * given to the other side, for at most two seconds (a file gets all of it). Then closed is
 * called (NULL: nobody is told) from the loop or before this returns: 0, -ENOTCONN (something
 * was left, and nobody there), -ETIMEDOUT (not all was taken), or another negative errno.
 * bh_device_destroy() does the same without telling. The device is gone for the caller at
 * once; the loop has to run until closed was called. NULL is allowed, and is closed at once.
 */
void bh_serial_close(struct bh_device *device, void (*closed)(void *data, int error), void *data);

/* Of a device that bh_serial_create() made, and no other. */
struct bh_serial_counters bh_serial_counters(const struct bh_device *device);
struct bh_serial_state bh_serial_state(const struct bh_device *device);

/*
 * Where the other side finds it: the pseudo-terminal's path, the address that is listened
 * on (with the port there is), the address or path given. Valid as long as the device.
 */
const char *bh_serial_name(const struct bh_device *device);

#endif
