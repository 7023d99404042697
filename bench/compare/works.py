# SPDX-License-Identifier: Apache-2.0
"""Every work that is compared: who does it, and what Baton has to reach beside them."""
from dataclasses import dataclass, field

from figures import (
    at_most_us,
    cpu_against,
    faster_than,
    more_at_most,
    rate_against,
    receiver_share,
    time_against,
)
from programs import (
    CUDA_SETTINGS,
    HOST_SETTINGS,
    TCP_SETTINGS,
    NixlTcp,
    Perftest,
    baton,
    baton_mode,
    floor,
    floor_mode,
    mooncake,
    nixl,
    on_gpu,
)

KIB, MIB = 1 << 10, 1 << 20
THREAD, MANUAL = "baton", "baton manual"
SUMMED = "copy and read with XXH3 sums"
COPY, VM, RAW = "NT-store floor", "process_vm floor", "raw sockets"
NIXL, MOONCAKE = "NIXL", "Mooncake"
NIXL_THREAD = "NIXL with thread, huge pages"
DEBIAN, WHEEL = "perftest debian", "perftest wheel"
WHEEL_BATON = "baton, wheel's UCX"
TWO_THREADS = "baton, 2 copy threads"
# Whatever is not called so has 4 KiB pages on both sides, and says so.
HUGE, COPY_HUGE, NIXL_HUGE = (f"{who}, huge pages" for who in (THREAD, COPY, NIXL))
SMALL = ", 4 KiB pages"
# 16 tokens x 8 heads x 128 x 2 bytes: 32 KiB of a block in one place.
PAGED = ("--paged", "--layers", "8", "--heads", "8", "--head-dim", "128")


@dataclass
class Work:
    key: str
    title: str
    subjects: dict  # name: function(programs) -> Figure
    checks: list = field(default_factory=list)


def nixl_mapped(n_pages, page_bytes, *options):
    """Through cma, in which the target has no part: the less it wakes up, the better."""
    return nixl(n_pages, page_bytes, "--target-sleep", "0.01", *options)


def pages_work(key, n_pages, page_bytes, title, checks, more=None):
    subjects = {
        THREAD: baton(n_pages, page_bytes),
        MANUAL: baton(n_pages, page_bytes, "--progress", "manual"),
        COPY: floor("floor_copy", n_pages, page_bytes),
        VM: floor("floor_vm", n_pages, page_bytes),
        NIXL: nixl_mapped(n_pages, page_bytes),
        HUGE: baton(n_pages, page_bytes, huge="on"),
        COPY_HUGE: floor("floor_copy", n_pages, page_bytes, "--huge"),
        NIXL_HUGE: nixl_mapped(n_pages, page_bytes, "--huge"),
        **(more or {}),
    }
    return Work(key, title, subjects, checks)


def host_perftest(page_bytes):
    return {
        DEBIAN: Perftest("debian", "ucp_put_bw", page_bytes, HOST_SETTINGS),
        WHEEL: Perftest("wheel", "ucp_put_bw", page_bytes, HOST_SETTINGS),
    }


def two_threads(n_pages, page_bytes):
    return baton(n_pages, page_bytes, "--copy-threads", "2")


# What Baton is held against: like against like.
ALIKE = (
    (THREAD, COPY, NIXL, SMALL),
    (MANUAL, COPY, NIXL, SMALL),
    (HUGE, COPY_HUGE, NIXL_HUGE, ""),
)


def beside_floor(share):
    return [faster_than(who, floor_, share, note) for who, floor_, _, note in ALIKE]


def beside_nixl(times):
    return [faster_than(who, nixl_, times, note) for who, _, nixl_, note in ALIKE]


def cpu():
    return [
        check
        for who, floor_, _, note in ALIKE
        for check in (cpu_against(who, floor_, 1.15, note), receiver_share(who, 0.05, note))
    ]


def host_works():
    yield pages_work(
        "256x256k",
        256,
        256 * KIB,
        "256 x 256 KiB scattered",
        beside_floor(0.90) + beside_nixl(2.5) + cpu(),
        {
            TWO_THREADS: two_threads(256, 256 * KIB),
            NIXL_THREAD: nixl(256, 256 * KIB, "--huge", "--progress-thread"),
            **host_perftest(256 * KIB),
        },
    )
    yield pages_work(
        "2048x32k",
        2048,
        32 * KIB,
        "2,048 x 32 KiB scattered",
        beside_floor(0.85) + beside_nixl(3.5) + cpu(),
        {TWO_THREADS: two_threads(2048, 32 * KIB), **host_perftest(32 * KIB)},
    )
    yield pages_work(
        "2048x4k",
        2048,
        4 * KIB,
        "2,048 x 4 KiB scattered",
        beside_nixl(3.0),
    )
    yield pages_work("1x64m", 1, 64 * MIB, "1 x 64 MiB", cpu())


def digests_work(n_pages, page_bytes, key, title):
    """Both in turns with the same without digests, on mapped memory."""
    off, sampled, full = "off", "sampled", "full"
    mapped = ("--transport", "mapped")
    return Work(
        key,
        title,
        {
            off: baton(n_pages, page_bytes, *mapped),
            sampled: baton(n_pages, page_bytes, *mapped, "--digests", "sampled"),
            full: baton(n_pages, page_bytes, *mapped, "--digests", "full"),
            SUMMED: floor("floor_digest", n_pages, page_bytes),
        },
        [faster_than(full, SUMMED, 0.90), faster_than(sampled, off, 0.98)],
    )


def paged_work():
    return Work(
        "paged",
        "64 MiB gathered from paged KV, 8 layers, 32 KiB blocks",
        {
            THREAD: baton(8, 8 * MIB, *PAGED),
            MANUAL: baton(8, 8 * MIB, *PAGED, "--progress", "manual"),
            COPY: floor("floor_copy", 2048, 32 * KIB),
        },
        [faster_than(who, COPY, 0.80) for who in (THREAD, MANUAL)],
    )


def latency_works():
    def commit(*options, wheel=False):
        return baton_mode("--latency", "--page-bytes", "4096", *options, wheel=wheel)

    yield Work(
        "latency",
        "1 x 4 KiB, from push to seen by the receiver",
        {
            "both poll": commit("--progress", "manual"),
            "both sleep": commit(),
            "three threads wake each other": floor_mode("floor_wake"),
        },
        [at_most_us("both poll", 10), at_most_us("both sleep", 60)],
    )
    over_tcp = ("--transport", "tcp")
    tcp = (*over_tcp, "--progress", "manual")

    def one_way(*options):
        page = ("--pages", "1", "--page-bytes", "4096")
        return floor_mode("floor_tcp", *page, "--latency", *options)

    yield Work(
        "tcp-latency",
        "tcp, 1 x 4 KiB, from push to seen by the receiver",
        {
            "both poll": commit(*tcp),
            DEBIAN: Perftest("debian", "ucp_put_lat", 4 * KIB, TCP_SETTINGS),
            "both poll, wheel's UCX": commit(*tcp, wheel=True),
            WHEEL: Perftest("wheel", "ucp_put_lat", 4 * KIB, TCP_SETTINGS),
            "raw sockets, poll, back to back": one_way("--poll"),
            "raw sockets, poll, pauses": one_way("--poll", "--pause"),
            "both sleep": commit(*over_tcp),
            "raw sockets, sleep, pauses": one_way("--pause"),
        },
        [
            time_against("both poll", DEBIAN, 1.3),
            time_against("both poll, wheel's UCX", WHEEL, 1.3),
        ],
    )
    yield Work(
        "1x4k",
        "1 x 4 KiB, the bare write",
        {NIXL: nixl(1, 4 * KIB), VM: floor("floor_vm", 1, 4 * KIB)},
    )


def orchestration_works():
    produce = ("--produce", "20", "--pages", "16", "--page-bytes", "8MiB", "--samples", "5")
    yield Work(
        "exposed",
        "exposed time, 16 chunks of 8 MiB, one every 20 ms",
        {
            THREAD: baton_mode(*produce),
            MANUAL: baton_mode(*produce, "--progress", "manual"),
        },
        [
            more_at_most(who, "excess_us", 300, "exposed beyond one chunk's transfer")
            for who in (THREAD, MANUAL)
        ],
    )
    alloc = ("--alloc", "--pages", "4096", "--page-bytes", "64", "--progress", "manual")
    roomy = 4096 * (20 + 3)
    yield Work(
        "alloc",
        "ALLOC of 4,096 keys",
        {
            "cold index": baton_mode(*alloc, "--samples", "20", "--pool-pages", str(roomy)),
            "full pool": baton_mode(*alloc, "--samples", "20"),
        },
        [
            at_most_us("cold index", 2000),
            more_at_most("cold index", "present_us", 1000, "all present"),
        ],
    )


def tcp_work(key, n_pages, page_bytes, title):
    over_tcp = ("--transport", "tcp")
    nixl_tcp, nixl_sleeps = "NIXL, tcp", "NIXL, tcp, target sleeps"
    return Work(
        key,
        title,
        {
            THREAD: baton(n_pages, page_bytes, *over_tcp),
            MANUAL: baton(n_pages, page_bytes, *over_tcp, "--progress", "manual"),
            DEBIAN: Perftest("debian", "ucp_put_bw", page_bytes, TCP_SETTINGS),
            WHEEL_BATON: baton(n_pages, page_bytes, *over_tcp, wheel=True),
            WHEEL: Perftest("wheel", "ucp_put_bw", page_bytes, TCP_SETTINGS),
            nixl_tcp: NixlTcp(n_pages, page_bytes, "--target-sleep", "0"),
            nixl_sleeps: NixlTcp(n_pages, page_bytes),
            MOONCAKE: mooncake(n_pages, page_bytes),
            RAW: floor("floor_tcp", n_pages, page_bytes),
        },
        [
            rate_against(THREAD, DEBIAN, 0.95),
            rate_against(WHEEL_BATON, WHEEL, 0.95),
            faster_than(THREAD, nixl_tcp, 1.0),
            faster_than(THREAD, nixl_sleeps, 1.0),
            faster_than(WHEEL_BATON, nixl_tcp, 1.0),
            faster_than(WHEEL_BATON, nixl_sleeps, 1.0),
        ],
    )


def cuda_work():
    """Both with the UCX of the wheel, which knows CUDA."""
    cuda = baton(64, MIB, "--memory", "cuda", wheel=True, huge="auto")
    return Work(
        "cuda-ipc",
        "GPU memory to GPU memory, two processes, 64 x 1 MiB scattered",
        {
            WHEEL_BATON: on_gpu(cuda),
            WHEEL: Perftest("wheel", "ucp_put_bw", MIB, CUDA_SETTINGS, memory="cuda"),
        },
        [rate_against(WHEEL_BATON, WHEEL, 0.9)],
    )


def all_works():
    return [
        *host_works(),
        digests_work(256, 256 * KIB, "digests-256x256k", "digests, 256 x 256 KiB scattered"),
        digests_work(2048, 32 * KIB, "digests-2048x32k", "digests, 2,048 x 32 KiB scattered"),
        paged_work(),
        *latency_works(),
        *orchestration_works(),
        tcp_work("tcp-1x64m", 1, 64 * MIB, "tcp, 1 x 64 MiB"),
        tcp_work("tcp-256x256k", 256, 256 * KIB, "tcp, 256 x 256 KiB scattered"),
        tcp_work("tcp-2048x32k", 2048, 32 * KIB, "tcp, 2,048 x 32 KiB scattered"),
        cuda_work(),
    ]
