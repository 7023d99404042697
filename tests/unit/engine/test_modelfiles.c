/* SPDX-License-Identifier: Apache-2.0 */
/* Model directories that are damaged or do not fit their config: refused, naming file and tensor.
 */
#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "engine/filetext.h"
#include "engine/model.h"

enum { PATH_BYTES = 512, MAX_FILE_BYTES = 1 << 20 };
static char dir[] = "/tmp/baton-model-XXXXXX";
static const char *const files[] = {"config.json",
                                    "model.safetensors",
                                    "model.safetensors.index.json",
                                    "model-00001-of-00003.safetensors",
                                    "model-00002-of-00003.safetensors",
                                    "model-00003-of-00003.safetensors"};
enum { N_FILES = sizeof(files) / sizeof(files[0]) };

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static void remove_files(void)
{
    char path[PATH_BYTES];
    for (unsigned i = 0; i < N_FILES; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        assert_true(unlink(path) == 0 || errno == ENOENT);
    }
}

static int remove_dir(void **state)
{
    (void)state;
    remove_files();
    return rmdir(dir);
}

static char *read_file(const char *from, const char *name, size_t *n)
{
    char path[PATH_BYTES], *text;
    snprintf(path, sizeof(path), "%s/%s", from, name);
    return bt_file_read(path, MAX_FILE_BYTES, &text, n) == BATON_OK ? text : NULL;
}

static void write_file(const char *name, const char *bytes, size_t n)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* A copy of a fixture's model in dir. */
static void copy_model(const char *name)
{
    char from[PATH_BYTES];
    remove_files();
    snprintf(from, sizeof(from), "%s/llama/%s", getenv("BATON_TEST_DATA"), name);
    for (unsigned i = 0; i < N_FILES; i++) {
        size_t n;
        char *bytes = read_file(from, files[i], &n);
        if (bytes != NULL)
            write_file(files[i], bytes, n);
        bt_free(bytes);
    }
}

/* Replaces text in a file of dir by as many bytes. */
static void edit(const char *name, const char *old, const char *with)
{
    size_t n;
    char *bytes = read_file(dir, name, &n);
    assert_non_null(bytes);
    assert_int_equal(strlen(old), strlen(with));
    char *at = memmem(bytes, n, old, strlen(old));
    assert_non_null(at);
    memcpy(at, with, strlen(with));
    write_file(name, bytes, n);
    bt_free(bytes);
}

static void assert_refused(baton_status status, const char *text)
{
    bt_model *model;
    assert_fails(bt_model_load(dir, &model), status, text);
}

static void an_unharmed_copy_loads(void **state)
{
    (void)state;
    bt_model *model;
    copy_model("gqa_f32");
    assert_ok(bt_model_load(dir, &model));
    bt_model_destroy(model);
    copy_model("qwen2_sharded_bf16");
    assert_ok(bt_model_load(dir, &model));
    assert_int_equal(bt_model_get_config(model)->n_layers, 2);
    bt_model_destroy(model);
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    copy_model("gqa_f32");
    edit("model.safetensors", "layers.1.mlp.up_proj.weight", "layers.1.mlp.UP_proj.weight");
    assert_refused(BATON_ERR_CORRUPT,
                   "model.safetensors: tensor model.layers.1.mlp.up_proj.weight is missing");
}

static void a_tensor_of_another_shape_is_named(void **state)
{
    (void)state;
    copy_model("gqa_f32");
    edit("config.json", "\"vocab_size\": 96", "\"vocab_size\": 95");
    assert_refused(BATON_ERR_CORRUPT, "model.embed_tokens.weight: wanted shape [95, 32] by "
                                      "config.json, found [96, 32]");
    copy_model("gqa_f32");
    edit("config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
    assert_refused(BATON_ERR_CORRUPT, "model.layers.0.self_attn.k_proj.weight");
}

static void a_file_cut_short_is_refused_with_a_tensors_name(void **state)
{
    (void)state;
    copy_model("gqa_f32");
    size_t n;
    char *bytes = read_file(dir, "model.safetensors", &n);
    assert_non_null(bytes);
    write_file("model.safetensors", bytes, n - 1);
    assert_refused(BATON_ERR_CORRUPT, "model.safetensors: tensor ");
    write_file("model.safetensors", bytes, n / 2);
    assert_refused(BATON_ERR_CORRUPT, "cut off");
    write_file("model.safetensors", bytes, 100);
    assert_refused(BATON_ERR_CORRUPT, "header");
    bt_free(bytes);
}

static void an_element_type_we_cannot_compute_with_is_named(void **state)
{
    (void)state;
    copy_model("gqa_f32");
    /* The same size per element, so that only the type is wrong. */
    edit("model.safetensors", "\"dtype\":\"F32\"", "\"dtype\":\"I32\"");
    assert_refused(BATON_ERR_UNSUPPORTED, "wanted F32, BF16 or F16, found I32");
}

static void a_missing_shard_or_index_entry_is_named(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    copy_model("qwen2_sharded_bf16");
    snprintf(path, sizeof(path), "%s/model-00002-of-00003.safetensors", dir);
    assert_int_equal(unlink(path), 0);
    assert_refused(BATON_ERR_NOT_FOUND, "model-00002-of-00003.safetensors");
    copy_model("qwen2_sharded_bf16");
    edit("model.safetensors.index.json", "\"lm_head.weight\"", "\"lm_HEAD.weight\"");
    assert_refused(BATON_ERR_CORRUPT, "tensor lm_head.weight is not in weight_map");
    copy_model("qwen2_sharded_bf16");
    edit("model.safetensors.index.json", "\"model-00001-of-00003.safetensors\"",
         "\"../../../../../../../etc/passwd\" ");
    assert_refused(BATON_ERR_CORRUPT, "wanted a file beside the index");
    write_file("model.safetensors.index.json", "{}", 2);
    assert_refused(BATON_ERR_CORRUPT, "weight_map");
    write_file("model.safetensors.index.json", "{", 1);
    assert_refused(BATON_ERR_CORRUPT, "model.safetensors.index.json:1");
}

static void missing_files_are_named(void **state)
{
    (void)state;
    remove_files();
    assert_refused(BATON_ERR_NOT_FOUND, "config.json");
    copy_model("gqa_f32");
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(unlink(path), 0);
    assert_refused(BATON_ERR_NOT_FOUND, "model.safetensors");
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    copy_model("qwen2_sharded_bf16");
    for (uint64_t nth = 1;; nth++) {
        bt_model *model;
        bt_alloc_fail_at(nth);
        baton_status status = bt_model_load(dir, &model);
        bool reached = bt_alloc_count() >= nth;
        bt_alloc_fail_at(0);
        if (!reached) {
            assert_ok(status);
            bt_model_destroy(model);
            assert_true(nth > 20);
            return;
        }
        assert_fails(status, BATON_ERR_NO_MEMORY, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(an_unharmed_copy_loads),
        bt_test(a_missing_tensor_is_named),
        bt_test(a_tensor_of_another_shape_is_named),
        bt_test(a_file_cut_short_is_refused_with_a_tensors_name),
        bt_test(an_element_type_we_cannot_compute_with_is_named),
        bt_test(a_missing_shard_or_index_entry_is_named),
        bt_test(missing_files_are_named),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
