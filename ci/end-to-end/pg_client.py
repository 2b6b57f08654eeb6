"""A small PostgreSQL client: protocol 3, SCRAM-SHA-256, simple and extended queries in text format.

The Python standard library only, so that the tests need no packages. It shows what libpq hides: whether a COMMIT was
acknowledged, which bytes were sent, and what state the connection is in.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct


class ServerError(Exception):
    """An ErrorResponse."""

    def __init__(self, fields):
        self.fields = fields
        super().__init__(f"{self.sqlstate}: {fields.get('M')}")

    @property
    def sqlstate(self):
        return self.fields.get("C")


class ConnectionBroken(Exception):
    """The connection ended or the server was silent for too long: what was under way has an unknown outcome."""


class Connection:
    def __init__(self, host, port, user="admin", password="", database="neorunbase", timeout=30.0):
        self.buffer = b""
        self.parameters = {}
        self.transaction_status = None
        try:
            self.socket = socket.create_connection((host, port), timeout=timeout)
        except OSError as error:
            raise ConnectionBroken(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._start(user, password, database)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.send(b"X", b"")
        except (ConnectionBroken, OSError):
            pass
        self.socket.close()

    # Messages

    def send(self, kind, body):
        self.send_bytes(kind + struct.pack("!i", len(body) + 4) + body)

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ConnectionBroken(str(error)) from error

    def receive(self):
        """The next message, as its type and body."""
        header = self._take(5)
        length = struct.unpack("!i", header[1:])[0]
        return header[:1], self._take(length - 4)

    def _take(self, count):
        while len(self.buffer) < count:
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                raise ConnectionBroken(str(error) or type(error).__name__) from error
            if not data:
                raise ConnectionBroken("the server closed the connection")
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    # Start

    def _start(self, user, password, database):
        parameters = {"user": user, "database": database, "application_name": "end-to-end"}
        body = struct.pack("!i", 196608)
        for name, value in parameters.items():
            body += name.encode() + b"\0" + value.encode() + b"\0"
        self.send_bytes(struct.pack("!i", len(body) + 5) + body + b"\0")
        scram = None
        while True:
            kind, body = self.receive()
            if kind == b"R":
                method = struct.unpack("!i", body[:4])[0]
                if method == 10:
                    if b"SCRAM-SHA-256" not in body[4:].split(b"\0"):
                        raise ConnectionBroken("the server does not offer SCRAM-SHA-256")
                    scram = Scram(password)
                    first = scram.first()
                    self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
                elif method == 11:
                    self.send(b"p", scram.final(body[4:]))
                elif method == 12:
                    scram.verify(body[4:])
                elif method != 0:
                    raise ConnectionBroken(f"authentication method {method} is not known")
            elif kind == b"E":
                raise ServerError(parse_fields(body))
            elif kind == b"S":
                name, value = body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()
            elif kind == b"Z":
                self.transaction_status = body.decode()
                return

    # Queries

    def query(self, sql):
        """A simple query; the rows of the last statement that returned some."""
        self.send(b"Q", sql.encode() + b"\0")
        return self._results()

    def execute(self, sql, arguments=()):
        """An unnamed prepared statement with text arguments."""
        self.send(b"P", b"\0" + sql.encode() + b"\0" + struct.pack("!h", 0))
        body = b"\0\0" + struct.pack("!hh", 0, len(arguments))
        for argument in arguments:
            if argument is None:
                body += struct.pack("!i", -1)
            else:
                text = str(argument).encode()
                body += struct.pack("!i", len(text)) + text
        self.send(b"B", body + struct.pack("!h", 0))
        self.send(b"E", b"\0" + struct.pack("!i", 0))
        self.send(b"S", b"")
        return self._results()

    def _results(self):
        rows, error, self.tag = [], None, None
        while True:
            kind, body = self.receive()
            if kind == b"D":
                rows.append(parse_row(body))
            elif kind == b"T":
                rows = []
            elif kind == b"C":
                self.tag = body[:-1].decode()
            elif kind == b"E":
                error = ServerError(parse_fields(body))
                if error.fields.get("S") in ("FATAL", "PANIC"):
                    raise error
            elif kind == b"Z":
                self.transaction_status = body.decode()
                if error:
                    raise error
                return rows


def parse_fields(body):
    return {field[:1].decode(): field[1:].decode(errors="replace") for field in body.split(b"\0") if field}


def parse_row(body):
    count = struct.unpack("!h", body[:2])[0]
    offset, values = 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[offset : offset + 4])[0]
        offset += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[offset : offset + length].decode())
            offset += length
    return tuple(values)


class Scram:
    """RFC 7677, without channel binding. The server's signature is verified."""

    def __init__(self, password):
        self.password = password.encode()
        self.nonce = base64.b64encode(os.urandom(18)).decode()

    def first(self):
        self.first_bare = f"n=,r={self.nonce}"
        return f"n,,{self.first_bare}".encode()

    def final(self, server_first):
        server_first = server_first.decode()
        attributes = dict(part.split("=", 1) for part in server_first.split(","))
        if not attributes["r"].startswith(self.nonce) or attributes["r"] == self.nonce:
            raise ConnectionBroken("the server's nonce does not extend ours")
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password, base64.b64decode(attributes["s"]), int(attributes["i"])
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        without_proof = f"c=biws,r={attributes['r']}"
        message = f"{self.first_bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(stored_key, message, "sha256")
        proof = bytes(left ^ right for left, right in zip(client_key, signature))
        self.expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        attributes = dict(part.split("=", 1) for part in server_final.decode().split(","))
        if base64.b64decode(attributes.get("v", "")) != self.expected:
            raise ConnectionBroken("the server does not know the password")
