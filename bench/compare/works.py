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
    HOST_SETTINGS,
    TCP_SETTINGS,
    Perftest,
    baton,
    baton_mode,
    floor,
    mooncake,
    nixl,
)

KIB, MIB = 1 << 10, 1 << 20
THREAD, MANUAL = "baton", "baton manual"
SUMMED = "copy and read with XXH3 sums"
COPY, VM, RAW = "NT-store floor", "process_vm floor", "raw sockets"
NIXL, NIXL_THREAD, MOONCAKE = "NIXL", "NIXL with thread", "Mooncake"
DEBIAN, WHEEL = "perftest debian", "perftest wheel"
WHEEL_BATON = "baton, wheel's UCX"
TWO_THREADS = "baton, 2 copy threads"
# 16 tokens x 8 heads x 128 x 2 bytes: 32 KiB of a block in one place.
PAGED = ("--paged", "--layers", "8", "--heads", "8", "--head-dim", "128")


@dataclass
class Work:
    key: str
    title: str
    subjects: dict  # name: function(programs) -> Figure
    checks: list = field(default_factory=list)


def pages_work(key, n_pages, page_bytes, title, checks, more=None):
    subjects = {
        THREAD: baton(n_pages, page_bytes),
        MANUAL: baton(n_pages, page_bytes, "--progress", "manual"),
        COPY: floor("floor_copy", n_pages, page_bytes),
        VM: floor("floor_vm", n_pages, page_bytes),
        NIXL: nixl(n_pages, page_bytes),
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


def speed(floor_share, nixl_times):
    return [
        check
        for who in (THREAD, MANUAL)
        for check in (faster_than(who, COPY, floor_share), faster_than(who, NIXL, nixl_times))
    ]


def cpu():
    return [
        check
        for who in (THREAD, MANUAL)
        for check in (cpu_against(who, COPY, 1.15), receiver_share(who, 0.05))
    ]


def host_works():
    yield pages_work(
        "256x256k",
        256,
        256 * KIB,
        "256 x 256 KiB scattered",
        speed(0.90, 2.5) + cpu(),
        {
            TWO_THREADS: two_threads(256, 256 * KIB),
            NIXL_THREAD: nixl(256, 256 * KIB, "--progress-thread"),
            **host_perftest(256 * KIB),
        },
    )
    yield pages_work(
        "2048x32k",
        2048,
        32 * KIB,
        "2,048 x 32 KiB scattered",
        speed(0.85, 3.5),
        {TWO_THREADS: two_threads(2048, 32 * KIB), **host_perftest(32 * KIB)},
    )
    yield pages_work(
        "2048x4k",
        2048,
        4 * KIB,
        "2,048 x 4 KiB scattered",
        [faster_than(who, NIXL, 3.0) for who in (THREAD, MANUAL)],
    )
    yield pages_work("1x64m", 1, 64 * MIB, "1 x 64 MiB", [])


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
        {"both poll": commit("--progress", "manual"), "both sleep": commit()},
        [at_most_us("both poll", 10), at_most_us("both sleep", 60)],
    )
    tcp = ("--transport", "tcp", "--progress", "manual")
    yield Work(
        "tcp-latency",
        "tcp, 1 x 4 KiB, from push to seen by the receiver",
        {
            "both poll": commit(*tcp),
            DEBIAN: Perftest("debian", "ucp_put_lat", 4 * KIB, TCP_SETTINGS),
            "both poll, wheel's UCX": commit(*tcp, wheel=True),
            WHEEL: Perftest("wheel", "ucp_put_lat", 4 * KIB, TCP_SETTINGS),
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
            nixl_tcp: nixl(n_pages, page_bytes, "--tls", "tcp", "--target-sleep", "0"),
            nixl_sleeps: nixl(n_pages, page_bytes, "--tls", "tcp"),
            MOONCAKE: mooncake(n_pages, page_bytes),
            RAW: floor("floor_tcp", n_pages, page_bytes),
        },
        [
            rate_against(THREAD, DEBIAN, 0.95),
            rate_against(WHEEL_BATON, WHEEL, 0.95),
            faster_than(THREAD, nixl_tcp, 1.0),
            faster_than(THREAD, nixl_sleeps, 1.0),
            faster_than(WHEEL_BATON, nixl_tcp, 1.0),
        ],
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
    ]
