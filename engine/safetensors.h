/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of safetensors files (github.com/huggingface/safetensors, Format):
 *
 *   | u64 length, little endian | JSON header of that length | data |
 *
 * The header maps names to {"dtype", "shape", "data_offsets": [begin, end]}, offsets counted in the
 * data. All of it is checked when the file is opened: every tensor lies within the file, its size
 * is shape times element, names are unique. The file is mapped; it must not be cut short while it
 * is open.
 *
 * Thread rule: any thread once it is open. */
#ifndef BT_ENGINE_SAFETENSORS_H
#define BT_ENGINE_SAFETENSORS_H
#include <baton/layout.h>
#include <baton/status.h>

enum { BT_TENSOR_MAX_DIMS = 8 };

typedef struct {
    char *name;        /* owned by the file */
    baton_dtype dtype; /* 0: a type that the engine does not compute with */
    char dtype_name[16];
    uint32_t n_dims;
    uint64_t shape[BT_TENSOR_MAX_DIMS];
    const uint8_t *data; /* borrowed from the file, any alignment */
    uint64_t n_bytes;
} bt_tensor;

typedef struct bt_safetensors bt_safetensors;

/* Errors: CORRUPT (naming file and tensor), NOT_FOUND, PERMISSION, IO, NO_MEMORY. */
baton_status bt_safetensors_open(const char *path, bt_safetensors **file_p);
/* The same for bytes[n] in memory, borrowed until close. name is for messages. */
baton_status bt_safetensors_parse(const uint8_t *bytes, size_t n, const char *name,
                                  bt_safetensors **file_p);
size_t bt_safetensors_count(const bt_safetensors *file);
const bt_tensor *bt_safetensors_at(const bt_safetensors *file, size_t index);
/* The tensor of that name, or NULL. */
const bt_tensor *bt_safetensors_find(const bt_safetensors *file, const char *name);
/* Path or name given when it was opened. */
const char *bt_safetensors_name(const bt_safetensors *file);
void bt_safetensors_close(bt_safetensors *file); /* NULL is allowed. */

#endif
