#!/usr/bin/env python3
"""A cluster with REPLICAS 2 on three data nodes and a real ZooKeeper loses data nodes for good under load.

Each round kills the data node that leads the most shards with kill -9. Nothing acknowledged may be lost, every account
must take writes again soon, and without anybody's help all shards must have two copies in sync again: on the
nodes that are left while the killed one is away, and evenly on all of them once it is back, without one failed transaction.

Usage: ci/end-to-end/failover.py [--kills N] [--seed N]
"""

import argparse
import collections
import random
import threading
import time

import pg_client
from checks import Checks, note
from placements import are_complete, is_even, placements, wait_until
from processes import MultiProcess
from transfers import ACCOUNTS, CLIENT_PATIENCE, Ledger, client, create_tables, verify

CLIENTS = 4
#: What the project promises at default settings.
RESUMED_WITHIN_SECONDS = 5
#: The Controller waits for a lost node for 30 s before it makes other copies.
REPAIRED_WITHIN_SECONDS = 120


def has_tables(server):
    create_tables(server, "SHARDS 6 REPLICAS 2")
    return True


def seconds_until_all_take_writes(server, killed_at):
    """When each account was written for the first time after `killed_at`: that covers every shard."""
    written = {}

    def probe(accounts):
        connection = None
        for account in accounts:
            while account not in written and time.monotonic() < killed_at + 60:
                try:
                    if connection is None:
                        connection = server.connect(timeout=3)
                    connection.query(f"UPDATE account SET balance = balance WHERE id = {account}")
                    written[account] = time.monotonic()
                except (pg_client.ServerError, pg_client.ConnectionBroken, OSError):
                    if connection is not None:
                        connection.socket.close()
                    connection = None
                    time.sleep(0.02)

    # Few accounts each: none waits long for another's shard.
    probes = [threading.Thread(target=probe, args=(range(first, ACCOUNTS, 16),)) for first in range(16)]
    for thread in probes:
        thread.start()
    for thread in probes:
        thread.join()
    if len(written) < ACCOUNTS:
        return None
    return max(written.values()) - killed_at


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    note(f"    --seed {options.seed} (the moments of the kills; what happens at them is not repeatable)")
    server = MultiProcess(data_nodes=3)
    server.start(patience=120)
    # Data nodes are ready before the coordinator has heard of all of them.
    checks.that("the coordinator has seen all data nodes", wait_until(lambda: has_tables(server), 60))
    checks.that("both copies of all shards are in sync", wait_until(lambda: are_complete(server, None), 60))
    source = random.Random(options.seed)
    ledger = Ledger()
    threads = [
        threading.Thread(target=client, args=(server, ledger, random.Random(options.seed * 1000 + number)), daemon=True)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    nodes = {node.name: node for node in server.data_nodes}
    for kill in range(options.kills):
        time.sleep(source.uniform(1, 3))
        leads = collections.Counter(primary for primary, _, _ in placements(server))
        name = leads.most_common(1)[0][0]
        title = f"kill {kill + 1} of {options.kills} ({name})"
        nodes[name].kill()
        seconds = seconds_until_all_take_writes(server, time.monotonic())
        note(f"    all accounts took writes again after {seconds and round(seconds, 1)} s")
        checks.that(f"{title}: writes to all shards go on", seconds is not None)
        checks.that(
            f"{title}: within {RESUMED_WITHIN_SECONDS} s", seconds is not None and seconds <= RESUMED_WITHIN_SECONDS, seconds
        )
        verify(checks, server, ledger, title)
        started = time.monotonic()
        repaired = wait_until(lambda: are_complete(server, name), REPAIRED_WITHIN_SECONDS)
        note(f"    all shards had two copies again after {time.monotonic() - started:.0f} s")
        checks.that(f"{title}: all shards have two copies again without it", repaired, placements(server))
        verify(checks, server, ledger, f"{title}, repaired")
        with ledger.lock:
            errors_before = len(ledger.errors)
        nodes[name].start(patience=120)
        started = time.monotonic()
        even = wait_until(lambda: is_even(server, len(nodes)), REPAIRED_WITHIN_SECONDS)
        note(f"    copies and primaries were spread evenly again after {time.monotonic() - started:.0f} s")
        checks.that(f"{title}: back again, it gets its share", even, placements(server))
        with ledger.lock:
            errors = ledger.errors[errors_before:]
        checks.equal(f"{title}: no client's transaction failed meanwhile", errors, [])
    ledger.stop.set()
    for thread in threads:
        thread.join(CLIENT_PATIENCE * 2)
    verify(checks, server, ledger, "at the end")
    server.stop()


Checks("failover").run(work)
