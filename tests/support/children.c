/* SPDX-License-Identifier: Apache-2.0 */
#include "support/children.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bt_child children[BT_CHILDREN_MAX]; /* here, because a failed test's stack is gone */

static void exec_program(const bt_child *child, const char *const *args, pid_t parent)
{
    char path[512], *argv[BT_CHILD_ARGS_MAX + 2] = {path};
    const char *folder = getenv("BATON_BIN");
    snprintf(path, sizeof(path), "%s/%s", folder != NULL ? folder : ".", child->name);
    for (unsigned i = 0; i < BT_CHILD_ARGS_MAX && args[i] != NULL; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126); /* the test ended before it could take this process along */
    dup2(child->out, STDOUT_FILENO);
    dup2(child->log, STDERR_FILENO);
    execv(path, argv);
    perror(path);
    _exit(127);
}

bt_child *bt_child_start(const char *program, const char *const *args)
{
    bt_child *child = children;
    while (child < children + BT_CHILDREN_MAX && child->name[0] != 0)
        child++;
    assert_true(child < children + BT_CHILDREN_MAX);
    *child = (bt_child){0};
    snprintf(child->name, sizeof(child->name), "%s", program);
    child->out = memfd_create("stdout", MFD_CLOEXEC);
    child->log = memfd_create("stderr", MFD_CLOEXEC);
    assert_true(child->out >= 0 && child->log >= 0);
    pid_t parent = getpid();
    child->pid = fork();
    if (child->pid == 0)
        exec_program(child, args, parent);
    assert_true(child->pid > 0);
    return child;
}

char *bt_child_text(int file)
{
    struct stat now;
    assert_int_equal(fstat(file, &now), 0);
    char *text = calloc(1, (size_t)now.st_size + 1);
    assert_non_null(text);
    assert_true(pread(file, text, (size_t)now.st_size, 0) >= 0);
    return text;
}

static bool has_text(int file, const char *wanted)
{
    char *text = bt_child_text(file);
    bool has = strstr(text, wanted) != NULL;
    free(text);
    return has;
}

bool bt_child_has_logged(const bt_child *child, const char *text)
{
    return has_text(child->log, text);
}

void bt_wait_until(bt_condition is_true, void *ctx, const char *what)
{
    enum { PAUSE_MS = 5 };
    struct timespec start, now, pause = {.tv_nsec = PAUSE_MS * 1000000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        if (is_true(ctx))
            return;
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < BT_GUARD_SECONDS);
    fail_msg("never came true: %s", what);
}

bool bt_child_has_ended(const bt_child *child)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == child->pid;
}

static bool is_ready_or_ended(void *ctx)
{
    const bt_child *child = ctx;
    char *text = bt_child_text(child->out);
    const char *at = strstr(text, "ready");
    bool is_ready = at != NULL && strchr(at, '\n') != NULL;
    free(text);
    return is_ready || bt_child_has_ended(child);
}

void bt_child_wait_ready(bt_child *child)
{
    bt_wait_until(is_ready_or_ended, child, "ready line");
    char *text = bt_child_text(child->out), *line = strstr(text, "ready");
    snprintf(child->ready, sizeof(child->ready), "%.*s",
             line != NULL ? (int)strcspn(line, "\n") : 0, line != NULL ? line : "");
    free(text);
    if (child->ready[0] == 0)
        fail_msg("%s ended before it was ready", child->name);
}

uint16_t bt_child_port(const bt_child *child, const char *key, unsigned nth)
{
    const char *at = strstr(child->ready, key);
    if (at == NULL)
        return 0;
    at += strlen(key);
    for (; nth > 0; nth--) {
        at += strcspn(at, ", ");
        if (*at++ != ',')
            return 0;
    }
    return (uint16_t)strtoul(at, NULL, 10);
}

void bt_child_signal(const bt_child *child, int signal)
{
    assert_true(child->pid > 0);
    assert_int_equal(kill(child->pid, signal), 0);
}

void bt_child_freeze(const bt_child *child)
{
    siginfo_t info;
    bt_child_signal(child, SIGSTOP);
    assert_int_equal(waitid(P_PID, (id_t)child->pid, &info, WSTOPPED), 0);
}

static bool ended(void *ctx)
{
    return bt_child_has_ended(ctx);
}

int bt_child_wait(bt_child *child)
{
    int status;
    assert_true(child->pid > 0);
    bt_wait_until(ended, child, "end of a child");
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    child->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void bt_child_kill(bt_child *child)
{
    bt_child_signal(child, SIGKILL);
    assert_int_equal(bt_child_wait(child), 128 + SIGKILL);
}

long bt_child_rss_kib(const bt_child *child)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)child->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

long bt_child_n_fds(const bt_child *child)
{
    char path[64];
    long n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)child->pid);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n - 2; /* . and .. */
}

void bt_child_print_tail(const bt_child *child)
{
    enum { TAIL = 6000 };
    char *text = bt_child_text(child->log);
    size_t n = strlen(text);
    print_error("---- %s %s\n%s", child->name, child->ready, text + (n > TAIL ? n - TAIL : 0));
    free(text);
}

void bt_child_stop(bt_child *child)
{
    bt_child_signal(child, SIGTERM);
    int status = bt_child_wait(child);
    if (status != 0) {
        bt_child_print_tail(child);
        fail_msg("%s ended with %d", child->name, status);
    }
}

typedef struct {
    const bt_child *child;
    const char *text;
} log_wanted;

static bool has_logged(void *ctx)
{
    const log_wanted *wanted = ctx;
    return bt_child_has_logged(wanted->child, wanted->text);
}

void bt_child_wait_log(const bt_child *child, const char *text)
{
    log_wanted wanted = {child, text};
    bt_wait_until(has_logged, &wanted, text);
}

void bt_child_forget(bt_child *child)
{
    assert_int_equal(child->pid, 0);
    close(child->out);
    close(child->log);
    *child = (bt_child){0};
}

/* Children that a test has not ended itself are those of a test that failed. */
int bt_children_teardown(void **state)
{
    for (bt_child *child = children; child < children + BT_CHILDREN_MAX; child++) {
        if (child->name[0] == 0)
            continue;
        if (child->pid > 0) {
            bt_child_print_tail(child);
            kill(child->pid, SIGKILL);
            waitpid(child->pid, NULL, 0);
            child->pid = 0;
        }
        bt_child_forget(child);
    }
    return bt_test_teardown(state);
}
