/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to an engine with each of their allocations failing in turn: an error, and never other
 * tokens; the next one is served, and every block of KV is back in the end. */
#include "engine/apikit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/alloc.h"

typedef struct {
    const char *path, *body;
    bool is_stream;
} question;

/* An answer as it came, in memory of the test's own: the server alone can lack some. */
static struct {
    char bytes[1 << 18];
    size_t n;
} answer;

/* nth: the allocation that fails; 0: none. How many there were. */
static uint64_t ask(bench *b, const question *q, uint64_t nth)
{
    char request[1024];
    const char *body = q->body != NULL ? q->body : "";
    int n = snprintf(request, sizeof(request),
                     "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     q->body != NULL ? "POST" : "GET", q->path, strlen(body), body);
    bt_alloc_fail_at(nth);
    int fd = bt_http_send(b->port, request, (size_t)n);
    assert_true(fd >= 0);
    ssize_t got;
    for (answer.n = 0;
         (got = recv(fd, answer.bytes + answer.n, sizeof(answer.bytes) - 1 - answer.n, 0)) > 0;)
        answer.n += (size_t)got;
    assert_true(got == 0 || errno == ECONNRESET); /* not the guard against waiting for ever */
    close(fd);
    answer.bytes[answer.n] = 0;
    uint64_t n_allocs = bt_alloc_count();
    bt_alloc_fail_at(0);
    return n_allocs;
}

static unsigned answer_status(void)
{
    return strncmp(answer.bytes, "HTTP/1.1 ", 9) == 0
               ? (unsigned)strtoul(answer.bytes + 9, NULL, 10)
               : 0;
}

static const char *answer_body(void)
{
    const char *body = strstr(answer.bytes, "\r\n\r\n");
    return body != NULL ? body + 4 : "";
}

/* 200, with its proper end, and no error in it. */
static bool is_whole(const question *q)
{
    const char *body = answer_body(), *length = strcasestr(answer.bytes, "content-length:");
    if (answer_status() != 200 || strstr(body, "{\"error\"") != NULL)
        return false;
    if (q->is_stream)
        return strstr(body, "data: [DONE]") != NULL && strstr(body, "\r\n0\r\n\r\n") != NULL;
    return length != NULL && strtoul(length + 15, NULL, 10) == strlen(body);
}

/* The tokens of an answer: its choices (the body where it has none), or all text of a stream. */
static void put_tokens(const question *q, bt_strbuf *out)
{
    const char *body = answer_body();
    if (!q->is_stream) {
        const char *choices = strstr(body, "\"choices\""), *usage = strstr(body, "\"usage\"");
        const char *from = choices != NULL ? choices : body;
        bt_strbuf_append(out, from, usage != NULL ? (size_t)(usage - from) : strlen(from));
        return;
    }
    for (const char *at = body; (at = strstr(at, "\"text\":")) != NULL; at++)
        bt_strbuf_append(out, at, strcspn(at, "}\n"));
}

/* An answer is whole and right, or an error that is not called the client's fault, or none. */
static void check_answer(const question *q, const char *wanted)
{
    if (is_whole(q)) {
        bt_strbuf found = {0};
        put_tokens(q, &found);
        if (wanted != NULL)
            assert_string_equal(bt_strbuf_text(&found), wanted);
        bt_strbuf_free(&found);
    } else if (answer_status() >= 300 && answer_status() < 500) {
        fail_msg("%s: %s", q->path, answer.bytes);
    }
}

static void check_question(bench *b, const question *q, bool is_same_each_time)
{
    bt_strbuf wanted = {0};
    uint64_t n_refused = 0;
    ask(b, q, 0);
    if (!is_whole(q))
        fail_msg("%s: %s", q->path, answer.bytes);
    put_tokens(q, &wanted);
    const char *same = is_same_each_time ? bt_strbuf_text(&wanted) : NULL;
    for (uint64_t nth = 1; ask(b, q, nth) >= nth; nth++) {
        check_answer(q, same);
        n_refused += !is_whole(q);
        ask(b, q, 0);
        assert_true(is_whole(q));
        check_answer(q, same);
    }
    assert_true(n_refused > 3);
    bt_strbuf_free(&wanted);
}

static void a_request_without_memory_fails_alone(void **state)
{
    (void)state;
    static const question questions[] = {
        {"/v1/completions", "{\"prompt\":\"once upon a time\",\"max_tokens\":20,\"temperature\":0}",
         false},
        {"/v1/completions",
         "{\"prompt\":\"once upon\",\"max_tokens\":20,\"temperature\":0,\"stop\":[\"zz\",\"qq\"],"
         "\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
         true},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":9,"
         "\"temperature\":0}",
         false},
        {"/tokenize", "{\"prompt\":\"once upon a time\"}", false},
        {"/detokenize", "{\"tokens\":[104,105]}", false},
        {"/v1/models", NULL, false},
    };
    bt_expect_log("");
    bench *b = api_open(false, 4, 8);
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++)
        check_question(b, &questions[i], true);
    check_question(b, &(question){"/metrics", NULL, false}, false);
    api_close(b); /* every block is back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {bt_test(a_request_without_memory_fails_alone)};
    return bt_run_tests(tests);
}
