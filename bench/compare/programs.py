# SPDX-License-Identifier: Apache-2.0
"""How each program beside Baton is run for one figure."""
import ctypes
import glob
import json
import os
import socket
import subprocess
import time

from figures import Failed, Figure, Missing

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


class Programs:
    """Where everything is: build (of the preset release), wheel_perf (a baton-perf built against
    the wheel's UCX, or None), peers (folder of virtual environments)."""

    def __init__(self, build, wheel_perf, peers, iterations):
        self.build, self.wheel_perf, self.peers = build, wheel_perf, peers
        self.iterations = iterations

    def with_iterations(self, iterations):
        return Programs(self.build, self.wheel_perf, self.peers, iterations)

    def command(self, name):
        path = os.path.join(self.build, "bin", name)
        if not os.access(path, os.X_OK):
            raise Missing(f"{path} (build the preset `release`)")
        return path

    def wheel(self):
        found = glob.glob(os.path.join(self.peers, "ucx/lib/python3*/site-packages/libucx"))
        if not found:
            raise Missing(f"UCX wheel in {self.peers}/ucx")
        return found[0]

    def python(self, peer):
        path = os.path.join(self.peers, peer, "bin/python")
        if not os.access(path, os.X_OK):
            raise Missing(f"{path} (virtual environment of {peer})")
        return path


def run(command, env=None, timeout=60):
    """Standard output of a program that must succeed."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{os.path.basename(command[0])}: nothing within {timeout} s") from late
    except OSError as error:
        raise Missing(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no text"]
        raise Failed(f"{os.path.basename(command[0])}: status {done.returncode}: {tail[0]}")
    return done.stdout


def middle(value):
    return value["median"] if isinstance(value, dict) else value


def figure_of_json(text, n_bytes):
    """Of the JSON that baton-perf, the floors and the peers' drivers print."""
    lines = text.strip()
    try:
        report = json.loads(lines[lines.index("{") :])
    except ValueError as error:
        raise Failed(f"no JSON: {lines[-200:]}") from error
    if not report.get("verified"):
        raise Failed("nothing was verified")
    cpu = None
    if "sender_cpu_us" in report:
        cpu = (middle(report["sender_cpu_us"]), middle(report["receiver_cpu_us"]))
    pages = {"on": ", huge pages", "off": ", 4 KiB pages"}.get(report.get("huge_pages"), "")
    return Figure(
        us=report["us"]["median"],
        bytes=n_bytes,
        cpu_us=cpu,
        config=report.get("config") or report.get("path", "") + pages,
        more=report,
    )


def work_arguments(programs, n_pages, page_bytes):
    iterations = programs.iterations if n_pages * page_bytes > MIB else 10 * programs.iterations
    return ["--pages", str(n_pages), "--page-bytes", str(page_bytes)] + [
        "--iterations",
        str(iterations),
    ]


def run_baton(programs, arguments, wheel):
    program, env = programs.command("baton-perf"), {}
    if wheel:
        env["LD_LIBRARY_PATH"] = os.path.join(programs.wheel(), "lib")
        if not programs.wheel_perf or not os.access(programs.wheel_perf, os.X_OK):
            raise Missing("a baton-perf built against the wheel's UCX (--wheel-perf)")
        program = programs.wheel_perf
    return run([program, "--json", *arguments], env)


def baton(n_pages, page_bytes, *options, wheel=False, huge="off"):
    def measure(programs):
        arguments = [*work_arguments(programs, n_pages, page_bytes), "--huge-pages", huge, *options]
        return figure_of_json(run_baton(programs, arguments, wheel), n_pages * page_bytes)

    return measure


def baton_mode(*options, wheel=False):
    """A measurement of baton-perf's that is no rate."""
    arguments = ["--huge-pages", "off", *options]
    return lambda programs: figure_of_json(run_baton(programs, arguments, wheel), 0)


def floor(name, n_pages, page_bytes, *options):
    def measure(programs):
        command = [programs.command(name), *work_arguments(programs, n_pages, page_bytes), *options]
        return figure_of_json(run(command), n_pages * page_bytes)

    return measure


def floor_mode(name, *options):
    """A floor that is no rate; of small work, and so of many turns."""

    def measure(programs):
        turns = ["--iterations", str(10 * programs.iterations)]
        return figure_of_json(run([programs.command(name), *turns, *options]), 0)

    return measure


def peer(name, driver, n_pages, page_bytes, *options):
    def measure(programs, env=None):
        command = [programs.python(name), os.path.join(HERE, driver)]
        command += [*work_arguments(programs, n_pages, page_bytes), *options]
        return figure_of_json(run(command, env), n_pages * page_bytes)

    return measure


def nixl(n_pages, page_bytes, *options):
    return peer("nixl", "peer_nixl.py", n_pages, page_bytes, *options)


def mooncake(n_pages, page_bytes):
    return peer("mc", "peer_mooncake.py", n_pages, page_bytes)


TCP = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}
TCP_SETTINGS = [
    TCP,
    {**TCP, "UCX_TCP_TX_SEG_SIZE": "64k", "UCX_TCP_RX_SEG_SIZE": "64k"},
    {**TCP, "UCX_TCP_TX_SEG_SIZE": "128k", "UCX_TCP_RX_SEG_SIZE": "128k"},
    {**TCP, "UCX_TCP_TX_SEG_SIZE": "1m", "UCX_TCP_RX_SEG_SIZE": "1m"},
]
CUDA_SETTINGS = [{}, *({"UCX_TLS": f"cuda_ipc,cuda_copy,{tls}"} for tls in ("posix,cma", "tcp"))]
HOST_SETTINGS = [{"UCX_TLS": tls} for tls in ("posix,cma", "posix", "sysv")]
CALIBRATION_TIMEOUT_S, RUN_TIMEOUT_S = 8, 30


def need_gpu():
    """Raises what is missing for work on a GPU's memory."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Missing(f"a GPU: {error}") from error
    n = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(n)) != 0 or n.value == 0:
        raise Missing("a GPU: the driver has none")


def on_gpu(action):
    def measure(programs):
        need_gpu()
        return action(programs)

    return measure


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect_perftest(program, server, port, arguments, env, timeout):
    """The client's output; it is started again while the server does not listen yet."""
    for _ in range(50):
        client = subprocess.run(
            [program, "127.0.0.1", "-p", str(port), *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if "refused" not in client.stderr + client.stdout or server.poll() is not None:
            return client.stdout
        time.sleep(0.05)
    raise Failed("ucx_perftest: its server never listened")


def perftest_once(program, lib, settings, arguments, timeout):
    env = {**os.environ, "UCX_WARN_UNUSED_ENV_VARS": "n", **settings}
    env.pop("LD_LIBRARY_PATH", None)
    if lib:
        env["LD_LIBRARY_PATH"] = lib
    port = free_port()
    with subprocess.Popen(
        [program, "-p", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            output = connect_perftest(program, server, port, arguments, env, timeout)
            server.wait(5)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"ucx_perftest: nothing within {timeout} s") from late
        finally:
            server.kill()
    lines = [line for line in output.splitlines() if line.strip()[:1].isdigit()]
    if not lines:
        raise Failed(f"ucx_perftest: no figure: {output.strip()[-120:]}")
    return [float(column) for column in lines[-1].split(",")]


def told(settings):
    text = " ".join(f"{k[4:]}={v}" for k, v in settings.items() if k != "UCX_NET_DEVICES")
    return text or "UCX's choice"


class Fastest:
    """A program with the fastest of some settings of UCX's: all are tried once, before the
    rounds."""

    def __init__(self, settings):
        self.settings = settings
        self.best = None

    def attempt(self, programs, settings):
        """A figure for the choice."""
        raise NotImplementedError

    def measure(self, programs, settings):
        raise NotImplementedError

    def calibrate(self, programs):
        found = []
        for settings in self.settings:
            try:
                found.append((self.attempt(programs, settings).us, settings))
            except Failed:
                continue  # a setting that is of no use here
        if not found:
            raise Failed(f"{self}: no setting gave a figure")
        self.best = min(found, key=lambda pair: pair[0])[1]

    def __call__(self, programs):
        return self.measure(programs, self.best)


class NixlTcp(Fastest):
    """NIXL over tcp."""

    def __init__(self, n_pages, page_bytes, *options):
        super().__init__(TCP_SETTINGS)
        self.run = nixl(n_pages, page_bytes, "--tls", "tcp", *options)

    def __str__(self):
        return "NIXL over tcp"

    def attempt(self, programs, settings):
        return self.measure(programs.with_iterations(5), settings)

    def measure(self, programs, settings):
        figure = self.run(programs, settings)
        figure.config += f", {told(settings)}"
        return figure


class Perftest(Fastest):
    """ucx_perftest."""

    def __init__(self, which, test, size, settings, memory=None):
        super().__init__(settings)
        self.which, self.test, self.size, self.memory = which, test, size, memory

    def __str__(self):
        return "ucx_perftest"

    def attempt(self, programs, settings):
        return self._once(programs, settings, CALIBRATION_TIMEOUT_S)

    def measure(self, programs, settings):
        return self._once(programs, settings, RUN_TIMEOUT_S)

    def calibrate(self, programs):
        if self.memory == "cuda":
            need_gpu()
        super().calibrate(programs)

    def _once(self, programs, settings, timeout):
        lib = None
        program = "/usr/bin/ucx_perftest"
        if self.which == "wheel":
            program = os.path.join(programs.wheel(), "bin/ucx_perftest")
            lib = os.path.join(programs.wheel(), "lib")
        if not os.access(program, os.X_OK):
            raise Missing(f"{program} (package ucx-utils)")
        n = max(8, min(20000, (programs.iterations * 16 * MIB) // self.size))
        arguments = ["-t", self.test, "-s", str(self.size), "-n", str(n), "-w", str(n // 10 + 1)]
        if self.memory:
            arguments += ["-m", self.memory]
        columns = perftest_once(program, lib, settings, [*arguments, "-f", "-v"], timeout)
        # iterations, typical latency, average, overall, average MiB/s, overall, ...
        latency = self.test.endswith("_lat")
        us = columns[3] if latency else self.size / (columns[5] * MIB) * 1e6
        return Figure(us=us, bytes=0 if latency else self.size, config=told(settings))
