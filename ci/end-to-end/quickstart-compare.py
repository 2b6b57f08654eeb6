#!/usr/bin/env python3
"""The first session of a new user gives, row for row and error for error, what PostgreSQL 15 gives.

Usage: ci/end-to-end/quickstart-compare.py [SCRIPT.sql]
"""

import difflib
import os
import re
import sys

from checks import Checks
from processes import PostgreSql, SingleProcess, client_program

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quickstart.sql")
SHARD_CLAUSE = re.compile(r"\)\s*SHARD KEY\s*\([^)]*\)\s*SHARDS\s+\d+(\s+REPLICAS\s+\d+)?", re.IGNORECASE)


def session(server, sql):
    """What a user sees who pipes the script into psql: rows, command tags, errors with SQLSTATE and details."""
    command = [client_program("psql"), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=0", "-P", "pager=off"]
    program = "\\set VERBOSITY verbose\n\\set QUIET off\n" + sql
    # One stream, so that an error keeps its place among the rows.
    result = server.run_client(["sh", "-c", 'exec "$@" 2>&1', "sh", *command], input=program, timeout=300)
    lines = []
    for line in result.stdout.splitlines():
        # Where in PostgreSQL's source an error was raised.
        if line.startswith("LOCATION:"):
            continue
        line = re.sub(r"^psql:<stdin>:\d+: ", "", line)
        # The value of now() in a row that an error shows.
        lines.append(re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "<now>", line))
    return result.returncode, lines


def work(checks):
    path = sys.argv[1] if len(sys.argv) > 1 else SCRIPT
    with open(path) as file:
        sql = file.read()
    plain = SHARD_CLAUSE.sub(")", sql)
    checks.that("the script has SHARD clauses, which PostgreSQL does not know", plain != sql)
    postgresql = PostgreSql()
    server = SingleProcess()
    server.start()
    # Again: now every table is there, and every row a duplicate.
    for when in ("the first time", "again"):
        expected_code, expected = session(postgresql, plain)
        runs = expected_code == 0 and any("(9 rows)" in line for line in expected)
        checks.that(f"{when}: PostgreSQL runs it", runs, expected)
        code, found = session(server, sql)
        checks.equal(f"{when}: psql ends as it does with PostgreSQL", code, expected_code)
        difference = difflib.unified_diff(expected, found, "PostgreSQL", "NeorunBase", lineterm="")
        checks.that(
            f"{when}: all {len(expected)} lines (rows, tags, errors with all their fields) are PostgreSQL's",
            found == expected,
            "\n    ".join(difference),
        )
    checks.equal("the server ends cleanly", server.stop(), 0)


Checks("quickstart compared with PostgreSQL").run(work)
