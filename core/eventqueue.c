/* SPDX-License-Identifier: Apache-2.0 */
#include "core/eventqueue.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct bt_eventqueue {
    pthread_mutex_t lock;
    int fd;
    size_t record_bytes;
    uint8_t *records; /* [capacity] ring of record_bytes each */
    uint32_t capacity, first, n_waiting, n_reserved;
    bool is_held, is_readable;
};

baton_status bt_eventqueue_create(size_t record_bytes, bt_eventqueue **queue_p)
{
    bt_eventqueue *queue = bt_calloc(1, sizeof(*queue));
    if (queue == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "event queue");
    queue->record_bytes = record_bytes;
    queue->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (queue->fd < 0) {
        int err = errno;
        bt_free(queue);
        return bt_fail_errno(bt_status_from_errno(err), err, "event queue: eventfd");
    }
    pthread_mutex_init(&queue->lock, NULL);
    *queue_p = queue;
    return BATON_OK;
}

void bt_eventqueue_destroy(bt_eventqueue *queue)
{
    if (queue == NULL)
        return;
    close(queue->fd);
    pthread_mutex_destroy(&queue->lock);
    bt_free(queue->records);
    bt_free(queue);
}

int bt_eventqueue_fd(const bt_eventqueue *queue)
{
    return queue->fd;
}

static uint8_t *record_at(const bt_eventqueue *queue, uint32_t i)
{
    return queue->records + (size_t)((queue->first + i) % queue->capacity) * queue->record_bytes;
}

static baton_status grow(bt_eventqueue *queue, uint32_t wanted)
{
    uint32_t capacity = queue->capacity != 0 ? queue->capacity : 16;
    while (capacity < wanted)
        capacity *= 2;
    uint8_t *records = bt_calloc(capacity, queue->record_bytes);
    if (records == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "event queue: room for %u events", wanted);
    for (uint32_t i = 0; i < queue->n_waiting; i++)
        memcpy(records + i * queue->record_bytes, record_at(queue, i), queue->record_bytes);
    bt_free(queue->records);
    queue->records = records;
    queue->capacity = capacity;
    queue->first = 0;
    return BATON_OK;
}

baton_status bt_eventqueue_reserve(bt_eventqueue *queue, uint32_t n)
{
    baton_status status = BATON_OK;
    pthread_mutex_lock(&queue->lock);
    uint64_t wanted = (uint64_t)queue->n_waiting + queue->n_reserved + n;
    if (wanted > UINT32_MAX / 2)
        status = bt_fail(BATON_ERR_NO_MEMORY, "event queue: too many events reserved");
    else if (wanted > queue->capacity)
        status = grow(queue, (uint32_t)wanted);
    if (status == BATON_OK)
        queue->n_reserved += n;
    pthread_mutex_unlock(&queue->lock);
    return status;
}

void bt_eventqueue_unreserve(bt_eventqueue *queue, uint32_t n)
{
    pthread_mutex_lock(&queue->lock);
    assert(n <= queue->n_reserved);
    queue->n_reserved -= n;
    pthread_mutex_unlock(&queue->lock);
}

/* The fd mirrors "records wait" and is only touched under the lock, where that changes. */
static void update_fd(bt_eventqueue *queue)
{
    bool readable = queue->n_waiting > 0 && (queue->is_readable || !queue->is_held);
    if (readable == queue->is_readable)
        return;
    queue->is_readable = readable;
    uint64_t value = 1;
    ssize_t done =
        readable ? write(queue->fd, &value, sizeof(value)) : read(queue->fd, &value, sizeof(value));
    (void)done; /* cannot fail: the counter is 0 before a write and 1 before a read */
}

static void set_held(bt_eventqueue *queue, bool held)
{
    pthread_mutex_lock(&queue->lock);
    queue->is_held = held;
    update_fd(queue);
    pthread_mutex_unlock(&queue->lock);
}

void bt_eventqueue_hold(bt_eventqueue *queue)
{
    set_held(queue, true);
}

void bt_eventqueue_release(bt_eventqueue *queue)
{
    set_held(queue, false);
}

void bt_eventqueue_push(bt_eventqueue *queue, const void *record)
{
    bt_eventqueue_push_many(queue, record, 1);
}

void bt_eventqueue_push_many(bt_eventqueue *queue, const void *records, uint32_t n)
{
    pthread_mutex_lock(&queue->lock);
    assert(queue->n_reserved >= n);
    queue->n_reserved -= n;
    for (uint32_t i = 0; i < n; i++)
        memcpy(record_at(queue, queue->n_waiting++),
               (const uint8_t *)records + i * queue->record_bytes, queue->record_bytes);
    update_fd(queue);
    pthread_mutex_unlock(&queue->lock);
}

uint32_t bt_eventqueue_pop(bt_eventqueue *queue, void *records, uint32_t max)
{
    pthread_mutex_lock(&queue->lock);
    uint32_t n = queue->n_waiting < max ? queue->n_waiting : max;
    for (uint32_t i = 0; i < n; i++)
        memcpy((uint8_t *)records + i * queue->record_bytes, record_at(queue, i),
               queue->record_bytes);
    if (n > 0) {
        queue->first = (queue->first + n) % queue->capacity;
        queue->n_waiting -= n;
        update_fd(queue);
    }
    pthread_mutex_unlock(&queue->lock);
    return n;
}
