/* SPDX-License-Identifier: Apache-2.0 */
#include "floor_common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define WORD_STEP UINT64_C(0x9e3779b97f4a7c15)

_Noreturn void floor_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

static const char usage_text[] =
    "usage: floor_copy | floor_digest | floor_vm | floor_tcp | floor_wake [option...]\n"
    "\n"
    "What the machine can do at best, for bench/compare.sh; each program's source says what it\n"
    "does. Prints a line of JSON. Exit status: 0, 1 when a byte was wrong, 2 when nothing ran.\n"
    "\n"
    "  --pages N          default 256\n"
    "  --page-bytes N     a multiple of 64; default 262144\n"
    "  --iterations N     default 21, after 2 that are not measured\n"
    "  --huge             ask for huge pages\n"
    "  --shared           floor_copy: the target is shared memory\n"
    "  --apart            floor_copy: filled and read on another core\n"
    "  --memcpy           floor_copy: without non-temporal stores\n"
    "  --buffer N         floor_tcp: bytes of each socket's buffers; default: the system's\n"
    "  --lanes N          floor_tcp: connections, a thread each; default 1\n"
    "  --latency          floor_tcp: one way, from before the send until the target has it all\n"
    "  --poll             floor_tcp --latency: both ends poll, on a core each, and never sleep\n"
    "  --pause            floor_tcp --latency: nothing happens for a millisecond before each\n"
    "  -h, --help\n";

static _Noreturn void usage(const char *argument)
{
    fprintf(stderr, "floor: cannot use '%s'\n%s", argument, usage_text);
    exit(2);
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t floor_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t floor_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static size_t *shuffled(size_t n, uint64_t seed)
{
    size_t *order = calloc(n, sizeof(*order));
    if (order == NULL)
        floor_die("floor: order");
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) { /* Fisher and Yates */
        size_t j = mix(seed + i) % i, taken = order[j];
        order[j] = order[i - 1];
        order[i - 1] = taken;
    }
    return order;
}

static uint64_t number(int argc, char **argv, int *at, uint64_t min, uint64_t max)
{
    const char *name = argv[*at];
    if (++*at == argc)
        usage(name);
    char *end;
    errno = 0;
    uint64_t value = strtoull(argv[*at], &end, 10);
    if (errno != 0 || *end != '\0' || value < min || value > max)
        usage(argv[*at]);
    return value;
}

void floor_parse(int argc, char **argv, floor_work *work)
{
    *work = (floor_work){.n_pages = 256, .page_bytes = 256 << 10, .n_iterations = 21, .lanes = 1};
    for (int i = 1; i < argc; i++) {
        if (is_help(argv[i])) {
            fputs(usage_text, stdout);
            exit(0);
        }
        if (strcmp(argv[i], "--pages") == 0)
            work->n_pages = number(argc, argv, &i, 1, 1 << 20);
        else if (strcmp(argv[i], "--page-bytes") == 0)
            work->page_bytes = number(argc, argv, &i, 64, UINT64_C(1) << 30);
        else if (strcmp(argv[i], "--iterations") == 0)
            work->n_iterations = (unsigned)number(argc, argv, &i, 1, 1000000);
        else if (strcmp(argv[i], "--buffer") == 0)
            work->buffer = number(argc, argv, &i, 0, 1 << 30);
        else if (strcmp(argv[i], "--lanes") == 0)
            work->lanes = (unsigned)number(argc, argv, &i, 1, 16);
        else if (strcmp(argv[i], "--huge") == 0)
            work->huge = true;
        else if (strcmp(argv[i], "--shared") == 0)
            work->shared = true;
        else if (strcmp(argv[i], "--apart") == 0)
            work->apart = true;
        else if (strcmp(argv[i], "--memcpy") == 0)
            work->plain = true;
        else if (strcmp(argv[i], "--latency") == 0)
            work->latency = true;
        else if (strcmp(argv[i], "--poll") == 0)
            work->poll = true;
        else if (strcmp(argv[i], "--pause") == 0)
            work->pause = true;
        else
            usage(argv[i]);
    }
    if ((work->poll || work->pause) && !work->latency)
        usage("--poll and --pause without --latency");
    if (work->page_bytes % 64 != 0)
        usage("--page-bytes that is no multiple of 64");
    work->from = shuffled(work->n_pages, 1);
    work->to = shuffled(work->n_pages, 2);
    work->wall_us = calloc(work->n_iterations, sizeof(*work->wall_us));
    if (work->wall_us == NULL)
        floor_die("floor: samples");
}

uint8_t *floor_memory(const floor_work *work, bool shared)
{
    size_t bytes = work->n_pages * work->page_bytes;
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
    if (memory == MAP_FAILED)
        floor_die("floor: memory");
    madvise(memory, bytes, work->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(memory, 1, bytes);
    return memory;
}

static uint64_t first_word(unsigned iteration, size_t page)
{
    return mix(((uint64_t)iteration << 32) + page + 1);
}

void floor_fill(const floor_work *work, unsigned iteration, uint8_t *source)
{
    for (size_t page = 0; page < work->n_pages; page++) {
        uint8_t *to = source + work->from[page] * work->page_bytes;
        uint64_t word = first_word(iteration, page);
        for (size_t i = 0; i < work->page_bytes; i += sizeof(word), word += WORD_STEP)
            memcpy(to + i, &word, sizeof(word));
    }
}

bool floor_check(const floor_work *work, unsigned iteration, const uint8_t *target)
{
    for (size_t page = 0; page < work->n_pages; page++) {
        const uint8_t *from = target + work->to[page] * work->page_bytes;
        uint64_t word = first_word(iteration, page), found;
        for (size_t i = 0; i < work->page_bytes; i += sizeof(word), word += WORD_STEP) {
            memcpy(&found, from + i, sizeof(found));
            if (found != word) {
                fprintf(stderr, "floor: iteration %u, page %zu: wrong byte near offset %zu\n",
                        iteration, page, i);
                return false;
            }
        }
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void floor_report(floor_work *work, const char *config)
{
    unsigned n = work->n_iterations;
    double *us = work->wall_us;
    qsort(us, n, sizeof(*us), by_value);
    printf("{\"pages\": %zu, \"page_bytes\": %zu, \"iterations\": %u, \"verified\": %u, "
           "\"config\": \"%s\", \"us\": {\"min\": %.3f, \"median\": %.3f, \"max\": %.3f}, "
           "\"sender_cpu_us\": %.3f, \"receiver_cpu_us\": %.3f}\n",
           work->n_pages, work->page_bytes, n, n + FLOOR_WARMUP, config, us[0],
           (us[(n - 1) / 2] + us[n / 2]) / 2, us[n - 1], work->sender_cpu_us / n,
           work->receiver_cpu_us / n);
    free(work->from);
    free(work->to);
    free(work->wall_us);
}
