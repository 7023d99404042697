/* SPDX-License-Identifier: Apache-2.0 */
/* process_vm_writev, 512 pages a call, into another process's memory: what a transport that uses it
 * (UCX's cma) can at best be. */
#include "floor_common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES_A_CALL = 512 };

/* Sleeps until it is ended. Its memory lies where the parent's `target` does: that was there before
 * the fork, and is private, so each has its own. */
static _Noreturn void be_target(const floor_work *work, uint8_t *target, int ready, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (size_t i = 0; i < work->n_pages * work->page_bytes; i += 4096)
        target[i] = 2; /* a page of this process's own, not the parent's */
    if (write(ready, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void move(const floor_work *work, pid_t child, struct iovec *local, struct iovec *remote)
{
    for (size_t at = 0; at < work->n_pages; at += PAGES_A_CALL) {
        size_t n = work->n_pages - at < PAGES_A_CALL ? work->n_pages - at : PAGES_A_CALL;
        ssize_t done = process_vm_writev(child, local + at, n, remote + at, n, 0);
        if (done != (ssize_t)(n * work->page_bytes)) {
            kill(child, SIGKILL);
            floor_die("floor_vm: process_vm_writev");
        }
    }
}

static bool check(const floor_work *work, pid_t child, unsigned iteration, uint8_t *target,
                  uint8_t *copy)
{
    size_t bytes = work->n_pages * work->page_bytes;
    struct iovec into = {copy, bytes}, from = {target, bytes};
    return process_vm_readv(child, &into, 1, &from, 1, 0) == (ssize_t)bytes &&
           floor_check(work, iteration, copy);
}

static bool measure(floor_work *work, pid_t child, uint8_t *source, uint8_t *target)
{
    struct iovec *local = calloc(work->n_pages, sizeof(*local));
    struct iovec *remote = calloc(work->n_pages, sizeof(*remote));
    uint8_t *copy = floor_memory(work, false);
    if (local == NULL || remote == NULL)
        floor_die("floor_vm: lists");
    for (size_t page = 0; page < work->n_pages; page++) {
        local[page] =
            (struct iovec){source + work->from[page] * work->page_bytes, work->page_bytes};
        remote[page] = (struct iovec){target + work->to[page] * work->page_bytes, work->page_bytes};
    }
    bool good = true;
    for (unsigned i = 0; good && i < FLOOR_WARMUP + work->n_iterations; i++) {
        floor_fill(work, i, source);
        uint64_t cpu_ns = floor_cpu_ns(), start_ns = floor_now_ns();
        move(work, child, local, remote);
        uint64_t wall_ns = floor_now_ns() - start_ns;
        cpu_ns = floor_cpu_ns() - cpu_ns;
        good = check(work, child, i, target, copy);
        if (i < FLOOR_WARMUP)
            continue;
        work->wall_us[i - FLOOR_WARMUP] = (double)wall_ns / 1e3;
        work->sender_cpu_us += (double)cpu_ns / 1e3;
    }
    munmap(copy, work->n_pages * work->page_bytes);
    free(local);
    free(remote);
    return good;
}

int main(int argc, char **argv)
{
    floor_work work;
    floor_parse(argc, argv, &work);
    uint8_t *source = floor_memory(&work, false), *target = floor_memory(&work, false);
    int ready[2];
    char byte;
    if (pipe(ready) != 0)
        floor_die("floor_vm: pipe");
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        be_target(&work, target, ready[1], parent);
    if (child < 0 || read(ready[0], &byte, 1) != 1)
        floor_die("floor_vm: second process");
    bool good = measure(&work, child, source, target);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    munmap(source, work.n_pages * work.page_bytes);
    munmap(target, work.n_pages * work.page_bytes);
    floor_report(&work,
                 work.huge ? "512 pages a call, huge pages" : "512 pages a call, 4 KiB pages");
    return good ? 0 : 1;
}
