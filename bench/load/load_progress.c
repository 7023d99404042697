/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_CHARS = 24, LINE_BYTES = 200 };

bool bt_load_progress_is_wanted(void)
{
    return isatty(STDERR_FILENO) == 1;
}

void bt_load_progress_format(const bt_load_progress *p, char *out, size_t cap)
{
    char bar[BAR_CHARS + 1];
    uint32_t total = p->n_requests > 0 ? p->n_requests : 1;
    size_t n_full = (size_t)((uint64_t)p->n_ended * BAR_CHARS / total);
    memset(bar, '.', BAR_CHARS);
    memset(bar, '#', n_full < BAR_CHARS ? n_full : BAR_CHARS);
    bar[BAR_CHARS] = '\0';
    double seconds = (double)p->elapsed_ns / 1e9;
    double per_second = seconds > 0 ? 1 / seconds : 0;
    snprintf(out, cap, "%s[%s] %u/%u  %u running  %u failed  %.1f req/s  %.0f tok/s  %.0f s",
             p->title, bar, p->n_ended, p->n_requests, p->n_running, p->n_failed,
             p->n_ended * per_second, (double)p->n_output_tokens * per_second, seconds);
}

void bt_load_progress_draw(const bt_load_progress *progress)
{
    char line[LINE_BYTES];
    bt_load_progress_format(progress, line, sizeof(line));
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
}

void bt_load_progress_clear(void)
{
    fputs("\r\033[K", stderr);
    fflush(stderr);
}
