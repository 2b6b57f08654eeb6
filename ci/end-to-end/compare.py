#!/usr/bin/env python3
"""Sessions give, row for row and error for error, what PostgreSQL 15 gives: a new user's first one, and others.

Usage: ci/end-to-end/compare.py [SCRIPT.sql …]
"""

import difflib
import os
import re
import sys

from checks import Checks
from processes import PostgreSql, SingleProcess, client_program

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = [os.path.join(HERE, name) for name in ("quickstart.sql", "savepoints.sql")]
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


def compare(checks, name, postgresql, server, sql):
    plain = SHARD_CLAUSE.sub(")", sql)
    checks.that(f"{name} has SHARD clauses, which PostgreSQL does not know", plain != sql)
    # Again: now every table is there, and every row a duplicate.
    for when in ("the first time", "again"):
        expected_code, expected = session(postgresql, plain)
        runs = expected_code == 0 and any("rows)" in line for line in expected)
        checks.that(f"{name}, {when}: PostgreSQL runs it", runs, expected)
        code, found = session(server, sql)
        checks.equal(f"{name}, {when}: psql ends as it does with PostgreSQL", code, expected_code)
        difference = difflib.unified_diff(expected, found, "PostgreSQL", "NeorunBase", lineterm="")
        checks.that(
            f"{name}, {when}: all {len(expected)} lines (rows, tags, errors with all their fields) are PostgreSQL's",
            found == expected,
            "\n    ".join(difference),
        )


def work(checks):
    postgresql = PostgreSql()
    server = SingleProcess()
    server.start()
    for path in sys.argv[1:] or SCRIPTS:
        with open(path) as file:
            compare(checks, os.path.basename(path), postgresql, server, file.read())
    checks.equal("the server ends cleanly", server.stop(), 0)


Checks("sessions compared with PostgreSQL").run(work)
