#!/usr/bin/env python3
"""kill -9 at random moments under load: the server recovers by itself and nothing acknowledged is lost.

Clients transfer money between rows on different shards and record which commits were acknowledged. After each restart:
every acknowledged transfer is there, none that failed, each whole or not at all, and the sum is what it was.
pgbench runs beside them; its four sums must agree.

Usage: ci/end-to-end/crash-recovery.py [--kills N] [--form start|daemons|both] [--seed N]
In full: --kills 20, which kills `neorunbase start` 20 times, and then the daemons of a cluster with ZooKeeper in turn.
"""

import argparse
import random
import subprocess
import threading
import time

from checks import Checks, note
from processes import MultiProcess, SingleProcess, client_program
from transfers import CLIENT_PATIENCE, Ledger, client, create_tables, verify

CLIENTS = 4
PGBENCH_SUMS = (
    "SELECT sum(abalance) FROM pgbench_accounts",
    "SELECT sum(bbalance) FROM pgbench_branches",
    "SELECT sum(tbalance) FROM pgbench_tellers",
    "SELECT coalesce(sum(delta), 0) FROM pgbench_history",
)


def verify_pgbench(checks, server, title):
    with server.connect(timeout=300) as connection:
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        sums = [connection.query(sql)[0][0] for sql in PGBENCH_SUMS]
        connection.query("COMMIT")
    checks.that(f"{title}: pgbench's four sums agree ({sums[0]})", len(set(sums)) == 1, sums)


def prepare(checks, server):
    create_tables(server)
    result = server.run_client([client_program("pgbench"), "-i", "-q", "-s", "1"], timeout=600)
    checks.that("pgbench -i", result.returncode == 0, result.stderr[-1000:])


def start_pgbench(server):
    command = [client_program("pgbench"), "-n", "-c", "2", "-T", "600", "-M", "prepared", "--max-tries=100"]
    return subprocess.Popen(
        command, env=server.client_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_repeatedly(checks, server, victims, kills, seed, recover):
    """Kills one of `victims` after another; `recover(victim)` brings it back."""
    source = random.Random(seed)
    ledger = Ledger()
    threads = [
        threading.Thread(target=client, args=(server, ledger, random.Random(seed * 1000 + number)), daemon=True)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    pgbench = start_pgbench(server)
    recoveries = []
    try:
        for kill in range(kills):
            before = len(ledger.acknowledged)
            # At a random moment, but not before there is something to lose.
            time.sleep(source.uniform(0.3, 3.0))
            patience = time.monotonic() + 60
            while len(ledger.acknowledged) < before + 20 and time.monotonic() < patience:
                time.sleep(0.05)
            victim = victims[kill % len(victims)]
            title = f"kill {kill + 1} of {kills} ({victim.name})"
            checks.that(f"{title}: clients made progress before", len(ledger.acknowledged) > before, ledger.surprises)
            victim.kill()
            recoveries.append(recover(victim))
            note(f"    recovered after {recoveries[-1]:.1f} s")
            verify(checks, server, ledger, title)
            verify_pgbench(checks, server, title)
            if pgbench.poll() is not None:
                pgbench = start_pgbench(server)
    finally:
        ledger.stop.set()
        pgbench.kill()
        pgbench.wait()
    for thread in threads:
        thread.join(CLIENT_PATIENCE * 2)
    verify(checks, server, ledger, "at the end")
    note(f"    recovery took {min(recoveries):.1f} to {max(recoveries):.1f} s")


def single_process(checks, options):
    note("-- neorunbase start")
    server = SingleProcess()
    server.start()
    prepare(checks, server)

    def recover(_victim):
        started = time.monotonic()
        server.start(patience=120)
        server.wait_until_it_serves("SELECT sum(balance) FROM account", patience=60)
        return time.monotonic() - started

    kill_repeatedly(checks, server, [server], options.kills, options.seed, recover)
    checks.equal("the server ends cleanly", server.stop(60), 0)


def several_processes(checks, options):
    note("-- coordinator and data nodes with ZooKeeper")
    server = MultiProcess()
    server.start(patience=120)
    prepare(checks, server)

    def recover(victim):
        started = time.monotonic()
        victim.start(patience=120)
        # The clients did not wait for us: the sum needs every shard.
        server.wait_until_it_serves("SELECT sum(balance) FROM account", patience=60)
        return time.monotonic() - started

    kill_repeatedly(checks, server, server.daemons, options.kills, options.seed, recover)
    checks.equal("all processes end cleanly", server.stop(), [0] * len(server.daemons))


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="for each form")
    parser.add_argument("--form", choices=("start", "daemons", "both"), default="both")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    note(f"    --seed {options.seed} (the moments of the kills; what happens at them is not repeatable)")
    if options.form != "daemons":
        single_process(checks, options)
    if options.form != "start":
        several_processes(checks, options)


Checks("crash recovery").run(work)
