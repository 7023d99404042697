/* SPDX-License-Identifier: Apache-2.0 */
/* Well-formed files, and a set of damaged ones: each is refused with the tensor's name, from memory
 * that ends at an unreadable page. */
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/alloc.h"
#include "engine/safetensors.h"

enum { MAX_BYTES = 4096 };

typedef struct {
    uint8_t bytes[MAX_BYTES];
    size_t n;
} image;

/* A file with this header and n_data bytes behind it. */
static image make(const char *header, size_t n_data)
{
    image file = {.n = 8 + strlen(header) + n_data};
    assert_true(file.n <= MAX_BYTES);
    uint64_t length = strlen(header);
    for (unsigned i = 0; i < 8; i++)
        file.bytes[i] = (uint8_t)(length >> (8 * i));
    memcpy(file.bytes + 8, header, strlen(header));
    for (size_t i = 0; i < n_data; i++)
        file.bytes[8 + strlen(header) + i] = (uint8_t)i;
    return file;
}

static baton_status parse_guarded(const image *file, bt_safetensors **out, uint8_t **guarded)
{
    *guarded = bt_guarded_copy(file->bytes, file->n);
    return bt_safetensors_parse(*guarded, file->n, "m.safetensors", out);
}

static void assert_refused(const char *header, size_t n_data, const char *text)
{
    image file = make(header, n_data);
    bt_safetensors *out;
    uint8_t *guarded;
    assert_fails(parse_guarded(&file, &out, &guarded), BATON_ERR_CORRUPT, text);
    assert_fails(BATON_ERR_CORRUPT, BATON_ERR_CORRUPT, "m.safetensors");
    bt_guarded_free(guarded, file.n);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                           "\"none\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[16,16]},"
                           "\"one\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[16,24]}}";

static void tensors_are_found_by_name(void **state)
{
    (void)state;
    image file = make(good, 24);
    bt_safetensors *out;
    uint8_t *guarded;
    assert_ok(parse_guarded(&file, &out, &guarded));
    assert_int_equal(bt_safetensors_count(out), 4);
    const bt_tensor *b = bt_safetensors_find(out, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, BATON_DTYPE_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->n_bytes, 12);
    assert_int_equal(b->data[0], 4);
    assert_int_equal(bt_safetensors_find(out, "one")->dtype, 0);
    assert_int_equal(bt_safetensors_find(out, "one")->n_bytes, 8);
    assert_int_equal(bt_safetensors_find(out, "none")->n_bytes, 0);
    assert_null(bt_safetensors_find(out, "c"));
    assert_null(bt_safetensors_find(out, "__metadata__"));
    bt_safetensors_close(out);
    bt_guarded_free(guarded, file.n);
}

/* Cut at every length: never accepted, never read past the end. */
static void truncated_anywhere_is_refused(void **state)
{
    (void)state;
    image file = make(good, 24);
    for (size_t n = 0; n < file.n; n++) {
        image cut = file;
        cut.n = n;
        bt_safetensors *out;
        uint8_t *guarded;
        assert_fails(parse_guarded(&cut, &out, &guarded), BATON_ERR_CORRUPT, "m.safetensors");
        bt_guarded_free(guarded, cut.n);
    }
}

static void cut_off_data_names_the_tensor(void **state)
{
    (void)state;
    assert_refused(good, 23, "tensor one");
    assert_refused("{\"x.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 15,
                   "x.weight: ends at byte 16 of the data, which has 15");
}

static void sizes_that_do_not_fit_name_the_tensor(void **state)
{
    (void)state;
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,15]}}", 16,
                   "x: its shape takes 16 bytes, its data_offsets 15");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", 16,
                   "tensor x");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}", 16,
                   "tensor x");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}", 16,
                   "tensor x");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4]}}", 16, "tensor x: data_offsets");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1e1]}}", 16,
                   "tensor x");
}

static void impossible_shapes_name_the_tensor(void **state)
{
    (void)state;
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
                   "\"data_offsets\":[0,0]}}",
                   16, "tensor x: shape");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 16,
                   "tensor x: shape");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],"
                   "\"data_offsets\":[0,4]}}",
                   16, "tensor x: shape");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":\"4\",\"data_offsets\":[0,4]}}", 16,
                   "tensor x: shape");
    assert_refused("{\"x\":{\"dtype\":\"F77\",\"shape\":[1],\"data_offsets\":[0,4]}}", 16,
                   "tensor x: dtype");
    assert_refused("{\"x\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 16, "tensor x: dtype");
    assert_refused("{\"x\":7}", 16, "tensor x: wanted an object");
}

static void headers_that_are_no_header_are_refused(void **state)
{
    (void)state;
    assert_refused("[]", 0, "wanted an object");
    assert_refused("{", 8, "header");
    assert_refused("{}x", 8, "header");
    assert_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                   "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                   4, "header");
    image file = make("{}", 0);
    bt_safetensors *out;
    memset(file.bytes, 0xff, 8); /* claims 2^64 - 1 bytes */
    assert_fails(bt_safetensors_parse(file.bytes, file.n, "m", &out), BATON_ERR_CORRUPT,
                 "claims 18446744073709551615 bytes");
}

static void files_that_are_not_there_or_empty_are_named(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-safetensors-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    bt_safetensors *out;
    assert_fails(bt_safetensors_open(path, &out), BATON_ERR_CORRUPT, path);
    assert_int_equal(unlink(path), 0);
    assert_fails(bt_safetensors_open(path, &out), BATON_ERR_NOT_FOUND, path);
    assert_fails(bt_safetensors_open("/tmp", &out), BATON_ERR_INVALID_ARG, "regular file");
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    image file = make(good, 24);
    for (uint64_t nth = 1;; nth++) {
        bt_safetensors *out;
        bt_alloc_fail_at(nth);
        baton_status status = bt_safetensors_parse(file.bytes, file.n, "m", &out);
        bool reached = bt_alloc_count() >= nth;
        bt_alloc_fail_at(0);
        if (!reached) {
            assert_ok(status);
            bt_safetensors_close(out);
            assert_true(nth > 4);
            return;
        }
        assert_fails(status, BATON_ERR_NO_MEMORY, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(tensors_are_found_by_name),
        bt_test(truncated_anywhere_is_refused),
        bt_test(cut_off_data_names_the_tensor),
        bt_test(sizes_that_do_not_fit_name_the_tensor),
        bt_test(impossible_shapes_name_the_tensor),
        bt_test(headers_that_are_no_header_are_refused),
        bt_test(files_that_are_not_there_or_empty_are_named),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return bt_run_tests(tests);
}
