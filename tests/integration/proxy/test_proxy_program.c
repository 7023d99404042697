/* SPDX-License-Identifier: Apache-2.0 */
/* baton-proxy as a process: its ready line, its exit codes, its end. PROGRAM is its path. */
#include "rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    pid_t pid;
    FILE *out; /* stdout and stderr */
} process;

static process start(char *const *flags)
{
    int pipes[2];
    process p;
    assert_int_equal(pipe(pipes), 0);
    p.pid = fork();
    assert_true(p.pid >= 0);
    if (p.pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        execv(PROGRAM, flags);
        _exit(127);
    }
    close(pipes[1]);
    p.out = fdopen(pipes[0], "r");
    return p;
}

/* Reads what is left and gives the exit code. */
static int end(process *p, char *text, size_t cap)
{
    int status;
    size_t n = fread(text, 1, cap - 1, p->out);
    text[n] = 0;
    fclose(p->out);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void ready_line_names_the_ports_and_sigterm_ends_it(void **state)
{
    (void)state;
    char line[512], rest[8192];
    unsigned port, notices, threads;
    char *flags[] = {"baton-proxy",  "--port",   "0",
                     "--proxy-port", "0",        "--prefill",
                     "localhost:1",  "--decode", "localhost:2,init=3,alloc=4",
                     "--threads",    "2",        NULL};
    process p = start(flags);
    assert_non_null(fgets(line, sizeof(line), p.out));
    assert_int_equal(sscanf(line,
                            "ready: baton-proxy http=127.0.0.1:%u notices=127.0.0.1:%u "
                            "prefill=1 decode=1 threads=%u",
                            &port, &notices, &threads),
                     3);
    assert_true(port > 0 && notices > 0 && port != notices && threads == 2);
    rig r = {.port = (uint16_t)port};
    reply answer = rig_get(&r, "/health");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    kill(p.pid, SIGTERM);
    assert_int_equal(end(&p, rest, sizeof(rest)), 0);
}

static void write_key(const char *path, const char *key)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(key, file);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
}

/* With this key, no engine can be reached; without, nobody is asked. */
static unsigned ask(rig *r, const char *key)
{
    char header[64];
    snprintf(header, sizeof(header), "Authorization: Bearer %s\r\n", key);
    reply answer = rig_post(r, "/tokenize", header, "{}");
    unsigned status = answer.status;
    reply_free(&answer);
    return status;
}

static void sighup_has_the_keys_read_again(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-keys-XXXXXX", line[512], rest[8192];
    unsigned port;
    close(mkstemp(path));
    write_key(path, "old");
    char *flags[] = {"baton-proxy", "--port",   "0",           "--proxy-port", "0",  "--prefill",
                     "localhost:1", "--decode", "localhost:2", "--api-keys",   path, NULL};
    process p = start(flags);
    assert_non_null(fgets(line, sizeof(line), p.out));
    assert_int_equal(sscanf(line, "ready: baton-proxy http=127.0.0.1:%u", &port), 1);
    rig r = {.port = (uint16_t)port};
    assert_int_equal(ask(&r, "old"), 502);
    write_key(path, "new");
    kill(p.pid, SIGHUP);
    do
        assert_non_null(fgets(line, sizeof(line), p.out));
    while (strstr(line, "read again") == NULL);
    assert_int_equal(ask(&r, "old"), 401);
    assert_int_equal(ask(&r, "new"), 502);
    write_key(path, "");
    kill(p.pid, SIGHUP);
    do
        assert_non_null(fgets(line, sizeof(line), p.out));
    while (strstr(line, "the old one stays") == NULL);
    assert_int_equal(ask(&r, "new"), 502);
    kill(p.pid, SIGTERM);
    assert_int_equal(end(&p, rest, sizeof(rest)), 0);
    unlink(path);
}

static void help_and_mistakes(void **state)
{
    (void)state;
    static const struct {
        char *flag, *value;
        int code;
        const char *text;
    } runs[] = {{"--help", NULL, 0, "--decoder-alloc-port"},
                {"--version", NULL, 0, BATON_VERSION},
                {"--port", "x", 2, "--port: wanted"},
                {"--log-level", "loud", 2, "--log-level"},
                {"--no-such", "1", 2, "no-such"},
                {"--api-keys", "/nowhere", 1, "/nowhere"},
                {"--tls-key", "/nowhere", 1, "--tls-certificate"},
                {"--host", "256.0.0.1", 1, "256.0.0.1"}};
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        char text[16384];
        char *flags[] = {"baton-proxy", runs[i].flag, runs[i].value, NULL};
        process p = start(flags);
        int code = end(&p, text, sizeof(text));
        if (code != runs[i].code || strstr(text, runs[i].text) == NULL)
            fail_msg("%s: exit %d, %s", runs[i].flag, code, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(ready_line_names_the_ports_and_sigterm_ends_it),
        bt_test(sighup_has_the_keys_read_again),
        bt_test(help_and_mistakes),
    };
    return bt_run_tests(tests);
}
