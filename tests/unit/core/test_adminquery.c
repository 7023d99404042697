/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/adminquery.h"

static unsigned reads(const char *head, bool local_host, bt_admin_query *query)
{
    size_t n = strlen(head);
    const char *error = NULL;
    uint8_t *bytes = bt_guarded_copy(head, n);
    unsigned status = bt_admin_query_read((const char *)bytes, n, local_host, query, &error);
    bt_guarded_free(bytes, n);
    if (status != 200)
        assert_non_null(error);
    return status;
}

static void a_question_is_read(void **state)
{
    (void)state;
    bt_admin_query query;
    assert_int_equal(reads("GET / HTTP/1.1\r\n", false, &query), 200);
    assert_string_equal(query.name, "");
    assert_int_equal(query.limit, BT_ADMIN_ROWS_DEFAULT);
    assert_int_equal(
        reads("GET /pages?state=landed&from=20&limit=7&id=a%2fb%20c HTTP/1.0\r\nX: y\r\n", false,
              &query),
        200);
    assert_string_equal(query.name, "pages");
    assert_string_equal(query.state, "landed");
    assert_string_equal(query.id, "a/b c");
    assert_int_equal(query.from, 20);
    assert_int_equal(query.limit, 7);
}

static void a_limit_is_limited(void **state)
{
    (void)state;
    bt_admin_query query;
    assert_int_equal(reads("GET /pages?limit=999999999999 HTTP/1.1\r\n", false, &query), 200);
    assert_int_equal(query.limit, BT_ADMIN_ROWS_MAX);
}

static void other_words_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        unsigned status;
    } cases[] = {
        {"", 400},
        {"\r\n", 400},
        {"GET\r\n", 400},
        {"GET /pages\r\n", 400},
        {"GET /pages HTTP/2\r\n", 400},
        {"GET  /pages HTTP/1.1\r\n", 400},
        {"POST /pages HTTP/1.1\r\n", 405},
        {"get /pages HTTP/1.1\r\n", 405},
        {"GET pages HTTP/1.1\r\n", 400},
        {"GET /../etc HTTP/1.1\r\n", 400},
        {"GET /PAGES HTTP/1.1\r\n", 400},
        {"GET /abcdefghijklmnopqrstuvwxyzabcdefghij HTTP/1.1\r\n", 400},
        {"GET /pages?limit=0 HTTP/1.1\r\n", 400},
        {"GET /pages?limit=-1 HTTP/1.1\r\n", 400},
        {"GET /pages?from=1234567890123456789 HTTP/1.1\r\n", 400},
        {"GET /pages?other=1 HTTP/1.1\r\n", 400},
        {"GET /trace?id=%0 HTTP/1.1\r\n", 400},
        {"GET /trace?id=%00 HTTP/1.1\r\n", 400},
        {"GET /trace?id=%zz HTTP/1.1\r\n", 400},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_admin_query query;
        unsigned status = reads(cases[i].head, false, &query);
        if (status != cases[i].status)
            fail_msg("%s: wanted %u, found %u", cases[i].head, cases[i].status, status);
    }
    const char *error;
    bt_admin_query query;
    const char with_zero[] = "GET / HTTP/1.1\r\nX: \0y\r\n";
    assert_int_equal(bt_admin_query_read(with_zero, sizeof(with_zero) - 1, false, &query, &error),
                     400);
}

static void an_id_must_fit(void **state)
{
    (void)state;
    char head[BT_ADMIN_ID_BYTES + 64] = "GET /trace?id=";
    bt_admin_query query;
    size_t n = strlen(head);
    memset(head + n, 'x', BT_ADMIN_ID_BYTES);
    strcpy(head + n + BT_ADMIN_ID_BYTES, " HTTP/1.1\r\n");
    assert_int_equal(reads(head, false, &query), 200);
    assert_int_equal(strlen(query.id), BT_ADMIN_ID_BYTES);
    strcpy(head + n + BT_ADMIN_ID_BYTES, "x HTTP/1.1\r\n");
    assert_int_equal(reads(head, false, &query), 400);
}

/* A page of the web can make a browser connect here, by a name that it has made up. */
static void on_a_port_only_this_host_is_meant(void **state)
{
    (void)state;
    bt_admin_query query;
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: evil.example\r\n", true, &query), 403);
    assert_int_equal(reads("GET / HTTP/1.1\r\nA: b\r\nhOST:\tlocalhost.evil:80\r\n", true, &query),
                     403);
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n", true, &query), 403);
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: LocalHost:7400\r\n", true, &query), 200);
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: 127.0.0.1:7400\r\n", true, &query), 200);
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: [::1]:7400\r\n", true, &query), 200);
    assert_int_equal(reads("GET / HTTP/1.1\r\nHost: any.thing\r\n", false, &query), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_question_is_read),
        bt_test(a_limit_is_limited),
        bt_test(other_words_are_refused),
        bt_test(an_id_must_fit),
        bt_test(on_a_port_only_this_host_is_meant),
    };
    return bt_run_tests(tests);
}
