/*
 * The whole interface of libbulkhead. A program may as well include only the headers
 * it needs, by the names below: <uhci/uhci.h> for the controller, <batch/engine.h> for
 * the engine alone.
 *
 * Each header states its contracts: units, who owns what, errors, threads. What they
 * have in common:
 *   - Nothing here starts a thread or owns a clock, but for what a header says of
 *     itself. One instance, and what hangs on it, is used on one thread at a time.
 *   - What fails on the host returns a negative errno value. How a transfer ended is
 *     an enum bh_status, a result like any other.
 *   - create/destroy and create/close work on the heap, init/finish on the caller's
 *     memory. What destroys takes NULL.
 *   - Structures that stand complete in a header may be read. Written only where it says so.
 *
 * The version is that of the project. Until 1.0 the interface may change with each
 * minor version, and the library's soname stays 0: compile against what is run.
 *
 * From C++, include this header rather than the others: it declares them extern "C".
 */
#ifndef BULKHEAD_BULKHEAD_H
#define BULKHEAD_BULKHEAD_H

#ifdef __cplusplus
/* What the headers below include has to come before extern "C". */
#include <cassert>
#include <cstdbool>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/uio.h>
extern "C" {
#ifndef _Static_assert
#define _Static_assert static_assert
#define BULKHEAD_STATIC_ASSERT
#endif
#endif

#include <base/bytes.h>
#include <base/list.h>
#include <base/util.h>
#include <batch/engine.h>
#include <batch/isochronous.h>
#include <batch/packet.h>
#include <batch/source.h>
#include <batch/status.h>
#include <batch/verify.h>
#include <bulkhead_version.h>
#include <function/disk.h>
#include <function/hid.h>
#include <function/hub.h>
#include <function/serial.h>
#include <function/zero.h>
#include <guest/guest.h>
#include <guest/memory.h>
#include <guest/pci.h>
#include <guest/trace.h>
#include <layer/layer.h>
#include <layer/layers.h>
#include <uhci/uhci.h>
#include <usb/bus.h>
#include <usb/device.h>
#include <usb/probe.h>
#include <usb/settings.h>
#include <vfio_user/vfio_user.h>

#ifdef __cplusplus
#ifdef BULKHEAD_STATIC_ASSERT
#undef _Static_assert
#undef BULKHEAD_STATIC_ASSERT
#endif
}
#endif

#endif
