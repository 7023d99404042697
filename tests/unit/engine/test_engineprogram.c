/* SPDX-License-Identifier: Apache-2.0 */
/* baton-engine as a process: ready line, signals, exit statuses. */
#include "support/test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/httpask.h"

enum { MAX_ARGS = 16 };

typedef struct {
    pid_t pid;
    FILE *out, *err;
} process;

static void start(process *p, const char *const *args)
{
    char *argv[MAX_ARGS] = {getenv("BATON_ENGINE")};
    int out[2], err[2], n = 1;
    assert_non_null(argv[0]);
    for (; args[n - 1] != NULL; n++)
        argv[n] = (char *)(uintptr_t)args[n - 1];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        close(out[0]);
        close(err[0]);
        execv(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    p->out = fdopen(out[0], "r");
    p->err = fdopen(err[0], "r");
}

/* Waits for the end; the exit status, with all of stderr in text[cap]. */
static int end(process *p, char *text, size_t cap)
{
    size_t n = fread(text, 1, cap - 1, p->err);
    text[n] = 0;
    int status;
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    fclose(p->out);
    fclose(p->err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static uint16_t wait_ready(process *p)
{
    char line[1024];
    assert_non_null(fgets(line, sizeof(line), p->out));
    assert_int_equal(strncmp(line, "baton-engine ready role=", 24), 0);
    const char *port = strstr(line, " port=");
    assert_non_null(port);
    return (uint16_t)strtoul(port + 6, NULL, 10);
}

static void a_signal_drains_and_exits_with_0(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        const char *const args[] = {"--random-weights", "3",    "--threads", "1",
                                    "--log-level",      "warn", NULL};
        process p;
        char text[4096];
        start(&p, args);
        uint16_t port = wait_ready(&p);
        int fd = bt_http_open(port, "POST", "/v1/completions",
                              "{\"prompt\":\"x\",\"max_tokens\":300,\"ignore_eos\":true,"
                              "\"stream\":true}",
                              "data: ");
        assert_true(fd >= 0);
        kill(p.pid, signals[i]);
        /* The running stream comes to its proper end. */
        char bytes[65536];
        bool done = false;
        for (ssize_t got; (got = read(fd, bytes, sizeof(bytes) - 1)) > 0;) {
            bytes[got] = 0;
            done = done || strstr(bytes, "[DONE]") != NULL;
        }
        close(fd);
        assert_true(done);
        assert_int_equal(end(&p, text, sizeof(text)), 0);
        assert_string_equal(text, "");
    }
}

static void check_refused(const char *const *args, int status, const char *wanted)
{
    process p;
    char text[8192];
    start(&p, args);
    int found = end(&p, text, sizeof(text));
    if (found != status || strstr(text, wanted) == NULL)
        fail_msg("exit %d, wanted %d with '%s': %s", found, status, wanted, text);
}

static void what_is_wrong_is_said_with_the_status(void **state)
{
    (void)state;
    check_refused((const char *const[]){NULL}, 2, "either --model or --random-weights");
    check_refused((const char *const[]){"--rolle", "x", NULL}, 2, "did you mean --role?");
    check_refused((const char *const[]){"--random-weights", "1", "--role", "king", NULL}, 2,
                  "wanted both, prefill or decode, found 'king'");
    check_refused((const char *const[]){"--random-weights", "1", "--port", "70000", NULL}, 2,
                  "port");
    check_refused((const char *const[]){"--random-weights", "1", "--config", "x.yaml", NULL}, 2,
                  "--role prefill or decode");
    check_refused((const char *const[]){"--model", "/nonexistent", NULL}, 1,
                  "/nonexistent/config.json");
}

static void the_config_in_force_is_printed_with_its_origins(void **state)
{
    (void)state;
    process p;
    char text[16384], errors[4096];
    const char *const args[] = {"--random-weights", "3",     "--role",       "decode",
                                "--print-config",   "--set", "max_queued=7", NULL};
    start(&p, args);
    text[fread(text, 1, sizeof(text) - 1, p.out)] = 0;
    assert_int_equal(end(&p, errors, sizeof(errors)), 0);
    assert_string_equal(errors, "");
    assert_non_null(strstr(text, "role: decode                            # flag --role\n"));
    assert_non_null(strstr(text, "max_queued: 7                           # override\n"));
    assert_non_null(strstr(text, "lease_ms: 30s                           # default\n"));
    check_refused((const char *const[]){"--random-weights", "1", "--role", "decode", "--set",
                                        "max_quued=1", "--print-config", NULL},
                  2, "max_queued");
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    process first;
    char text[4096], port[8];
    const char *const args[] = {"--random-weights", "3", "--log-level", "warn", NULL};
    start(&first, args);
    snprintf(port, sizeof(port), "%u", wait_ready(&first));
    check_refused((const char *const[]){"--random-weights", "3", "--port", port, NULL}, 1, port);
    kill(first.pid, SIGTERM);
    assert_int_equal(end(&first, text, sizeof(text)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_signal_drains_and_exits_with_0),
        bt_test(what_is_wrong_is_said_with_the_status),
        bt_test(the_config_in_force_is_printed_with_its_origins),
        bt_test(a_port_in_use_is_named),
    };
    return bt_run_tests(tests);
}
