#!/usr/bin/env python3
"""A data node of a loaded cluster with REPLICAS 2 is drained, and used again: no client's transaction fails.

`neorunbase node drain NAME --wait` returns once the node holds nothing; one that cannot be done without is refused; after
`node undrain` copies and primaries are spread evenly again.

Usage: ci/end-to-end/drain.py [--seed N]
"""

import argparse
import json
import random
import subprocess
import threading
import time
import urllib.error
import urllib.request

from checks import Checks, note
from placements import is_even, placements, wait_until
from processes import SingleProcess, binary
from transfers import CLIENT_PATIENCE, Ledger, client, create_tables, verify

CLIENTS = 4
EVEN_WITHIN_SECONDS = 120


def node(server, *arguments):
    command = [binary(), "node", *arguments, "--admin-addr", f"127.0.0.1:{server.admin_port}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def rows(server, sql):
    with server.connect(timeout=30) as connection:
        return connection.query(sql)


def is_complete(server):
    shards = placements(server)
    return bool(shards) and all(len(in_sync) == wanted for _, in_sync, wanted in shards)


def is_spread(server):
    return is_complete(server) and is_even(server, 3)


def post(server, path, content_type):
    url = f"http://127.0.0.1:{server.admin_port}{path}"
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": content_type}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    server = SingleProcess(data_nodes=3, extra=["--label", "zone=here"])
    server.start(patience=120)
    server.wait_until_it_serves()
    create_tables(server, "SHARDS 6 REPLICAS 2")
    checks.that("all copies are in sync and evenly spread", wait_until(lambda: is_spread(server), EVEN_WITHIN_SECONDS))
    names = [name for name, in rows(server, "SELECT name FROM neorunbase_nodes ORDER BY name")]
    checks.equal("all data nodes are shown", len(names), 3)
    labels = rows(server, "SELECT DISTINCT labels, state FROM neorunbase_nodes")
    checks.equal("with their labels and states", labels, [("zone=here", "alive")])
    ledger = Ledger()
    threads = [
        threading.Thread(target=client, args=(server, ledger, random.Random(options.seed * 1000 + number)), daemon=True)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(2)
    drained, other = names[-1], names[0]
    started = time.monotonic()
    done = node(server, "drain", drained, "--wait")
    note(f"    {drained} was empty after {time.monotonic() - started:.0f} s")
    checks.equal("drain --wait succeeds", (done.returncode, done.stderr if done.returncode else ""), (0, ""))
    checks.that("it has shown how far it was", f"{drained}: " in done.stderr, done.stderr)
    checks.that("the others have all copies", is_complete(server))
    state = rows(server, f"SELECT state, copies, primaries FROM neorunbase_nodes WHERE name = '{drained}'")
    checks.equal("the node holds nothing", [tuple(map(str, row)) for row in state], [("drained", "0", "0")])
    jobs = rows(server, "SELECT kind, from_node, state FROM neorunbase_jobs WHERE kind = 'drain'")
    checks.equal("the drain is shown as done", jobs, [("drain", drained, "done")])
    refused = node(server, "drain", other)
    checks.that(
        "a node that cannot be done without is refused",
        refused.returncode == 1 and "cannot be drained" in refused.stderr and refused.stderr.count("\n") == 1,
        refused.stderr,
    )
    unknown = node(server, "drain", "nobody")
    checks.that("an unknown node is refused", unknown.returncode == 1 and "there is no" in unknown.stderr, unknown.stderr)
    checks.equal("forms of web pages are refused", post(server, f"/api/v1/nodes/{other}/drain", "text/plain"), 415)
    listed = node(server, "list")
    checks.that("node list shows it", f"{drained} " in listed.stdout and "drained" in listed.stdout, listed.stdout)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/api/v1/shards", timeout=20) as answer:
        shards = json.load(answer)
    checks.that("no shard has a copy there", all(drained not in shard["replicas"] for shard in shards), shards)
    checks.equal("undrain succeeds", node(server, "undrain", drained).returncode, 0)
    started = time.monotonic()
    checks.that("copies and primaries are evenly spread again", wait_until(lambda: is_spread(server), EVEN_WITHIN_SECONDS))
    note(f"    that took {time.monotonic() - started:.0f} s")
    ledger.stop.set()
    for thread in threads:
        thread.join(CLIENT_PATIENCE * 2)
    with ledger.lock:
        errors = list(ledger.errors)
    checks.equal("no client's transaction failed", errors, [])
    verify(checks, server, ledger, "at the end")
    server.stop()


Checks("drain").run(work)
