/* SPDX-License-Identifier: Apache-2.0 */
#include "core/process.h"

#include "core/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The first n - 1 bytes of a small file as a text; 0 when it cannot be read. */
static size_t read_text(const char *path, char *text, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, n - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

/* Field 22 of /proc/PID/stat, see proc(5). The name in field 2 may hold anything, also blanks and
 * brackets, so counting starts behind its last ')'. 0 when the process is not there. */
static uint64_t start_time(uint32_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
    if (read_text(path, text, sizeof(text)) == 0)
        return 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static uint64_t namespace_of_self(const char *kind)
{
    char path[64];
    struct stat info;
    snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
    return stat(path, &info) == 0 ? (uint64_t)info.st_ino : 0;
}

void bt_process_self(bt_process *self)
{
    *self = (bt_process){.pid = (uint32_t)getpid()};
    read_text("/proc/sys/kernel/random/boot_id", self->boot, sizeof(self->boot));
    self->boot[strcspn(self->boot, "\n")] = 0;
    self->pid_ns = namespace_of_self("pid");
    self->ipc_ns = namespace_of_self("ipc");
    self->mnt_ns = namespace_of_self("mnt");
    self->user_ns = namespace_of_self("user");
    self->uid = (uint32_t)geteuid();
    self->start = start_time(self->pid);
}

int bt_process_same_host(const bt_process *a, const bt_process *b)
{
    return a->boot[0] != 0 && strncmp(a->boot, b->boot, sizeof(a->boot)) == 0;
}

baton_status bt_process_watch(const bt_process *process, int *pidfd)
{
    bt_process self;
    bt_process_self(&self);
    if (!bt_process_same_host(&self, process) || self.pid_ns == 0 ||
        self.pid_ns != process->pid_ns || process->pid == 0 || process->start == 0)
        return bt_fail(BATON_ERR_UNREACHABLE,
                       "process: wanted one of this host and pid namespace, found pid %" PRIu32
                       " of another",
                       process->pid);
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)process->pid, 0);
    if (fd < 0 && errno == ESRCH)
        return bt_fail(BATON_ERR_PEER_GONE, "process: pid %" PRIu32 " has exited", process->pid);
    if (fd < 0)
        return bt_fail_errno(BATON_ERR_UNREACHABLE, errno, "process: pidfd of pid %" PRIu32,
                             process->pid);
    /* Looked at after the pidfd is open: from here on it cannot be another process's. */
    if (start_time(process->pid) != process->start) {
        close(fd);
        return bt_fail(BATON_ERR_PEER_GONE, "process: pid %" PRIu32 " is another process by now",
                       process->pid);
    }
    *pidfd = fd;
    return BATON_OK;
}
