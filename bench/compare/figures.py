# SPDX-License-Identifier: Apache-2.0
"""What a run of a program gave, and what is computed from several."""
import statistics
from dataclasses import dataclass, field


class Missing(Exception):
    """A program that is not there; the text says which and how to get it."""


class Failed(Exception):
    """A program that ran and gave no figure."""


@dataclass
class Figure:
    us: float  # median of the run's own repetitions
    bytes: int = 0  # moved in that time; 0: nothing that a rate would mean
    cpu_us: tuple = None  # (sender, receiver) for one repetition
    config: str = ""
    more: dict = field(default_factory=dict)  # further figures by name

    def gb_per_s(self):
        return self.bytes / self.us / 1e3 if self.bytes else None


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def ratios(one, other, of):
    """of(one[i]) / of(other[i]) for the rounds that have both."""
    pairs = [(a, b) for a, b in zip(one, other) if a is not None and b is not None]
    return [of(a) / of(b) for a, b in pairs if of(b)]


@dataclass
class Check:
    """A target: value(rounds) of figures by subject, against a limit."""

    text: str
    op: str  # ">=" or "<="
    limit: float
    values: object  # function: {subject: [Figure or None per round]} -> [float per round]
    unit: str = "x"

    def outcome(self, rounds):
        value = median(self.values(rounds))
        if value is None:
            return None, "not measured"
        good = value >= self.limit if self.op == ">=" else value <= self.limit
        return value, "met" if good else "missed"


def faster_than(one, other, limit, note=""):
    """Speed of subject `one` as a multiple of `other`'s, both moving the same bytes."""
    return Check(
        f"{one} : {other}{note}",
        ">=",
        limit,
        lambda rounds: ratios(rounds.get(other, []), rounds.get(one, []), lambda f: f.us),
    )


def rate_against(one, other, limit):
    """As faster_than, but by rate: the two may have moved different amounts."""
    return Check(
        f"{one} : {other}",
        ">=",
        limit,
        lambda rounds: ratios(
            rounds.get(one, []), rounds.get(other, []), lambda f: f.gb_per_s()
        ),
    )


def cpu_against(one, other, limit, note=""):
    """CPU time of both processes as a multiple of another subject's."""
    return Check(
        f"CPU, {one} : {other}{note}",
        "<=",
        limit,
        lambda rounds: ratios(
            rounds.get(one, []), rounds.get(other, []), lambda f: sum(f.cpu_us)
        ),
    )


def receiver_share(one, limit, note=""):
    return Check(
        f"CPU, {one}: receiver : sender{note}",
        "<=",
        limit,
        lambda rounds: [f.cpu_us[1] / f.cpu_us[0] for f in rounds.get(one, []) if f],
    )


def at_most_us(one, limit, text="us"):
    return Check(
        f"{one}, {text}",
        "<=",
        limit,
        lambda rounds: [f.us for f in rounds.get(one, []) if f],
        unit="us",
    )


def more_at_most(one, name, limit, text):
    """A further figure of a run, us."""

    def values(rounds):
        found = [f.more[name] for f in rounds.get(one, []) if f and name in f.more]
        return [v["median"] if isinstance(v, dict) else v for v in found]

    return Check(f"{one}, {text}", "<=", limit, values, unit="us")


def time_against(one, other, limit):
    """Time of subject `one` as a multiple of `other`'s."""
    return Check(
        f"time, {one} : {other}",
        "<=",
        limit,
        lambda rounds: ratios(rounds.get(one, []), rounds.get(other, []), lambda f: f.us),
    )
