/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "transport/ucxoffers.h"

#include <stdio.h>

static bt_ucx_offers offers;

static void the_installed_ucx_offers_something(void **state)
{
    (void)state;
    assert_ok(bt_ucx_offers_read(&offers));
    assert_true(offers.runtime_major >= 1);
    assert_int_equal(strncmp(offers.runtime_version, offers.header_version, 2), 0);
    assert_true(offers.n_offers > 0);
    assert_true(bt_ucx_offers_has(&offers, "tcp"));
    assert_false(bt_ucx_offers_has(&offers, "tc"));
}

static void resources_are_taken_from_the_text(void **state)
{
    (void)state;
    offers = (bt_ucx_offers){0};
    bt_ucx_offers_parse("# UCP context\n#     component 1  :  tcp\n"
                        "#            md 1  :  component 1  tcp \n"
                        "#      resource 1  :  md 1  dev 1  flags a- tcp/lo\n"
                        "#      resource 2  :  md 1  dev 1  flags a- tcp/lo \n"
                        "#      resource 3  :  md 4  dev 2  flags -- rc_mlx5/mlx5_0:1\n"
                        "#      resource 4  :  md 4  dev 2  flags --",
                        &offers);
    assert_int_equal(offers.n_offers, 2);
    assert_string_equal(offers.offers[0].transport, "tcp");
    assert_string_equal(offers.offers[0].device, "lo");
    assert_string_equal(offers.offers[1].transport, "rc_mlx5");
    assert_string_equal(offers.offers[1].device, "mlx5_0:1");
}

static void odd_text_is_passed_over(void **state)
{
    (void)state;
    offers = (bt_ucx_offers){0};
    const char *const odd[] = {"",
                               "resource ",
                               "resource /",
                               "resource a/",
                               "resource /b",
                               "resource 1 : aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b",
                               "resource 1 : a/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
                               "resource 1 : a\x01/b",
                               "\n\n\nresource"};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        uint8_t *guarded = bt_guarded_copy(odd[i], strlen(odd[i]) + 1);
        bt_ucx_offers_parse((const char *)guarded, &offers);
        bt_guarded_free(guarded, strlen(odd[i]) + 1);
    }
    assert_int_equal(offers.n_offers, 0);
}

static void more_than_fit_are_cut(void **state)
{
    (void)state;
    offers = (bt_ucx_offers){0};
    for (unsigned i = 0; i < BT_UCX_OFFERS_MAX + 2; i++) {
        char line[64];
        snprintf(line, sizeof(line), "# resource %u : tcp/eth%u\n", i, i);
        bt_ucx_offers_parse(line, &offers);
    }
    assert_int_equal(offers.n_offers, BT_UCX_OFFERS_MAX);
    assert_true(offers.is_cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_installed_ucx_offers_something),
        bt_test(resources_are_taken_from_the_text),
        bt_test(odd_text_is_passed_over),
        bt_test(more_than_fit_are_cut),
    };
    return bt_run_tests(tests);
}
