# SPDX-License-Identifier: Apache-2.0
"""The one table, and the same as JSON."""
import os
import platform

from figures import median

COLUMNS = ["", "us", "GB/s", "lowest..highest", "CPU us, both ends", "configuration"]


def machine():
    name = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


def number(value, digits=None):
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


def subject_row(who, figures):
    good = [f for f in figures if f]
    if not good:
        return [f"  {who}", "-", "-", "-", "-", "no figure"]
    rates = sorted(f.gb_per_s() for f in good if f.bytes)
    spread = (
        f"{number(rates[0], 1)}..{number(rates[-1], 1)} GB/s"
        if rates
        else f"{number(min(f.us for f in good))}..{number(max(f.us for f in good))} us"
    )
    cpu = "-"
    if all(f.cpu_us for f in good):
        ends = [median(f.cpu_us[end] for f in good) for end in (0, 1)]
        cpu = f"{number(ends[0], 0)} + {number(ends[1], 0)}"
    rate = median(rates)
    return [
        f"  {who}",
        number(median(f.us for f in good)),
        number(rate, 2),
        spread,
        cpu,
        good[0].config,
    ]


def check_row(check, rounds):
    value, verdict = check.outcome(rounds)
    shown = "-" if value is None else f"{number(value, None if check.unit == 'x' else 1)}"
    unit = "" if check.unit == "x" else f" {check.unit}"
    return [f"    {check.text}", shown + unit, f"{check.op} {check.limit:g}{unit}", verdict, "", ""]


def print_table(works, rounds, facts):
    rows = []
    for work in works:
        rows.append([work.title, "", "", "", "", ""])
        rows += [subject_row(who, rounds[work.key][who]) for who in work.subjects]
        rows += [check_row(check, rounds[work.key]) for check in work.checks]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(5)]
    print(
        f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}; {facts['rounds']} rounds "
        f"in turns, {facts['seconds']} s; load average at the end {facts['load']:.1f}\n"
        "Medians of the rounds' medians. Ratios are made within a round, and the median of those "
        "is held against the target.\n"
    )
    for row in [COLUMNS, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [row[i].rjust(widths[i]) for i in range(1, 5)]
        print("  ".join([*cells, row[5]]).rstrip())
    print()


def markdown_targets(works, rounds):
    yield "| work | figure | target | measured | | command |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for work in works:
        title = work.title
        for check in work.checks:
            row = check_row(check, rounds[work.key])
            text, value, limit, verdict = (cell.strip() for cell in row[:4])
            sign = "at least" if limit.startswith(">=") else "at most"
            yield (
                f"| {title} | {text} | {sign} {limit[3:]} | {value} | {verdict} "
                f"| `bench/compare.sh --only {work.key}` |"
            )
            title = ""


def markdown_figures(works, rounds):
    yield "| work | | µs | GB/s | lowest..highest | CPU µs, both ends | configuration |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for work in works:
        title = work.title
        for who in work.subjects:
            row = (cell.strip() for cell in subject_row(who, rounds[work.key][who]))
            yield f"| {title} | {' | '.join(row)} |"
            title = ""


def write_markdown(works, rounds, facts, path):
    """The tables of docs/performance.md."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}; {facts['rounds']} "
        f"rounds in turns; load average at the end {facts['load']:.1f}.",
        "",
        *markdown_targets([work for work in works if work.checks], rounds),
        "",
        *markdown_figures(works, rounds),
    ]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def report(works, rounds, facts, troubles):
    def figures(work, who):
        return [
            None
            if f is None
            else {"us": f.us, "gb_per_s": f.gb_per_s(), "cpu_us": f.cpu_us, "config": f.config}
            for f in rounds[work.key][who]
        ]

    def checks(work):
        for check in work.checks:
            value, verdict = check.outcome(rounds[work.key])
            yield {
                "text": check.text,
                "value": value,
                "op": check.op,
                "limit": check.limit,
                "unit": check.unit,
                "verdict": verdict,
            }

    return {
        "machine": facts,
        "works": [
            {
                "key": work.key,
                "title": work.title,
                "rounds": {who: figures(work, who) for who in work.subjects},
                "checks": list(checks(work)),
            }
            for work in works
        ],
        "troubles": troubles,
    }
