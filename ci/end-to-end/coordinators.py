#!/usr/bin/env python3
"""Two coordinators, two data nodes and a real ZooKeeper: the leading coordinator is killed, and stopped, under load.

Clients are connected to both. Definitions through one are seen through the other at once. When the leader dies (kill -9), the
other one must take writes and definitions again within seconds, with every acknowledged transfer and definition. A leader
that was stopped (SIGSTOP) and goes on after another has taken over must not show what was truncated meanwhile.

Usage: ci/end-to-end/coordinators.py [--kills N]
"""

import argparse
import os
import random
import signal
import threading
import time

import pg_client
from checks import Checks, note
from processes import MultiProcess
from transfers import CLIENT_PATIENCE, Ledger, client, create_tables, verify

CLIENTS = 4
#: What the project promises at default settings.
RESUMED_WITHIN_SECONDS = 5


def seconds_until_done(server, port, sql, patience=60):
    """How long until a coordinator has carried out a statement; None: longer than `patience`."""
    started = time.monotonic()
    while time.monotonic() < started + patience:
        try:
            with server.connect_to(port, timeout=patience) as connection:
                connection.query(sql)
            return time.monotonic() - started
        except pg_client.ServerError as error:
            # Carried out, but the answer was lost.
            if error.sqlstate == "42P07":
                return time.monotonic() - started
            time.sleep(0.05)
        except pg_client.ConnectionBroken:
            time.sleep(0.05)
    return None


def in_time(seconds):
    return seconds is not None and seconds <= RESUMED_WITHIN_SECONDS


def query(server, port, sql, patience=30):
    with server.connect_to(port, timeout=patience) as connection:
        return connection.query(sql)


def kill_leader(checks, server, ledger, kill):
    """From the second round on, the one that is killed leads for certain: the other one was killed before."""
    victim = kill % 2
    dead, alive = server.ports[victim], server.ports[1 - victim]
    title = f"kill {kill + 1} (coordinator {victim + 1})"
    query(server, dead, f"CREATE TABLE last_words_{kill} (id int PRIMARY KEY)")
    found = query(server, alive, f"SELECT count(*) FROM last_words_{kill}")
    checks.equal(f"{title}: the other coordinator sees a table at once", found, [("0",)])
    server.coordinators[victim].kill()
    written = seconds_until_done(server, alive, f"INSERT INTO last_words_{kill} VALUES (1)")
    defined = seconds_until_done(server, alive, f"CREATE TABLE first_words_{kill} (id int PRIMARY KEY)")
    total = None if None in (written, defined) else written + defined
    note(f"    the other one takes writes after {written} s, and a definition after {total} s")
    checks.that(f"{title}: the other one takes writes within {RESUMED_WITHIN_SECONDS} s", in_time(written), written)
    checks.that(f"{title}: and definitions", in_time(total), total)
    verify(checks, server, ledger, title)
    server.coordinators[victim].start(patience=60)
    found = query(server, dead, f"SELECT count(*) FROM last_words_{kill}, first_words_{kill}")
    checks.equal(f"{title}: back again, it knows both tables", found, [("0",)])


def stop_leader(checks, server, ledger, leader):
    title = f"coordinator {leader + 1} stands still"
    stopped, other = server.ports[leader], server.ports[1 - leader]
    query(server, other, "CREATE TABLE emptied (id int PRIMARY KEY)")
    query(server, stopped, "INSERT INTO emptied VALUES (1), (2), (3)")
    with server.connect_to(stopped, timeout=60) as zombie:
        checks.equal(f"{title}: before", zombie.query("SELECT count(*) FROM emptied"), [("3",)])
        process = server.coordinators[leader].process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            seconds = seconds_until_done(server, other, "TRUNCATE emptied")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        note(f"    the other one carried out a definition after {seconds} s")
        checks.that(f"{title}: the other one carries out a definition", seconds is not None)
        try:
            found = zombie.query("SELECT count(*) FROM emptied")
        except (pg_client.ServerError, pg_client.ConnectionBroken) as error:
            note(f"    going on, it says: {error}")
            found = [("0",)]
        checks.equal(f"{title}: going on, it shows nothing that was truncated", found, [("0",)])
    verify(checks, server, ledger, title)


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2)
    options = parser.parse_args()
    server = MultiProcess(data_nodes=2, coordinators=2)
    server.start(patience=120)
    create_tables(server)
    ledger = Ledger()
    threads = [
        threading.Thread(target=client, args=(server, ledger, random.Random(number)), daemon=True)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for kill in range(options.kills):
        time.sleep(1)
        kill_leader(checks, server, ledger, kill)
    stop_leader(checks, server, ledger, options.kills % 2)
    ledger.stop.set()
    for thread in threads:
        thread.join(CLIENT_PATIENCE * 2)
    verify(checks, server, ledger, "at the end")
    codes = server.stop()
    checks.that("all processes end cleanly", all(code == 0 for code in codes), codes)


Checks("coordinators").run(work)
