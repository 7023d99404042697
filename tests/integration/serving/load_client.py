# SPDX-License-Identifier: Apache-2.0
"""A second client, independent of baton-load: other language, other HTTP library, other arithmetic.

load_client.py URL BODIES.jsonl [CONCURRENCY]   sends every line to URL and prints the figures.
BODIES.jsonl: request bodies, a JSON object a line, with "stream": true.
"""
import concurrent.futures
import http.client
import json
import math
import sys
import time
import urllib.parse


def send(host, port, path, body):
    """One streamed request: what a user sees of it, in seconds."""
    seen = {"ok": False, "itls": [], "text": "", "tokens": None, "start": time.monotonic()}
    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    last = None
    while line := answer.readline():
        now = time.monotonic()
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            seen["ok"] = answer.status == 200
            continue
        event = json.loads(data)
        if usage := event.get("usage"):
            seen["tokens"] = usage["completion_tokens"]
        for choice in event.get("choices", []):
            text = choice.get("text", choice.get("delta", {}).get("content"))
            if not text:
                continue
            seen["text"] += text
            if last is None:
                seen["ttft"] = now - seen["start"]
            else:
                seen["itls"].append(now - last)
            last = now
    seen["latency"] = time.monotonic() - seen["start"]
    connection.close()
    return seen


def send_all(host, port, path, bodies, concurrency):
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(lambda body: send(host, port, path, body), bodies))


def percentile(values, percent):
    """Linear interpolation, as numpy.percentile does by default."""
    ordered = sorted(values)
    rank = percent / 100 * (len(ordered) - 1)
    below, above = math.floor(rank), math.ceil(rank)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def figures(name, values):
    """The figures of one metric, in ms, under vLLM's names; values in seconds."""
    mean = math.fsum(values) / len(values)
    out = {
        "mean": mean,
        "median": percentile(values, 50),
        "std": math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)),
        "min": min(values),
        "max": max(values),
    }
    out.update({f"p{p}": percentile(values, p) for p in (50, 90, 99)})
    return {f"{kind}_{name}_ms": value * 1e3 for kind, value in out.items()}


def all_figures(requests):
    """requests: what send() returned, or the same made of somebody else's details."""
    good = [r for r in requests if r["ok"]]
    out = {"completed": len(good)}
    out.update(figures("ttft", [r["ttft"] for r in good]))
    out.update(figures("itl", [gap for r in good for gap in r["itls"]]))
    out.update(figures("e2el", [r["latency"] for r in good]))
    out.update(figures("tpot", [tpot(r) for r in good if r["tokens"] > 1]))
    return out


def tpot(request):
    return math.fsum(request["itls"]) / (request["tokens"] - 1)


def main():
    url = urllib.parse.urlsplit(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        bodies = [line.strip().encode() for line in file if line.strip()]
    concurrency = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    seen = send_all(url.hostname, url.port, url.path, bodies, concurrency)
    print(json.dumps(all_figures(seen), indent=2))


if __name__ == "__main__":
    main()
