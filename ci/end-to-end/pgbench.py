#!/usr/bin/env python3
"""pgbench runs unmodified: no failed transaction, and the books balance. Speed is printed, not judged.

Usage: ci/end-to-end/pgbench.py [-s SCALE] [-T SECONDS] [-c CLIENTS] [--no-postgresql]
In full: -s 10 -T 30.
"""

import argparse
import re

from checks import Checks, note
from processes import PostgreSql, SingleProcess, client_program

SUMS = (
    "SELECT sum(abalance) FROM pgbench_accounts",
    "SELECT sum(bbalance) FROM pgbench_branches",
    "SELECT sum(tbalance) FROM pgbench_tellers",
    "SELECT coalesce(sum(delta), 0) FROM pgbench_history",
)
RUNS = (
    ("TPC-B, simple", ["-M", "simple"]),
    ("TPC-B, extended", ["-M", "extended"]),
    ("TPC-B, prepared", ["-M", "prepared"]),
    ("select only, simple", ["-S", "-M", "simple"]),
    ("select only, prepared", ["-S", "-M", "prepared"]),
)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-s", "--scale", type=int, default=10)
    parser.add_argument("-T", "--seconds", type=int, default=30)
    parser.add_argument("-c", "--clients", type=int, default=8)
    parser.add_argument("--no-postgresql", action="store_true", help="do not run the same against PostgreSQL")
    return parser.parse_args()


def measure(server, options, mode):
    command = [client_program("pgbench"), "-n", "-c", str(options.clients), "-j", "2", "-T", str(options.seconds), *mode]
    result = server.run_client(command, timeout=options.seconds + 120)
    text = result.stdout
    tps = re.search(r"^tps = ([0-9.]+)", text, re.MULTILINE)
    latency = re.search(r"^latency average = ([0-9.]+) ms", text, re.MULTILINE)
    processed = re.search(r"^number of transactions actually processed: (\d+)", text, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", text, re.MULTILINE)
    return {
        "code": result.returncode,
        "tps": float(tps[1]) if tps else 0.0,
        "latency": float(latency[1]) if latency else 0.0,
        "processed": int(processed[1]) if processed else 0,
        "failed": int(failed[1]) if failed else None,
        "errors": result.stderr[-2000:],
    }


def initialise(checks, server, name, options):
    result = server.run_client([client_program("pgbench"), "-i", "-q", "-s", str(options.scale)], timeout=1800)
    done = re.search(r"^done in ([0-9.]+) s", result.stderr, re.MULTILINE)
    checks.that(f"{name}: pgbench -i -s {options.scale}", result.returncode == 0 and done, result.stderr[-2000:])
    if done:
        note(f"    {done[0]}")


def sums(server):
    with server.connect(timeout=300) as connection:
        return [connection.query(sql)[0][0] for sql in SUMS]


def work(checks):
    options = arguments()
    servers = {"NeorunBase": SingleProcess()}
    servers["NeorunBase"].start()
    if not options.no_postgresql:
        servers["PostgreSQL"] = PostgreSql()
    for name, server in servers.items():
        initialise(checks, server, name, options)
    with servers["NeorunBase"].connect(timeout=300) as connection:
        count = connection.query("SELECT count(*) FROM pgbench_accounts")[0][0]
    checks.equal("all accounts are there", count, str(options.scale * 100_000))
    table = []
    for title, mode in RUNS:
        outcomes = {name: measure(server, options, mode) for name, server in servers.items()}
        ours = outcomes["NeorunBase"]
        checks.that(
            f"{title}: {ours['processed']} transactions, none failed",
            ours["code"] == 0 and ours["processed"] > 0 and ours["failed"] == 0 and "error" not in ours["errors"],
            ours["errors"],
        )
        table.append((title, outcomes))
    found = sums(servers["NeorunBase"])
    checks.that(
        f"the sums of accounts, branches, tellers and history are equal ({found[0]})", len(set(found)) == 1, found
    )
    note(f"\n    scale {options.scale}, {options.clients} clients, {options.seconds} s each, fsync on")
    note(f"    {'tps':24}{'NeorunBase':>12}{'latency ms':>12}{'PostgreSQL':>12}{'ratio':>8}")
    for title, outcomes in table:
        ours, theirs = outcomes["NeorunBase"], outcomes.get("PostgreSQL")
        line = f"    {title:24}{ours['tps']:12.0f}{ours['latency']:12.3f}"
        if theirs:
            ratio = ours["tps"] / theirs["tps"] if theirs["tps"] else 0.0
            line += f"{theirs['tps']:12.0f}{ratio:8.2f}"
        note(line)
    note("")
    checks.equal("the server ends cleanly", servers["NeorunBase"].stop(60), 0)
    servers["NeorunBase"].start()
    checks.equal("the sums are the same after a restart", sums(servers["NeorunBase"]), found)


Checks("pgbench").run(work)
