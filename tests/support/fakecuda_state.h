/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the fake driver: its one GPU, and what its two files share.
 * Thread rule: the lock, for everything. */
#ifndef BT_TESTS_FAKECUDA_STATE_H
#define BT_TESTS_FAKECUDA_STATE_H
#include "support/fakecuda.h"

#include <pthread.h>
#include <stdbool.h>

#define DEVICE_BYTES (UINT64_C(1) << 34)
enum { ALLOCATION_ALIGN = 512, MAX_RANGES = 256, CONTEXTS_DEEP = 16 };

typedef struct {
    uint64_t from, bytes;
    uint8_t *backing; /* of device memory */
} range;

struct CUctx_st {
    int unused;
};

struct CUevent_st {
    uint64_t n_recorded, n_done;
    uint32_t n_users; /* its handle, and operations that name it */
};

typedef enum { OP_COPY, OP_SET, OP_RECORD, OP_WAIT, OP_HOST } op_kind;
typedef struct op {
    struct op *next;
    op_kind kind;
    bt_cu_address to, from;
    size_t bytes;
    unsigned char value;
    bt_cu_event event;
    uint64_t record; /* RECORD: its number; WAIT: the one it waits for */
    bt_cu_host_function function;
    void *user_data;
    void *arguments; /* owned; of a kernel */
} op;

struct CUstream_st {
    struct CUstream_st *next;
    op *first, **last;
    bool is_running, is_destroyed;
};

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t base; /* of the device addresses; 0: not reserved */
    uint64_t next_address;
    range allocations[MAX_RANGES], pins[MAX_RANGES];
    uint32_t n_allocations, n_pins;
    struct CUctx_st context;
    uint32_t n_contexts, n_streams, n_events, n_queued;
    struct CUstream_st default_stream, *streams;
    fakecuda_mode mode;
    bool has_thread;
    pthread_t thread;
    int n_devices, ordering, flush_options;
    uint32_t fail_in[FAKECUDA_N_CALLS];
    bt_cu_result fail_with[FAKECUDA_N_CALLS];
    bt_cu_result broken;
    uint64_t rng, copies_total, default_reads_total, flushes_total, pageable_total, kernels_total,
        spoiled_total;
    bool is_capturing;
    bt_cu_stream captured;
} fakecuda_state;

extern fakecuda_state fakecuda_gpu;

/* All of these want the lock. */

/* What this call is ordered to fail with, or the broken context's error. */
bt_cu_result fakecuda_fault(fakecuda_call call);
range *fakecuda_find_range(range *ranges, uint32_t n, uint64_t from, uint64_t bytes);
bool fakecuda_is_device(uint64_t address);
/* Where the bytes are; NULL: not allocated. */
uint8_t *fakecuda_translate(uint64_t address, uint64_t bytes);
void fakecuda_drop_event(bt_cu_event event);
void fakecuda_run_copy(const op *o);
void fakecuda_free_stream_if_done(struct CUstream_st *stream);
/* One operation of a random stream, without the lock while a host function runs; false when none
 * can run. */
bool fakecuda_run_one(void);
/* As above, of this stream where it can run. */
bool fakecuda_run_one_of(struct CUstream_st *stream);
/* With a context, and without the lock. */
bt_cu_result fakecuda_launch(bt_cu_stream stream, void (*kernel)(void *arguments),
                             const void *arguments, size_t bytes);
/* Takes a reference on its event, and its arguments over. stream NULL: the default one. */
bt_cu_result fakecuda_queue(bt_cu_stream stream, op wanted);

#endif
