# SPDX-License-Identifier: Apache-2.0
"""What bench/compare.sh computes and prints. Usage: test_compare.py REPOSITORY"""
import contextlib
import io
import sys
import unittest

sys.path.insert(0, sys.argv.pop(1) + "/bench/compare")
sys.dont_write_bytecode = True

from figures import (
    Figure,
    at_most_us,
    cpu_against,
    faster_than,
    more_at_most,
    rate_against,
    receiver_share,
)
from programs import figure_of_json
from figures import Failed
from table import print_table
from works import Work, all_works

FACTS = {"cpu": "c", "cores": 2, "kernel": "k", "rounds": 3, "seconds": 1, "load": 0.0}


def moved(us, cpu=(1.0, 0.0), n_bytes=1000):
    return Figure(us=us, bytes=n_bytes, cpu_us=cpu)


class Checks(unittest.TestCase):
    def test_ratio_is_made_within_a_round(self):
        # Both are twice as slow in the second round; the medians across rounds would say 1.5.
        rounds = {"a": [moved(10), moved(20), None], "b": [moved(20), moved(40), moved(1)]}
        self.assertEqual(faster_than("a", "b", 2.0).outcome(rounds), (2.0, "met"))
        self.assertEqual(faster_than("a", "b", 2.1).outcome(rounds), (2.0, "missed"))

    def test_rate_counts_bytes(self):
        rounds = {"a": [moved(10, n_bytes=1000)], "b": [moved(1, n_bytes=50)]}
        self.assertEqual(rate_against("a", "b", 0.95).outcome(rounds), (2.0, "met"))

    def test_cpu_is_of_both_ends(self):
        rounds = {"a": [moved(1, (3.0, 1.0))], "b": [moved(1, (2.0, 0.0))]}
        self.assertEqual(cpu_against("a", "b", 1.15).outcome(rounds), (2.0, "missed"))
        self.assertEqual(receiver_share("a", 0.5).outcome(rounds), (1 / 3, "met"))

    def test_limit_is_of_the_median(self):
        rounds = {"a": [moved(9), moved(100), moved(10)]}
        self.assertEqual(at_most_us("a", 10).outcome(rounds), (10, "met"))

    def test_further_figures_have_limits(self):
        rounds = {"a": [moved(9), moved(8)]}
        self.assertEqual(more_at_most("a", "x", 5, "t").outcome(rounds)[1], "not measured")
        rounds["a"][0].more = {"x": {"median": 6.0}}
        self.assertEqual(more_at_most("a", "x", 5, "t").outcome(rounds), (6.0, "missed"))

    def test_nothing_measured_is_no_verdict(self):
        for rounds in ({}, {"a": [None], "b": [None]}, {"a": [moved(1)]}):
            self.assertEqual(faster_than("a", "b", 1.0).outcome(rounds), (None, "not measured"))


class Output(unittest.TestCase):
    def test_unverified_figures_are_refused(self):
        with self.assertRaises(Failed):
            figure_of_json('{"verified": 0, "us": {"median": 1}}', 1)
        with self.assertRaises(Failed):
            figure_of_json("Segmentation fault", 1)

    def test_table_is_aligned_and_says_what_is_missing(self):
        work = Work("k", "a work", {"a": None, "b": None}, [faster_than("a", "b", 2.0)])
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            print_table([work], {"k": {"a": [moved(1234.0)], "b": [None]}}, FACTS)
        rows = text.getvalue().splitlines()
        a, b, check = rows[-4], rows[-3], rows[-2]
        self.assertIn("1,234", a)
        self.assertEqual(a.index("1,234") + 4, b.index("-"))
        self.assertIn("no figure", b)
        self.assertIn(">= 2", check)
        self.assertIn("not measured", check)

    def test_checks_name_subjects_that_exist(self):
        for work in all_works():
            self.assertEqual(len(set(work.subjects)), len(work.subjects))
            for check in work.checks:
                seen = {}
                names = [who for who in work.subjects if who in check.text]
                self.assertTrue(names, check.text)
                for who in work.subjects:
                    seen[who] = [moved(5.0, (1.0, 0.5))]
                    seen[who][0].more = {"present_us": {"median": 1.0}, "excess_us": 1.0}
                self.assertNotEqual(check.outcome(seen)[1], "not measured", check.text)


if __name__ == "__main__":
    unittest.main()
