/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded ring of frames in memory that two processes map: one writes, one reads. Neither trusts
 * the other: positions and lengths that come out of the memory are checked before use, a frame is
 * copied out before anybody looks into it, and no position of one's own is ever read back. What
 * does not add up breaks this end of the ring, for good; the caller goes on without it.
 *
 *   memory   | tail | head | asleep |  data [capacity]                        |
 *              writer's       reader's, taken by the writer who rings
 *   data     | magic, length | frame, padded to 8 bytes | magic, length | ...   wraps anywhere
 *
 * Sleeping, so that idle costs nothing and a frame for a busy reader costs no system call:
 *
 *   while (bt_framering_read(&reader, frame, &bytes) == BATON_OK)
 *       use(frame, bytes);
 *   if (bt_framering_announce_sleep(&reader)) {   empty: the next write says that it must be rung
 *       poll(...);
 *       bt_framering_end_sleep(&reader);
 *   }
 *
 * Thread rule: a writer and a reader each belong to one thread. */
#ifndef BT_CORE_FRAMERING_H
#define BT_CORE_FRAMERING_H
#include <baton/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BT_FRAMERING_HEADER_BYTES = 256, /* before data; a ring's memory is aligned to 64 bytes */
    BT_FRAMERING_CAPACITY_MIN = 4096,
    BT_FRAMERING_CAPACITY_MAX = 4 << 20,
};

/* One end. 0-initialised: no ring. */
typedef struct {
    uint8_t *memory;   /* borrowed, [BT_FRAMERING_HEADER_BYTES + capacity]; NULL: no ring */
    uint64_t position; /* bytes ever written, or read, by this end */
    uint32_t capacity;
    bool is_broken;
} bt_framering;

/* A power of two within the limits. */
bool bt_framering_capacity_ok(uint64_t capacity);
/* One end of a ring in zeroed memory that nobody has used. */
void bt_framering_open(bt_framering *ring, void *memory, uint32_t capacity);
/* Open and not broken. */
bool bt_framering_is_up(const bt_framering *ring);
/* The longest frame that fits. */
size_t bt_framering_frame_max(uint32_t capacity);

/* Writer. *must_ring: the reader sleeps and has to be woken. Errors: BUSY (full now), TOO_LARGE (or
 * empty), CORRUPT (the ring is broken); nothing was written, and no text is left: the caller takes
 * another way. */
baton_status bt_framering_write(bt_framering *ring, const void *frame, size_t bytes,
                                bool *must_ring);
/* Reader. Copies the oldest frame to frame[bt_framering_frame_max(capacity)]. IN_PROGRESS: there is
 * none. Errors: CORRUPT (said once, with a text; nothing comes from then on). */
baton_status bt_framering_read(bt_framering *ring, void *frame, size_t *bytes);
/* A read would give something, a failure included. */
bool bt_framering_has_frame(const bt_framering *ring);
/* True: empty, and the next write must ring. False: there is something to read. */
bool bt_framering_announce_sleep(bt_framering *ring);
void bt_framering_end_sleep(bt_framering *ring);

#endif
