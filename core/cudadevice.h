/* SPDX-License-Identifier: Apache-2.0 */
/* One GPU as we use it: its primary context (the one of CUDA's runtime, and so of every engine),
 * what it promises about writes that come from a NIC, and waking up an owner from a stream.
 *
 *   bt_cuda_enter(gpu) ... driver calls ... bt_cuda_leave(gpu)      whatever was current comes back
 *
 * Thread rule: any thread, between open and close. */
#ifndef BT_CORE_CUDADEVICE_H
#define BT_CORE_CUDADEVICE_H
#include "core/cudadriver.h"
#include "core/doorbell.h"

enum { BT_CUDA_NAME_BYTES = 64, BT_CUDA_PCI_BYTES = 20 };

typedef struct {
    const bt_cuda_driver *driver;
    bt_cu_device device;
    bt_cu_context context;
    char name[BT_CUDA_NAME_BYTES];
    /* Writes of a NIC are seen in order by this device, or can be made so by a flush. */
    bool orders_writes, can_flush;
} bt_cuda;

/* The device of the calling thread's current context, else the first one. *cuda_p is set only on
 * success. Errors: UNSUPPORTED (no driver, no device), NO_MEMORY, IO. */
baton_status bt_cuda_open(bt_cuda **cuda_p);
void bt_cuda_close(bt_cuda *cuda); /* NULL is allowed. */
/* Where the device that open would take is plugged in, "0000:83:00.0", without a context on it.
 * Errors: UNSUPPORTED, IO. */
baton_status bt_cuda_pci_address(char address[BT_CUDA_PCI_BYTES]);

/* Makes the context current for this thread, until leave; may be nested. While a stream is being
 * captured into a graph somewhere in the process, calls of a thread that is not `relaxed` fail and
 * spoil the capture (cuThreadExchangeStreamCaptureMode): between enter and leave the thread is.
 * Errors: IO (the context is broken). */
baton_status bt_cuda_enter(const bt_cuda *cuda);
void bt_cuda_leave(const bt_cuda *cuda);

/* Device memory, zeroed. Enters by itself, like all of those below. Errors: NO_MEMORY, IO. */
baton_status bt_cuda_alloc(const bt_cuda *cuda, size_t bytes, void **memory_p);
void bt_cuda_free(const bt_cuda *cuda, void *memory); /* NULL is allowed. */
/* Pins host memory. Errors: NO_MEMORY, INVALID_ARG, IO. */
baton_status bt_cuda_pin(const bt_cuda *cuda, void *memory, size_t bytes);
void bt_cuda_unpin(const bt_cuda *cuda, void *memory);
/* Host memory that is pinned, zeroed, in pages of its own. Errors: NO_MEMORY, IO. */
baton_status bt_cuda_alloc_pinned(const bt_cuda *cuda, size_t bytes, void **memory_p);
void bt_cuda_free_pinned(const bt_cuda *cuda, void *memory); /* NULL is allowed. */
/* An event behind what is queued on the stream, which the caller destroys. Enters by itself.
 * Errors: STATE (the stream is being captured: the event would never come), NO_MEMORY, IO. */
baton_status bt_cuda_record(const bt_cuda *cuda, bt_cu_stream stream, bt_cu_event *event_p);
/* SUCCESS: the event has come; NOT_READY: not yet; else the device has failed. Enters by itself. */
bt_cu_result bt_cuda_query(const bt_cuda *cuda, bt_cu_event event);
/* Waits until the event has come; false: not until until_ns of the real clock, because a GPU knows
 * no other, and the driver's own wait has no end. On a device that has failed all events have come.
 */
bool bt_cuda_wait(const bt_cuda *cuda, bt_cu_event event, uint64_t until_ns);
/* Copies between any two kinds of memory and waits for it, without end, and on the default stream,
 * which an engine's streams wait for: for tools and tests. Errors: IO, INVALID_ARG. */
baton_status bt_cuda_copy(const bt_cuda *cuda, void *to, const void *from, size_t bytes);
/* memory is the device's own. False too when the driver does not know the address. */
bool bt_cuda_is_device_memory(const bt_cuda *cuda, const void *memory);
/* What a NIC wrote before is seen by the device's kernels and copies. Nothing to do where the
 * device orders such writes itself. Errors: UNSUPPORTED (it neither orders nor can be flushed), IO.
 */
baton_status bt_cuda_flush_writes(const bt_cuda *cuda);

/* Rings a doorbell from streams. The driver may still call it long after the owner has gone, from a
 * stream that waits for an event that never comes, so it lives as long as any call is out. */
typedef struct bt_cuda_waker bt_cuda_waker;

/* bell is borrowed until close; NULL: rings nothing. Errors: NO_MEMORY. */
baton_status bt_cuda_waker_open(bt_doorbell *bell, bt_cuda_waker **waker_p);
/* No ring after it. NULL is allowed. */
void bt_cuda_waker_close(bt_cuda_waker *waker);
/* Rings when the stream has come so far; context entered. A failure only costs time: owners look
 * again by themselves. */
void bt_cuda_waker_queue(bt_cuda_waker *waker, const bt_cuda *cuda, bt_cu_stream stream);

#endif
