#!/usr/bin/env python3
"""A loaded cluster gets one more data node, which then is drained again, and no client's transaction fails meanwhile.

Three data nodes with REPLICAS 2 and pgbench's tables; pgbench, bank and list-append run without a break. The fourth node must get
its share: bytes of shards within 10 % of the mean on every node. `neorunbase node drain` must then empty it.

Usage: ci/end-to-end/join.py [-s SCALE]
"""

import argparse
import re
import subprocess
import threading
import time

from checks import Checks, note
from loads import Pgbench, Workloads, sums
from placements import are_complete, copies, even_out, wait_until
from processes import MultiProcess, binary, client_program, environment, temporary_directory

WITHIN = 0.10
EVEN_WITHIN_SECONDS = 300
DRAINED_WITHIN_SECONDS = 300
#: A transaction lost against another one, which may have inserted the same key; the cluster has not failed it.
# The last one is the bank's own.
CONFLICTS = ("40001", "40P01", "23505", "not enough money")


class Tpcb(threading.Thread):
    """pgbench again and again, as it comes: without a second try for anything."""

    def __init__(self, server, seconds=10):
        super().__init__(daemon=True)
        self.server, self.seconds = server, seconds
        self.stop = threading.Event()
        self.processed = self.failed = 0
        self.errors = []

    def run(self):
        command = [client_program("pgbench"), "-n", "-c", "4", "-j", "2", "-M", "prepared", "-T", str(self.seconds)]
        while not self.stop.is_set():
            try:
                result = self.server.run_client(command, timeout=self.seconds + 120)
            except subprocess.TimeoutExpired as error:
                self.errors.append(f"it hangs: {error}")
                return
            processed = re.search(r"^number of transactions actually processed: (\d+)", result.stdout, re.MULTILINE)
            failed = re.search(r"^number of failed transactions: (\d+)", result.stdout, re.MULTILINE)
            self.processed += int(processed[1]) if processed else 0
            self.failed += int(failed[1]) if failed else 0
            if result.returncode != 0 or not processed or not failed or "error" in result.stderr:
                self.errors.append(result.stderr[-1000:])


class Judged(threading.Thread):
    """One of the workloads again and again, each time with its checker's verdict."""

    def __init__(self, server, only, seconds=15):
        super().__init__(daemon=True)
        self.server, self.only, self.seconds = server, only, seconds
        self.stop = threading.Event()
        self.directory = temporary_directory()
        self.runs, self.faults, self.errors = 0, [], []

    def run(self):
        while not self.stop.is_set():
            directory = f"{self.directory}/{self.runs}"
            try:
                workload = Workloads(self.server, directory, self.seconds, 2, self.runs, self.only)
                code, verdicts, output = workload.finish()
            except (OSError, RuntimeError) as error:
                self.faults.append(str(error))
                return
            self.runs += 1
            if code != 0 or not verdicts:
                self.faults.append(output)
            self.errors += [error for error in workload.errors() if not error.startswith(CONFLICTS)]


def has_table(server):
    """Only with enough data nodes for its copies."""
    with server.connect(timeout=60) as connection:
        connection.query("CREATE TABLE first (id int PRIMARY KEY) SHARDS 1 REPLICAS 3")
        # The Controller counts an empty copy as 16 MiB: many of them would outweigh what there is.
        connection.query("DROP TABLE first")
    return True


def has_node(server, name):
    """Whether shards are kept on a node."""
    return any(count for node, (count, _) in copies(server).items() if node == name)


def is_without(server, name):
    return are_complete(server, name) and not has_node(server, name)


def show(server, title):
    for name, (count, size) in sorted(copies(server).items()):
        note(f"    {title}: {name} has {count} copies, {size / 1e6:.1f} MB")


def drain(server, name):
    address = f"{server.host}:{server.admin_port}"
    command = [binary(), "node", "drain", name, "--wait", "--admin-addr", address]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DRAINED_WITHIN_SECONDS)


def no_transaction_failed(checks, tpcb, title):
    checks.that(
        f"{title}: pgbench had {tpcb.processed} transactions, {tpcb.failed} failed",
        tpcb.processed and not tpcb.failed and not tpcb.errors,
        tpcb.errors,
    )


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-s", "--scale", type=int, default=3)
    options = parser.parse_args()
    server = MultiProcess(data_nodes=3, coordinators=2, settings="replicas_default = 2\nshards_default = 16\n")
    server.start(patience=120)
    # Data nodes are ready before the coordinators have heard of all of them.
    checks.that("all data nodes are there", wait_until(lambda: has_table(server), 60))
    Pgbench.initialise(server, options.scale)
    checks.that("both copies of all shards are in sync", wait_until(lambda: are_complete(server, None), 120))
    show(server, "before")
    tpcb = Tpcb(server)
    tpcb.start()
    workloads = [Judged(server, only) for only in ("bank", "list-append-read-committed")]
    for workload in workloads:
        workload.start()
    time.sleep(5)

    node = server.add_data_node()
    node.start(patience=120)
    started = time.monotonic()
    even = wait_until(lambda: has_node(server, node.name) and even_out(server, 4, WITHIN), EVEN_WITHIN_SECONDS)
    note(f"    evened out {time.monotonic() - started:.0f} s after {node.name} had joined")
    show(server, "joined")
    checks.that(f"with {node.name}, all nodes are within {WITHIN:.0%} of the mean", even, copies(server))
    no_transaction_failed(checks, tpcb, "joining")

    started = time.monotonic()
    result = drain(server, node.name)
    note(f"    drained after {time.monotonic() - started:.0f} s")
    checks.that(f"neorunbase node drain {node.name} --wait", result.returncode == 0, result.stdout + result.stderr)
    show(server, "drained")
    checks.that(f"{node.name} is empty, and all shards have two copies", wait_until(lambda: is_without(server, node.name), 60), copies(server))
    no_transaction_failed(checks, tpcb, "draining")
    checks.equal("the node that was drained ends cleanly", node.stop(), 0)
    server.daemons.remove(node)
    # Tables that a workload has just made may not have both copies yet.
    checks.that("nothing is missed without it", wait_until(lambda: is_without(server, node.name), 60), copies(server))
    no_transaction_failed(checks, tpcb, "without it")

    tpcb.stop.set()
    tpcb.join(180)
    no_transaction_failed(checks, tpcb, "at the end")
    found, _ = sums(server)
    checks.that("pgbench's sums of accounts, branches, tellers and history agree", len(set(found)) == 1, found)
    for workload in workloads:
        workload.stop.set()
    for workload in workloads:
        workload.join(600)
        checks.that(f"{workload.only} passes {workload.runs} times", workload.runs and not workload.faults, workload.faults)
        checks.equal(f"{workload.only}: no transaction failed but for conflicts", workload.errors[:10], [])
    codes = server.stop()
    checks.that("all processes end cleanly", all(code == 0 for code in codes), codes)


Checks("join").run(work)
