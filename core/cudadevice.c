/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cudadevice.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static bt_cu_address address_of(const void *memory)
{
    return (bt_cu_address)(uintptr_t)memory;
}

/* A thread that has used CUDA before has chosen a device; ours have not. */
static baton_status choose_device(const bt_cuda_driver *driver, bt_cu_device *device)
{
    bt_cu_context current = NULL;
    if (driver->context_current(&current) == BT_CU_SUCCESS && current != NULL &&
        driver->context_device(device) == BT_CU_SUCCESS)
        return BATON_OK;
    int n = 0;
    bt_cu_result result = driver->device_count(&n);
    if (result == BT_CU_SUCCESS && n > 0)
        result = driver->device_get(device, 0);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, result, "wanted a GPU");
    if (n == 0)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "cuda: wanted a GPU, found none; nvidia-smi and CUDA_VISIBLE_DEVICES say "
                       "which ones this process may see");
    return BATON_OK;
}

/* "GPUDirect RDMA writes to the device do not need to be flushed for consumers within the scope
 * indicated by the returned attribute" and "If the scope equals or lies within the scope indicated
 * by CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, the call will be a no-op and can be
 * safely omitted" (NVIDIA, CUDA Driver API: CUdevice_attribute, cuFlushGPUDirectRDMAWrites). Our
 * consumers are kernels and copies of the owning device. A driver that does not know the attributes
 * cannot promise anything. */
static void ask_write_ordering(bt_cuda *cuda)
{
    int ordering = 0, options = 0;
    if (cuda->driver->device_attribute(&ordering, BT_CU_DEVICE_WRITES_ORDERING, cuda->device) !=
        BT_CU_SUCCESS)
        ordering = 0;
    if (cuda->driver->device_attribute(&options, BT_CU_DEVICE_FLUSH_WRITES_OPTIONS, cuda->device) !=
        BT_CU_SUCCESS)
        options = 0;
    cuda->orders_writes = ordering >= BT_CU_WRITES_ORDERING_OWNER;
    cuda->can_flush =
        cuda->driver->flush_writes != NULL && (options & BT_CU_FLUSH_WRITES_OPTION_HOST) != 0;
}

baton_status bt_cuda_open(bt_cuda **cuda_p)
{
    const bt_cuda_driver *driver;
    bt_cu_device device;
    BATON_TRY(bt_cuda_driver_get(&driver));
    BATON_TRY(choose_device(driver, &device));
    bt_cuda *cuda = bt_calloc(1, sizeof(*cuda));
    if (cuda == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "cuda: device");
    cuda->driver = driver;
    cuda->device = device;
    bt_cu_result result = driver->primary_retain(&cuda->context, device);
    if (result != BT_CU_SUCCESS) {
        bt_free(cuda);
        return bt_fail_cuda(driver, result, "wanted the context of GPU %d", device);
    }
    if (driver->device_name(cuda->name, sizeof(cuda->name), device) != BT_CU_SUCCESS)
        cuda->name[0] = '\0';
    ask_write_ordering(cuda);
    *cuda_p = cuda;
    return BATON_OK;
}

baton_status bt_cuda_pci_address(char address[BT_CUDA_PCI_BYTES])
{
    const bt_cuda_driver *driver;
    bt_cu_device device;
    BATON_TRY(bt_cuda_driver_get(&driver));
    BATON_TRY(choose_device(driver, &device));
    bt_cu_result result = driver->device_pci(address, BT_CUDA_PCI_BYTES, device);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, result, "wanted the PCI address of GPU %d", device);
    return BATON_OK;
}

void bt_cuda_close(bt_cuda *cuda)
{
    if (cuda == NULL)
        return;
    cuda->driver->primary_release(cuda->device);
    bt_free(cuda);
}

/* Of the calling thread: how often it has entered, and its capture mode before the first. */
static _Thread_local struct {
    uint32_t depth;
    int mode;
} entered;

baton_status bt_cuda_enter(const bt_cuda *cuda)
{
    bt_cu_result result = cuda->driver->context_push(cuda->context);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result, "wanted to use GPU %d", cuda->device);
    if (entered.depth++ == 0) {
        entered.mode = BT_CU_CAPTURE_MODE_RELAXED;
        cuda->driver->exchange_capture_mode(&entered.mode); /* fails for bad arguments only */
    }
    return BATON_OK;
}

void bt_cuda_leave(const bt_cuda *cuda)
{
    bt_cu_context popped;
    if (--entered.depth == 0)
        cuda->driver->exchange_capture_mode(&entered.mode);
    cuda->driver->context_pop(&popped);
}

/* With the context entered. On a stream of its own: the default one waits for everything that an
 * engine runs on blocking streams, and spoils a capture of theirs. */
static bt_cu_result set_zero(const bt_cuda_driver *driver, bt_cu_address address, size_t bytes)
{
    bt_cu_stream stream;
    bt_cu_result result = driver->stream_create(&stream, BT_CU_STREAM_NON_BLOCKING);
    if (result != BT_CU_SUCCESS)
        return result;
    result = driver->set_bytes_async(address, 0, bytes, stream);
    if (result == BT_CU_SUCCESS)
        result = driver->stream_synchronize(stream);
    driver->stream_destroy(stream);
    return result;
}

baton_status bt_cuda_alloc(const bt_cuda *cuda, size_t bytes, void **memory_p)
{
    bt_cu_address address = 0;
    BATON_TRY(bt_cuda_enter(cuda));
    bt_cu_result result = cuda->driver->memory_alloc(&address, bytes);
    if (result == BT_CU_SUCCESS) {
        result = set_zero(cuda->driver, address, bytes);
        if (result != BT_CU_SUCCESS)
            cuda->driver->memory_free(address);
    }
    bt_cuda_leave(cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result, "wanted %zu bytes of memory on GPU %d", bytes,
                            cuda->device);
    *memory_p = (void *)(uintptr_t)address;
    return BATON_OK;
}

void bt_cuda_free(const bt_cuda *cuda, void *memory)
{
    if (memory == NULL || bt_cuda_enter(cuda) != BATON_OK)
        return;
    cuda->driver->memory_free(address_of(memory));
    bt_cuda_leave(cuda);
}

baton_status bt_cuda_pin(const bt_cuda *cuda, void *memory, size_t bytes)
{
    BATON_TRY(bt_cuda_enter(cuda));
    bt_cu_result result = cuda->driver->host_register(
        memory, bytes, BT_CU_HOST_REGISTER_PORTABLE | BT_CU_HOST_REGISTER_DEVICEMAP);
    bt_cuda_leave(cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result,
                            "wanted %zu bytes of host memory pinned (locked memory: ulimit -l)",
                            bytes);
    return BATON_OK;
}

void bt_cuda_unpin(const bt_cuda *cuda, void *memory)
{
    if (bt_cuda_enter(cuda) != BATON_OK)
        return;
    cuda->driver->host_unregister(memory);
    bt_cuda_leave(cuda);
}

baton_status bt_cuda_alloc_pinned(const bt_cuda *cuda, size_t bytes, void **memory_p)
{
    enum { PAGE = 4096 };
    size_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    void *memory = rounded >= bytes ? bt_aligned_alloc(PAGE, rounded) : NULL;
    if (memory == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "cuda: wanted %zu bytes of host memory", bytes);
    memset(memory, 0, rounded);
    baton_status status = bt_cuda_pin(cuda, memory, rounded);
    if (status != BATON_OK) {
        bt_free(memory);
        return status;
    }
    *memory_p = memory;
    return BATON_OK;
}

void bt_cuda_free_pinned(const bt_cuda *cuda, void *memory)
{
    if (memory == NULL)
        return;
    bt_cuda_unpin(cuda, memory);
    bt_free(memory);
}

/* With the context entered. */
static baton_status record(const bt_cuda *cuda, bt_cu_stream stream, bt_cu_event *event)
{
    int capture = BT_CU_CAPTURE_STATUS_NONE;
    bt_cu_result result = cuda->driver->stream_is_capturing(stream, &capture);
    if (result == BT_CU_SUCCESS && capture != BT_CU_CAPTURE_STATUS_NONE)
        return bt_fail(BATON_ERR_STATE, "cuda: wanted an event behind a stream, found the stream "
                                        "being captured into a graph; call when it is not");
    if (result == BT_CU_SUCCESS)
        result = cuda->driver->event_create(event, BT_CU_EVENT_DISABLE_TIMING);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result, "wanted an event");
    result = cuda->driver->event_record(*event, stream);
    if (result == BT_CU_SUCCESS)
        return BATON_OK;
    cuda->driver->event_destroy(*event);
    return bt_fail_cuda(cuda->driver, result, "wanted an event behind a stream");
}

baton_status bt_cuda_record(const bt_cuda *cuda, bt_cu_stream stream, bt_cu_event *event_p)
{
    bt_cu_event event;
    BATON_TRY(bt_cuda_enter(cuda));
    baton_status status = record(cuda, stream, &event);
    bt_cuda_leave(cuda);
    if (status == BATON_OK)
        *event_p = event;
    return status;
}

bt_cu_result bt_cuda_query(const bt_cuda *cuda, bt_cu_event event)
{
    if (bt_cuda_enter(cuda) != BATON_OK)
        return BT_CU_INVALID_CONTEXT;
    bt_cu_result result = cuda->driver->event_query(event);
    bt_cuda_leave(cuda);
    return result;
}

bool bt_cuda_wait(const bt_cuda *cuda, bt_cu_event event, uint64_t until_ns)
{
    const struct timespec pause = {.tv_nsec = (long)(BT_NS_PER_MS / 10)};
    while (bt_cuda_query(cuda, event) == BT_CU_NOT_READY) {
        if (bt_now_ns(&bt_clock_monotonic) >= until_ns)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

baton_status bt_cuda_copy(const bt_cuda *cuda, void *to, const void *from, size_t bytes)
{
    BATON_TRY(bt_cuda_enter(cuda));
    bt_cu_result result = cuda->driver->copy(address_of(to), address_of(from), bytes);
    if (result == BT_CU_SUCCESS) /* between devices, and for little from the host, it is not over */
        result = cuda->driver->stream_synchronize(NULL);
    bt_cuda_leave(cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result, "wanted %zu bytes copied", bytes);
    return BATON_OK;
}

bool bt_cuda_is_device_memory(const bt_cuda *cuda, const void *memory)
{
    unsigned type = 0;
    if (bt_cuda_enter(cuda) != BATON_OK)
        return false;
    bt_cu_result result =
        cuda->driver->pointer_attribute(&type, BT_CU_POINTER_MEMORY_TYPE, address_of(memory));
    bt_cuda_leave(cuda);
    return result == BT_CU_SUCCESS && type == BT_CU_MEMORY_TYPE_DEVICE;
}

baton_status bt_cuda_flush_writes(const bt_cuda *cuda)
{
    if (cuda->orders_writes)
        return BATON_OK;
    if (!cuda->can_flush)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "cuda: GPU %d neither orders the writes of a NIC nor can flush them",
                       cuda->device);
    BATON_TRY(bt_cuda_enter(cuda));
    bt_cu_result result =
        cuda->driver->flush_writes(BT_CU_FLUSH_TARGET_CURRENT_CONTEXT, BT_CU_FLUSH_TO_OWNER);
    bt_cuda_leave(cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(cuda->driver, result, "wanted remote writes to be flushed");
    return BATON_OK;
}

struct bt_cuda_waker {
    bt_cuda_waker *prev, *next;
    bt_doorbell *bell; /* NULL once closed */
    uint32_t n_users;  /* the owner and the calls that are out */
};

/* A device that has failed never makes the calls that are out: their wakers stay here. */
static struct {
    pthread_mutex_t lock; /* of every waker, too */
    bt_cuda_waker *first;
} wakers = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Lock held. */
static void drop_user(bt_cuda_waker *waker)
{
    if (--waker->n_users > 0)
        return;
    *(waker->prev != NULL ? &waker->prev->next : &wakers.first) = waker->next;
    if (waker->next != NULL)
        waker->next->prev = waker->prev;
    bt_free(waker);
}

baton_status bt_cuda_waker_open(bt_doorbell *bell, bt_cuda_waker **waker_p)
{
    bt_cuda_waker *waker = bt_calloc(1, sizeof(*waker));
    if (waker == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "cuda: waker");
    waker->bell = bell;
    waker->n_users = 1;
    pthread_mutex_lock(&wakers.lock);
    waker->next = wakers.first;
    if (waker->next != NULL)
        waker->next->prev = waker;
    wakers.first = waker;
    pthread_mutex_unlock(&wakers.lock);
    *waker_p = waker;
    return BATON_OK;
}

void bt_cuda_waker_close(bt_cuda_waker *waker)
{
    if (waker == NULL)
        return;
    pthread_mutex_lock(&wakers.lock);
    waker->bell = NULL;
    drop_user(waker);
    pthread_mutex_unlock(&wakers.lock);
}

/* On a thread of the driver, which forbids calls into CUDA from here. The lock keeps the bell alive
 * and is never held for long. */
static void ring(void *user_data)
{
    bt_cuda_waker *waker = user_data;
    pthread_mutex_lock(&wakers.lock);
    if (waker->bell != NULL)
        bt_doorbell_ring(waker->bell);
    drop_user(waker);
    pthread_mutex_unlock(&wakers.lock);
}

void bt_cuda_waker_queue(bt_cuda_waker *waker, const bt_cuda *cuda, bt_cu_stream stream)
{
    pthread_mutex_lock(&wakers.lock);
    waker->n_users++;
    pthread_mutex_unlock(&wakers.lock);
    if (cuda->driver->launch_host_function(stream, ring, waker) == BT_CU_SUCCESS)
        return;
    pthread_mutex_lock(&wakers.lock);
    drop_user(waker);
    pthread_mutex_unlock(&wakers.lock);
}
