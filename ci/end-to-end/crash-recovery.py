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

import pg_client
from checks import Checks, note
from processes import MultiProcess, SingleProcess, client_program

ACCOUNTS = 64
OPENING_BALANCE = 1000
CLIENTS = 4
#: A client that hears nothing for so long gives up; the outcome is unknown then.
CLIENT_PATIENCE = 20
PGBENCH_SUMS = (
    "SELECT sum(abalance) FROM pgbench_accounts",
    "SELECT sum(bbalance) FROM pgbench_branches",
    "SELECT sum(tbalance) FROM pgbench_tellers",
    "SELECT coalesce(sum(delta), 0) FROM pgbench_history",
)


class Ledger:
    """What the clients know about their transfers."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {}
        self.refused = set()
        self.unknown = {}
        #: COMMIT was sent, nothing was heard yet.
        self.committing = set()
        self.next_number = 0
        self.stop = threading.Event()
        self.surprises = []

    def number(self):
        with self.lock:
            self.next_number += 1
            return self.next_number

    def ended(self, number, transfer, may_have_happened):
        with self.lock:
            self.committing.discard(number)
            if may_have_happened:
                self.unknown[number] = transfer
            else:
                self.refused.add(number)


def client(server, ledger, random_source):
    """Transfers until told to stop, connecting again whenever the connection breaks."""
    connection = None
    while not ledger.stop.is_set():
        number = ledger.number()
        giver, taker = random_source.sample(range(ACCOUNTS), 2)
        transfer = (giver, taker, random_source.randint(1, 9))
        committing = False
        try:
            if connection is None:
                connection = server.connect(timeout=CLIENT_PATIENCE)
            connection.query("BEGIN")
            # Always in the same order, so that no two clients wait for each other.
            for account in sorted((giver, taker)):
                amount = transfer[2] if account == taker else -transfer[2]
                connection.execute(
                    "UPDATE account SET balance = balance + $1 WHERE id = $2", [amount, account]
                )
                # Else the transfer would lack a half, and be the test's own fault.
                assert connection.tag == "UPDATE 1", connection.tag
            connection.execute("INSERT INTO transfer VALUES ($1, $2, $3, $4)", [number, *transfer])
            committing = True
            with ledger.lock:
                ledger.committing.add(number)
            connection.query("COMMIT")
            # A COMMIT of a failed transaction answers ROLLBACK.
            assert connection.tag == "COMMIT", connection.tag
            with ledger.lock:
                ledger.acknowledged[number] = transfer
                ledger.committing.discard(number)
        except pg_client.ServerError as error:
            # Only these say that the transaction did not happen; after others it may have.
            ledger.ended(number, transfer, committing and error.sqlstate not in ("40001", "40P01", "25P02"))
            connection = dropped(connection)
            time.sleep(0.05)
        except pg_client.ConnectionBroken:
            # Without COMMIT nothing may happen.
            ledger.ended(number, transfer, committing)
            connection = dropped(connection)
            time.sleep(0.05)
        except Exception as error:  # a test that stops testing must not pass
            with ledger.lock:
                ledger.surprises.append(repr(error))
            return
    dropped(connection)


def dropped(connection):
    if connection is not None:
        connection.socket.close()


def verify(checks, server, ledger, title):
    # The clients go on meanwhile: what they are told from now on need not be seen.
    with ledger.lock:
        acknowledged = dict(ledger.acknowledged)
    with server.connect(timeout=120) as connection:
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        balances = {int(id): int(balance) for id, balance in connection.query("SELECT id, balance FROM account")}
        rows = connection.query("SELECT number, giver, taker, amount FROM transfer")
        total = int(connection.query("SELECT sum(balance) FROM account")[0][0])
        connection.query("COMMIT")
    found = {int(number): tuple(int(value) for value in rest) for number, *rest in rows}
    with ledger.lock:
        risen = [number for number in ledger.refused if number in found]
        possible = ledger.acknowledged.keys() | ledger.unknown.keys() | ledger.committing
        unknown = sum(number in found for number in ledger.unknown)
    lost = [number for number, transfer in acknowledged.items() if found.get(number) != transfer]
    invented = [number for number in found if number not in possible]
    expected = {account: OPENING_BALANCE for account in range(ACCOUNTS)}
    for giver, taker, amount in found.values():
        expected[giver] -= amount
        expected[taker] += amount
    wrong = {id: (balances.get(id), balance) for id, balance in expected.items() if balances.get(id) != balance}
    checks.that(f"{title}: all {len(acknowledged)} acknowledged transfers are there", not lost, lost[:20])
    checks.that(
        f"{title}: none that failed is ({unknown} of {len(ledger.unknown)} with an unknown outcome happened)",
        not risen and not invented,
        (risen[:20], invented[:20]),
    )
    checks.that(f"{title}: each is whole or not at all", not wrong and len(balances) == ACCOUNTS, wrong)
    checks.equal(f"{title}: the sum is what it was", total, ACCOUNTS * OPENING_BALANCE)
    checks.equal(f"{title}: no client met anything unexpected", ledger.surprises, [])


def verify_pgbench(checks, server, title):
    with server.connect(timeout=300) as connection:
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        sums = [connection.query(sql)[0][0] for sql in PGBENCH_SUMS]
        connection.query("COMMIT")
    checks.that(f"{title}: pgbench's four sums agree ({sums[0]})", len(set(sums)) == 1, sums)


def prepare(checks, server):
    with server.connect(timeout=120) as connection:
        connection.query("CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL) SHARD KEY (id) SHARDS 4")
        connection.query(
            "CREATE TABLE transfer (number bigint PRIMARY KEY, giver int, taker int, amount int) "
            "SHARD KEY (number) SHARDS 4"
        )
        values = ", ".join(f"({account}, {OPENING_BALANCE})" for account in range(ACCOUNTS))
        connection.query(f"INSERT INTO account VALUES {values}")
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
