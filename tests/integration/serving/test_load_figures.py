# SPDX-License-Identifier: Apache-2.0
"""Figures of baton-load against those of an independent client and of the server itself.
Usage: test_load_figures.py BATON_LOAD

Nothing here depends on how fast the machine is. What was measured is held against what must have
happened before and after it: with one request at a time a client's request begins after the server
has ended the one before and before it sees this one, and ends after the server's last write and
before the next request comes. What is told of many requests is computed a second time from the
times of each.
"""
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
import load_client
from scripted_server import Server

PROGRAM = sys.argv.pop(1)


class Figures(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)

    def load(self, *options, status=0, keep=None):
        """Runs baton-load; the saved result."""
        with tempfile.TemporaryDirectory() as folder:
            command = [PROGRAM, "--quiet", "--save-detailed", "--result-dir", folder,
                       "--result-filename", "r.json", "--base-url",
                       f"http://127.0.0.1:{self.server.server_port}", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240)
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
            if keep:
                shutil.copy(os.path.join(folder, "r.json"), keep)
            with open(os.path.join(folder, "r.json"), encoding="utf-8") as file:
                return json.load(file)

    @staticmethod
    def requests_of(result):
        lists = ("ttfts", "itls", "latencies", "output_lens", "errors", "generated_texts")
        return [
            {"ttft": t, "itls": i, "latency": l, "tokens": n, "ok": not e, "text": text}
            for t, i, l, n, e, text in zip(*(result[name] for name in lists))
        ]

    def assert_same_figures(self, result, wanted):
        for name, value in wanted.items():
            # A TPOT is a whole number of nanoseconds there.
            self.assertAlmostEqual(result[name], value, delta=1e-5, msg=name)

    def assert_between_server_events(self, requests, log):
        """requests came one at a time, log is the server's."""
        self.assertEqual(len(requests), len(log))
        for i, (seen, note) in enumerate(zip(requests, log)):
            self.assertTrue(seen["ok"])
            self.assertEqual(seen["text"], note["answer"])
            self.assertEqual(len(seen["itls"]) + 1, len(note["writes"]))
            self.assertGreaterEqual(seen["ttft"], note["writes"][0] - note["came"])
            self.assertGreaterEqual(seen["latency"], note["end"] - note["came"])
            self.assertGreaterEqual(seen["latency"], seen["ttft"] + math.fsum(seen["itls"]))
            if 0 < i < len(log) - 1:
                most = log[i + 1]["came"] - log[i - 1]["end"]
                self.assertLessEqual(seen["latency"], most)

    def test_both_clients_measure_what_the_server_did(self):
        result = self.load("--max-concurrency=1", "--num-prompts=20", "--random-output-len=8")
        log = self.server.take_log()
        ours = self.requests_of(result)
        self.assert_between_server_events(ours, log)
        bodies = [note["body"] for note in log]
        theirs = load_client.send_all("127.0.0.1", self.server.server_port, "/v1/completions",
                                      bodies, 1)
        self.assert_between_server_events(theirs, self.server.take_log())
        self.assertEqual([r["tokens"] for r in ours], [r["tokens"] for r in theirs])
        self.assertEqual([r["text"] for r in ours], [r["text"] for r in theirs])
        other = load_client.all_figures(theirs)
        for name in ("median_ttft_ms", "median_tpot_ms", "median_itl_ms", "median_e2el_ms"):
            print(f"{name}: baton-load {result[name]:.3f}, independent client {other[name]:.3f}")

    def test_what_is_told_follows_from_the_details(self):
        result = self.load("--request-rate=60", "--num-prompts=40", "--random-output-len=1:9",
                           "--max-concurrency=6", "--goodput", "ttft:45", "tpot:5", "--num-warmups=3",
                           "--percentile-metrics=ttft,tpot,itl,e2el,client_queue_time")
        requests = self.requests_of(result)
        duration = result["duration"]
        self.assert_same_figures(result, load_client.all_figures(requests))
        self.assert_same_figures(
            result, load_client.figures("client_queue_time", result["queue_times"]))
        good = [r for r in requests if r["ttft"] <= 0.045
                and (r["tokens"] < 2 or load_client.tpot(r) <= 0.005)]
        tokens = sum(result["output_lens"])
        self.assert_same_figures(result, {
            "request_throughput": 40 / duration,
            "request_goodput": len(good) / duration,
            "output_throughput": tokens / duration,
            "total_token_throughput": (tokens + sum(result["input_lens"])) / duration,
            "max_output_tokens_per_s": self.fullest_second(result),
            "max_concurrent_requests": self.most_at_once(result),
        })
        self.assertEqual(len(self.server.take_log()), 43)

    @staticmethod
    def fullest_second(result):
        seconds = {}
        for start, ttft, itls in zip(result["start_times"], result["ttfts"], result["itls"]):
            at = start + ttft
            for gap in [0, *itls]:
                at += gap
                seconds[int(at)] = seconds.get(int(at), 0) + 1
        return max(seconds.values())

    @staticmethod
    def most_at_once(result):
        edges = []
        for start, queued, latency in zip(result["start_times"], result["queue_times"],
                                          result["latencies"]):
            edges += [(start + queued, 1), (start + latency, -1)]
        running = most = 0
        for _, change in sorted(edges):
            running += change
            most = max(most, running)
        return most

    def test_a_seed_says_what_is_asked(self):
        bodies = []
        for seed in (5, 5, 6):
            self.load("--num-prompts=12", "--random-output-len=1", f"--seed={seed}",
                      "--header", "X-Team=a=b,X-Other=2")
            log = self.server.take_log()
            self.assertEqual({(n["headers"]["X-Team"], n["headers"]["X-Other"]) for n in log},
                             {("a=b", "2")})
            bodies.append(sorted(note["body"] for note in log))
        self.assertEqual(bodies[0], bodies[1])
        self.assertNotEqual(bodies[0], bodies[2])

    def test_turns_begin_with_what_was_said(self):
        result = self.load("--num-prompts=14", "--turns=4", "--random-prefix-len=32",
                           "--random-output-len=3", "--random-input-len=20", "--turn-delay=1ms")
        self.assertEqual(result["completed"], 14)
        log = self.server.take_log()
        said = {note["asked"]["prompt"]: note["answer"] for note in log}
        self.assertEqual(len(said), 14)
        first = [p for p in said if len(p) == 52]
        self.assertEqual(len(first), 4)  # three conversations of 4 turns and one of 2
        self.assertEqual(len({p[:32] for p in said}), 1)
        follow = [p for p in said if any(p.startswith(q + said[q]) for q in said if q != p)]
        self.assertEqual(len(follow), 10)

    def test_results_are_compared(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, label in (("a", "old"), ("b", "new")):
                self.load("--num-prompts=6", "--random-output-len=4", "--label", label, "--chart",
                          f"{folder}/{name}.svg", "--save-answers", f"{folder}/{name}.txt",
                          keep=f"{folder}/{name}.json")
            command = [PROGRAM, "compare", f"{folder}/a.json", f"{folder}/b.json"]
            done = subprocess.run([*command, "--chart", f"{folder}/ab.svg"], capture_output=True,
                                  text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"\nlabel +old +new\n")
            self.assertRegex(done.stdout, r"\ncompleted +6 +6\n")
            for picture in ("a.svg", "b.svg", "ab.svg"):
                xml.etree.ElementTree.parse(f"{folder}/{picture}")
            with open(f"{folder}/a.txt", "rb") as a, open(f"{folder}/b.txt", "rb") as b:
                self.assertEqual(a.read(), b.read())
            done = subprocess.run(command[:-1], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 2)
            self.assertIn("wanted two results, found 1", done.stderr)

    def test_a_search_that_finds_no_rate_says_so(self):
        result = self.load("--find-rate", "--goodput=ttft:0.001", "--num-prompts=2",
                           "--step-time=1ms", "--request-rate=500", "--random-output-len=2", status=1)
        self.assertIsNone(result["highest_rate"])
        self.assertEqual([step["met"] for step in result["steps"]], [False] * 8)
        self.assertEqual([step["request_rate"] for step in result["steps"]],
                         [500 / 2**k for k in range(8)])
        bodies = [note["body"] for note in self.server.take_log()]
        self.assertEqual(len(set(bodies)), len(bodies))  # no step asks what another has asked


if __name__ == "__main__":
    unittest.main()
