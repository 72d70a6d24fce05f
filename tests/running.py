"""What tests that run real programs share: free ports, waiting with a deadline, and `airan up` and others in a folder that goes with the
test.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

DEADLINE = 150


def free_ports(count):
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def standing_ports(count):
    """The same for a program that is ended and comes back to its ports: below those that the kernel lends to whoever connects."""
    lent = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    sockets = []
    for port in random.sample(range(10_000, lent), min(1_000, max(0, lent - 10_000))):
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            one.close()
            continue
        sockets.append(one)
        if len(sockets) == count:
            break
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    if len(ports) < count:
        raise SystemExit(f"no {count} ports from 10000 to {lent} are free")
    return ports


def get(url, timeout=5):
    """What a URL answers within so many seconds, as text."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def until(what, probe, process=None):
    """Asks until the answer is true, and returns it. Fails at the deadline, and at once when `process` has ended before."""
    end, problem = time.monotonic() + DEADLINE, None
    while True:
        if process and process.poll() is not None:
            raise SystemExit(f"FAIL ended with {process.returncode} before this was so: {what}")
        try:
            found = probe()
        except (OSError, ValueError, KeyError, IndexError, AssertionError, subprocess.CalledProcessError) as error:
            found, problem = None, error
        if found:
            print(f"ok   {what}", flush=True)
            return found
        if time.monotonic() > end:
            raise SystemExit(f"FAIL not within {DEADLINE}s: {what}: {problem}")
        time.sleep(0.3)


class Running:
    """`airan up` and other programs, in a folder of their own: a context, at whose end they are killed, the folder goes, and where the test
    failed the ends of their logs are shown. What derives from it writes `up.yaml`, with its admin port as `self.admin`.
    """

    settings = ["--config", "up.yaml", "--data", "data"]

    def __init__(self, airan):
        # The way to programs on this machine goes by no proxy.
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
        self.airan = os.path.abspath(airan)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="airan-test"))
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        shutil.rmtree(self.folder)

    def start(self, name, command):
        """Starts a program; what it prints is added to `name`.log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def up(self):
        """Starts `airan up` and waits until it is ready."""
        process = self.start("airan", [self.airan, "up", *self.settings])
        until("airan is ready", lambda: get(f"http://127.0.0.1:{self.admin}/readyz") is not None, process)
        return process

    def query(self, sql):
        """Rows of the lake, as maps."""
        command = [self.airan, "query", *self.settings, "--format", "json", sql]
        out = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        return json.loads(out.stdout)

    def end(self, process, what):
        """Asks a program to end, which it must do in order."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, f"{what} ends in order"

    def check_lake(self):
        subprocess.run([self.airan, "lake", "check", *self.settings], cwd=self.folder, check=True)
