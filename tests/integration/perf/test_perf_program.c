/* SPDX-License-Identifier: Apache-2.0 */
/* baton-perf between two processes on every path: the bytes arrive, and a wrong one is found.
 * Argument: the program. */
#include "support/test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 8192, MAX_ARGUMENTS = 24 };

static const char *program;
static char output[OUTPUT_BYTES];

static _Noreturn void become_program(char *const *argv, int out)
{
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv(program, argv);
    _exit(127);
}

/* arguments: separated by spaces. What it wrote is in `output`. */
static pid_t start(const char *arguments, int *out)
{
    static char copy[1024];
    char *argv[MAX_ARGUMENTS] = {(char *)(uintptr_t)program};
    int fds[2], n = 1;
    snprintf(copy, sizeof(copy), "%s", arguments);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[n++] = word;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        become_program(argv, fds[1]);
    close(fds[1]);
    *out = fds[0];
    return child;
}

static int finish(pid_t child, int out)
{
    size_t n = 0;
    ssize_t got;
    int status;
    while (n + 1 < sizeof(output) && (got = read(out, output + n, sizeof(output) - 1 - n)) > 0)
        n += (size_t)got;
    output[n] = '\0';
    close(out);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(const char *arguments)
{
    int out;
    pid_t child = start(arguments, &out);
    return finish(child, out);
}

static void assert_output(const char *text)
{
    if (strstr(output, text) == NULL)
        fail_msg("wanted '%s', found:\n%s", text, output);
}

static void every_byte_arrives_on_every_path(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *path;
    } cases[] = {
        {"--transport mapped --scatter", "\"path\": \"mapped\""},
        {"--transport mapped --digests full --descending", "\"path\": \"mapped\""},
        {"--transport mapped --paged --page-bytes 32768", "\"path\": \"mapped\""},
        {"--transport auto --progress manual --contiguous", "\"path\": \"mapped\""},
        {"--transport put --digests full --scatter", "\"path\": \"put\""},
        {"--transport put --paged --page-bytes 12288 --digests full", "\"path\": \"put\""},
        {"--transport put --progress manual", "\"path\": \"put\""},
        {"--transport tcp --scatter", "\"path\": \"put\""},
        {"--transport tcp --paged --page-bytes 32768", "\"path\": \"put\""},
        {"--transport tcp --data-lanes 3 --digests full", "\"path\": \"put\""},
        {"--transport tcp --data-lanes 2 --progress manual", "\"path\": \"put\""},
        {"--loop --digests full", "\"path\": \"put\""},
        {"--loop --paged --page-bytes 8192 --progress manual", "\"path\": \"put\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char arguments[512];
        snprintf(arguments, sizeof(arguments),
                 "--pages 37 --page-bytes 4096 --iterations 4 --warmup 1 --json %s",
                 cases[i].arguments);
        int code = run(arguments);
        if (code != 0)
            fail_msg("%s: exit status %d:\n%s", arguments, code, output);
        assert_output(cases[i].path);
        assert_output("\"verified\": 5");
    }
}

/* Each other measurement, driven by hand and by threads, verifies what it moved and gives its
 * figures; a wrong byte ends it. */
static void other_measurements_verify_too(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *figures[3];
    } cases[] = {
        {"--latency --page-bytes 4096 --samples 5", {"\"us\":", "\"done_us\":", "\"p99\":"}},
        {"--latency --transport put --samples 3", {"\"path\": \"put\"", "\"verified\": 6"}},
        {"--alloc --pages 64 --page-bytes 64 --samples 3", {"\"present_us\":", "\"verified\": 12"}},
        {"--produce 2 --pages 4 --page-bytes 65536 --samples 2",
         {"\"page_us\":", "\"excess_us\":", "\"verified\": 10"}},
        {"--paged --layers 8 --heads 2 --head-dim 32 --block-tokens 4 --page-bytes 65536 --pages 3 "
         "--order descending",
         {"\"order\": \"descending\"", "\"verified\": 24"}},
    };
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        char arguments[512];
        snprintf(arguments, sizeof(arguments), "%s --json --progress %s", cases[i / 2].arguments,
                 i % 2 == 0 ? "manual" : "thread");
        if (run(arguments) != 0)
            fail_msg("%s:\n%s", arguments, output);
        for (int f = 0; f < 3 && cases[i / 2].figures[f] != NULL; f++)
            assert_output(cases[i / 2].figures[f]);
    }
    assert_int_equal(run("--latency --page-bytes 4096 --samples 3 --flip-byte"), 1);
    assert_output("wrong byte");
}

/* Points of all sizes that fit, in the report and in the picture; and one size over every
 * transport. */
static void curves_have_every_point(void **state)
{
    (void)state;
    char path[] = "/tmp/test_perf_program_XXXXXX", arguments[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(arguments, sizeof(arguments),
             "--curve --curve-bytes 4KiB --seconds 1 --iterations 1 --warmup 0 --json --plot %s",
             path);
    if (run(arguments) != 0)
        fail_msg("%s:\n%s", arguments, output);
    assert_output("\"pages\": 4,\n  \"page_bytes\": 1024,\n  \"verified\": 1");
    assert_output("\"pages\": 1,\n  \"page_bytes\": 4096,\n  \"verified\": 1");
    assert_null(strstr(output, "\"page_bytes\": 8192"));
    assert_int_equal(access(path, R_OK), 0);
    unlink(path);
    assert_int_equal(run("--transport all --pages 3 --page-bytes 4096 --iterations 1 --json"), 0);
    assert_output("\"transport\": \"mapped\",\n  \"pages\": 3,\n  \"page_bytes\": 4096,\n  "
                  "\"verified\": 4,\n  \"path\": \"mapped\"");
    assert_output("\"transport\": \"tcp\",\n  \"pages\": 3,\n  \"page_bytes\": 4096,\n  "
                  "\"verified\": 4,\n  \"path\": \"put\"");
}

/* Every sender to every receiver, alone (1 + 2 times each) and together (2 x 3 rounds of 2). */
static void a_matrix_has_every_pair(void **state)
{
    (void)state;
    if (run("--senders 2 --receivers 3 --pages 5 --page-bytes 4096 --iterations 2 --warmup 1 "
            "--json") != 0)
        fail_msg("%s", output);
    assert_output("\"verified\": 30");
    assert_output("\"sender\": 1, \"receiver\": 2");
    assert_int_equal(run("--senders 3 --receivers 1 --pages 5 --page-bytes 4096 --iterations 2 "
                         "--progress manual --transport put"),
                     0);
    assert_output("sender 2");
    assert_int_equal(run("--senders 2 --flip-byte --pages 4 --page-bytes 4096 --iterations 1"), 1);
    assert_output("wrong byte");
}

static void a_soak_ends_where_it_began(void **state)
{
    (void)state;
    static const char *const paths[] = {"mapped", "put"};
    char sanitizer[512];
    const char *as_it_is = getenv("ASAN_OPTIONS");
    /* What AddressSanitizer keeps of freed memory would look like a leak. */
    snprintf(sanitizer, sizeof(sanitizer), "%s:quarantine_size_mb=1:%s",
             as_it_is != NULL ? as_it_is : "", "thread_local_quarantine_size_kb=64");
    setenv("ASAN_OPTIONS", sanitizer, 1);
    for (int i = 0; i < 4; i++) {
        char arguments[128];
        snprintf(arguments, sizeof(arguments), "--soak 1200 --transport %s --progress %s --seed %d",
                 paths[i % 2], i < 2 ? "thread" : "manual", i);
        if (run(arguments) != 0)
            fail_msg("%s:\n%s", arguments, output);
        assert_output("320/320");
    }
}

static void odd_sizes_arrive(void **state)
{
    (void)state;
    static const char *const sizes[] = {"1", "3", "63", "4097", "65537", "200003"};
    static const char *const paths[] = {"mapped", "put", "tcp"};
    for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            char arguments[512];
            snprintf(arguments, sizeof(arguments),
                     "--pages 5 --page-bytes %s --iterations 2 --warmup 0 --transport %s "
                     "--digests full --json",
                     sizes[i], paths[p]);
            if (run(arguments) != 0)
                fail_msg("%s:\n%s", arguments, output);
            assert_output("\"verified\": 2");
        }
    }
}

/* What memory the figures are of; whether shared memory may have huge pages is the system's. */
static void the_size_of_memory_pages_is_what_was_asked_for(void **state)
{
    (void)state;
    const char work[] = "--pages 16 --page-bytes 1048576 --iterations 1 --warmup 0 --json";
    char arguments[256];
    snprintf(arguments, sizeof(arguments), "%s --huge-pages off", work);
    assert_int_equal(run(arguments), 0);
    assert_output("\"huge_pages\": \"off\",\n  \"sender_huge_kb\": 0,\n  \"receiver_huge_kb\": 0,");
    snprintf(arguments, sizeof(arguments), "%s --huge-pages on", work);
    if (run(arguments) == 0) {
        assert_output("\"huge_pages\": \"on\"");
        assert_null(strstr(output, "_huge_kb\": 0,"));
    } else {
        assert_output("huge-pages on: wanted 16384 KiB of the ");
        assert_output("shmem_enabled");
    }
}

static void a_wrong_byte_is_found(void **state)
{
    (void)state;
    assert_int_equal(run("--pages 4 --page-bytes 5000 --flip-byte --iterations 2"), 1);
    assert_output("transfer 0, page 2: wrong byte at offset 2500");
    assert_int_equal(run("--pages 4 --page-bytes 8192 --flip-byte --paged --loop"), 1);
    assert_output("transfer 0, page 2: wrong byte at offset 4096");
}

static void what_cannot_work_is_said(void **state)
{
    (void)state;
    assert_int_equal(run("--pages 0"), 2);
    assert_output("pages");
    assert_int_equal(run("--paged --page-bytes 5000"), 2);
    assert_output("multiple of 4096");
    assert_int_equal(run("--role sender --peer 127.0.0.1:1"), 2);
    assert_output("127.0.0.1:1");
    assert_int_equal(run("--loop --transport tcp"), 2);
    assert_output("--loop");
}

/* One receiver, started by hand, takes one sender after the other. */
static void a_receiver_of_its_own_serves_senders(void **state)
{
    (void)state;
    int out;
    pid_t receiver = start("--role receiver", &out);
    char line[256] = "";
    for (size_t n = 0; n + 1 < sizeof(line) && strchr(line, '\n') == NULL; n++)
        assert_int_equal(read(out, line + n, 1), 1);
    line[strcspn(line, "\n")] = '\0';
    const char *arguments = strchr(line, '-') != NULL ? strstr(line, "--role") : NULL;
    assert_non_null(arguments);
    for (int i = 0; i < 2; i++) {
        char all[512];
        snprintf(all, sizeof(all), "%s --pages 9 --page-bytes 10000 --iterations 2 --json",
                 arguments);
        if (run(all) != 0)
            fail_msg("%s:\n%s", all, output);
        assert_output("\"verified\": 5");
    }
    kill(receiver, SIGTERM);
    assert_int_equal(finish(receiver, out), -1);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        bt_test_skip("wanted the path of baton-perf");
    program = argv[1];
    const struct CMUnitTest tests[] = {
        bt_test(every_byte_arrives_on_every_path),
        bt_test(other_measurements_verify_too),
        bt_test(curves_have_every_point),
        bt_test(a_matrix_has_every_pair),
        bt_test(a_soak_ends_where_it_began),
        bt_test(odd_sizes_arrive),
        bt_test(the_size_of_memory_pages_is_what_was_asked_for),
        bt_test(a_wrong_byte_is_found),
        bt_test(what_cannot_work_is_said),
        bt_test(a_receiver_of_its_own_serves_senders),
    };
    return bt_run_tests(tests);
}
