/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes in: API keys, TLS, and files that are read again. What requests do in TLS when all is
 * well: the tests named test_proxy_..._tls. */
#include "rig.h"

#include "support/certificates.h"
#include "support/tlskit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { PATH_BYTES = 256 };

static const char body[] = "{\"model\":\"m\",\"prompt\":[1,2,3],\"max_tokens\":4}";

static char *write_file(char *path, const char *name, const char *text)
{
    FILE *file = fopen(tlskit_path(path, name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
    return path;
}

static unsigned post(rig *r, const char *key)
{
    char header[128] = "";
    if (key != NULL)
        snprintf(header, sizeof(header), "Authorization: Bearer %s\r\n", key);
    reply answer = rig_post(r, "/v1/completions", header, body);
    unsigned status = answer.status;
    reply_free(&answer);
    return status;
}

static void without_a_key_nothing_reaches_an_engine(void **state)
{
    (void)state;
    rig r;
    char path[PATH_BYTES];
    rig_open(&r,
             &(rig_options){.options = {.doors = {.api_keys = write_file(path, "keys", "sk-1")}}});
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 401);
    assert_non_null(strstr(answer.head, "WWW-Authenticate: Bearer"));
    assert_non_null(strstr(answer.body, "\"code\":\"invalid_api_key\""));
    assert_non_null(strstr(answer.body, "found none"));
    reply_free(&answer);
    assert_int_equal(post(&r, "sk-2"), 401);
    static const char *const closed[] = {"/v1/models", "/tokenize", "/v1/chat/completions", "/x",
                                         "/health/../v1/models"};
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
        answer = rig_get(&r, closed[i]);
        assert_int_equal(answer.status, 401);
        reply_free(&answer);
    }
    /* What is open takes no body of a stranger. */
    answer = rig_post(&r, "/health", "", body);
    assert_int_equal(answer.status, 401);
    reply_free(&answer);
    assert_int_equal(fake_count(r.prefill[0]) + fake_count(r.decode[0]), 0);
    static const char *const open[] = {"/health", "/metrics?x=1", "/version", "/readyz"};
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
        answer = rig_get(&r, open[i]);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(post(&r, "sk-1"), 200);
    assert_true(rig_metric(&r, "baton_proxy_requests_total{route=\"other\",code=\"401\"}") == 8);
    rig_close(&r);
}

/* What is refused by its head is refused before its body comes. */
static void a_body_is_not_waited_for(void **state)
{
    (void)state;
    rig r;
    char path[PATH_BYTES];
    rig_open(&r,
             &(rig_options){.options = {.doors = {.api_keys = write_file(path, "keys", "sk-1")}}});
    static const char head[] =
        "POST /v1/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 60000000\r\n"
        "Expect: 100-continue\r\n\r\n";
    reply answer = rig_raw(&r, head, sizeof(head) - 1);
    assert_int_equal(answer.status, 401);
    reply_free(&answer);
    rig_close(&r);
}

static void keys_are_read_again(void **state)
{
    (void)state;
    rig r;
    char path[PATH_BYTES];
    rig_open(&r,
             &(rig_options){.options = {.doors = {.api_keys = write_file(path, "keys", "old")}}});
    write_file(path, "keys", "new");
    assert_ok(bt_proxy_reload(r.proxy));
    assert_int_equal(post(&r, "old"), 401);
    assert_int_equal(post(&r, "new"), 200);
    write_file(path, "keys", "");
    assert_fails(bt_proxy_reload(r.proxy), BATON_ERR_CONFIG, "found none");
    assert_int_equal(post(&r, "new"), 200);
    rig_close(&r);
}

/* An engine whose certificate nobody vouches for is as good as unreachable. */
static void engines_must_be_who_they_say(void **state)
{
    (void)state;
    rig r;
    char ca[PATH_BYTES];
    bt_expect_log("code=prefill_unreachable");
    bt_expect_log("engine cannot be reached");
    setenv("BATON_TEST_TLS", "1", 1);
    bt_certificate_make(tlskit_folder(), &(bt_certificate_wish){.name = "stranger"});
    rig_open(&r,
             &(rig_options){.options = {.retries = 0,
                                        .doors = {.engine_ca = tlskit_path(ca, "stranger.pem")}}});
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 502);
    assert_non_null(strstr(answer.body, "\"code\":\"prefill_unreachable\""));
    assert_non_null(strstr(answer.body, "authentication failed"));
    reply_free(&answer);
    rig_close(&r);
    unsetenv("BATON_TEST_TLS");
}

static void files_that_do_not_fit_keep_the_proxy_from_starting(void **state)
{
    (void)state;
    char keys[PATH_BYTES], certificate[PATH_BYTES], other[PATH_BYTES];
    write_file(keys, "keys", "\n");
    tlskit_path(certificate, "server.pem");
    tlskit_path(other, "client.key");
    const struct {
        bt_door_files files;
        baton_status status;
        const char *text;
    } cases[] = {
        {{.api_keys = keys}, BATON_ERR_CONFIG, "found none"},
        {{.api_keys = "/nowhere"}, BATON_ERR_NOT_FOUND, "/nowhere"},
        {{.tls_certificate = "/nowhere"}, BATON_ERR_CONFIG, "/nowhere"},
        {{.tls_certificate = certificate, .tls_key = other}, BATON_ERR_CONFIG, "client.key"},
        {{.tls_key = other}, BATON_ERR_CONFIG, "--tls-certificate"},
        {{.tls_client_ca = certificate}, BATON_ERR_CONFIG, "--tls-certificate"},
        {{.engine_key = other}, BATON_ERR_CONFIG, "--engine-certificate"},
    };
    bt_doors doors;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_fails(bt_doors_open(&cases[i].files, true, &doors), cases[i].status, cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(without_a_key_nothing_reaches_an_engine),
        bt_test(a_body_is_not_waited_for),
        bt_test(keys_are_read_again),
        bt_test(engines_must_be_who_they_say),
        bt_test(files_that_do_not_fit_keep_the_proxy_from_starting),
    };
    return bt_run_tests(tests);
}
