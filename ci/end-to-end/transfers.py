"""Clients that transfer money between rows on different shards, what they know about it, and whether the server agrees."""

import threading
import time

import pg_client

ACCOUNTS = 64
OPENING_BALANCE = 1000
#: A client that hears nothing for so long gives up; the outcome is unknown then.
CLIENT_PATIENCE = 20


def create_tables(server, clauses="SHARDS 4"):
    with server.connect(timeout=120) as connection:
        connection.query(f"CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL) SHARD KEY (id) {clauses}")
        connection.query(
            "CREATE TABLE transfer (number bigint PRIMARY KEY, giver int, taker int, amount int) "
            f"SHARD KEY (number) {clauses}"
        )
        values = ", ".join(f"({account}, {OPENING_BALANCE})" for account in range(ACCOUNTS))
        connection.query(f"INSERT INTO account VALUES {values}")


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
        #: What failed transfers were told.
        self.errors = []

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
            with ledger.lock:
                ledger.errors.append(str(error))
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
