/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_EXPECTED = 16, MAX_LINES = 512 };

static struct {
    pthread_mutex_t lock;
    const char *expected[MAX_EXPECTED];
    unsigned n_expected;
    char *lines[MAX_LINES];
    bool grave[MAX_LINES]; /* warn or error */
    unsigned n_lines;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void test_sink(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx;
    pthread_mutex_lock(&seen.lock);
    if (seen.n_lines < MAX_LINES) {
        seen.grave[seen.n_lines] = level <= BATON_LOG_WARN;
        seen.lines[seen.n_lines++] = strdup(line);
    }
    pthread_mutex_unlock(&seen.lock);
}

int bt_test_setup(void **state)
{
    (void)state;
    for (unsigned i = 0; i < seen.n_lines; i++)
        free(seen.lines[i]);
    seen.n_lines = 0;
    seen.n_expected = 0;
    baton_log_set_sink(test_sink, NULL);
    baton_log_set_level(BATON_LOG_INFO);
    return 0;
}

static bool is_expected(const char *line)
{
    for (unsigned i = 0; i < seen.n_expected; i++) {
        if (strstr(line, seen.expected[i]) != NULL)
            return true;
    }
    return false;
}

int bt_test_teardown(void **state)
{
    (void)state;
    bt_alloc_fail_at(0);
    int failed = 0;
    pthread_mutex_lock(&seen.lock);
    for (unsigned i = 0; i < seen.n_lines; i++) {
        if (seen.grave[i] && !is_expected(seen.lines[i])) {
            print_error("unexpected log line: %s\n", seen.lines[i]);
            failed = -1;
        }
    }
    pthread_mutex_unlock(&seen.lock);
    return failed;
}

void bt_expect_log(const char *text)
{
    pthread_mutex_lock(&seen.lock);
    if (seen.n_expected < MAX_EXPECTED)
        seen.expected[seen.n_expected++] = text;
    pthread_mutex_unlock(&seen.lock);
}

unsigned bt_log_seen(const char *text)
{
    unsigned n = 0;
    pthread_mutex_lock(&seen.lock);
    for (unsigned i = 0; i < seen.n_lines; i++)
        n += strstr(seen.lines[i], text) != NULL;
    pthread_mutex_unlock(&seen.lock);
    return n;
}

void bt_assert_status(baton_status status, baton_status wanted, const char *text, const char *file,
                      int line)
{
    if (status != wanted) {
        print_error("status: wanted %s, found %s (%s)\n", baton_status_name(wanted),
                    baton_status_name(status), status < 0 ? baton_last_error() : "");
        _fail(file, line);
    }
    if (text != NULL && strstr(baton_last_error(), text) == NULL) {
        print_error("error text: wanted '%s' in it, found '%s'\n", text, baton_last_error());
        _fail(file, line);
    }
}

static size_t guarded_span(size_t n, size_t page)
{
    return (n + page - 1) / page * page;
}

uint8_t *bt_guarded_copy(const void *bytes, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t span = guarded_span(n, page);
    uint8_t *base =
        mmap(NULL, span + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    assert_int_equal(mprotect(base + span, page, PROT_NONE), 0);
    uint8_t *copy = base + span - n;
    if (n > 0)
        memcpy(copy, bytes, n);
    return copy;
}

void bt_guarded_free(uint8_t *bytes, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t span = guarded_span(n, page);
    munmap(bytes + n - span, span + page);
}

uint64_t bt_rng_next(bt_rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t bt_rng_below(bt_rng *rng, uint64_t n)
{
    return bt_rng_next(rng) % n;
}

void bt_rng_fill(bt_rng *rng, void *bytes, size_t n)
{
    uint8_t *out = bytes;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)bt_rng_next(rng);
}

_Noreturn void bt_test_skip(const char *why)
{
    printf("skipped: %s\n", why);
    exit(77);
}
