/* SPDX-License-Identifier: Apache-2.0 */
/* bt_model_load: weights from model.safetensors, or from the shards that
 * model.safetensors.index.json lists. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/filetext.h"
#include "engine/modelweights.h"
#include "engine/safetensors.h"

enum { MAX_INDEX_BYTES = 64 << 20, PATH_BYTES = 4096 };

typedef struct {
    const char *dir;
    json_t *index;          /* NULL: one file, files[0] */
    bt_safetensors **files; /* [n_files] */
    size_t n_files;
} model_files;

static baton_status join(const char *dir, const char *name, char path[PATH_BYTES])
{
    if (snprintf(path, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        return bt_fail(BATON_ERR_TOO_LARGE, "model: path is too long: %.200s/%.200s", dir, name);
    return BATON_OK;
}

/* Opens dir/name unless it is open already; *file_p is borrowed. */
static baton_status open_file(model_files *m, const char *name, bt_safetensors **file_p)
{
    char path[PATH_BYTES];
    BATON_TRY(join(m->dir, name, path));
    for (size_t i = 0; i < m->n_files; i++)
        if (strcmp(bt_safetensors_name(m->files[i]), path) == 0) {
            *file_p = m->files[i];
            return BATON_OK;
        }
    bt_safetensors **files = bt_realloc(m->files, m->n_files + 1, sizeof(*files));
    if (files == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "model: list of files");
    m->files = files;
    BATON_TRY(bt_safetensors_open(path, &m->files[m->n_files]));
    *file_p = m->files[m->n_files++];
    return BATON_OK;
}

/* The file that holds a tensor. */
static baton_status file_of(model_files *m, const char *tensor, bt_safetensors **file_p)
{
    if (m->index == NULL) {
        *file_p = m->files[0];
        return BATON_OK;
    }
    const char *name =
        json_string_value(json_object_get(json_object_get(m->index, "weight_map"), tensor));
    if (name == NULL)
        return bt_fail(BATON_ERR_CORRUPT,
                       "model.safetensors.index.json: tensor %s is not in weight_map", tensor);
    if (strchr(name, '/') != NULL || name[0] == '.' || name[0] == 0)
        return bt_fail(BATON_ERR_CORRUPT,
                       "model.safetensors.index.json: tensor %s: wanted a file beside the index, "
                       "found '%.100s'",
                       tensor, name);
    return open_file(m, name, file_p);
}

static void shape_text(const bt_tensor *tensor, char *text, size_t n)
{
    size_t used = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < tensor->n_dims && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, "%s%llu", i == 0 ? "" : ", ",
                                 (unsigned long long)tensor->shape[i]);
}

static baton_status check_tensor(const bt_safetensors *file, const bt_tensor *tensor,
                                 uint32_t n_rows, uint32_t n_columns)
{
    bool fits = n_columns == 0 ? tensor->n_dims == 1 && tensor->shape[0] == n_rows
                               : tensor->n_dims == 2 && tensor->shape[0] == n_rows &&
                                     tensor->shape[1] == n_columns;
    char found[200], columns[16] = "";
    shape_text(tensor, found, sizeof(found));
    if (n_columns != 0)
        snprintf(columns, sizeof(columns), ", %u", n_columns);
    if (!fits)
        return bt_fail(BATON_ERR_CORRUPT,
                       "%s: tensor %s: wanted shape [%u%s] by config.json, found [%s]",
                       bt_safetensors_name(file), tensor->name, n_rows, columns, found);
    if (tensor->dtype == 0)
        return bt_fail(BATON_ERR_UNSUPPORTED, "%s: tensor %s: wanted F32, BF16 or F16, found %s",
                       bt_safetensors_name(file), tensor->name, tensor->dtype_name);
    return BATON_OK;
}

static baton_status get(void *ctx, const char *name, uint32_t n_rows, uint32_t n_columns,
                        bt_tensor_data *out)
{
    bt_safetensors *file;
    BATON_TRY(file_of(ctx, name, &file));
    const bt_tensor *tensor = bt_safetensors_find(file, name);
    if (tensor == NULL)
        return bt_fail(BATON_ERR_CORRUPT, "%s: tensor %s is missing", bt_safetensors_name(file),
                       name);
    BATON_TRY(check_tensor(file, tensor, n_rows, n_columns));
    *out = (bt_tensor_data){.data = tensor->data, .dtype = tensor->dtype};
    return BATON_OK;
}

static baton_status load_index(model_files *m, const char *path)
{
    char *text;
    size_t n;
    json_error_t error;
    BATON_TRY(bt_file_read(path, MAX_INDEX_BYTES, &text, &n));
    m->index = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    bt_free(text);
    if (m->index == NULL)
        return bt_fail(BATON_ERR_CORRUPT, "%s:%d: %s", path, error.line, error.text);
    if (!json_is_object(json_object_get(m->index, "weight_map")))
        return bt_fail(BATON_ERR_CORRUPT, "%s: wanted an object weight_map", path);
    return BATON_OK;
}

static baton_status open_files(model_files *m)
{
    char path[PATH_BYTES];
    bt_safetensors *file;
    BATON_TRY(join(m->dir, "model.safetensors.index.json", path));
    if (access(path, F_OK) == 0)
        return load_index(m, path);
    return open_file(m, "model.safetensors", &file);
}

baton_status bt_model_load(const char *model_dir, bt_model **model_p)
{
    bt_model_config config;
    BATON_TRY(bt_model_config_load(model_dir, &config));
    model_files files = {.dir = model_dir};
    baton_status status = open_files(&files);
    if (status == BATON_OK)
        status = bt_model_build(&config, &(bt_tensor_source){.get = get, .ctx = &files}, model_p);
    for (size_t i = 0; i < files.n_files; i++)
        bt_safetensors_close(files.files[i]);
    bt_free(files.files);
    json_decref(files.index);
    return status;
}
