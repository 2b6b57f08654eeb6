#!/usr/bin/env python3
"""Chaos on real processes: 2 coordinators, 3 data nodes with REPLICAS 2 and 3 ZooKeeper servers, a network namespace each.

All workloads of `neorunbase-workload` (bank, list-append in all isolation levels, ...) and pgbench run while machines are killed
(kill -9), stopped (SIGSTOP), cut off (also one way only), and run out of disk; in each round there is a while without any
ZooKeeper at all. Then the faults stop, nobody repairs anything, and every client must be served again, all shards must have
two copies in sync, the checkers must find nothing that the isolation level forbids, and pgbench's sums must be equal.

Usage: ci/end-to-end/chaos.py [--minutes M] [--seed S] [--faults a,b,c] [--evidence DIRECTORY]
--minutes counts the time under faults. What failed leaves its logs and histories in the directory for evidence.
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import threading
import time

import pg_client
from checks import Checks, note
from disks import Disk, remove_abandoned
from faults import NAMES, Tormentor
from loads import Pgbench, Workloads, sums
from namespaces import site_for
from placements import are_complete, placements, wait_until
from processes import MultiProcess, at_end, temporary_directory

COORDINATORS = ["coordinator", "coordinator-2"]
DATA_NODES = ["datanode-1", "datanode-2", "datanode-3"]
ZOOKEEPERS = ["zookeeper-1", "zookeeper-2", "zookeeper-3"]
#: Clients of each workload, and of pgbench.
CLIENTS = 2
ROUND_SECONDS = 120
DISK_MEBIBYTES = 2048
#: After the last fault every client must have been served within so many seconds,
PROGRESS_WITHIN_SECONDS = 30
#: and all shards must have all their copies: the Controller waits for a lost node for 30 s before it makes others.
REPAIRED_WITHIN_SECONDS = 120
WITHOUT_ZOOKEEPER_SECONDS = (1.0, 8.0)


class Timeline:
    """Says what happens when, as seconds since the start."""

    def __init__(self):
        self.started = time.monotonic()
        self.lock = threading.Lock()

    def __call__(self, text):
        with self.lock:
            note(f"    {self.seconds(time.monotonic()):7.1f} s  {text}")

    def seconds(self, moment):
        return moment - self.started


class Prober:
    """Asks for one row, and writes one, through one coordinator, again and again; remembers when that worked."""

    def __init__(self, server, number):
        self.server, self.number = server, number
        self.served = {"read": [], "write": []}
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._probe, args=(what,), daemon=True) for what in self.served]
        for thread in self.threads:
            thread.start()

    def _probe(self, what):
        sql = {
            "read": f"SELECT value FROM probe WHERE id = {self.number}",
            "write": f"UPDATE probe SET value = value + 1 WHERE id = {self.number + 10}",
        }[what]
        host, port = self.server.hosts[self.number], self.server.ports[self.number]
        connection = None
        while not self.stop.is_set():
            try:
                if connection is None:
                    connection = self.server.connect_to(port, host=host, timeout=5)
                connection.query(sql)
                self.served[what].append(time.monotonic())
            except (pg_client.ServerError, pg_client.ConnectionBroken, OSError):
                if connection is not None:
                    connection.socket.close()
                connection = None
            self.stop.wait(0.02)
        if connection is not None:
            connection.close()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)


def without_zookeeper(checks, server, tormentor, seconds, title):
    """The cluster is whole but for ZooKeeper. Shards that exist are served for as long as the leases last."""
    wait_until(lambda: are_complete(server, None), 20)
    probers = [Prober(server, number) for number in range(len(COORDINATORS))]
    wait_until(lambda: all(all(prober.served.values()) for prober in probers), 30)
    began = time.monotonic()
    tormentor.lose_zookeeper(seconds)
    ended = time.monotonic()
    wait_until(lambda: all(moments and moments[-1] > ended for prober in probers for moments in prober.served.values()), 60)
    for prober in probers:
        prober.end()
    last = {
        what: max((m for prober in probers for m in prober.served[what] if m < began + seconds), default=began) - began
        for what in ("read", "write")
    }
    again = {
        what: min((m for prober in probers for m in prober.served[what] if m > ended), default=None)
        for what in ("read", "write")
    }
    note(
        f"    {title}: of {seconds:.1f} s without ZooKeeper, rows were read for {last['read']:.1f} s and written for "
        f"{last['write']:.1f} s; again after {', '.join(f'{w}: {m and round(m - ended, 1)} s' for w, m in again.items())}"
    )
    checks.that(
        f"{title}: without ZooKeeper rows are read and written on while leases last",
        last["read"] > 0 and last["write"] > 0,
        last,
    )
    checks.that(f"{title}: with ZooKeeper back, both work again", None not in again.values(), again)


def tables_are_there(server):
    """The workloads make their tables one after the other: whether no other one has appeared for a while."""
    seen = None
    for _ in range(30):
        with server.connect(timeout=20) as connection:
            names = {row[0] for row in connection.query("SELECT tables FROM neorunbase_shards")}
        if names == seen:
            return True
        seen = names
        time.sleep(2)
    return False


def longest_stall(moments, began, ended):
    """The longest time without anybody served, and when it began."""
    inside = sorted(m for m in moments if began <= m <= ended)
    edges = [began, *inside, ended]
    return max(((after - before, before) for before, after in zip(edges, edges[1:])), default=(0.0, began))


def show_throughput(timeline, served, began, healed, ended):
    by_load = collections.defaultdict(list)
    for client, moments in served.items():
        by_load["pgbench" if client.startswith("pgbench") else "workloads"] += moments
    note(f"    {'':>12}{'workloads':>14}{'pgbench':>10}   transactions a second")
    for window in range(int((ended - began) // 10) + 1):
        start = began + 10 * window
        counts = [sum(start <= m < start + 10 for m in by_load[load]) / 10 for load in ("workloads", "pgbench")]
        where = "" if start < healed else "   (no more faults)"
        note(f"    {timeline.seconds(start):10.0f} s{counts[0]:14.1f}{counts[1]:10.1f}{where}")
    for load, moments in by_load.items():
        # Clients that were not served any more at the end are told of by `progress`.
        length, start = longest_stall(moments, began, max(moments, default=ended))
        note(f"    longest stall of all clients of {load}: {length:.1f} s, from {timeline.seconds(start):.1f} s on")


def progress(checks, title, served, healed):
    """Every client is served again soon after the last fault."""
    late = {}
    for client, moments in served.items():
        again = min((m for m in moments if m > healed), default=None)
        if again is None or again > healed + PROGRESS_WITHIN_SECONDS:
            late[client] = again and round(again - healed, 1)
    checks.that(
        f"{title}: each of {len(served)} clients is served within {PROGRESS_WITHIN_SECONDS} s of the last fault",
        served and not late,
        late,
    )


def chaos_round(checks, server, tormentor, timeline, options, turn, seconds, directory):
    title = f"round {turn + 1}"
    source = random.Random(f"{options.seed} {turn}")
    outage = source.uniform(*WITHOUT_ZOOKEEPER_SECONDS) if "lose-zookeeper" in options.faults else 0.0
    # Faults end late where a process takes its time to start, and ZooKeeper's loss is over with that of its sessions.
    calm = PROGRESS_WITHIN_SECONDS + 25
    traffic = int(seconds + outage + calm)
    history_before = sums(server)[1]
    timeline(f"{title}: {seconds:.0f} s of faults")
    workloads = Workloads(server, f"{directory}/round-{turn + 1}", traffic, CLIENTS, options.seed * 1000 + turn)
    pgbench = Pgbench(server, f"{directory}/pgbench-{turn + 1}", CLIENTS, traffic + 10)
    pgbench.start()
    wait_until(lambda: tables_are_there(server), 60)
    began = time.monotonic()
    if outage:
        # First, while the cluster is whole: what is served then is a matter of leases alone.
        without_zookeeper(checks, server, tormentor, outage, title)
    tormentor.torment(options.faults, seconds, turn)
    healed = time.monotonic()
    timeline(f"{title}: the last fault is over")
    complete = wait_until(lambda: are_complete(server, None), REPAIRED_WITHIN_SECONDS)
    timeline(f"{title}: {'all' if complete else 'NOT all'} shards have all their copies in sync")
    checks.that(f"{title}: all shards have two copies in sync, unattended", complete, incomplete(server))
    code, verdicts, output = workloads.finish()
    stuck = pgbench.finish()
    served = {**workloads.served(), **pgbench.served()}
    ended = min(max((m for moments in served.values() for m in moments), default=healed), healed + 60)
    show_throughput(timeline, served, began, healed, ended)
    progress(checks, title, served, healed)
    checks.that(f"{title}: the workloads come to their verdicts", verdicts and code in (0, 1), output[-3000:])
    for workload, (passed, said) in verdicts.items():
        checks.that(f"{title}: {workload} ({said.splitlines()[0]})", passed, said[-3000:])
    checks.equal(f"{title}: no pgbench hangs", stuck, [])
    for said, times in sorted(pgbench.ends.items()):
        note(f"    a pgbench ended {times} times: {said}")
    found, history = sums(server)
    acknowledged = sum(len(moments) for client, moments in served.items() if client.startswith("pgbench/"))
    checks.that(f"{title}: pgbench's sums of accounts, branches, tellers and history agree", len(set(found)) == 1, found)
    checks.that(
        f"{title}: all {acknowledged} acknowledged transactions of pgbench are in its history",
        history - history_before >= acknowledged,
        f"{history - history_before} are",
    )


def incomplete(server):
    try:
        return [shard for shard in placements(server) if len(shard[1]) < shard[2]]
    except (pg_client.ServerError, pg_client.ConnectionBroken, OSError) as error:
        return error


def fault_names(text):
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such faults: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def keep_evidence(server, directory, options):
    target = options.evidence or tempfile.mkdtemp(prefix="neorunbase-chaos-")
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(server.directory):
        if name.endswith((".log", ".toml")):
            shutil.copy(f"{server.directory}/{name}", target)
    shutil.copytree(directory, f"{target}/loads", dirs_exist_ok=True)
    note(f"    logs and histories are in {target}")


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", type=fault_names, default=NAMES, help=f"some of {','.join(NAMES)}")
    parser.add_argument("--evidence", help="where to keep logs and histories, also if nothing failed")
    options = parser.parse_args()
    note(f"    --seed {options.seed} (which faults, of whom, for how long; what happens at them is not repeatable)")
    site = site_for([*COORDINATORS, *DATA_NODES, *ZOOKEEPERS])
    note(f"    {site.title}")
    if site.can_cut:
        remove_abandoned()
    else:
        checks.skip("partitions", "the machine's networks cannot be cut")
    directory = temporary_directory()
    disks = {name: Disk(directory, name, DISK_MEBIBYTES) for name in DATA_NODES}
    directories = {name: disk.data for name, disk in disks.items()}
    if any(disk.kind is None for disk in disks.values()):
        checks.skip("full disks", "nothing can be mounted here")
        disks = {}
    server = MultiProcess(len(DATA_NODES), len(COORDINATORS), site, len(ZOOKEEPERS), "replicas_default = 2\n", directories)
    server.start(patience=120)
    with server.connect(timeout=120) as connection:
        # Data nodes are ready before the coordinator has heard of all of them.
        wait_until(lambda: connection.query("CREATE TABLE probe (id int PRIMARY KEY, value int)") is not None, 60)
        connection.query("INSERT INTO probe VALUES (0, 0), (1, 0), (10, 0), (11, 0)")
    Pgbench.initialise(server, 1)
    checks.that("both copies of all shards are in sync", wait_until(lambda: are_complete(server, None), 60))
    timeline = Timeline()
    tormentor = Tormentor(server, site, disks, timeline, options.seed)
    at_end(tormentor.end)
    loads = temporary_directory()
    rounds = max(1, round(options.minutes * 60 / ROUND_SECONDS))
    try:
        for turn in range(rounds):
            chaos_round(checks, server, tormentor, timeline, options, turn, options.minutes * 60 / rounds, loads)
    finally:
        tormentor.end()
        # Something failed, or an exception is on its way.
        if checks.failed or options.evidence or tormentor.ended or sys.exc_info()[0]:
            keep_evidence(server, loads, options)
    note(f"    faults: {', '.join(f'{title}: {times}' for title, times in sorted(tormentor.counts.items()))}")
    # A full disk may end a data node: its engine cannot take back what is half written. It says so, and starts again.
    ended = [said for said in tormentor.ended if "No space left on device" not in said]
    checks.equal("no process ended by itself, but for want of room on its disk", ended, [])
    checks.equal("all faults came and went as planned", tormentor.surprises, [])
    codes = server.stop()
    checks.that("all processes end cleanly", all(code == 0 for code in codes), codes)


Checks("chaos").run(work)
