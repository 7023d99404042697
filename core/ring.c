/* SPDX-License-Identifier: Apache-2.0 */
/* The queue is Dmitry Vyukov's bounded MPMC queue (1024cores.net), used with one consumer. */
#include "core/ring.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { CACHE_LINE = 64, MAX_RECORD_BYTES = 64 * 1024 };
#define MAX_CAPACITY (UINT32_C(1) << 30)

typedef struct {
    atomic_uint_fast64_t turn;
    uint8_t record[];
} slot;

struct bt_ring {
    uint64_t mask; /* capacity - 1 */
    size_t record_bytes, slot_bytes;
    uint8_t *slots; /* [capacity][slot_bytes] */
    int bell_fd;
    _Alignas(CACHE_LINE) atomic_uint_fast64_t tail; /* next push; producers */
    _Alignas(CACHE_LINE) uint64_t head;             /* next pop; consumer */
    _Alignas(CACHE_LINE) atomic_bool asleep;        /* set by the consumer, taken by who rings */
};

static slot *slot_at(const bt_ring *ring, uint64_t position)
{
    return (slot *)(void *)(ring->slots + (position & ring->mask) * ring->slot_bytes);
}

static baton_status check_sizes(uint32_t capacity, size_t record_bytes)
{
    if (capacity < 2 || capacity > MAX_CAPACITY || (capacity & (capacity - 1)) != 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "ring: wanted a capacity that is a power of two from 2 to %u, found %u",
                       MAX_CAPACITY, capacity);
    if (record_bytes == 0 || record_bytes > MAX_RECORD_BYTES)
        return bt_fail(BATON_ERR_INVALID_ARG, "ring: wanted records of 1 to %d bytes, found %zu",
                       MAX_RECORD_BYTES, record_bytes);
    return BATON_OK;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

baton_status bt_ring_create(uint32_t capacity, size_t record_bytes, bt_ring **ring_p)
{
    BATON_TRY(check_sizes(capacity, record_bytes));
    baton_status status = BATON_OK;
    bt_ring *ring = bt_aligned_alloc(CACHE_LINE, sizeof(*ring));
    if (ring == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ring: wanted its head");
    memset(ring, 0, sizeof(*ring));
    ring->mask = capacity - 1;
    ring->record_bytes = record_bytes;
    ring->slot_bytes = round_up(sizeof(slot) + record_bytes, _Alignof(slot));
    ring->bell_fd = -1;
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->asleep, false);

    size_t bytes; /* cannot overflow: 2^30 slots of 64 KiB */
    if (bt_mul_size(capacity, ring->slot_bytes, &bytes))
        ring->slots = bt_aligned_alloc(CACHE_LINE, bytes);
    if (ring->slots == NULL) {
        status = bt_fail(BATON_ERR_NO_MEMORY, "ring: wanted %u slots of %zu bytes", capacity,
                         ring->slot_bytes);
        goto failed;
    }
    for (uint32_t i = 0; i < capacity; i++)
        atomic_init(&slot_at(ring, i)->turn, i);
    ring->bell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ring->bell_fd < 0) {
        status = bt_fail_errno(BATON_ERR_IO, errno, "ring: wanted an eventfd");
        goto failed;
    }
    *ring_p = ring;
    return BATON_OK;

failed:
    bt_ring_destroy(ring);
    return status;
}

/* A place in the ring that is now this producer's, or NULL when the ring is full. */
static slot *claim_slot(bt_ring *ring, uint64_t *position)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        slot *at = slot_at(ring, tail);
        /* Acquire: pairs with pop's release store, so that its read of the old record is over. */
        uint64_t turn = atomic_load_explicit(&at->turn, memory_order_acquire);
        if (turn == tail) {
            /* Relaxed: who owns a slot is decided by the exchange alone, data moves with turn. */
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                *position = tail;
                return at;
            }
        } else if ((int64_t)(turn - tail) < 0) {
            return NULL; /* still holds the record from one lap ago */
        } else {
            tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        }
    }
}

static void ring_bell(bt_ring *ring)
{
    /* A failing write means that the counter is at its end, so that the fd is readable anyway. */
    uint64_t one = 1;
    ssize_t n = write(ring->bell_fd, &one, sizeof(one));
    (void)n;
}

baton_status bt_ring_push(bt_ring *ring, const void *record)
{
    uint64_t position;
    slot *at = claim_slot(ring, &position);
    if (at == NULL)
        return bt_fail(BATON_ERR_BUSY, "ring: wanted a free slot, all %llu are taken; try again",
                       (unsigned long long)(ring->mask + 1));
    memcpy(at->record, record, ring->record_bytes);
    /* Release: pairs with pop's acquire load, which then sees the record. Sequentially consistent
     * because of the sleep handshake: this store and the load of asleep below, the consumer's store
     * of asleep and load of turn in announce_sleep. At least one side sees the other. */
    atomic_store_explicit(&at->turn, position + 1, memory_order_seq_cst);
    if (atomic_load_explicit(&ring->asleep, memory_order_seq_cst) &&
        atomic_exchange_explicit(&ring->asleep, false, memory_order_seq_cst))
        ring_bell(ring); /* only the producer that took the announcement */
    return BATON_OK;
}

bool bt_ring_pop(bt_ring *ring, void *record)
{
    slot *at = slot_at(ring, ring->head);
    /* Acquire: pairs with push's store. */
    if (atomic_load_explicit(&at->turn, memory_order_acquire) != ring->head + 1)
        return false;
    memcpy(record, at->record, ring->record_bytes);
    /* Release: pairs with claim_slot's acquire load one lap later. */
    atomic_store_explicit(&at->turn, ring->head + ring->mask + 1, memory_order_release);
    ring->head++;
    return true;
}

int bt_ring_fd(const bt_ring *ring)
{
    return ring->bell_fd;
}

bool bt_ring_announce_sleep(bt_ring *ring)
{
    /* Both sequentially consistent: see bt_ring_push. */
    atomic_store_explicit(&ring->asleep, true, memory_order_seq_cst);
    uint64_t turn = atomic_load_explicit(&slot_at(ring, ring->head)->turn, memory_order_seq_cst);
    if (turn != ring->head + 1)
        return true;
    bt_ring_end_sleep(ring);
    return false;
}

void bt_ring_end_sleep(bt_ring *ring)
{
    /* A producer that took the announcement may ring only after the read below: then the next sleep
     * ends at once, and that end clears the bell. Hence always the read. */
    atomic_store_explicit(&ring->asleep, false, memory_order_seq_cst);
    uint64_t rings;
    ssize_t n = read(ring->bell_fd, &rings, sizeof(rings));
    (void)n;
}

void bt_ring_destroy(bt_ring *ring)
{
    if (ring == NULL)
        return;
    if (ring->bell_fd >= 0)
        close(ring->bell_fd);
    bt_free(ring->slots);
    bt_free(ring);
}
