/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_workload.h"
#include "http/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bt_load_options options;
static bt_load_workload *workload;
static bt_strbuf body;
static bt_json_value root;

static int make_options(void **state)
{
    options = (bt_load_options){.seed = 3,
                                .prompt_tokens = {20, 40},
                                .output_tokens = {8, 8},
                                .chars_per_token = 2,
                                .vocab = 100,
                                .stream = true};
    return bt_test_setup(state);
}

static int drop(void **state)
{
    bt_load_workload_destroy(workload);
    workload = NULL;
    bt_strbuf_free(&body);
    return bt_test_teardown(state);
}

static void make_body(uint32_t i)
{
    assert_ok(bt_load_workload_body(workload, i, "m\"1", &body));
    assert_ok(bt_json_check(body.data, body.length, &root));
}

static bt_json_value member(const char *name)
{
    bt_json_value value;
    assert_ok(bt_json_get(root, name, &value));
    return value;
}

static void made_up_prompts_have_the_wanted_lengths(void **state)
{
    (void)state;
    options.prefix_tokens = 10;
    assert_ok(bt_load_workload_create(&options, &workload));
    char first[200], text[200];
    size_t n, shortest = 999, longest = 0;
    for (uint32_t i = 0; i < 200; i++) {
        make_body(i);
        assert_ok(bt_json_string(member("prompt"), text, sizeof(text), &n));
        shortest = n < shortest ? n : shortest;
        longest = n > longest ? n : longest;
        if (i == 0)
            memcpy(first, text, sizeof(first));
        assert_memory_equal(text, first, 20); /* the prefix */
    }
    assert_int_equal(shortest, 40);
    assert_int_equal(longest, 80);
    assert_string_equal(member("model").text.at[0] == '"' ? "ok" : "", "ok");
    assert_int_equal(member("stream").type, BT_JSON_TRUE);
}

static void token_id_prompts_are_exact(void **state)
{
    (void)state;
    options.token_ids = true;
    options.stream = false;
    options.prefix_tokens = 20;
    assert_ok(bt_load_workload_create(&options, &workload));
    for (uint32_t i = 0; i < 50; i++) {
        make_body(i);
        bt_json_value ids = member("prompt"), id, unused;
        assert_in_range(bt_json_length(ids), 20, 40);
        bt_json_iter iter = bt_json_begin(ids);
        while (bt_json_next(&iter, &id)) {
            uint64_t value;
            assert_ok(bt_json_uint64(id, &value));
            assert_true(value < 100);
        }
        assert_int_equal(bt_json_get(root, "stream", &unused), BATON_ERR_NOT_FOUND);
    }
}

static void a_request_does_not_depend_on_the_order(void **state)
{
    (void)state;
    options.chat = true;
    assert_ok(bt_load_workload_create(&options, &workload));
    make_body(7);
    char *kept = strdup(bt_strbuf_text(&body));
    make_body(6);
    assert_string_not_equal(bt_strbuf_text(&body), kept);
    make_body(7);
    assert_string_equal(bt_strbuf_text(&body), kept);
    free(kept);
}

static void arrivals_have_the_wanted_mean(void **state)
{
    (void)state;
    options.rate = 50;
    assert_ok(bt_load_workload_create(&options, &workload));
    double sum = 0;
    enum { N = 20000 };
    for (uint32_t i = 0; i < N; i++)
        sum += (double)bt_load_workload_gap_ns(workload, i);
    /* Mean 20 ms, its deviation over N draws 0.14 ms: the seed is fixed, so this is no lottery. */
    assert_true(sum / N > 19.4e6 && sum / N < 20.6e6);
}

/* A prompt file of that text; unlinked by the caller. */
static void write_prompts(char path[64], const char *suffix, const char *text)
{
    snprintf(path, 64, "/tmp/baton-prompts-XXXXXX%s", suffix);
    int fd = mkstemps(path, (int)strlen(suffix));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    options.prompt_file = path;
}

static void plain_files_hold_a_prompt_a_line(void **state)
{
    (void)state;
    char path[64], text[64];
    write_prompts(path, ".txt", "one \"1\"\r\n\n{\"prompt\":\"two\"}\nlast");
    assert_ok(bt_load_workload_create(&options, &workload));
    unlink(path);
    static const char *const wanted[] = {"one \"1\"", "{\"prompt\":\"two\"}", "last", "one \"1\""};
    for (uint32_t i = 0; i < 4; i++) {
        make_body(i);
        assert_ok(bt_json_string(member("prompt"), text, sizeof(text), NULL));
        assert_string_equal(text, wanted[i]);
    }
}

static void jsonl_files_hold_a_value_a_line(void **state)
{
    (void)state;
    char path[64];
    write_prompts(path, ".jsonl",
                  "\"a\\nb\"\n{\"prompt\": [1, 2], \"max_tokens\": 5}\n{\"prompt\": \"c\"}\n");
    assert_ok(bt_load_workload_create(&options, &workload));
    unlink(path);
    make_body(0);
    assert_true(bt_json_string_equals(member("prompt"), "a\nb"));
    assert_true(bt_slice_equals(member("max_tokens").text, "8"));
    make_body(1);
    assert_int_equal(bt_json_length(member("prompt")), 2);
    assert_true(bt_slice_equals(member("max_tokens").text, "5"));
}

static void chat_takes_messages_as_they_are(void **state)
{
    (void)state;
    char path[64];
    options.chat = true;
    write_prompts(path, ".jsonl", "{\"messages\": [{\"role\": \"system\"}, 1]}\n\"text\"\n");
    assert_ok(bt_load_workload_create(&options, &workload));
    unlink(path);
    make_body(0);
    assert_int_equal(bt_json_length(member("messages")), 2);
    make_body(1);
    bt_json_iter iter = bt_json_begin(member("messages"));
    bt_json_value message, content;
    assert_true(bt_json_next(&iter, &message));
    assert_ok(bt_json_get(message, "content", &content));
    assert_true(bt_json_string_equals(content, "text"));
}

static void bad_files_are_refused_with_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *suffix, *text, *wanted;
    } cases[] = {
        {".jsonl", "\"a\"\n{\"prompt\": \n", ".jsonl:2: "},
        {".jsonl", "\"a\"\n\n12\n", ".jsonl:3: wanted a JSON string or object"},
        {".jsonl", "{\"text\": \"a\"}", ".jsonl:1: wanted \"prompt\""},
        {".jsonl", "{\"prompt\": \"a\", \"max_tokens\": -1}", "max_tokens"},
        {".txt", "\n \n", "no prompt in it"},
    };
    char path[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_prompts(path, cases[i].suffix, cases[i].text);
        assert_true(bt_load_workload_create(&options, &workload) < 0);
        assert_non_null(strstr(baton_last_error(), cases[i].wanted));
        unlink(path);
    }
    assert_fails(bt_load_workload_create(&options, &workload), BATON_ERR_NOT_FOUND, path);
}

#define load_test(fn) cmocka_unit_test_setup_teardown(fn, make_options, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        load_test(made_up_prompts_have_the_wanted_lengths),
        load_test(token_id_prompts_are_exact),
        load_test(a_request_does_not_depend_on_the_order),
        load_test(arrivals_have_the_wanted_mean),
        load_test(plain_files_hold_a_prompt_a_line),
        load_test(jsonl_files_hold_a_value_a_line),
        load_test(chat_takes_messages_as_they_are),
        load_test(bad_files_are_refused_with_their_line),
    };
    return bt_run_tests(tests);
}
