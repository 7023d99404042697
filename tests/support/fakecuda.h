/* SPDX-License-Identifier: Apache-2.0 */
/* A CUDA driver for machines without one: a library with the driver's symbols, over host memory. It
 * is loaded like the real one, and only through bt_fakecuda_open, so that its symbols stay out of
 * everybody else's way.
 *
 *   device addresses   a reserved range that nobody may touch: host code that follows one crashes
 *   their bytes        elsewhere, reached only by operations of streams (and by host(), for tests)
 *   streams            queues of operations that run at once, when the test says, or on a thread of
 *                      the driver; a copy reads its source when it runs, not when it is queued
 *
 * Every call that the real driver wants a context for fails without one, and a copy outside of what
 * was allocated breaks the context for good.
 *
 * Thread rule: any thread; control from the test's. */
#ifndef BT_TESTS_FAKECUDA_H
#define BT_TESTS_FAKECUDA_H
#include "core/cudadriver.h"

#include <stdint.h>

typedef enum {
    FAKECUDA_AT_ONCE, /* operations run when they are queued, behind what is queued before */
    FAKECUDA_HELD,    /* only when step says */
    FAKECUDA_THREAD,  /* on a thread of the driver, streams in random order */
} fakecuda_mode;

typedef enum {
    FAKECUDA_INIT,
    FAKECUDA_ALLOC,
    FAKECUDA_PIN,
    FAKECUDA_COPY_ASYNC,
    FAKECUDA_STREAM_CREATE,
    FAKECUDA_EVENT_CREATE,
    FAKECUDA_EVENT_RECORD,
    FAKECUDA_LAUNCH_HOST,
    FAKECUDA_FLUSH,
    FAKECUDA_LAUNCH,
    FAKECUDA_N_CALLS,
} fakecuda_call;

typedef struct {
    uint32_t contexts, allocations, pins, streams, events; /* live */
    uint32_t queued;                                       /* operations that have not run */
    uint64_t copies_total, flushes_total;
    uint64_t default_reads_total; /* copies to the host on the default stream */
    uint64_t pageable_total; /* asynchronous copies from or to host memory that is not pinned */
    uint64_t kernels_total;
    uint64_t spoiled_total; /* calls that would have spoiled a capture */
} fakecuda_counts;

typedef struct {
    /* Everything as it was loaded: one device, AT_ONCE, no faults. Nothing may be live. */
    void (*reset)(void);
    void (*set_mode)(fakecuda_mode mode);
    void (*set_devices)(int n);
    void (*set_write_ordering)(int ordering, int flush_options);
    /* The nth such call from now on (1: the next) fails, and only that; 0: none. */
    void (*fail_call)(fakecuda_call call, uint32_t nth, bt_cu_result result);
    /* From now on every call fails, as after a fault on a real device; what is queued never runs.
     */
    void (*break_context)(bt_cu_result result);
    /* Runs up to n operations, each the first of a stream that is picked at random; returns how
     * many could run. */
    uint32_t (*step)(uint32_t n);
    void (*counts)(fakecuda_counts *out);
    /* Where a device byte really is. NULL: no such memory. */
    void *(*host)(const void *device);
    /* From now on some stream of the process is being captured, in the strictest mode; of this
     * stream even itself (NULL: another one). */
    void (*capture)(bool is_on, bt_cu_stream stream);
    /* What a compiled kernel does when it is launched: arguments [bytes] are copied, the function
     * runs when the stream has come so far. */
    bt_cu_result (*launch)(bt_cu_stream stream, void (*kernel)(void *arguments),
                           const void *arguments, size_t bytes);
} fakecuda;

/* Loads it, once, and makes the library use it; resets it. Never NULL. */
const fakecuda *bt_fakecuda_open(void);

#endif
