/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/apikeys.h"

#include "core/fail.h"

#include "support/oom.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static void write_keys(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
}

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "/tmp/baton-keys-XXXXXX");
    int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void a_key_of_the_file_admits(void **state)
{
    (void)state;
    bt_apikeys *keys;
    char text[4096];
    snprintf(text, sizeof(text), "# ours\n#%03000d\nsk-one\r\n\nsk-two", 7);
    write_keys(text);
    assert_ok(bt_apikeys_create(path, &keys));
    snprintf(text, sizeof(text), "Bearer %0452d", 7); /* a tail of the long comment */
    assert_false(bt_apikeys_admit(keys, text));
    static const char *const good[] = {"Bearer sk-one", "bearer sk-two", "BEARER sk-one"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(bt_apikeys_admit(keys, good[i]));
    static const char *const bad[] = {"",
                                      "Bearer",
                                      "Bearer ",
                                      "sk-one",
                                      "# ours",
                                      "Bearer # ours",
                                      "Bearer sk-on",
                                      "Bearer sk-one ",
                                      "Bearer  sk-one",
                                      "Basic sk-one",
                                      "Bearer sk-oneX"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(bt_apikeys_admit(keys, bad[i]));
    assert_false(bt_apikeys_admit(keys, NULL));
    char huge[4096];
    snprintf(huge, sizeof(huge), "Bearer %04000d", 0);
    assert_false(bt_apikeys_admit(keys, huge));
    bt_apikeys_destroy(keys);
}

static void files_read_again_replace_the_keys(void **state)
{
    (void)state;
    bt_apikeys *keys;
    write_keys("old\n");
    assert_ok(bt_apikeys_create(path, &keys));
    write_keys("new\n");
    assert_ok(bt_apikeys_reload(keys));
    assert_true(bt_apikeys_admit(keys, "Bearer new"));
    assert_false(bt_apikeys_admit(keys, "Bearer old"));
    write_keys("\n");
    assert_fails(bt_apikeys_reload(keys), BATON_ERR_CONFIG, "found none");
    assert_true(bt_apikeys_admit(keys, "Bearer new"));
    bt_apikeys_destroy(keys);
}

static void files_that_cannot_be_keys_are_named(void **state)
{
    (void)state;
    bt_apikeys *keys;
    char huge[BT_API_KEY_BYTES_MAX + 64], most[BT_API_KEY_BYTES_MAX + 16];
    assert_fails(bt_apikeys_create("/nowhere/keys", &keys), BATON_ERR_NOT_FOUND, "/nowhere/keys");
    write_keys("# nothing but words\n");
    assert_fails(bt_apikeys_create(path, &keys), BATON_ERR_CONFIG, "wanted a key a line");
    write_keys("good\ntwo words\n");
    assert_fails(bt_apikeys_create(path, &keys), BATON_ERR_CONFIG, "line 2");
    snprintf(huge, sizeof(huge), "%0*d\n", BT_API_KEY_BYTES_MAX + 1, 0);
    write_keys(huge);
    assert_fails(bt_apikeys_create(path, &keys), BATON_ERR_CONFIG, "line 1");
    FILE *file = fopen(path, "w");
    for (int i = 0; i <= BT_API_KEYS_MAX; i++)
        fprintf(file, "key-%d\n", i);
    fclose(file);
    assert_fails(bt_apikeys_create(path, &keys), BATON_ERR_CONFIG, "at most 4096");
    write_keys("key\n");
    chmod(path, 0640);
    assert_fails(bt_apikeys_create(path, &keys), BATON_ERR_PERMISSION, "0640");
    snprintf(most, sizeof(most), "%0*d", BT_API_KEY_BYTES_MAX, 0);
    write_keys(most);
    assert_ok(bt_apikeys_create(path, &keys));
    bt_apikeys_destroy(keys);
}

static baton_status make(void *ctx)
{
    (void)ctx;
    bt_apikeys *keys;
    BATON_TRY(bt_apikeys_create(path, &keys));
    baton_status status = bt_apikeys_reload(keys);
    bt_apikeys_destroy(keys);
    return status;
}

static void keys_need_memory_and_a_descriptor(void **state)
{
    (void)state;
    write_keys("key\n");
    bt_check_scarce_memory(make, NULL);
    bt_check_scarce_descriptors(make, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_key_of_the_file_admits),
        bt_test(files_read_again_replace_the_keys),
        bt_test(files_that_cannot_be_keys_are_named),
        bt_test(keys_need_memory_and_a_descriptor),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
