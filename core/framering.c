/* SPDX-License-Identifier: Apache-2.0 */
#include "core/framering.h"

#include "core/fail.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

/* Offsets in the ring's memory: what one side writes often has a cache line of its own. */
enum { TAIL_AT = 0, HEAD_AT = 64, ASLEEP_AT = 128, ALIGN = 8, RECORD_BYTES = 8 };

/* "BFR1": a change of the record's format changes the magic. */
#define MAGIC UINT32_C(0x31524642)

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "atomics in shared memory must not hide a lock of one process");

static _Atomic uint64_t *position_at(const bt_framering *ring, size_t offset)
{
    return (_Atomic uint64_t *)(void *)(ring->memory + offset);
}

static _Atomic uint32_t *asleep_flag(const bt_framering *ring)
{
    return (_Atomic uint32_t *)(void *)(ring->memory + ASLEEP_AT);
}

bool bt_framering_capacity_ok(uint64_t capacity)
{
    return capacity >= BT_FRAMERING_CAPACITY_MIN && capacity <= BT_FRAMERING_CAPACITY_MAX &&
           (capacity & (capacity - 1)) == 0;
}

void bt_framering_open(bt_framering *ring, void *memory, uint32_t capacity)
{
    assert(bt_framering_capacity_ok(capacity) && (uintptr_t)memory % 64 == 0);
    *ring = (bt_framering){.memory = memory, .capacity = capacity};
}

bool bt_framering_is_up(const bt_framering *ring)
{
    return ring->memory != NULL && !ring->is_broken;
}

size_t bt_framering_frame_max(uint32_t capacity)
{
    return capacity - RECORD_BYTES;
}

static uint64_t record_bytes(uint64_t frame_bytes)
{
    return RECORD_BYTES + (frame_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void copy_in(const bt_framering *ring, uint64_t position, const void *from, size_t bytes)
{
    uint8_t *data = ring->memory + BT_FRAMERING_HEADER_BYTES;
    size_t at = position & (ring->capacity - 1), first = ring->capacity - at;
    first = first < bytes ? first : bytes;
    memcpy(data + at, from, first);
    memcpy(data, (const uint8_t *)from + first, bytes - first);
}

static void copy_out(const bt_framering *ring, uint64_t position, void *to, size_t bytes)
{
    const uint8_t *data = ring->memory + BT_FRAMERING_HEADER_BYTES;
    size_t at = position & (ring->capacity - 1), first = ring->capacity - at;
    first = first < bytes ? first : bytes;
    memcpy(to, data + at, first);
    memcpy((uint8_t *)to + first, data, bytes - first);
}

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *from)
{
    uint32_t value = 0;
    for (int i = 3; i >= 0; i--)
        value = value << 8 | from[i];
    return value;
}

baton_status bt_framering_write(bt_framering *ring, const void *frame, size_t bytes,
                                bool *must_ring)
{
    if (!bt_framering_is_up(ring))
        return BATON_ERR_CORRUPT;
    if (bytes == 0 || bytes > bt_framering_frame_max(ring->capacity))
        return BATON_ERR_TOO_LARGE;
    /* Acquire: pairs with the reader's release, so that its reads of what is overwritten are over.
     */
    uint64_t head = atomic_load_explicit(position_at(ring, HEAD_AT), memory_order_acquire);
    uint64_t used = ring->position - head;
    if (used > ring->capacity || used % ALIGN != 0) {
        ring->is_broken = true;
        return BATON_ERR_CORRUPT;
    }
    if (record_bytes(bytes) > ring->capacity - used)
        return BATON_ERR_BUSY;
    uint8_t record[RECORD_BYTES];
    put_u32(record, MAGIC);
    put_u32(record + 4, (uint32_t)bytes);
    copy_in(ring, ring->position, record, sizeof(record));
    copy_in(ring, ring->position + RECORD_BYTES, frame, bytes);
    ring->position += record_bytes(bytes);
    /* Release: pairs with read's acquire of the tail. Sequentially consistent because of the sleep
     * handshake: this store and the load of asleep below, the reader's store of asleep and load of
     * the tail in announce_sleep. At least one side sees the other. */
    atomic_store_explicit(position_at(ring, TAIL_AT), ring->position, memory_order_seq_cst);
    *must_ring = atomic_load_explicit(asleep_flag(ring), memory_order_seq_cst) != 0 &&
                 atomic_exchange_explicit(asleep_flag(ring), 0, memory_order_seq_cst) != 0;
    return BATON_OK;
}

static baton_status broken(bt_framering *ring, uint64_t waiting, uint32_t length)
{
    ring->is_broken = true;
    return bt_fail(BATON_ERR_CORRUPT,
                   "frame ring: %llu bytes wait of at most %u, the first frame says %u",
                   (unsigned long long)waiting, ring->capacity, length);
}

baton_status bt_framering_read(bt_framering *ring, void *frame, size_t *bytes)
{
    if (!bt_framering_is_up(ring))
        return BATON_IN_PROGRESS;
    /* Acquire: pairs with the writer's store of the tail. */
    uint64_t tail = atomic_load_explicit(position_at(ring, TAIL_AT), memory_order_acquire);
    uint64_t waiting = tail - ring->position;
    if (waiting == 0)
        return BATON_IN_PROGRESS;
    if (waiting > ring->capacity || waiting % ALIGN != 0)
        return broken(ring, waiting, 0);
    uint8_t record[RECORD_BYTES]; /* aligned positions: a record never wraps, waiting has one */
    copy_out(ring, ring->position, record, sizeof(record));
    uint32_t length = get_u32(record + 4);
    if (get_u32(record) != MAGIC || length == 0 || record_bytes(length) > waiting)
        return broken(ring, waiting, length);
    copy_out(ring, ring->position + RECORD_BYTES, frame, length);
    ring->position += record_bytes(length);
    *bytes = length;
    /* Release: pairs with write's acquire of the head. */
    atomic_store_explicit(position_at(ring, HEAD_AT), ring->position, memory_order_release);
    return BATON_OK;
}

bool bt_framering_has_frame(const bt_framering *ring)
{
    /* Relaxed: read looks again. */
    return bt_framering_is_up(ring) &&
           atomic_load_explicit(position_at(ring, TAIL_AT), memory_order_relaxed) != ring->position;
}

bool bt_framering_announce_sleep(bt_framering *ring)
{
    if (!bt_framering_is_up(ring))
        return true; /* nothing will come */
    /* Both sequentially consistent: see bt_framering_write. */
    atomic_store_explicit(asleep_flag(ring), 1, memory_order_seq_cst);
    if (atomic_load_explicit(position_at(ring, TAIL_AT), memory_order_seq_cst) == ring->position)
        return true;
    bt_framering_end_sleep(ring);
    return false;
}

void bt_framering_end_sleep(bt_framering *ring)
{
    /* Relaxed: a writer that still sees 1 rings for nothing. */
    if (bt_framering_is_up(ring))
        atomic_store_explicit(asleep_flag(ring), 0, memory_order_relaxed);
}
