/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_process_that_exits_makes_its_pidfd_readable(void **state)
{
    (void)state;
    bt_process child;
    int pipefd[2];
    assert_int_equal(pipe(pipefd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        bt_process_self(&child);
        if (write(pipefd[1], &child, sizeof(child)) != sizeof(child))
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(pipefd[0], &child, sizeof(child)), sizeof(child));
    int fd;
    assert_ok(bt_process_watch(&child, &fd));
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    kill(pid, SIGKILL);
    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(fd);
    assert_fails(bt_process_watch(&child, &fd), BATON_ERR_PEER_GONE, "exited");
    close(pipefd[0]);
    close(pipefd[1]);
}

static void a_reused_pid_is_another_process(void **state)
{
    (void)state;
    bt_process self;
    bt_process_self(&self);
    assert_true(self.start != 0);
    self.start++;
    int fd;
    assert_fails(bt_process_watch(&self, &fd), BATON_ERR_PEER_GONE, "another process");
}

static void another_host_or_namespace_cannot_be_watched(void **state)
{
    (void)state;
    bt_process self, other;
    int fd;
    bt_process_self(&self);
    other = self;
    other.boot[0] ^= 1;
    assert_false(bt_process_same_host(&self, &other));
    assert_fails(bt_process_watch(&other, &fd), BATON_ERR_UNREACHABLE, "this host");
    other = self;
    other.pid_ns++;
    assert_true(bt_process_same_host(&self, &other));
    assert_fails(bt_process_watch(&other, &fd), BATON_ERR_UNREACHABLE, "pid namespace");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_process_that_exits_makes_its_pidfd_readable),
        bt_test(a_reused_pid_is_another_process),
        bt_test(another_host_or_namespace_cannot_be_watched),
    };
    return bt_run_tests(tests);
}
