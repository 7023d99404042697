/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/suggest.h"

static const char *nearest(const char *word)
{
    static const char *const keys[] = {"pool_bytes", "proxy_host", "proxy_port", "role", "host"};
    bt_suggest near = {.word = word};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        bt_suggest_offer(&near, keys[i]);
    return near.best;
}

static void slips_of_the_finger_find_their_word(void **state)
{
    (void)state;
    assert_string_equal(nearest("pool_byte"), "pool_bytes");
    assert_string_equal(nearest("pool-bytse"), "pool_bytes");
    assert_string_equal(nearest("proxy_hots"), "proxy_host");
    assert_string_equal(nearest("rloe"), "role");
    assert_string_equal(nearest("ROLE") == NULL ? "none" : "some", "none");
}

static void far_words_find_nothing(void **state)
{
    (void)state;
    assert_null(nearest("temperature"));
    assert_null(nearest(""));
    char longest[5000];
    memset(longest, 'p', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_null(nearest(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(slips_of_the_finger_find_their_word),
        bt_test(far_words_find_nothing),
    };
    return bt_run_tests(tests);
}
