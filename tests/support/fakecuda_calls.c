/* SPDX-License-Identifier: Apache-2.0 */
/* The fake driver's functions, as the real one exports them. */
#include "support/fakecuda_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))

static _Thread_local bt_cu_context contexts[CONTEXTS_DEEP];
static _Thread_local int n_contexts;

static bt_cu_result needs_context(void)
{
    if (fakecuda_gpu.broken != BT_CU_SUCCESS)
        return fakecuda_gpu.broken;
    return n_contexts > 0 ? BT_CU_SUCCESS : BT_CU_INVALID_CONTEXT;
}

static _Thread_local int capture_mode; /* the strictest is what threads begin with */

/* For calls that may wait for the device. */
static bt_cu_result forbidden_in_captures(void)
{
    if (!fakecuda_gpu.is_capturing || capture_mode == BT_CU_CAPTURE_MODE_RELAXED)
        return BT_CU_SUCCESS;
    fakecuda_gpu.spoiled_total++;
    return BT_CU_CAPTURE_UNSUPPORTED;
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

/* The driver's functions: each takes the lock, and most want a context. */

#define DECLARE(member, symbol, parameters) EXPORT bt_cu_result symbol parameters;
BT_CUDA_FUNCTIONS(DECLARE)
BT_CUDA_OPTIONAL_FUNCTIONS(DECLARE)
#undef DECLARE

#define LOCKED_UNSAFE(body)                       \
    do {                                          \
        pthread_mutex_lock(&fakecuda_gpu.lock);   \
        bt_cu_result result_ = needs_context();   \
        if (result_ == BT_CU_SUCCESS)             \
            result_ = forbidden_in_captures();    \
        if (result_ == BT_CU_SUCCESS)             \
            body;                                 \
        pthread_mutex_unlock(&fakecuda_gpu.lock); \
        return result_;                           \
    } while (0)

#define LOCKED(body)                              \
    do {                                          \
        pthread_mutex_lock(&fakecuda_gpu.lock);   \
        bt_cu_result result_ = needs_context();   \
        if (result_ == BT_CU_SUCCESS)             \
            body;                                 \
        pthread_mutex_unlock(&fakecuda_gpu.lock); \
        return result_;                           \
    } while (0)

EXPORT bt_cu_result cuInit(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    bt_cu_result result = fakecuda_fault(FAKECUDA_INIT);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
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
    *n = fakecuda_gpu.n_devices;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDeviceGet(bt_cu_device *device, int ordinal)
{
    *device = ordinal;
    return ordinal < fakecuda_gpu.n_devices ? BT_CU_SUCCESS : BT_CU_INVALID_VALUE;
}

EXPORT bt_cu_result cuDeviceGetName(char *name, int bytes, bt_cu_device device)
{
    (void)device;
    strncpy(name, "a fake GPU", (size_t)bytes);
    return BT_CU_SUCCESS;
}

/* The first on the second socket. */
EXPORT bt_cu_result cuDeviceGetPCIBusId(char *address, int bytes, bt_cu_device device)
{
    snprintf(address, (size_t)bytes, "0000:%02X:00.0", device == 0 ? 0x83 : 0x03);
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDeviceGetAttribute(int *value, int attribute, bt_cu_device device)
{
    (void)device;
    if (attribute == BT_CU_DEVICE_WRITES_ORDERING)
        *value = fakecuda_gpu.ordering;
    else if (attribute == BT_CU_DEVICE_FLUSH_WRITES_OPTIONS)
        *value = fakecuda_gpu.flush_options;
    else
        return BT_CU_INVALID_VALUE;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuDevicePrimaryCtxRetain(bt_cu_context *context, bt_cu_device device)
{
    (void)device;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    *context = &fakecuda_gpu.context;
    bt_cu_result result = fakecuda_gpu.broken;
    fakecuda_gpu.n_contexts += result == BT_CU_SUCCESS;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return result;
}

EXPORT bt_cu_result cuDevicePrimaryCtxRelease_v2(bt_cu_device device)
{
    (void)device;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.n_contexts--;
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuCtxPushCurrent_v2(bt_cu_context context)
{
    if (context != &fakecuda_gpu.context || n_contexts == CONTEXTS_DEEP)
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
    bt_cu_result result = fakecuda_fault(FAKECUDA_ALLOC);
    if (result != BT_CU_SUCCESS)
        return result;
    if (fakecuda_gpu.base == 0) {
        void *base =
            mmap(NULL, DEVICE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return BT_CU_OUT_OF_MEMORY;
        fakecuda_gpu.base = fakecuda_gpu.next_address = (uint64_t)(uintptr_t)base;
    }
    uint8_t *backing = fakecuda_gpu.n_allocations < MAX_RANGES ? malloc(bytes) : NULL;
    uint64_t room = (bytes + ALLOCATION_ALIGN) / ALLOCATION_ALIGN * ALLOCATION_ALIGN;
    if (backing == NULL || fakecuda_gpu.next_address + room > fakecuda_gpu.base + DEVICE_BYTES) {
        free(backing);
        return BT_CU_OUT_OF_MEMORY;
    }
    memset(backing, 0xa5, bytes);
    fakecuda_gpu.allocations[fakecuda_gpu.n_allocations++] =
        (range){fakecuda_gpu.next_address, bytes, backing};
    *address = fakecuda_gpu.next_address;
    fakecuda_gpu.next_address += room; /* never used again: a stale address is always caught */
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuMemAlloc_v2(bt_cu_address *address, size_t bytes)
{
    LOCKED_UNSAFE(result_ = allocate(address, bytes));
}

static bt_cu_result release(bt_cu_address address)
{
    range *r = find_start(fakecuda_gpu.allocations, fakecuda_gpu.n_allocations, address);
    if (r == NULL)
        return BT_CU_INVALID_VALUE;
    free(r->backing);
    remove_range(fakecuda_gpu.allocations, &fakecuda_gpu.n_allocations, r);
    return BT_CU_SUCCESS;
}

/* A broken context's memory goes too, so that tests can count. */
EXPORT bt_cu_result cuMemFree_v2(bt_cu_address address)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    bt_cu_result result = release(address);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return result;
}

static bt_cu_result pin(void *base, size_t bytes)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_PIN);
    if (result == BT_CU_SUCCESS && fakecuda_gpu.n_pins == MAX_RANGES)
        result = BT_CU_OUT_OF_MEMORY;
    if (result == BT_CU_SUCCESS)
        fakecuda_gpu.pins[fakecuda_gpu.n_pins++] = (range){(uint64_t)(uintptr_t)base, bytes, NULL};
    return result;
}

EXPORT bt_cu_result cuMemHostRegister_v2(void *base, size_t bytes, unsigned flags)
{
    LOCKED_UNSAFE(result_ = (flags & BT_CU_HOST_REGISTER_DEVICEMAP) != 0 ? pin(base, bytes)
                                                                         : BT_CU_INVALID_VALUE);
}

EXPORT bt_cu_result cuMemHostUnregister(void *base)
{
    bt_cu_result result = BT_CU_INVALID_VALUE;
    pthread_mutex_lock(&fakecuda_gpu.lock);
    range *r = find_start(fakecuda_gpu.pins, fakecuda_gpu.n_pins, (uint64_t)(uintptr_t)base);
    if (r != NULL) {
        remove_range(fakecuda_gpu.pins, &fakecuda_gpu.n_pins, r);
        result = BT_CU_SUCCESS;
    }
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return result;
}

static bt_cu_result memory_type(unsigned *type, bt_cu_address address)
{
    if (fakecuda_find_range(fakecuda_gpu.allocations, fakecuda_gpu.n_allocations, address, 1) !=
        NULL)
        *type = BT_CU_MEMORY_TYPE_DEVICE;
    else if (fakecuda_find_range(fakecuda_gpu.pins, fakecuda_gpu.n_pins, address, 1) != NULL)
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
    fakecuda_gpu.copies_total++;
    fakecuda_gpu.default_reads_total += !fakecuda_is_device(o.to);
    fakecuda_run_copy(&o);
    return fakecuda_gpu.broken;
}

EXPORT bt_cu_result cuMemcpy(bt_cu_address to, bt_cu_address from, size_t bytes)
{
    const op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    LOCKED_UNSAFE(result_ = copy_now(o));
}

EXPORT bt_cu_result cuMemsetD8Async(bt_cu_address to, unsigned char value, size_t bytes,
                                    bt_cu_stream stream)
{
    const op o = {.kind = OP_SET, .to = to, .value = value, .bytes = bytes};
    LOCKED(result_ = fakecuda_queue(stream, o));
}

static void count_pageable(uint64_t address, uint64_t bytes)
{
    if (!fakecuda_is_device(address) &&
        fakecuda_find_range(fakecuda_gpu.pins, fakecuda_gpu.n_pins, address, bytes) == NULL)
        fakecuda_gpu.pageable_total++;
}

static bt_cu_result queue_copy(bt_cu_stream stream, op o)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_COPY_ASYNC);
    if (result != BT_CU_SUCCESS)
        return result;
    fakecuda_gpu.copies_total++;
    count_pageable(o.to, o.bytes);
    count_pageable(o.from, o.bytes);
    return fakecuda_queue(stream, o);
}

EXPORT bt_cu_result cuMemcpyAsync(bt_cu_address to, bt_cu_address from, size_t bytes,
                                  bt_cu_stream stream)
{
    const op o = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    LOCKED(result_ = queue_copy(stream, o));
}

static bt_cu_result create_stream(bt_cu_stream *stream)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_STREAM_CREATE);
    struct CUstream_st *s = result == BT_CU_SUCCESS ? calloc(1, sizeof(*s)) : NULL;
    if (s == NULL)
        return result != BT_CU_SUCCESS ? result : BT_CU_OUT_OF_MEMORY;
    s->last = &s->first;
    s->next = fakecuda_gpu.streams;
    fakecuda_gpu.streams = *stream = s;
    fakecuda_gpu.n_streams++;
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
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.n_streams--;
    stream->is_destroyed = true;
    fakecuda_free_stream_if_done(stream);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return BT_CU_SUCCESS;
}

/* A held stream that is waited for must run: nothing else would run it. */
static bt_cu_result synchronize(struct CUstream_st *stream)
{
    while (stream->first != NULL && fakecuda_gpu.broken == BT_CU_SUCCESS) {
        if (fakecuda_gpu.mode == FAKECUDA_THREAD || !fakecuda_run_one_of(stream))
            pthread_cond_wait(&fakecuda_gpu.changed, &fakecuda_gpu.lock);
    }
    return fakecuda_gpu.broken;
}

EXPORT bt_cu_result cuStreamSynchronize(bt_cu_stream stream)
{
    LOCKED_UNSAFE(result_ = synchronize(stream != NULL ? stream : &fakecuda_gpu.default_stream));
}

EXPORT bt_cu_result cuStreamWaitEvent(bt_cu_stream stream, bt_cu_event event, unsigned flags)
{
    (void)flags;
    LOCKED(result_ = fakecuda_queue(
               stream, (op){.kind = OP_WAIT, .event = event, .record = event->n_recorded}));
}

EXPORT bt_cu_result cuThreadExchangeStreamCaptureMode(int *mode)
{
    int before = capture_mode;
    capture_mode = *mode;
    *mode = before;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuStreamIsCapturing(bt_cu_stream stream, int *status)
{
    LOCKED(*status = fakecuda_gpu.is_capturing && stream != NULL && stream == fakecuda_gpu.captured
                         ? 1
                         : BT_CU_CAPTURE_STATUS_NONE);
}

static bt_cu_result launch_kernel(bt_cu_stream stream, op o)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_LAUNCH);
    if (result != BT_CU_SUCCESS) {
        free(o.arguments);
        return result;
    }
    fakecuda_gpu.kernels_total++;
    return fakecuda_queue(stream, o);
}

bt_cu_result fakecuda_launch(bt_cu_stream stream, void (*kernel)(void *arguments),
                             const void *arguments, size_t bytes)
{
    void *copy = malloc(bytes);
    if (copy == NULL)
        return BT_CU_OUT_OF_MEMORY;
    memcpy(copy, arguments, bytes);
    const op o = {.kind = OP_HOST, .function = kernel, .arguments = copy};
    pthread_mutex_lock(&fakecuda_gpu.lock);
    bt_cu_result result = needs_context();
    if (result == BT_CU_SUCCESS)
        result = launch_kernel(stream, o);
    else
        free(copy);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return result;
}

static bt_cu_result launch(bt_cu_stream stream, op o)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_LAUNCH_HOST);
    return result == BT_CU_SUCCESS ? fakecuda_queue(stream, o) : result;
}

EXPORT bt_cu_result cuLaunchHostFunc(bt_cu_stream stream, bt_cu_host_function function,
                                     void *user_data)
{
    const op o = {.kind = OP_HOST, .function = function, .user_data = user_data};
    LOCKED(result_ = launch(stream, o));
}

static bt_cu_result create_event(bt_cu_event *event)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_EVENT_CREATE);
    if (result != BT_CU_SUCCESS)
        return result;
    *event = calloc(1, sizeof(**event));
    if (*event == NULL)
        return BT_CU_OUT_OF_MEMORY;
    (*event)->n_users = 1;
    fakecuda_gpu.n_events++;
    return BT_CU_SUCCESS;
}

EXPORT bt_cu_result cuEventCreate(bt_cu_event *event, unsigned flags)
{
    (void)flags;
    LOCKED(result_ = create_event(event));
}

EXPORT bt_cu_result cuEventDestroy_v2(bt_cu_event event)
{
    pthread_mutex_lock(&fakecuda_gpu.lock);
    fakecuda_gpu.n_events--;
    fakecuda_drop_event(event);
    pthread_mutex_unlock(&fakecuda_gpu.lock);
    return BT_CU_SUCCESS;
}

static bt_cu_result record(bt_cu_event event, bt_cu_stream stream)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_EVENT_RECORD);
    if (result != BT_CU_SUCCESS)
        return result;
    return fakecuda_queue(stream,
                          (op){.kind = OP_RECORD, .event = event, .record = ++event->n_recorded});
}

EXPORT bt_cu_result cuEventRecord(bt_cu_event event, bt_cu_stream stream)
{
    LOCKED(result_ = record(event, stream));
}

EXPORT bt_cu_result cuEventQuery(bt_cu_event event)
{
    LOCKED_UNSAFE(result_ = event->n_done >= event->n_recorded ? BT_CU_SUCCESS : BT_CU_NOT_READY);
}

static bt_cu_result flush(void)
{
    bt_cu_result result = fakecuda_fault(FAKECUDA_FLUSH);
    fakecuda_gpu.flushes_total += result == BT_CU_SUCCESS;
    return result;
}

EXPORT bt_cu_result cuFlushGPUDirectRDMAWrites(int target, int scope)
{
    if (target != BT_CU_FLUSH_TARGET_CURRENT_CONTEXT || scope != BT_CU_FLUSH_TO_OWNER)
        return BT_CU_INVALID_VALUE;
    LOCKED(result_ = flush());
}
