/* SPDX-License-Identifier: Apache-2.0 */
/* What the floors share: a workload of shuffled pages, their contents, and the line they print. A
 * floor moves the same pages as baton-perf by the barest means the machine has, with none of
 * Baton's code, so that a figure of Baton's can be held against it.
 *
 *   floor_x [--pages N] [--page-bytes B] [--iterations I] [options of its own]
 *
 * Every iteration has new contents, and every byte is verified outside of the measured time.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_FLOOR_COMMON_H
#define BT_BENCH_FLOOR_COMMON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FLOOR_WARMUP = 2 };

typedef struct {
    size_t n_pages, page_bytes;
    unsigned n_iterations;
    bool huge;                             /* --huge: ask for huge pages */
    bool shared;                           /* --shared: the target is shared memory */
    bool apart;                            /* --apart: floor_copy's reader is on another core */
    bool plain;                            /* --memcpy: floor_copy without non-temporal stores */
    size_t buffer;                         /* --buffer BYTES: of each socket; 0: the system's */
    unsigned lanes;                        /* --lanes N: sockets, a thread each */
    bool latency;                          /* --latency: floor_tcp measures one way */
    bool poll;                             /* --poll: its ends never sleep */
    bool pause;                            /* --pause: a millisecond without work before each */
    size_t *from;                          /* [n_pages] slot of page i at the source */
    size_t *to;                            /* [n_pages] slot of page i at the target */
    double *wall_us;                       /* [n_iterations] */
    double sender_cpu_us, receiver_cpu_us; /* sums over the iterations */
} floor_work;

/* Reads the options and makes the slots; prints what is wrong and exits with 2, or what there is
 * (--help) and exits with 0. */
void floor_parse(int argc, char **argv, floor_work *work);
/* n_pages * page_bytes of memory, touched. Exits with 2 when there is none. */
uint8_t *floor_memory(const floor_work *work, bool shared);
void floor_fill(const floor_work *work, unsigned iteration, uint8_t *source);
/* Whether every page arrived in its slot. */
bool floor_check(const floor_work *work, unsigned iteration, const uint8_t *target);
/* Prints the figures as one JSON object, and frees what floor_parse made. */
void floor_report(floor_work *work, const char *config);
_Noreturn void floor_die(const char *what);

uint64_t floor_now_ns(void);
uint64_t floor_cpu_ns(void); /* of this process, all threads */

#endif
