/* SPDX-License-Identifier: Apache-2.0 */
/* The fake driver itself: the bodies of the driver's functions, and their control. */
#include "support/fakecuda.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))
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
} op;

struct CUstream_st {
    struct CUstream_st *next;
    op *first, **last;
    bool is_running, is_destroyed;
};

static struct {
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
    uint64_t rng, copies_total, flushes_total, pageable_total;
} gpu = {.lock = PTHREAD_MUTEX_INITIALIZER,
         .changed = PTHREAD_COND_INITIALIZER,
         .default_stream = {.last = &gpu.default_stream.first},
         .n_devices = 1,
         .ordering = BT_CU_WRITES_ORDERING_OWNER};

static _Thread_local bt_cu_context contexts[CONTEXTS_DEEP];
static _Thread_local int n_contexts;

/* Lock held from here on, unless it says otherwise. */

static bt_cu_result fault(fakecuda_call call)
{
    if (gpu.broken != BT_CU_SUCCESS)
        return gpu.broken;
    if (gpu.fail_in[call] != 0 && --gpu.fail_in[call] == 0)
        return gpu.fail_with[call];
    return BT_CU_SUCCESS;
}

static bt_cu_result needs_context(void)
{
    if (gpu.broken != BT_CU_SUCCESS)
        return gpu.broken;
    return n_contexts > 0 ? BT_CU_SUCCESS : BT_CU_INVALID_CONTEXT;
}

static range *find_range(range *ranges, uint32_t n, uint64_t from, uint64_t bytes)
{
    for (uint32_t i = 0; i < n; i++) {
        range *r = &ranges[i];
        if (from >= r->from && from - r->from <= r->bytes && bytes <= r->bytes - (from - r->from))
            return r;
    }
    return NULL;
}

static range *find_start(range *ranges, uint32_t n, uint64_t from)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ranges[i].from == from)
            return &ranges[i];
    }
    return NULL;
}

static void remove_range(range *ranges, uint32_t *n, range *gone)
{
    *gone = ranges[--*n];
}

static bool is_device(uint64_t address)
{
    return gpu.base != 0 && address >= gpu.base && address - gpu.base < DEVICE_BYTES;
}

/* Where the bytes are; NULL: not allocated. */
static uint8_t *translate(uint64_t address, uint64_t bytes)
{
    if (!is_device(address))
        return (uint8_t *)(uintptr_t)address;
    const range *r = find_range(gpu.allocations, gpu.n_allocations, address, bytes);
    return r != NULL ? r->backing + (address - r->from) : NULL;
}

static void drop_event(bt_cu_event event)
{
    if (event != NULL && --event->n_users == 0)
        free(event);
}

static void run_copy(const op *o)
{
    uint8_t *to = translate(o->to, o->bytes);
    const uint8_t *from = o->kind == OP_COPY ? translate(o->from, o->bytes) : to;
    if (to == NULL || from == NULL)
        gpu.broken = BT_CU_ILLEGAL_ADDRESS;
    else if (o->kind == OP_COPY)
        memmove(to, from, o->bytes);
    else
        memset(to, o->value, o->bytes);
}

static bool can_run(const struct CUstream_st *stream)
{
    const op *o = stream->first;
    return o != NULL && !stream->is_running &&
           (o->kind != OP_WAIT || o->event->n_done >= o->record);
}

static void free_stream_if_done(struct CUstream_st *stream)
{
    if (!stream->is_destroyed || stream->first != NULL || stream->is_running)
        return;
    struct CUstream_st **at = &gpu.streams;
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
    gpu.n_queued--;
    if (o->kind == OP_COPY || o->kind == OP_SET) {
        run_copy(o);
    } else if (o->kind == OP_RECORD) {
        if (o->record > o->event->n_done)
            o->event->n_done = o->record;
    } else if (o->kind == OP_HOST) {
        stream->is_running = true;
        pthread_mutex_unlock(&gpu.lock);
        o->function(o->user_data);
        pthread_mutex_lock(&gpu.lock);
        stream->is_running = false;
    }
    drop_event(o->event);
    free(o);
    free_stream_if_done(stream);
    pthread_cond_broadcast(&gpu.changed);
}

static uint32_t pick(uint32_t n)
{
    gpu.rng = gpu.rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(gpu.rng >> 33) % n;
}

/* One operation of a random stream; false when none can run. */
static bool run_one(void)
{
    uint32_t n = can_run(&gpu.default_stream);
    for (struct CUstream_st *s = gpu.streams; s != NULL; s = s->next)
        n += can_run(s);
    if (n == 0 || gpu.broken != BT_CU_SUCCESS)
        return false;
    uint32_t nth = pick(n);
    struct CUstream_st *stream = NULL;
    if (can_run(&gpu.default_stream) && nth-- == 0)
        stream = &gpu.default_stream;
    for (struct CUstream_st *s = gpu.streams; s != NULL && stream == NULL; s = s->next) {
        if (can_run(s) && nth-- == 0)
            stream = s;
    }
    run_first(stream);
    return true;
}

static void *run_thread(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&gpu.lock);
    while (gpu.mode == FAKECUDA_THREAD) {
        if (!run_one())
            pthread_cond_wait(&gpu.changed, &gpu.lock);
    }
    pthread_mutex_unlock(&gpu.lock);
    return NULL;
}

static bt_cu_result queue(bt_cu_stream stream, op wanted)
{
    if (stream == NULL)
        stream = &gpu.default_stream;
    op *o = malloc(sizeof(*o));
    if (o == NULL)
        return BT_CU_OUT_OF_MEMORY;
    *o = wanted;
    if (o->event != NULL)
        o->event->n_users++;
    *stream->last = o;
    stream->last = &o->next;
    gpu.n_queued++;
    while (gpu.mode == FAKECUDA_AT_ONCE && run_one())
        ;
    pthread_cond_broadcast(&gpu.changed);
    return gpu.broken;
}

static void count_pageable(uint64_t address, uint64_t bytes)
{
    if (!is_device(address) && find_range(gpu.pins, gpu.n_pins, address, bytes) == NULL)
        gpu.pageable_total++;
}

/* The driver's functions: each takes the lock, and most want a context. */

#define DECLARE(member, symbol, parameters) EXPORT bt_cu_result symbol parameters;
BT_CUDA_FUNCTIONS(DECLARE)
BT_CUDA_OPTIONAL_FUNCTIONS(DECLARE)
#undef DECLARE

#define LOCKED(body)                            \
    do {                                        \
        pthread_mutex_lock(&gpu.lock);          \
        bt_cu_result result_ = needs_context(); \
        if (result_ == BT_CU_SUCCESS)           \
            body;                               \
        pthread_mutex_unlock(&gpu.lock);        \
        return result_;                         \
    } while (0)

EXPORT bt_cu_result cuInit(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&gpu.lock);
    bt_cu_result result = fault(FAKECUDA_INIT);
    pthread_mutex_unlock(&gpu.lock);
    return result;
}

EXPORT bt_cu_result cuGetErrorString(bt_cu_result result, const char **text)
{
    *text = result == BT_CU_OUT_OF_MEMORY     ? "out of memory"
            : result == BT_CU_NO_DEVICE       ? "no CUDA-capable device is detected"
            : result == BT_CU_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
            : result == BT_CU_INVALID_CONTEXT ? "invalid device context"
            : result == BT_CU_INVALID_VALUE   ? "invalid argument"
                                              : "unknown error";
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDriverGetVersion(int *version)
{
    *version = 13000;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDeviceGetCount(int *n)
{
    *n = gpu.n_devices;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDeviceGet(bt_cu_device *device, int ordinal)
{
    *device = ordinal;
    return ordinal < gpu.n_devices ? BT_CU_SUCCESS : BT_CU_INVALID_VALUE;
}

EXPORT bt_cu_result cuDeviceGetName(char *name, int bytes, bt_cu_device device)
{
    (void)device;
    strncpy(name, "a fake GPU", (size_t)bytes);
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDeviceGetAttribute(int *value, int attribute, bt_cu_device device)
{
    (void)device;
    if (attribute == BT_CU_DEVICE_WRITES_ORDERING)
        *value = gpu.ordering;
    else if (attribute == BT_CU_DEVICE_FLUSH_WRITES_OPTIONS)
        *value = gpu.flush_options;
    else
        return BT_CU_INVALID_VALUE;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDevicePrimaryCtxRetain(bt_cu_context *context, bt_cu_device device)
{
    (void)device;
    pthread_mutex_lock(&gpu.lock);
    *context = &gpu.context;
    bt_cu_result result = gpu.broken;
    gpu.n_contexts += result == BT_CU_SUCCESS;
    pthread_mutex_unlock(&gpu.lock);
    return result;
}

EXPORT bt_cu_result cuDevicePrimaryCtxRelease_v2(bt_cu_device device)
{
    (void)device;
    pthread_mutex_lock(&gpu.lock);
    gpu.n_contexts--;
    pthread_mutex_unlock(&gpu.lock);
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuCtxPushCurrent_v2(bt_cu_context context)
{
    if (context != &gpu.context || n_contexts == CONTEXTS_DEEP)
        return BT_CU_INVALID_CONTEXT;
    contexts[n_contexts++] = context;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuCtxPopCurrent_v2(bt_cu_context *context)
{
    if (n_contexts == 0)
        return BT_CU_INVALID_CONTEXT;
    *context = contexts[--n_contexts];
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuCtxGetCurrent(bt_cu_context *context)
{
    *context = n_contexts > 0 ? contexts[n_contexts - 1] : NULL;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuCtxGetDevice(bt_cu_device *device)
{
    *device = 0;
    return n_contexts > 0 ? BT_CU_SUCCESS : BT_CU_INVALID_CONTEXT;
}

static bt_cu_result allocate(bt_cu_address *address, size_t bytes)
{
    bt_cu_result result = fault(FAKECUDA_ALLOC);
    if (result != BT_CU_SUCCESS)
        return result;
    if (gpu.base == 0) {
        void *base =
            mmap(NULL, DEVICE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return BT_CU_OUT_OF_MEMORY;
        gpu.base = gpu.next_address = (uint64_t)(uintptr_t)base;
    }
    uint8_t *backing = gpu.n_allocations < MAX_RANGES ? malloc(bytes) : NULL;
    uint64_t room = (bytes + ALLOCATION_ALIGN) / ALLOCATION_ALIGN * ALLOCATION_ALIGN;
    if (backing == NULL || gpu.next_address + room > gpu.base + DEVICE_BYTES) {
        free(backing);
        return BT_CU_OUT_OF_MEMORY;
    }
    memset(backing, 0xa5, bytes);
    gpu.allocations[gpu.n_allocations++] = (range){gpu.next_address, bytes, backing};
    *address = gpu.next_address;
    gpu.next_address += room; /* never used again: a stale address is always caught */
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuMemAlloc_v2(bt_cu_address *address, size_t bytes)
{
    LOCKED(result_ = allocate(address, bytes));
}

static bt_cu_result release(bt_cu_address address)
{
    range *r = find_start(gpu.allocations, gpu.n_allocations, address);
    if (r == NULL)
        return BT_CU_INVALID_VALUE;
    free(r->backing);
    remove_range(gpu.allocations, &gpu.n_allocations, r);
    return BT_CU_SUCCESS;
}

/* A broken context's memory goes too, so that tests can count. */
EXPORT bt_cu_result cuMemFree_v2(bt_cu_address address)
{
    pthread_mutex_lock(&gpu.lock);
    bt_cu_result result = release(address);
    pthread_mutex_unlock(&gpu.lock);
    return result;
}

static bt_cu_result pin(void *base, size_t bytes)
{
    bt_cu_result result = fault(FAKECUDA_PIN);
    if (result == BT_CU_SUCCESS && gpu.n_pins == MAX_RANGES)
        result = BT_CU_OUT_OF_MEMORY;
    if (result == BT_CU_SUCCESS)
        gpu.pins[gpu.n_pins++] = (range){(uint64_t)(uintptr_t)base, bytes, NULL};
    return result;
}

EXPORT bt_cu_result cuMemHostRegister_v2(void *base, size_t bytes, unsigned flags)
{
    (void)flags;
    LOCKED(result_ = pin(base, bytes));
}

EXPORT bt_cu_result cuMemHostUnregister(void *base)
{
    bt_cu_result result = BT_CU_INVALID_VALUE;
    pthread_mutex_lock(&gpu.lock);
    range *r = find_start(gpu.pins, gpu.n_pins, (uint64_t)(uintptr_t)base);
    if (r != NULL) {
        remove_range(gpu.pins, &gpu.n_pins, r);
        result = BT_CU_SUCCESS;
    }
    pthread_mutex_unlock(&gpu.lock);
    return result;
}

static bt_cu_result memory_type(unsigned *type, bt_cu_address address)
{
    if (find_range(gpu.allocations, gpu.n_allocations, address, 1) != NULL)
        *type = BT_CU_MEMORY_TYPE_DEVICE;
    else if (find_range(gpu.pins, gpu.n_pins, address, 1) != NULL)
        *type = BT_CU_MEMORY_TYPE_HOST;
    else
        return BT_CU_INVALID_VALUE;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuPointerGetAttribute(void *value, int attribute, bt_cu_address address)
{
    if (attribute != BT_CU_POINTER_MEMORY_TYPE)
        return BT_CU_INVALID_VALUE;
    LOCKED(result_ = memory_type(value, address));
}

/* Waits for nothing: tests do not mix it with streams that touch the same bytes. */
static bt_cu_result copy_now(op o)
{
    gpu.copies_total++;
    run_copy(&o);
    return gpu.broken;
}

EXPORT bt_cu_result cuMemcpy(bt_cu_address to, bt_cu_address from, size_t bytes)
{
    const op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    LOCKED(result_ = copy_now(o));
}

EXPORT bt_cu_result cuMemsetD8_v2(bt_cu_address to, unsigned char value, size_t bytes)
{
    const op o = {.kind = OP_SET, .to = to, .value = value, .bytes = bytes};
    LOCKED(result_ = copy_now(o));
}

static bt_cu_result queue_copy(bt_cu_stream stream, op o)
{
    bt_cu_result result = fault(FAKECUDA_COPY_ASYNC);
    if (result != BT_CU_SUCCESS)
        return result;
    gpu.copies_total++;
    count_pageable(o.to, o.bytes);
    count_pageable(o.from, o.bytes);
    return queue(stream, o);
}

EXPORT bt_cu_result cuMemcpyAsync(bt_cu_address to, bt_cu_address from, size_t bytes,
                                  bt_cu_stream stream)
{
    const op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    LOCKED(result_ = queue_copy(stream, o));
}

static bt_cu_result create_stream(bt_cu_stream *stream)
{
    bt_cu_result result = fault(FAKECUDA_STREAM_CREATE);
    struct CUstream_st *s = result == BT_CU_SUCCESS ? calloc(1, sizeof(*s)) : NULL;
    if (s == NULL)
        return result != BT_CU_SUCCESS ? result : BT_CU_OUT_OF_MEMORY;
    s->last = &s->first;
    s->next = gpu.streams;
    gpu.streams = *stream = s;
    gpu.n_streams++;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuStreamCreate(bt_cu_stream *stream, unsigned flags)
{
    (void)flags;
    LOCKED(result_ = create_stream(stream));
}

/* As the real one: what is queued still runs. */
EXPORT bt_cu_result cuStreamDestroy_v2(bt_cu_stream stream)
{
    pthread_mutex_lock(&gpu.lock);
    gpu.n_streams--;
    stream->is_destroyed = true;
    free_stream_if_done(stream);
    pthread_mutex_unlock(&gpu.lock);
    return BT_CU_SUCCESS;
}

/* A held stream that is waited for must run: nothing else would run it. */
static bt_cu_result synchronize(const struct CUstream_st *stream)
{
    while (stream->first != NULL && gpu.broken == BT_CU_SUCCESS) {
        if (gpu.mode == FAKECUDA_THREAD || !run_one())
            pthread_cond_wait(&gpu.changed, &gpu.lock);
    }
    return gpu.broken;
}

EXPORT bt_cu_result cuStreamSynchronize(bt_cu_stream stream)
{
    LOCKED(result_ = synchronize(stream != NULL ? stream : &gpu.default_stream));
}

EXPORT bt_cu_result cuStreamWaitEvent(bt_cu_stream stream, bt_cu_event event, unsigned flags)
{
    (void)flags;
    LOCKED(result_ =
               queue(stream, (op){.kind = OP_WAIT, .event = event, .record = event->n_recorded}));
}

static bt_cu_result launch(bt_cu_stream stream, op o)
{
    bt_cu_result result = fault(FAKECUDA_LAUNCH_HOST);
    return result == BT_CU_SUCCESS ? queue(stream, o) : result;
}

EXPORT bt_cu_result cuLaunchHostFunc(bt_cu_stream stream, bt_cu_host_function function,
                                     void *user_data)
{
    const op o = {.kind = OP_HOST, .function = function, .user_data = user_data};
    LOCKED(result_ = launch(stream, o));
}

static bt_cu_result create_event(bt_cu_event *event)
{
    bt_cu_result result = fault(FAKECUDA_EVENT_CREATE);
    if (result != BT_CU_SUCCESS)
        return result;
    *event = calloc(1, sizeof(**event));
    if (*event == NULL)
        return BT_CU_OUT_OF_MEMORY;
    (*event)->n_users = 1;
    gpu.n_events++;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuEventCreate(bt_cu_event *event, unsigned flags)
{
    (void)flags;
    LOCKED(result_ = create_event(event));
}

EXPORT bt_cu_result cuEventDestroy_v2(bt_cu_event event)
{
    pthread_mutex_lock(&gpu.lock);
    gpu.n_events--;
    drop_event(event);
    pthread_mutex_unlock(&gpu.lock);
    return BT_CU_SUCCESS;
}

static bt_cu_result record(bt_cu_event event, bt_cu_stream stream)
{
    bt_cu_result result = fault(FAKECUDA_EVENT_RECORD);
    if (result != BT_CU_SUCCESS)
        return result;
    return queue(stream, (op){.kind = OP_RECORD, .event = event, .record = ++event->n_recorded});
}

EXPORT bt_cu_result cuEventRecord(bt_cu_event event, bt_cu_stream stream)
{
    LOCKED(result_ = record(event, stream));
}

EXPORT bt_cu_result cuEventQuery(bt_cu_event event)
{
    LOCKED(result_ = event->n_done >= event->n_recorded ? BT_CU_SUCCESS : BT_CU_NOT_READY);
}

/* As for streams: a held GPU runs what is waited for. */
static bt_cu_result wait_for_event(bt_cu_event event)
{
    uint64_t wanted = event->n_recorded;
    while (event->n_done < wanted && gpu.broken == BT_CU_SUCCESS) {
        if (gpu.mode == FAKECUDA_THREAD || !run_one())
            pthread_cond_wait(&gpu.changed, &gpu.lock);
    }
    return gpu.broken;
}

EXPORT bt_cu_result cuEventSynchronize(bt_cu_event event)
{
    LOCKED(result_ = wait_for_event(event));
}

static bt_cu_result flush(void)
{
    bt_cu_result result = fault(FAKECUDA_FLUSH);
    gpu.flushes_total += result == BT_CU_SUCCESS;
    return result;
}

EXPORT bt_cu_result cuFlushGPUDirectRDMAWrites(int target, int scope)
{
    if (target != BT_CU_FLUSH_TARGET_CURRENT_CONTEXT || scope != BT_CU_FLUSH_TO_OWNER)
        return BT_CU_INVALID_VALUE;
    LOCKED(result_ = flush());
}

/* Control, without the lock. */

static void set_mode(fakecuda_mode mode)
{
    pthread_mutex_lock(&gpu.lock);
    bool had_thread = gpu.has_thread;
    gpu.mode = mode;
    gpu.has_thread = mode == FAKECUDA_THREAD;
    pthread_cond_broadcast(&gpu.changed);
    pthread_mutex_unlock(&gpu.lock);
    if (had_thread)
        pthread_join(gpu.thread, NULL);
    pthread_mutex_lock(&gpu.lock);
    while (mode == FAKECUDA_AT_ONCE && run_one())
        ;
    pthread_mutex_unlock(&gpu.lock);
    if (mode == FAKECUDA_THREAD && pthread_create(&gpu.thread, NULL, run_thread, NULL) != 0)
        abort();
}

static void reset(void)
{
    set_mode(FAKECUDA_AT_ONCE);
    pthread_mutex_lock(&gpu.lock);
    assert(gpu.n_allocations == 0 && gpu.n_pins == 0 && gpu.n_streams == 0 && gpu.n_events == 0);
    gpu.n_devices = 1;
    gpu.ordering = BT_CU_WRITES_ORDERING_OWNER;
    gpu.flush_options = 0;
    memset(gpu.fail_in, 0, sizeof(gpu.fail_in));
    gpu.broken = BT_CU_SUCCESS;
    gpu.rng = 1;
    gpu.copies_total = gpu.flushes_total = gpu.pageable_total = 0;
    pthread_mutex_unlock(&gpu.lock);
}

static void set_devices(int n)
{
    gpu.n_devices = n;
}

static void set_write_ordering(int ordering, int flush_options)
{
    gpu.ordering = ordering;
    gpu.flush_options = flush_options;
}

static void fail_call(fakecuda_call call, uint32_t nth, bt_cu_result result)
{
    pthread_mutex_lock(&gpu.lock);
    gpu.fail_in[call] = nth;
    gpu.fail_with[call] = result;
    pthread_mutex_unlock(&gpu.lock);
}

static void drop_queued(struct CUstream_st *stream)
{
    for (op *o = stream->first, *next; o != NULL; o = next) {
        next = o->next;
        drop_event(o->event);
        free(o);
        gpu.n_queued--;
    }
    stream->first = NULL;
    stream->last = &stream->first;
}

static void break_context(bt_cu_result result)
{
    pthread_mutex_lock(&gpu.lock);
    gpu.broken = result;
    drop_queued(&gpu.default_stream);
    for (struct CUstream_st *s = gpu.streams; s != NULL; s = s->next)
        drop_queued(s);
    pthread_cond_broadcast(&gpu.changed);
    pthread_mutex_unlock(&gpu.lock);
}

static uint32_t step(uint32_t n)
{
    uint32_t n_run = 0;
    pthread_mutex_lock(&gpu.lock);
    while (n_run < n && run_one())
        n_run++;
    pthread_mutex_unlock(&gpu.lock);
    return n_run;
}

static void counts(fakecuda_counts *out)
{
    pthread_mutex_lock(&gpu.lock);
    *out = (fakecuda_counts){.contexts = gpu.n_contexts,
                             .allocations = gpu.n_allocations,
                             .pins = gpu.n_pins,
                             .streams = gpu.n_streams,
                             .events = gpu.n_events,
                             .queued = gpu.n_queued,
                             .copies_total = gpu.copies_total,
                             .flushes_total = gpu.flushes_total,
                             .pageable_total = gpu.pageable_total};
    pthread_mutex_unlock(&gpu.lock);
}

static void *host(const void *device)
{
    pthread_mutex_lock(&gpu.lock);
    uint8_t *bytes =
        is_device((uint64_t)(uintptr_t)device) ? translate((uint64_t)(uintptr_t)device, 1) : NULL;
    pthread_mutex_unlock(&gpu.lock);
    return bytes;
}

EXPORT extern const fakecuda fakecuda_control;
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
};
