/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "core/alloc.h"
#include "core/fail.h"

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER_BYTES = 100 * 1000 * 1000, /* the format's own limit */
};

struct bt_safetensors {
    char *name;
    void *map; /* NULL when the bytes are the caller's */
    size_t map_bytes;
    bt_tensor *tensors; /* [n], by name */
    size_t n;
};

static const struct {
    const char *name;
    uint64_t bytes;
    baton_dtype dtype; /* 0: known, but only its size matters */
} types[] = {
    {"F32", 4, BATON_DTYPE_F32},
    {"BF16", 2, BATON_DTYPE_BF16},
    {"F16", 2, BATON_DTYPE_F16},
    {"F64", 8, 0},
    {"I64", 8, 0},
    {"U64", 8, 0},
    {"I32", 4, 0},
    {"U32", 4, 0},
    {"I16", 2, 0},
    {"U16", 2, 0},
    {"I8", 1, 0},
    {"U8", 1, 0},
    {"BOOL", 1, 0},
    {"F8_E4M3", 1, 0},
    {"F8_E5M2", 1, 0},
};

static baton_status corrupt(const bt_safetensors *file, const char *tensor, const char *what)
{
    return bt_fail(BATON_ERR_CORRUPT, "%s: tensor %.100s: %s", file->name, tensor, what);
}

/* A JSON integer that is not negative. */
static bool to_u64(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static baton_status read_dtype(const bt_safetensors *file, const json_t *entry, bt_tensor *tensor,
                               uint64_t *element_bytes)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; name != NULL && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(name, types[i].name) == 0) {
            tensor->dtype = types[i].dtype;
            snprintf(tensor->dtype_name, sizeof(tensor->dtype_name), "%s", name);
            *element_bytes = types[i].bytes;
            return BATON_OK;
        }
    return corrupt(file, tensor->name, "dtype is missing or unknown");
}

/* Sets shape; *n_bytes is what it takes. */
static baton_status read_shape(const bt_safetensors *file, const json_t *entry, bt_tensor *tensor,
                               uint64_t *n_bytes)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > BT_TENSOR_MAX_DIMS)
        return corrupt(file, tensor->name, "shape: wanted a list of at most 8 sizes");
    tensor->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        if (!to_u64(json_array_get(shape, i), &tensor->shape[i]) ||
            !bt_mul_u64(*n_bytes, tensor->shape[i], n_bytes))
            return corrupt(file, tensor->name, "shape: not a size, or too large");
    return BATON_OK;
}

static baton_status read_tensor(const bt_safetensors *file, const json_t *entry,
                                const uint8_t *data, uint64_t data_bytes, bt_tensor *tensor)
{
    if (!json_is_object(entry))
        return corrupt(file, tensor->name, "wanted an object");
    uint64_t n_bytes = 0, begin, end;
    BATON_TRY(read_dtype(file, entry, tensor, &n_bytes));
    BATON_TRY(read_shape(file, entry, tensor, &n_bytes));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (json_array_size(offsets) != 2 || !to_u64(json_array_get(offsets, 0), &begin) ||
        !to_u64(json_array_get(offsets, 1), &end) || begin > end)
        return corrupt(file, tensor->name, "data_offsets: wanted [begin, end]");
    if (end > data_bytes)
        return bt_fail(BATON_ERR_CORRUPT,
                       "%s: tensor %.100s: ends at byte %llu of the data, which has %llu: the file "
                       "is cut off or damaged",
                       file->name, tensor->name, (unsigned long long)end,
                       (unsigned long long)data_bytes);
    if (end - begin != n_bytes)
        return bt_fail(BATON_ERR_CORRUPT,
                       "%s: tensor %.100s: its shape takes %llu bytes, its data_offsets %llu",
                       file->name, tensor->name, (unsigned long long)n_bytes,
                       (unsigned long long)(end - begin));
    tensor->data = data + begin;
    tensor->n_bytes = n_bytes;
    return BATON_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const bt_tensor *)a)->name, ((const bt_tensor *)b)->name);
}

static baton_status read_header(bt_safetensors *file, json_t *root, const uint8_t *data,
                                uint64_t data_bytes)
{
    if (!json_is_object(root))
        return bt_fail(BATON_ERR_CORRUPT, "%s: header: wanted an object", file->name);
    file->tensors = bt_calloc(json_object_size(root), sizeof(*file->tensors));
    if (file->tensors == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "%s: list of tensors", file->name);
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        bt_tensor *tensor = &file->tensors[file->n];
        tensor->name = bt_strdup(name);
        if (tensor->name == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "%s: list of tensors", file->name);
        file->n++;
        BATON_TRY(read_tensor(file, entry, data, data_bytes, tensor));
    }
    qsort(file->tensors, file->n, sizeof(*file->tensors), by_name);
    return BATON_OK;
}

static baton_status read_file(bt_safetensors *file, const uint8_t *bytes, size_t n)
{
    uint64_t header_bytes = 0;
    if (n < LENGTH_BYTES)
        return bt_fail(BATON_ERR_CORRUPT, "%s: wanted at least 8 bytes, found %zu", file->name, n);
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)bytes[i] << (8 * i);
    if (header_bytes > n - LENGTH_BYTES || header_bytes > MAX_HEADER_BYTES)
        return bt_fail(BATON_ERR_CORRUPT,
                       "%s: header: claims %llu bytes, the file has %zu behind its length",
                       file->name, (unsigned long long)header_bytes, n - LENGTH_BYTES);
    json_error_t error;
    json_t *root = json_loadb((const char *)bytes + LENGTH_BYTES, (size_t)header_bytes,
                              JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return bt_fail(BATON_ERR_CORRUPT, "%s: header: %s at byte %d", file->name, error.text,
                       error.position);
    baton_status status = read_header(file, root, bytes + LENGTH_BYTES + header_bytes,
                                      n - LENGTH_BYTES - header_bytes);
    json_decref(root);
    return status;
}

static baton_status create(const char *name, bt_safetensors **file_p)
{
    bt_safetensors *file = bt_calloc(1, sizeof(*file));
    if (file != NULL)
        file->name = bt_strdup(name);
    if (file == NULL || file->name == NULL) {
        bt_safetensors_close(file);
        return bt_fail(BATON_ERR_NO_MEMORY, "%s: no memory to open it", name);
    }
    *file_p = file;
    return BATON_OK;
}

baton_status bt_safetensors_parse(const uint8_t *bytes, size_t n, const char *name,
                                  bt_safetensors **file_p)
{
    bt_safetensors *file = NULL;
    BATON_TRY(create(name, &file));
    baton_status status = read_file(file, bytes, n);
    if (status < 0) {
        bt_safetensors_close(file);
        return status;
    }
    *file_p = file;
    return BATON_OK;
}

/* Maps the file read-only. An empty file, which cannot be mapped, has 0 bytes. */
static baton_status map_file(bt_safetensors *file, int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "%s: size", file->name);
    if (!S_ISREG(info.st_mode))
        return bt_fail(BATON_ERR_INVALID_ARG, "%s: wanted a regular file", file->name);
    if (info.st_size == 0)
        return BATON_OK;
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "%s: mapping %lld bytes",
                             file->name, (long long)info.st_size);
    file->map = map;
    file->map_bytes = (size_t)info.st_size;
    return BATON_OK;
}

baton_status bt_safetensors_open(const char *path, bt_safetensors **file_p)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "%s: opening the weights", path);
    bt_safetensors *file = NULL;
    baton_status status = create(path, &file);
    if (status == BATON_OK)
        status = map_file(file, fd);
    close(fd);
    if (status == BATON_OK)
        status = read_file(file, file->map, file->map_bytes);
    if (status < 0) {
        bt_safetensors_close(file);
        return status;
    }
    *file_p = file;
    return BATON_OK;
}

size_t bt_safetensors_count(const bt_safetensors *file)
{
    return file->n;
}

const bt_tensor *bt_safetensors_at(const bt_safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const bt_tensor *bt_safetensors_find(const bt_safetensors *file, const char *name)
{
    size_t low = 0, high = file->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file->tensors[middle].name, name);
        if (order == 0)
            return &file->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *bt_safetensors_name(const bt_safetensors *file)
{
    return file->name;
}

void bt_safetensors_close(bt_safetensors *file)
{
    if (file == NULL)
        return;
    for (size_t i = 0; i < file->n; i++)
        bt_free(file->tensors[i].name);
    bt_free(file->tensors);
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    bt_free(file->name);
    bt_free(file);
}
