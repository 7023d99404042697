# SPDX-License-Identifier: Apache-2.0
"""Runs every work's programs in turns, round after round, and prints one table. Started by
bench/compare.sh, whose --help says how."""
import argparse
import contextlib
import json
import os
import signal
import sys
import time

from figures import Failed, Missing
from programs import Fastest, Programs
from table import machine, print_table, report, write_markdown
from works import all_works


def choose(works, only):
    if not only:
        return works
    chosen = [work for work in works if any(key in work.key for key in only)]
    if not chosen:
        keys = ", ".join(work.key for work in works)
        sys.exit(f"compare: wanted some of {keys} with --only, found {', '.join(only)}")
    return chosen


def say(text):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def attempt(programs, work, who, action, troubles):
    """The figure, or None; each trouble is told once, at the end."""
    try:
        return action(programs)
    except (Missing, Failed) as trouble:
        kind = "missing" if isinstance(trouble, Missing) else "failed"
        text = f"{kind}: {trouble}"
        places = troubles.setdefault(text, [])
        place = f"{work.title} / {who}"
        if place not in places:
            places.append(place)
        return None


def measure(works, programs, n_rounds, troubles):
    rounds = {work.key: {who: [] for who in work.subjects} for work in works}
    for work in works:
        for who, action in work.subjects.items():
            if isinstance(action, Fastest):
                say(f"trying settings: {work.title}, {who}")
                attempt(programs, work, who, action.calibrate, troubles)
    for number in range(1, n_rounds + 1):
        for work in works:
            for who, action in work.subjects.items():
                say(f"round {number} of {n_rounds}: {work.title}, {who}")
                figure = None
                if not isinstance(action, Fastest) or action.best is not None:
                    figure = attempt(programs, work, who, action, troubles)
                rounds[work.key][who].append(figure)
    say("")
    return rounds


SHARED_HUGE = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"


@contextlib.contextmanager
def huge_shared_memory(wanted):
    """Meanwhile shared memory has huge pages on request."""
    if not wanted:
        yield
        return
    try:
        with open(SHARED_HUGE, encoding="ascii") as file:
            before = file.read().split("[")[1].split("]")[0]
        set_huge_shared("advise")
    except OSError as error:
        sys.exit(f"compare: --huge-shmem: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        set_huge_shared(before)


def set_huge_shared(value):
    with open(SHARED_HUGE, "w", encoding="ascii") as file:
        file.write(value)


def main():
    parser = argparse.ArgumentParser(prog="compare.sh")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=21)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--huge-shmem", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--build", required=True)
    parser.add_argument("--wheel-perf")
    parser.add_argument("--peers", required=True)
    options = parser.parse_args()
    works = choose(all_works(), options.only)
    if options.list:
        for work in works:
            print(f"{work.key:16} {work.title}: {', '.join(work.subjects)}")
        return
    programs = Programs(options.build, options.wheel_perf, options.peers, options.iterations)
    troubles, start = {}, time.monotonic()
    with huge_shared_memory(options.huge_shmem):
        rounds = measure(works, programs, max(1, options.rounds), troubles)
    facts = {**machine(), "rounds": options.rounds, "seconds": round(time.monotonic() - start)}
    print_table(works, rounds, facts)
    for text, places in troubles.items():
        print(f"{text}\n    {'; '.join(places)}")
    if options.markdown:
        write_markdown(works, rounds, facts, options.markdown)
    if options.json:
        with sys.stdout if options.json == "-" else open(options.json, "w", encoding="utf-8") as f:
            json.dump(report(works, rounds, facts, troubles), f, indent=1)
            f.write("\n")
    sys.stdout.flush()
    os._exit(0 if any(f for w in rounds.values() for fs in w.values() for f in fs) else 1)


if __name__ == "__main__":
    main()
