/* SPDX-License-Identifier: Apache-2.0 */
/* The fake driver's GPU: memory, streams that run their operations, and their control. */
#include "support/fakecuda_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

fakecuda_state fakecuda_gpu = {.lock = PTHREAD_MUTEX_INITIALIZER,
                               .changed = PTHREAD_COND_INITIALIZER,
                               .default_stream = {.last = &fakecuda_gpu.default_stream.first},
                               .n_devices = 1,
                               .ordering = BT_CU_WRITES_ORDERING_OWNER};

bt_cu_result fakecuda_fault(fakecuda_call call)
{
    if (fakecuda_gpu.broken != BT_CU_SUCCESS)
        return fakecuda_gpu.broken;
    if (fakecuda_gpu.fail_in[call] != 0 && --fakecuda_gpu.fail_in[call] == 0)
        return fakecuda_gpu.fail_with[call];
    return BT_CU_SUCCESS;
}

range *fakecuda_find_range(range *ranges, uint32_t n, uint64_t from, uint64_t bytes)
{
    for (uint32_t i = 0; i < n; i++) {
        range *r = &ranges[i];
        if (from >= r->from && from - r->from <= r->bytes && bytes <= r->bytes - (from - r->from))
            return r;
    }
    return NULL;
}

bool fakecuda_is_device(uint64_t address)
{
    return fakecuda_gpu.base != 0 && address >= fakecuda_gpu.base &&
           address - fakecuda_gpu.base < DEVICE_BYTES;
}

/* Where the bytes are; NULL: not allocated. */
uint8_t *fakecuda_translate(uint64_t address, uint64_t bytes)
{
    if (!fakecuda_is_device(address))
        return (uint8_t *)(uintptr_t)address;
    const range *r =
        fakecuda_find_range(fakecuda_gpu.allocations, fakecuda_gpu.n_allocations, address, bytes);
    return r != NULL ? r->backing + (address - r->from) : NULL;
}

void fakecuda_drop_event(bt_cu_event event)
{
    if (event != NULL && --event->n_users == 0)
        free(event);
}

void fakecuda_run_copy(const op *o)
{
    uint8_t *to = fakecuda_translate(o->to, o->bytes);
    const uint8_t *from = o->kind == OP_COPY ? fakecuda_translate(o->from, o->bytes) : to;
    if (to == NULL || from == NULL)
        fakecuda_gpu.broken = BT_CU_ILLEGAL_ADDRESS;
    else if (o->kind == OP_COPY)
        memmove(to, from, o->bytes);
    else
        memset(to, o->value, o->bytes);
}

static void free_op(op *o)
{
    fakecuda_drop_event(o->event);
    free(o->arguments);
    free(o);
}

static bool can_run(const struct CUstream_st *stream)
{
    const op *o = stream->first;
    return o != NULL && !stream->is_running &&
           (o->kind != OP_WAIT || o->event->n_done >= o->record);
}

void fakecuda_free_stream_if_done(struct CUstream_st *stream)
{
    if (!stream->is_destroyed || stream->first != NULL || stream->is_running)
        return;
    struct CUstream_st **at = &fakecuda_gpu.streams;
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    free(stream);
}

/* Runs the first operation of a stream that can run; lets the lock go for host functions. */
static void run_first(struct CUstream_st *stream)
{
    op *o = stream->first;
    stream->first = o->next;
    if (stream->first == NULL)
        stream->last = &stream->first;
    fakecuda_gpu.n_queued--;
    if (o->kind == OP_COPY || o->kind == OP_SET) {
        fakecuda_run_copy(o);
    } else if (o->kind == OP_RECORD) {
        if (o->record > o->event->n_done)
            o->event->n_done = o->record;
    } else if (o->kind == OP_HOST) {
        stream->is_running = true;
        pthread_mutex_unlock(&fakecuda_gpu.lock);
        o->function(o->arguments != NULL ? o->arguments : o->user_data);
        pthread_mutex_lock(&fakecuda_gpu.lock);
        stream->is_running = false;
    }
    free_op(o);
    fakecuda_free_stream_if_done(stream);
    pthread_cond_broadcast(&fakecuda_gpu.changed);
}

static uint32_t pick(uint32_t n)
{
    fakecuda_gpu.rng =
        fakecuda_gpu.rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(fakecuda_gpu.rng >> 33) % n;
}

/* One operation of a random stream; false when none can run. */
bool fakecuda_run_one(void)
{
    uint32_t n = can_run(&fakecuda_gpu.default_stream);
    for (struct CUstream_st *s = fakecuda_gpu.streams; s != NULL; s = s->next)
        n += can_run(s);
    if (n == 0 || fakecuda_gpu.broken != BT_CU_SUCCESS)
        return false;
    uint32_t nth = pick(n);
    struct CUstream_st *stream = NULL;
    if (can_run(&fakecuda_gpu.default_stream) && nth-- == 0)
        stream = &fakecuda_gpu.default_stream;
    for (struct CUstream_st *s = fakecuda_gpu.streams; s != NULL && stream == NULL; s = s->next) {
        if (can_run(s) && nth-- == 0)
            stream = s;
    }
    run_first(stream);
    return true;
}

bool fakecuda_run_one_of(struct CUstream_st *stream)
{
    if (!can_run(stream) || fakecuda_gpu.broken != BT_CU_SUCCESS)
        return fakecuda_run_one();
    run_first(stream);
    return true;
}

static void *run_thread(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    while (fakecuda_gpu.mode == FAKECUDA_THREAD) {
        if (!fakecuda_run_one())
            pthread_cond_wait(&fakecuda_gpu.changed, &fakecuda_gpu.lock);
    }
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return NULL;
}

bt_cu_result fakecuda_queue(bt_cu_stream stream, op wanted)
{
    if (stream == NULL)
        stream = &fakecuda_gpu.default_stream;
    op *o = malloc(sizeof(*o));
    if (o == NULL) {
        free(wanted.arguments);
        return BT_CU_OUT_OF_MEMORY;
    }
    *o = wanted;
    if (o->event != NULL)
        o->event->n_users++;
    *stream->last = o;
    stream->last = &o->next;
    fakecuda_gpu.n_queued++;
    while (fakecuda_gpu.mode == FAKECUDA_AT_ONCE && fakecuda_run_one())
        ;
    pthread_cond_broadcast(&fakecuda_gpu.changed);
    return fakecuda_gpu.broken;
}

/* Control, without the lock. */

static void set_mode(fakecuda_mode mode)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    bool had_thread = fakecuda_gpu.has_thread;
    fakecuda_gpu.mode = mode;
    fakecuda_gpu.has_thread = mode == FAKECUDA_THREAD;
    pthread_cond_broadcast(&fakecuda_gpu.changed);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    if (had_thread)
        pthread_join(fakecuda_gpu.thread, NULL);
    pthread_mutex_lock(&fakecuda_gpu.lock);
    while (mode == FAKECUDA_AT_ONCE && fakecuda_run_one())
        ;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    if (mode == FAKECUDA_THREAD &&
        pthread_create(&fakecuda_gpu.thread, NULL, run_thread, NULL) != 0)
        abort();
}

static void reset(void)
{
    set_mode(FAKECUDA_AT_ONCE);
    pthread_mutex_lock(&fakecuda_gpu.lock);
    assert(fakecuda_gpu.n_allocations == 0 && fakecuda_gpu.n_pins == 0 &&
           fakecuda_gpu.n_streams == 0 && fakecuda_gpu.n_events == 0);
    fakecuda_gpu.n_devices = 1;
    fakecuda_gpu.ordering = BT_CU_WRITES_ORDERING_OWNER;
    fakecuda_gpu.flush_options = 0;
    memset(fakecuda_gpu.fail_in, 0, sizeof(fakecuda_gpu.fail_in));
    fakecuda_gpu.broken = BT_CU_SUCCESS;
    fakecuda_gpu.rng = 1;
    fakecuda_gpu.copies_total = fakecuda_gpu.flushes_total = fakecuda_gpu.pageable_total = 0;
    fakecuda_gpu.kernels_total = fakecuda_gpu.spoiled_total = 0;
    fakecuda_gpu.is_capturing = false;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
}

static void set_devices(int n)
{
    fakecuda_gpu.n_devices = n;
}

static void set_write_ordering(int ordering, int flush_options)
{
    fakecuda_gpu.ordering = ordering;
    fakecuda_gpu.flush_options = flush_options;
}

static void fail_call(fakecuda_call call, uint32_t nth, bt_cu_result result)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.fail_in[call] = nth;
    fakecuda_gpu.fail_with[call] = result;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
}

static void drop_queued(struct CUstream_st *stream)
{
    for (op *o = stream->first, *next; o != NULL; o = next) {
        next = o->next;
        free_op(o);
        fakecuda_gpu.n_queued--;
    }
    stream->first = NULL;
    stream->last = &stream->first;
}

static void break_context(bt_cu_result result)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.broken = result;
    drop_queued(&fakecuda_gpu.default_stream);
    for (struct CUstream_st *s = fakecuda_gpu.streams; s != NULL; s = s->next)
        drop_queued(s);
    pthread_cond_broadcast(&fakecuda_gpu.changed);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
}

static uint32_t step(uint32_t n)
{
    uint32_t n_run = 0;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    while (n_run < n && fakecuda_run_one())
        n_run++;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return n_run;
}

static void counts(fakecuda_counts *out)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    *out = (fakecuda_counts){.contexts = fakecuda_gpu.n_contexts,
                             .allocations = fakecuda_gpu.n_allocations,
                             .pins = fakecuda_gpu.n_pins,
                             .streams = fakecuda_gpu.n_streams,
                             .events = fakecuda_gpu.n_events,
                             .queued = fakecuda_gpu.n_queued,
                             .copies_total = fakecuda_gpu.copies_total,
                             .default_reads_total = fakecuda_gpu.default_reads_total,
                             .flushes_total = fakecuda_gpu.flushes_total,
                             .pageable_total = fakecuda_gpu.pageable_total,
                             .kernels_total = fakecuda_gpu.kernels_total,
                             .spoiled_total = fakecuda_gpu.spoiled_total};
    pthread_mutex_unlock(&fakecuda_gpu.lock);
}

static void *host(const void *device)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    uint8_t *bytes = fakecuda_is_device((uint64_t)(uintptr_t)device)
                         ? fakecuda_translate((uint64_t)(uintptr_t)device, 1)
                         : NULL;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return bytes;
}

static void capture(bool is_on, bt_cu_stream stream)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.is_capturing = is_on;
    fakecuda_gpu.captured = stream;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
}

__attribute__((visibility("default"))) extern const fakecuda fakecuda_control;
const fakecuda fakecuda_control = {
    .reset = reset,
    .set_mode = set_mode,
    .set_devices = set_devices,
    .set_write_ordering = set_write_ordering,
    .fail_call = fail_call,
    .break_context = break_context,
    .step = step,
    .counts = counts,
    .host = host,
    .capture = capture,
    .launch = fakecuda_launch,
};
