/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a ring as a hostile peer leaves it: the input is the tail, the head and what lies
 * in data, repeated. Both ends stay within their bounds, and reading ends. */
#include "core/framering.h"
#include "fuzz/fuzzinput.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAPACITY = 4096, TAIL_AT = 0, HEAD_AT = 64, POSITION_BYTES = 8 };

static void fill(uint8_t *memory, const uint8_t *data, size_t size)
{
    size_t head = size < POSITION_BYTES ? size : POSITION_BYTES;
    memcpy(memory + TAIL_AT, data, head);
    data += head;
    size -= head;
    head = size < POSITION_BYTES ? size : POSITION_BYTES;
    memcpy(memory + HEAD_AT, data, head);
    data += head;
    size -= head;
    for (size_t i = 0; size > 0 && i < CAPACITY; i++)
        memory[BT_FRAMERING_HEADER_BYTES + i] = data[i % size];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { BYTES = BT_FRAMERING_HEADER_BYTES + CAPACITY };
    uint8_t *memory = aligned_alloc(64, BYTES);
    uint8_t *frame = malloc(bt_framering_frame_max(CAPACITY)); /* exactly what is promised */
    fuzz_must(memory != NULL && frame != NULL);
    memset(memory, 0, BYTES);
    fill(memory, data, size);
    bt_framering reader, writer;
    bt_framering_open(&reader, memory, CAPACITY);
    bt_framering_open(&writer, memory, CAPACITY);
    uint32_t n_frames = 0;
    size_t bytes = 0;
    while (bt_framering_read(&reader, frame, &bytes) == BATON_OK) {
        fuzz_must(bytes > 0 && bytes <= bt_framering_frame_max(CAPACITY));
        fuzz_must(++n_frames <= CAPACITY / 16);
    }
    fuzz_must(bt_framering_announce_sleep(&reader) || reader.is_broken || n_frames > 0);
    bool must_ring;
    memset(frame, 1, bt_framering_frame_max(CAPACITY));
    for (uint32_t i = 0; i < 64; i++)
        bt_framering_write(&writer, frame, 1 + (i * 97) % bt_framering_frame_max(CAPACITY),
                           &must_ring);
    free(frame);
    free(memory);
    return 0;
}
