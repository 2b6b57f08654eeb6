#!/usr/bin/env python3
"""The command line: help, defaults that scripts rely on, health and status, clean ends, refusals in one line.

Usage: ci/end-to-end/command-line.py
"""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

from checks import Checks
from processes import SingleProcess, binary, environment, temporary_directory


def run(*arguments, **secrets):
    return subprocess.run(
        [binary(), *arguments], env=environment(**secrets), capture_output=True, text=True, timeout=60
    )


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def refused(checks, claim, result, words):
    lines = result.stderr.strip().splitlines()
    checks.that(
        f"{claim}: exit code 2 and {' '.join(lines[:1])!r}",
        result.returncode == 2 and len(lines) == 1 and words in lines[0],
        (result.returncode, result.stderr),
    )


def work(checks):
    options = {
        "start": ("--data-dir", "--pg-addr", "--admin-addr", "--data-nodes", "--shards-default", "--replicas-default"),
        "coordinator": ("--config",),
        "datanode": ("--config",),
        "status": ("--admin-addr",),
    }
    for command, expected in options.items():
        result = run(command, "--help")
        missing = [option for option in expected if option not in result.stdout]
        checks.that(f"{command} --help shows its options", result.returncode == 0 and not missing, missing)

    directory = temporary_directory()
    wrong = f"{directory}/wrong.toml"
    with open(wrong, "w") as file:
        file.write('pg_adress = "127.0.0.1:1"\n')
    refused(checks, "a misspelt key", run("coordinator", "--config", wrong), "pg_adress")
    refused(checks, "a missing file", run("datanode", "--config", f"{directory}/none.toml"), "none.toml")
    refused(checks, "no master key", run("start", "--data-dir", f"{directory}/data", master_key=None), "MASTER_KEY")
    checks.that("which leaves no directory behind", not os.path.exists(f"{directory}/data"))
    result = run("status", "--admin-addr", "127.0.0.1:1")
    checks.that("status without a server fails", result.returncode == 1 and "127.0.0.1:1" in result.stderr, result)

    server = SingleProcess()
    server.start()
    psql = f"port={server.port} user=admin dbname=neorunbase"
    checks.that("start prints how to connect", any(psql in line for line in server.output), server.output)
    checks.equal("/healthz", fetch(server.admin_port, "/healthz"), (200, "ok\n"))
    checks.equal("/readyz", fetch(server.admin_port, "/readyz")[0], 200)
    with server.connect() as connection:
        connection.query("CREATE TABLE shown (id int PRIMARY KEY) SHARD KEY (id) SHARDS 4")
        connection.query("INSERT INTO shown VALUES (1), (2)")
    code, text = fetch(server.admin_port, "/metrics")
    checks.that(
        "/metrics counts tables and shards",
        code == 200 and "\nneorunbase_tables 1\n" in text and 'neorunbase_data_node_up{node="datanode-1"} 1' in text,
        text,
    )
    result = run("status", "--admin-addr", f"127.0.0.1:{server.admin_port}")
    status = json.loads(result.stdout or "{}")
    nodes = {node["name"]: node["reachable"] for node in status.get("data_nodes", [])}
    checks.equal("status shows both data nodes", nodes, {"datanode-1": True, "datanode-2": True})
    second = run(*server.arguments[:3], "--pg-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
    refused(checks, "a second process on the directory", second, "in use")

    checks.equal("SIGTERM ends it with exit code 0", server.stop(), 0)
    server.start()
    with server.connect() as connection:
        checks.equal("its rows are there again", connection.query("SELECT count(*) FROM shown"), [("2",)])
        server.process.send_signal(signal.SIGINT)
        checks.equal("SIGINT too, with a client connected", server.process.wait(30), 0)
    fewer = run("start", "--data-dir", server.data, "--data-nodes", "1", "--pg-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
    refused(checks, "fewer data nodes than the directory holds", fewer, "--data-nodes 2")
    mode = os.stat(server.data).st_mode & 0o777
    checks.equal("the data directory is private", oct(mode), "0o700")


Checks("command line").run(work)
