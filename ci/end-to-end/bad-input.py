#!/usr/bin/env python3
"""Bad input gets a clear error or a closed connection, and others are served meanwhile and afterwards.

Usage: ci/end-to-end/bad-input.py
"""

import os
import random
import shutil
import socket
import struct
import subprocess
import time

import pg_client
from checks import Checks
from processes import SingleProcess, at_end, temporary_directory

STARTUP = struct.pack("!i", 196608) + b"user\0admin\0database\0neorunbase\0\0"


def raw(port, data, patience=5):
    """Sends bytes to a port; what comes back until the server closes, and whether it closed in time."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as stream:
        try:
            stream.sendall(data)
        except OSError:
            # Closed while we were still sending: fine, if others are served.
            return answer, True
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                received = stream.recv(65536)
            except socket.timeout:
                return answer, False
            except OSError:
                return answer, True
            if not received:
                return answer, True
            answer += received
    return answer, False


class Witness:
    """A well-behaved client that has been connected all the time, and new ones beside it."""

    def __init__(self, checks, server):
        self.checks, self.server = checks, server
        self.connection = server.connect(timeout=20)

    def is_served(self, after):
        try:
            old = self.connection.query("SELECT count(*) FROM witness")
            with self.server.connect(timeout=20) as connection:
                new = connection.execute("SELECT count(*) FROM witness")
            served = old == new == [("3",)] and self.server.is_running()
            detail = (old, new)
        except (pg_client.ServerError, pg_client.ConnectionBroken) as error:
            served, detail = False, repr(error)
        return self.checks.that(f"others are served after {after}", served, detail)


def sqlstate(action):
    try:
        action()
    except pg_client.ServerError as error:
        return error.sqlstate
    return None


def wire(checks, server, witness):
    source = random.Random(1)
    cases = {
        "random bytes": source.randbytes(4096),
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a startup packet of 2 GiB": struct.pack("!i", 0x7FFFFFFF) + STARTUP,
        "a startup packet of negative length": struct.pack("!i", -1) + STARTUP,
        "a startup packet shorter than its length field": struct.pack("!i", 3) + STARTUP,
        "a startup packet of 20 kB": struct.pack("!i", 20_004) + b"\0\3\0\0" + b"x" * 20_000,
        "protocol version 99": struct.pack("!ii", 9, 99 << 16) + b"\0",
        "a startup packet without a terminator": struct.pack("!i", 14) + b"\0\3\0\0user\0a",
        "a cancel request for nobody": struct.pack("!iiii", 16, 80877102, 1, 1),
    }
    for name, data in cases.items():
        _, closed = raw(server.port, data)
        checks.that(f"{name}: the connection is closed", closed)
        witness.is_served(name)

    # Before a password was checked, nobody may make the server buffer much.
    authentication = struct.pack("!i", len(STARTUP) + 4) + STARTUP + b"p" + struct.pack("!i", 0x7FFFFFFF) + b"x" * 1000
    answer, closed = raw(server.port, authentication)
    checks.that("an oversized password message is refused", closed, answer)
    witness.is_served("an oversized password message")

    for name, kind, length in (
        ("a message of 2 GiB", b"Q", 0x7FFFFFFF),
        ("a message of negative length", b"Q", -5),
        ("an unknown message type", b"@", 4),
    ):
        connection = server.connect(timeout=5)
        connection.send_bytes(kind + struct.pack("!i", length) + b"SELECT 1")
        fields = {}
        try:
            while True:
                kind, body = connection.receive()
                if kind == b"E":
                    fields = pg_client.parse_fields(body)
        except pg_client.ConnectionBroken as error:
            closed = "timed out" not in str(error)
        connection.socket.close()
        checks.that(
            f"{name} after login: an error with its SQLSTATE ({fields.get('C')}: {fields.get('M')}), then closed",
            closed and fields.get("C", "").startswith("08"),
            fields,
        )
        witness.is_served(name)

    half_open = []
    for number in range(200):
        stream = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        # Some say nothing at all, some stop in the middle.
        stream.sendall((b"", b"\0\0", struct.pack("!i", len(STARTUP) + 4) + STARTUP[:10])[number % 3])
        half_open.append(stream)
    witness.is_served("200 connections that stay half open")
    for stream in half_open:
        stream.close()
    witness.is_served("they have gone")


def internal_ports(checks, server, witness):
    ports = sorted(server.listening_ports() - {server.port})
    checks.that(f"there are internal ports to attack, and the admin port ({ports})", len(ports) >= 2, ports)
    source = random.Random(2)
    for port in ports:
        name = "the admin port" if port == server.admin_port else f"internal port {port}"
        for data in (
            source.randbytes(2048),
            b"\xff" * 64,
            struct.pack("!I", 0xFFFFFFFF) + b"x" * 512,
            struct.pack("<I", 0xFFFFFFFF) + b"x" * 512,
            struct.pack("!Q", 0xFFFFFFFFFFFFFFFF) * 8,
            b"\0" * 4096,
        ):
            answer, _ = raw(port, data, patience=1)
            # An internal port gives strangers nothing that depends on them but an end.
            if port != server.admin_port:
                checks.that(f"{name}: a stranger is told nothing of substance", len(answer) <= 256, answer[:200])
        witness.is_served(f"garbage on {name}")


def authentication(checks, server, witness):
    checks.equal("a wrong password: 28P01", sqlstate(lambda: server.connect(password="wrong")), "28P01")
    checks.equal("an unknown user: the same", sqlstate(lambda: server.connect(user="nobody")), "28P01")
    checks.equal("an unknown database: 3D000", sqlstate(lambda: server.connect(database="elsewhere")), "3D000")
    witness.is_served("failed logins")


def statements(checks, server, witness):
    with server.connect() as connection:
        for sql, expected in (
            ("SELEKT 1", "42601"),
            ("SELECT * FROM nowhere", "42P01"),
            ("SELECT nothing FROM witness", "42703"),
            ("SELECT no_such_function(1)", "42883"),
            ("INSERT INTO witness VALUES (1, 'again')", "23505"),
            ("INSERT INTO witness VALUES (7, NULL)", "23502"),
            ("INSERT INTO witness VALUES (NULL, 'x')", "23502"),
            ("INSERT INTO witness VALUES (99999999999, 'x')", "22003"),
            ("INSERT INTO witness VALUES (8, 'longer than ten letters')", "22001"),
            ("SELECT 1 / 0", "22012"),
            ("SELECT 'x'::integer", "22P02"),
            ("CREATE TABLE witness (id int PRIMARY KEY)", "42P07"),
            ("DROP TABLE nowhere", "42P01"),
            ("SELECT 'unterminated", "42601"),
            ("(" * 5000 + "1" + ")" * 5000, None),
            ("SELECT " + "(" * 3000 + "1" + ")" * 3000, None),
            ("SELECT 1" + " + 1" * 50_000, None),
        ):
            shown = sql if len(sql) < 80 else sql[:40] + " … (deeply nested or long)"
            try:
                found = sqlstate(lambda: connection.query(sql))
            except pg_client.ConnectionBroken as error:
                time.sleep(1)
                alive = server.is_running()
                checks.that(f"{shown}: the server answers", False, f"{error}; the server lives on: {alive}\n{server.log_tail()}")
                if not alive:
                    server.kill()
                    server.start()
                    witness.connection = server.connect(timeout=20)
                connection = server.connect()
                continue
            if expected:
                checks.equal(f"{shown}: {expected}", found, expected)
            else:
                checks.that(f"{shown}: an answer or an error ({found}), not the end of the server", True)
        checks.equal("the session goes on", connection.query("SELECT count(*) FROM witness"), [("3",)])
        connection.query("BEGIN")
        connection.query("INSERT INTO witness VALUES (9, 'nine')")
        checks.equal("an error in a transaction", sqlstate(lambda: connection.query("SELECT 1 / 0")), "22012")
        checks.equal("fails it until its end: 25P02", sqlstate(lambda: connection.query("SELECT 1")), "25P02")
        connection.query("COMMIT")
        checks.equal("and nothing of it stays", connection.query("SELECT count(*) FROM witness"), [("3",)])
        checks.equal("binding too few parameters: 08P01", sqlstate(lambda: connection.execute("SELECT $1::int")), "08P01")
        checks.equal("a bad parameter: 22P02", sqlstate(lambda: connection.execute("SELECT $1::int", ["x"])), "22P02")
    witness.is_served("statements with errors")


def first_login(checks):
    """Without NEORUNBASE_ADMIN_PASSWORD the first password must be changed before anything else works."""
    server = SingleProcess()
    server.start(password=None)
    with server.connect(password="admin") as connection:
        refused = sqlstate(lambda: connection.query("CREATE TABLE early (id int PRIMARY KEY)"))
        checks.that(f"admin/admin may do nothing before the password is changed ({refused})", refused is not None)
        connection.query("ALTER USER admin PASSWORD 'a new password'")
    checks.equal("the old password is gone", sqlstate(lambda: server.connect(password="admin")), "28P01")
    with server.connect(password="a new password") as connection:
        connection.query("CREATE TABLE late (id int PRIMARY KEY)")
        checks.equal("the new one works", connection.query("SELECT count(*) FROM late"), [("0",)])
    checks.equal("the server ends cleanly", server.stop(), 0)


def full_disk(checks):
    directory = temporary_directory()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", directory]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        checks.skip("a full disk", "mounting a small tmpfs is not permitted here")
        return
    at_end(lambda: subprocess.run(["umount", "-l", directory], capture_output=True))
    server = SingleProcess(directory)
    # The log is not what this is about, and must not fill the disk either.
    server.log = f"{temporary_directory()}/log"
    server.start()
    acknowledged = 0
    with server.connect(timeout=60) as reader, server.connect(timeout=60) as writer:
        writer.query("CREATE TABLE filling (id bigint PRIMARY KEY, content text) SHARD KEY (id) SHARDS 2")
        error = None
        for number in range(2000):
            try:
                # Random, so that no compression makes room.
                content = os.urandom(65536).hex()
                writer.execute("INSERT INTO filling VALUES ($1, $2)", [number, content])
                acknowledged += 1
            except pg_client.ServerError as failure:
                error = failure
                break
            except pg_client.ConnectionBroken as failure:
                error = failure
                break
        checks.that(
            f"a full disk: a clear error to the sender after {acknowledged} rows: {error}",
            isinstance(error, pg_client.ServerError) and error.sqlstate == "53100",
            error,
        )
        checks.that("the server is still there", server.is_running())
        for connection, who in ((reader, "another session"), (writer, "the same session")):
            try:
                count = int(connection.query("SELECT count(*) FROM filling")[0][0])
                checks.equal(f"{who} still reads ({count} rows)", count, acknowledged)
            except (pg_client.ServerError, pg_client.ConnectionBroken) as failure:
                checks.that(f"{who} still reads", False, failure)
        subprocess.run(["mount", "-o", "remount,size=512m", directory], check=True)
        failure = None
        for attempt in range(60):
            try:
                writer.execute("INSERT INTO filling VALUES ($1, $2)", [1000000 + attempt, content])
                acknowledged += 1
                failure = None
                break
            except (pg_client.ServerError, pg_client.ConnectionBroken) as again:
                failure = again
                time.sleep(0.5)
        checks.that("with room again it writes, without a restart", failure is None, failure)
    server.kill()
    server.start(patience=120)
    with server.connect(timeout=60) as connection:
        count = int(connection.query("SELECT count(*) FROM filling")[0][0])
        checks.equal(f"after kill -9 and a restart just what was acknowledged is there ({count} rows)", count, acknowledged)
        connection.query("INSERT INTO filling VALUES (2000000, 'room')")
        checks.equal(
            "and it writes", connection.query("SELECT content FROM filling WHERE id = 2000000"), [("room",)]
        )
    checks.equal("the server ends cleanly", server.stop(), 0)
    shutil.rmtree(server.data, ignore_errors=True)


def work(checks):
    server = SingleProcess()
    server.start()
    with server.connect() as connection:
        connection.query("CREATE TABLE witness (id int PRIMARY KEY, name varchar(10) NOT NULL)")
        connection.query("INSERT INTO witness VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    witness = Witness(checks, server)
    authentication(checks, server, witness)
    statements(checks, server, witness)
    wire(checks, server, witness)
    internal_ports(checks, server, witness)
    witness.connection.close()
    checks.equal("the server ends cleanly", server.stop(), 0)
    first_login(checks)
    full_disk(checks)


Checks("bad input").run(work)
