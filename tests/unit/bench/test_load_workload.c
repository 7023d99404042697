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
static bt_load_record earlier[8]; /* turns */

static int make_options(void **state)
{
    options = (bt_load_options){.seed = 3,
                                .input_tokens = {20, 40},
                                .output_tokens = {8, 8},
                                .chars_per_token = 2,
                                .vocab = 100,
                                .n_turns = 1,
                                .n_prefixes = 1,
                                .stream = true};
    return bt_test_setup(state);
}

static int drop(void **state)
{
    bt_load_workload_destroy(workload);
    workload = NULL;
    bt_strbuf_free(&body);
    for (size_t i = 0; i < 8; i++)
        bt_load_record_free(&earlier[i]);
    return bt_test_teardown(state);
}

static void make_body(uint32_t i)
{
    assert_ok(bt_load_workload_body(workload, i, earlier, "m\"1", &body));
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
    assert_int_equal(shortest, 20 + 40);
    assert_int_equal(longest, 20 + 80);
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
        assert_in_range(bt_json_length(ids), 40, 60);
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
    options.backend = BT_LOAD_CHAT;
    assert_ok(bt_load_workload_create(&options, &workload));
    make_body(7);
    char *kept = strdup(bt_strbuf_text(&body));
    make_body(6);
    assert_string_not_equal(bt_strbuf_text(&body), kept);
    make_body(7);
    assert_string_equal(bt_strbuf_text(&body), kept);
    free(kept);
}

static void prefixes_come_in_turns(void **state)
{
    (void)state;
    options.prefix_tokens = 10;
    options.n_prefixes = 3;
    assert_ok(bt_load_workload_create(&options, &workload));
    char prefix[6][21] = {0}, text[200];
    for (uint32_t i = 0; i < 6; i++) {
        make_body(i);
        assert_ok(bt_json_string(member("prompt"), text, sizeof(text), NULL));
        memcpy(prefix[i], text, 20);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_string_equal(prefix[i], prefix[i + 3]);
        assert_string_not_equal(prefix[i], prefix[(i + 1) % 3]);
    }
}

static void answer_turn(uint32_t turn, bool ok, const char *text)
{
    earlier[turn].ok = ok;
    bt_strbuf_clear(&earlier[turn].text);
    bt_strbuf_puts(&earlier[turn].text, text);
}

static void a_turn_begins_with_all_before_it(void **state)
{
    (void)state;
    options.n_turns = 4;
    options.prefix_tokens = 10;
    assert_ok(bt_load_workload_create(&options, &workload));
    char said[4][400] = {0};
    static const char *const answers[] = {"\"one\"\n", "lost", "three"};
    for (uint32_t i = 0; i < 4; i++) {
        make_body(8 + i);
        assert_ok(bt_json_string(member("prompt"), said[i], sizeof(said[i]), NULL));
        if (i < 3)
            answer_turn(i, i != 1, answers[i]);
    }
    size_t n = strlen(said[0]);
    assert_memory_equal(said[1], said[0], n);
    assert_memory_equal(said[1] + n, answers[0], strlen(answers[0]));
    /* The second turn failed: neither what was asked nor what came is part of the third. */
    size_t kept = n + strlen(answers[0]);
    assert_memory_equal(said[2], said[1], kept);
    assert_null(strstr(said[2], "lost"));
    assert_memory_equal(said[3], said[2], strlen(said[2]));
    assert_memory_equal(said[3] + strlen(said[2]), "three", 5);
    assert_string_not_equal(said[1] + kept, said[2] + kept);
}

static void a_chat_alternates(void **state)
{
    (void)state;
    options.n_turns = 3;
    options.backend = BT_LOAD_CHAT;
    assert_ok(bt_load_workload_create(&options, &workload));
    answer_turn(0, true, "a \"quote\"");
    answer_turn(1, true, "b");
    make_body(2);
    static const char *const wanted[] = {"user", "assistant", "user", "assistant", "user"};
    bt_json_iter iter = bt_json_begin(member("messages"));
    bt_json_value message, value;
    for (size_t i = 0; i < 5; i++) {
        assert_true(bt_json_next(&iter, &message));
        assert_ok(bt_json_get(message, "role", &value));
        assert_true(bt_json_string_equals(value, wanted[i]));
        assert_ok(bt_json_get(message, "content", &value));
        assert_true(i != 1 || bt_json_string_equals(value, "a \"quote\""));
    }
    assert_false(bt_json_next(&iter, &message));
}

/* A prompt file of that text; unlinked by the caller. */
static void write_prompts(char path[64], const char *suffix, const char *text)
{
    snprintf(path, 64, "/tmp/baton-prompts-XXXXXX%s", suffix);
    int fd = mkstemps(path, (int)strlen(suffix));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    options.dataset_path = path;
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
    options.backend = BT_LOAD_CHAT;
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

static const char sharegpt[] =
    "[{\"id\": 1, \"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, "
    "{\"from\": \"human\", \"value\": \"one\"}, {\"from\": \"gpt\", \"value\": \"12345678\"}]}, "
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"never answered\"}]}, 7,\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"two\"}, {\"role\": \"assistant\", "
    "\"content\": \"x\"}, {\"role\": \"user\", \"content\": \"three\"}, {\"role\": \"assistant\", "
    "\"content\": \"yyyyyy\"}]}]";

static void conversations_give_their_first_questions(void **state)
{
    (void)state;
    char path[64], text[64];
    write_prompts(path, ".json", sharegpt);
    assert_ok(bt_load_workload_create(&options, &workload));
    unlink(path);
    static const char *const wanted[] = {"one", "two", "one"};
    for (uint32_t i = 0; i < 3; i++) {
        make_body(i);
        assert_ok(bt_json_string(member("prompt"), text, sizeof(text), NULL));
        assert_string_equal(text, wanted[i]);
        assert_true(bt_slice_equals(member("max_tokens").text, i == 1 ? "1" : "4"));
    }
}

static void conversations_give_as_many_turns_as_wanted(void **state)
{
    (void)state;
    char path[64], text[64];
    options.n_turns = 2;
    answer_turn(0, true, "!");
    write_prompts(path, ".json", sharegpt);
    assert_ok(bt_load_workload_create(&options, &workload));
    for (uint32_t i = 0; i < 4; i++) { /* the first has one question only */
        make_body(i);
        assert_ok(bt_json_string(member("prompt"), text, sizeof(text), NULL));
        assert_string_equal(text, i % 2 == 0 ? "two" : "two!three");
    }
    bt_load_workload_destroy(workload);
    workload = NULL;
    options.n_turns = 3;
    assert_fails(bt_load_workload_create(&options, &workload), BATON_ERR_INVALID_ARG,
                 "at least 3 answered questions");
    unlink(path);
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
        {".json", "{\"prompt\": \"a\"}", "wanted an array of conversations"},
        {".json", "[{\"a\": [}]", ".json: json"},
        {".json", "[]", "found none"},
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
        load_test(prefixes_come_in_turns),
        load_test(a_turn_begins_with_all_before_it),
        load_test(a_chat_alternates),
        load_test(plain_files_hold_a_prompt_a_line),
        load_test(jsonl_files_hold_a_value_a_line),
        load_test(chat_takes_messages_as_they_are),
        load_test(conversations_give_their_first_questions),
        load_test(conversations_give_as_many_turns_as_wanted),
        load_test(bad_files_are_refused_with_their_line),
    };
    return bt_run_tests(tests);
}
