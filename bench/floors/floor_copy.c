/* SPDX-License-Identifier: Apache-2.0 */
/* One thread of one process copies pages from shuffled slots to shuffled slots: with non-temporal
 * stores (the widest the CPU has), or with --memcpy the C library's way. What moves pages through
 * memory that both ends map can at best be as fast. --apart fills and checks on another core, as
 * two processes do: the lines of the target are then in that core's cache when they are replaced.
 */
#include "floor_common.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef void (*copy_fn)(uint8_t *to, const uint8_t *from, size_t bytes);

static void copy_plain(uint8_t *to, const uint8_t *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

#if defined(__x86_64__)
/* Pages are multiples of 64 bytes; 256 at a time keep four loads in flight. */
__attribute__((target("avx512f"))) static void copy_avx512(uint8_t *to, const uint8_t *from,
                                                           size_t bytes)
{
    size_t i = 0;
    for (; i + 256 <= bytes; i += 256) {
        __m512i a = _mm512_loadu_si512(from + i), b = _mm512_loadu_si512(from + i + 64);
        __m512i c = _mm512_loadu_si512(from + i + 128), d = _mm512_loadu_si512(from + i + 192);
        _mm512_stream_si512((void *)(to + i), a);
        _mm512_stream_si512((void *)(to + i + 64), b);
        _mm512_stream_si512((void *)(to + i + 128), c);
        _mm512_stream_si512((void *)(to + i + 192), d);
    }
    for (; i < bytes; i += 64)
        _mm512_stream_si512((void *)(to + i), _mm512_loadu_si512(from + i));
    _mm_sfence();
}

__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, const uint8_t *from,
                                                      size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) {
        __m256i a = _mm256_loadu_si256((const void *)(from + i));
        __m256i b = _mm256_loadu_si256((const void *)(from + i + 32));
        _mm256_stream_si256((void *)(to + i), a);
        _mm256_stream_si256((void *)(to + i + 32), b);
    }
    _mm_sfence();
}
#endif

static copy_fn choose(const floor_work *work, const char **name)
{
#if defined(__x86_64__)
    if (!work->plain && __builtin_cpu_supports("avx512f")) {
        *name = "NT stores, AVX-512";
        return copy_avx512;
    }
    if (!work->plain && __builtin_cpu_supports("avx2")) {
        *name = "NT stores, AVX2";
        return copy_avx2;
    }
#else
    (void)work;
#endif
    *name = "memcpy";
    return copy_plain;
}

/* Where --apart wants it. */
static void go_to_core(const floor_work *work, unsigned core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (work->apart && sched_setaffinity(0, sizeof(cores), &cores) != 0)
        floor_die("floor: --apart wants cores 0 and 1");
}

int main(int argc, char **argv)
{
    floor_work work;
    floor_parse(argc, argv, &work);
    const char *name;
    copy_fn copy = choose(&work, &name);
    uint8_t *source = floor_memory(&work, false), *target = floor_memory(&work, work.shared);
    for (unsigned i = 0; i < FLOOR_WARMUP + work.n_iterations; i++) {
        go_to_core(&work, 1);
        floor_fill(&work, i, source);
        go_to_core(&work, 0);
        uint64_t cpu_ns = floor_cpu_ns(), start_ns = floor_now_ns();
        for (size_t page = 0; page < work.n_pages; page++)
            copy(target + work.to[page] * work.page_bytes,
                 source + work.from[page] * work.page_bytes, work.page_bytes);
        uint64_t wall_ns = floor_now_ns() - start_ns;
        cpu_ns = floor_cpu_ns() - cpu_ns;
        go_to_core(&work, 1);
        if (!floor_check(&work, i, target))
            return 1;
        if (i < FLOOR_WARMUP)
            continue;
        work.wall_us[i - FLOOR_WARMUP] = (double)wall_ns / 1e3;
        work.sender_cpu_us += (double)cpu_ns / 1e3;
    }
    char config[128];
    snprintf(config, sizeof(config), "%s, one thread, %s, %s target%s", name,
             work.huge ? "huge pages" : "4 KiB pages", work.shared ? "shared" : "private",
             work.apart ? " of another core" : "");
    munmap(source, work.n_pages * work.page_bytes);
    munmap(target, work.n_pages * work.page_bytes);
    floor_report(&work, config);
    return 0;
}
