#!/usr/bin/env python3
"""No file contains what was inserted, and another master key is refused.

Usage: ci/end-to-end/encryption.py
"""

import os
import subprocess

from checks import Checks
from processes import MASTER_KEY, PASSWORD, SingleProcess, binary, environment

MARKER = "PLAINTEXTMARKER"
#: What must be found nowhere: values, keys, index entries, names in the catalog, and secrets.
NEEDLES = [MARKER, MARKER.lower() + "_table", MARKER.lower() + "_column", MASTER_KEY, PASSWORD]
ROWS = 2000


def files_below(directory):
    return [os.path.join(path, name) for path, _, names in os.walk(directory) for name in names]


def findings(directory):
    found = []
    for path in files_below(directory):
        with open(path, "rb") as file:
            content = file.read()
        found += [(path, needle) for needle in NEEDLES if needle.encode() in content]
    return found


def insert(server, first):
    with server.connect(timeout=120) as connection:
        for start in range(first, first + ROWS, 200):
            values = ", ".join(f"('{MARKER}-key-{number}', '{MARKER}-value')" for number in range(start, start + 200))
            connection.query(f"INSERT INTO plaintextmarker_table VALUES {values}")
        connection.execute(
            "INSERT INTO plaintextmarker_table VALUES ($1, $2)", [f"{MARKER}-prepared-{first}", f"{MARKER}-parameter"]
        )


def count(server):
    with server.connect(timeout=120) as connection:
        return int(connection.query("SELECT count(*) FROM plaintextmarker_table")[0][0])


def refusal(server, **secrets):
    """How the server ends when it is started so."""
    result = subprocess.run(
        [binary(), *server.arguments], env=environment(**secrets), capture_output=True, text=True, timeout=60
    )
    return result.returncode, result.stderr.strip().splitlines(), result.stdout


def work(checks):
    server = SingleProcess()
    server.start()
    with server.connect(timeout=120) as connection:
        connection.query(
            "CREATE TABLE plaintextmarker_table (id text PRIMARY KEY, plaintextmarker_column text) "
            "SHARD KEY (id) SHARDS 4"
        )
        connection.query("CREATE INDEX ON plaintextmarker_table (plaintextmarker_column)")
    insert(server, 0)
    checks.equal("nothing can be read from the files of a running server", findings(server.data), [])
    checks.equal("the server ends cleanly", server.stop(), 0)
    files = files_below(server.data)
    checks.that(f"there are files to look at ({len(files)})", len(files) > 5)
    checks.that("among them files of RocksDB", any(path.endswith(".sst") for path in files), files)
    checks.equal("nothing can be read after a clean end", findings(server.data), [])

    server.start()
    insert(server, ROWS)
    server.kill()
    checks.equal("nothing can be read after kill -9", findings(server.data), [])
    with open(server.log, errors="replace") as log:
        text = log.read()
    checks.equal("the log shows no row and no secret", [needle for needle in NEEDLES if needle in text], [])

    for case, key in (("another", "another master key, also of 32 characters"), ("a short", "short"), ("no", None)):
        code, lines, output = refusal(server, master_key=key)
        checks.that(
            f"{case} master key: refused with one clear line and exit code 2: {' '.join(lines)}",
            code == 2 and len(lines) == 1 and "master key" in lines[0].lower().replace("_", " ") and not output,
            (code, lines, output),
        )
        checks.that("    which does not show the key", not key or not any(key in line for line in lines), lines)

    server.start()
    checks.equal("with the right one all rows are there", count(server), 2 * (ROWS + 1))
    checks.equal("the server ends cleanly", server.stop(), 0)
    key = "another master key, also of 32 characters"
    code, lines, _ = refusal(server, master_key=key)
    checks.that("another master key is also refused after a clean end", code == 2 and len(lines) == 1, (code, lines))


Checks("encryption at rest").run(work)
