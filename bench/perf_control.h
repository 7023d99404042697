/* SPDX-License-Identifier: Apache-2.0 */
/* The line channel between baton-perf's two processes, beside what is measured: a socket on which
 * texts of "word key=value ..." travel, a line each. The sender asks, the receiver answers.
 *
 *   setup pages=.. page_bytes=..  ──▶          (makes a receiver)
 *                                 ◀── ready init=PORT alloc=PORT
 *   await name=N sleep=0|1        ──▶          (waits for request N to be ready)
 *                                 ◀── awaiting, and then: seen at_ns=.. (of CLOCK_MONOTONIC)
 *   check name=N iteration=I pages=.. last_tokens=..
 *                                 ──▶          (looks request N up, verifies every byte of I)
 *                                 ◀── good cpu_ns=.. move_ns=.. | bad TEXT | error TEXT
 *   usage                         ──▶
 *                                 ◀── usage rss_kb=.. fds=.. ...  (perf_usage.h, and pages)
 *
 * Thread rule: owner thread of a channel. */
#ifndef BT_BENCH_PERF_CONTROL_H
#define BT_BENCH_PERF_CONTROL_H
#include <baton/status.h>
#include <stdbool.h>
#include <sys/types.h>

enum { BT_PERF_LINE_BYTES = 1024 };

typedef struct {
    int fd;
    char bytes[BT_PERF_LINE_BYTES]; /* received behind the last line */
    size_t n;
} bt_perf_control;

/* A process of its own that ends with this one: `program` --role `role`. Errors: IO. */
baton_status bt_perf_spawn(const char *program, const char *role, bt_perf_control *control,
                           pid_t *child);
/* Errors: UNREACHABLE, IO. */
baton_status bt_perf_connect(const char *host, uint16_t port, bt_perf_control *control);
/* Binds; *port becomes the one bound. Errors: ADDRESS_IN_USE, IO, UNREACHABLE. */
baton_status bt_perf_listen(const char *host, uint16_t *port, int *fd);

/* Errors: PEER_GONE, IO, TOO_LARGE. */
__attribute__((format(printf, 2, 3))) baton_status bt_perf_send(bt_perf_control *control,
                                                                const char *format, ...);
/* A line without its end. BATON_IN_PROGRESS: there is none yet, and wait is false. Errors:
 * PEER_GONE (the other side closed), TOO_LARGE, IO. */
baton_status bt_perf_receive(bt_perf_control *control, bool wait, char line[BT_PERF_LINE_BYTES]);
/* Waits for a line that begins with `word`. "bad" becomes CORRUPT, "error" what it says. Errors
 * besides: as receive, BAD_MESSAGE (another line). */
baton_status bt_perf_expect(bt_perf_control *control, const char *word,
                            char line[BT_PERF_LINE_BYTES]);
void bt_perf_close(bt_perf_control *control);

bool bt_perf_line_is(const char *line, const char *word);
/* The number behind " key=". Errors: BAD_MESSAGE (not there, not a number, out of range). */
baton_status bt_perf_field(const char *line, const char *key, uint64_t min, uint64_t max,
                           uint64_t *value);

#endif
