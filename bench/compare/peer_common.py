# SPDX-License-Identifier: Apache-2.0
"""What the drivers of other engines share: the workload of shuffled pages, its contents, and the
JSON line they print (the same keys as the floors and baton-perf).

Every iteration has new contents, and every byte is verified on the target outside of the measured
time. The target is a second process, asked over a pipe."""
import argparse
import json
import mmap
import multiprocessing
import random
import time

import numpy as np

WARMUP = 2
HUGE_FIELDS = ("AnonHugePages:", "ShmemPmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:")
WORD_STEP = np.uint64(0x9E3779B97F4A7C15)


def arguments(about):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--pages", type=int, default=256)
    parser.add_argument("--page-bytes", type=int, default=256 << 10)
    parser.add_argument("--iterations", type=int, default=21)
    parser.add_argument("--huge", action="store_true", help="ask for huge pages on both sides")
    return parser


def pages_name(options):
    return "huge pages" if options.huge else "4 KiB pages"


def huge_kib():
    """Of this process, in huge pages now."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(HUGE_FIELDS))


class Pages:
    """n pages in anonymous private memory, in pages of 4 KiB or huge ones of the system's, and
    which slot each has."""

    def __init__(self, options, seed):
        self.n, self.page_bytes = options.pages, options.page_bytes
        self.bytes = self.n * self.page_bytes
        self.map = mmap.mmap(-1, self.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map.madvise(mmap.MADV_HUGEPAGE if options.huge else mmap.MADV_NOHUGEPAGE)
        self.array = np.frombuffer(self.map, dtype=np.uint8)
        self.array[::4096] = 1
        if options.huge and huge_kib() * 1024 < self.bytes // 2:
            raise SystemExit(f"wanted huge pages, found {huge_kib()} KiB in {self.bytes} bytes")
        self.address = self.array.ctypes.data
        self.slots = list(range(self.n))
        random.Random(seed).shuffle(self.slots)
        self.index = np.arange(self.page_bytes // 8, dtype=np.uint64) * WORD_STEP

    def addresses(self):
        return [self.address + slot * self.page_bytes for slot in self.slots]

    def _page(self, page):
        start = self.slots[page] * self.page_bytes
        return self.array[start : start + self.page_bytes].view(np.uint64)

    def _first_word(self, iteration, page):
        return np.uint64((iteration * 0x100000001B3 + page * 0x9E3779B1 + 7) & (2**64 - 1))

    def fill(self, iteration):
        for page in range(self.n):
            np.add(self.index, self._first_word(iteration, page), out=self._page(page))

    def check(self, iteration):
        for page in range(self.n):
            if not np.array_equal(self._page(page), self.index + self._first_word(iteration, page)):
                return False
        return True


def cpu_us():
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) * 1e6


class Target:
    """The second process: serve(pipe, options) makes its engine, sends what the source has to know,
    then answers with answer()."""

    def __init__(self, serve, options):
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=serve, args=(theirs, options), daemon=True)
        self.process.start()

    def ask(self, *question):
        self.pipe.send(question)
        return self.pipe.recv()

    def end(self):
        self.pipe.send(("exit",))
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()


def answer(question, pages):
    """The target's side of ask(). None: leave."""
    if question[0] == "cpu":
        return cpu_us()
    if question[0] == "check":
        return pages.check(question[1])
    return None


def run(options, config, source, target, transfer):
    """transfer() moves every page and returns when it is complete at the source."""
    wall_us, cpu_source, cpu_target, verified = [], 0.0, 0.0, 0
    for iteration in range(WARMUP + options.iterations):
        source.fill(iteration)
        theirs, ours = target.ask("cpu"), cpu_us()
        start = time.perf_counter()
        transfer()
        wall = (time.perf_counter() - start) * 1e6
        ours, theirs = cpu_us() - ours, target.ask("cpu") - theirs
        if not target.ask("check", iteration):
            raise SystemExit(f"iteration {iteration}: a wrong byte")
        verified += 1
        if iteration >= WARMUP:
            wall_us.append(wall)
            cpu_source += ours
            cpu_target += theirs
    wall_us.sort()
    n = len(wall_us)
    print(
        json.dumps(
            {
                "pages": options.pages,
                "page_bytes": options.page_bytes,
                "iterations": n,
                "verified": verified,
                "config": config,
                "us": {
                    "min": wall_us[0],
                    "median": (wall_us[(n - 1) // 2] + wall_us[n // 2]) / 2,
                    "max": wall_us[-1],
                },
                "sender_cpu_us": cpu_source / n,
                "receiver_cpu_us": cpu_target / n,
            }
        ),
        flush=True,
    )
