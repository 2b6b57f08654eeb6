#!/usr/bin/env python3
"""How long acknowledged writes pause when a data node, the leading coordinator or the Controller dies (kill -9), at default settings.

Two coordinators, three data nodes, REPLICAS 2. A client for each row counts it up without a pause, half of them through each
coordinator; one that loses its coordinator goes on through the other. In each round
1. the data node that leads the most shards dies, and stays away until all shards have two copies without it;
2. the leading coordinator dies;
3. the coordinator that is the Controller dies, and then, with nobody in that office for a moment, a data node.
No row's acknowledged writes may pause for longer than the project promises, and none may be lost.

Usage: ci/end-to-end/resume.py [--rounds N]
"""

import argparse
import collections
import threading
import time

import pg_client
from checks import Checks, note
from placements import are_complete, placements, wait_until
from processes import MultiProcess

ROWS = 24
#: What the project promises at default settings.
RESUMED_WITHIN_SECONDS = 5
#: The Controller waits for a lost node for 30 s before it makes other copies.
REPAIRED_WITHIN_SECONDS = 120
#: How the log of a coordinator tells of an office, taken and left.
LEADER = ("elected as leader of the coordinators", "leadership of the coordinators is in doubt")
CONTROLLER = ("elected as Controller", "no longer the Controller")


class Counter:
    """Counts one row up, and remembers when each number was acknowledged."""

    def __init__(self, server, row):
        self.server, self.row = server, row
        self.acknowledged = self.attempted = 0
        self.moments = []
        self.surprises = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        connection, turn = None, self.row
        while not self.stop.is_set():
            number = self.acknowledged + 1
            try:
                if connection is None:
                    coordinator = turn % len(self.server.ports)
                    # Shorter than what is promised: whoever waits for a dead connection learns nothing.
                    connection = self.server.connect_to(self.server.ports[coordinator], timeout=4)
                self.attempted = number
                connection.query(f"UPDATE counter SET value = {number} WHERE id = {self.row}")
                if connection.tag != "UPDATE 1":
                    self.surprises.append(connection.tag)
                self.acknowledged = number
                self.moments.append(time.monotonic())
            except (pg_client.ServerError, pg_client.ConnectionBroken, OSError):
                if connection is not None:
                    connection.socket.close()
                connection, turn = None, turn + 1
                time.sleep(0.02)
        if connection is not None:
            connection.close()

    def longest_pause(self, since):
        moments = [moment for moment in self.moments if moment >= since]
        before = [moment for moment in self.moments if moment < since][-1:]
        # A row that has not been written since is pausing still.
        edges = before + moments + [time.monotonic()]
        return max(later - earlier for earlier, later in zip(edges, edges[1:]))


def holder(server, office):
    """The coordinator that was the last one to be elected, and has not said that it is no more."""
    taken, left = office
    found = []
    for coordinator in server.coordinators:
        if not coordinator.is_running():
            continue
        with open(coordinator.log, errors="replace") as log:
            lines = [line for line in log if taken in line or left in line]
        if lines and taken in lines[-1]:
            found.append((lines[-1].split()[0], coordinator))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def times_joined(server, coordinator):
    """How often a coordinator was taken into the catalog's in-sync set, as the leaders tell it."""
    times = 0
    for other in server.coordinators:
        with open(other.log, errors="replace") as log:
            lines = [line for line in log if "joined the catalog's in-sync set" in line]
        times += sum(line.rstrip().endswith(f'name="{coordinator.name}"') for line in lines)
    return times


def bring_back(checks, server, coordinator, title):
    """Until it may lead: only coordinators that have all of the catalog may, and a coordinator is ready a moment earlier."""
    before = times_joined(server, coordinator)
    coordinator.start(patience=120)
    joined = wait_until(lambda: times_joined(server, coordinator) > before, 30)
    checks.that(f"{title}: {coordinator.name} has all of the catalog again", joined)


def settle(server):
    return wait_until(lambda: are_complete(server, None), REPAIRED_WITHIN_SECONDS)


def most_leading(server):
    leads = collections.Counter(primary for primary, _, _ in placements(server))
    name = leads.most_common(1)[0][0]
    return next(node for node in server.data_nodes if node.name == name)


def judge(checks, counters, since, title):
    # Until every row has been written again, or no hope is left.
    wait_until(lambda: all(counter.moments[-1] > since + 1 for counter in counters), 60)
    time.sleep(RESUMED_WITHIN_SECONDS)
    pauses = sorted(counter.longest_pause(since - 0.5) for counter in counters)
    note(f"    {title}: rows' writes paused for {pauses[-1]:.2f} s at most, {pauses[len(pauses) // 2]:.2f} s in the median")
    checks.that(f"{title}: writes to all rows go on within {RESUMED_WITHIN_SECONDS} s", pauses[-1] < RESUMED_WITHIN_SECONDS, pauses[-3:])


def nothing_is_lost(checks, server, counters, title):
    acknowledged = {counter.row: counter.acknowledged for counter in counters}
    with server.connect(timeout=60) as connection:
        found = {int(row): int(value) for row, value in connection.query("SELECT id, value FROM counter")}
    lost = {row: (number, found.get(row)) for row, number in acknowledged.items() if found.get(row, -1) < number}
    # Asked for by now; a row may be ahead of what was acknowledged by the one write under way.
    ahead = {counter.row: (counter.attempted, found[counter.row]) for counter in counters if found[counter.row] > counter.attempted}
    checks.that(f"{title}: none of {sum(acknowledged.values())} acknowledged writes is lost", not lost, lost)
    checks.equal(f"{title}: none is there that nobody asked for", ahead, {})


def lose_data_node(checks, server, counters, title):
    node = most_leading(server)
    node.kill()
    killed = time.monotonic()
    judge(checks, counters, killed, f"{title}: {node.name} killed")
    repaired = wait_until(lambda: are_complete(server, node.name), REPAIRED_WITHIN_SECONDS)
    note(f"    {title}: all shards had two copies without it after {time.monotonic() - killed:.0f} s")
    checks.that(f"{title}: all shards have two copies again without {node.name}, unattended", repaired, placements(server))
    nothing_is_lost(checks, server, counters, title)
    node.start(patience=120)
    checks.that(f"{title}: {node.name} is back", settle(server), placements(server))


def lose_leader(checks, server, counters, title):
    leader = holder(server, LEADER)
    leader.kill()
    judge(checks, counters, time.monotonic(), f"{title}: {leader.name} killed, the leader")
    nothing_is_lost(checks, server, counters, title)
    bring_back(checks, server, leader, title)


def lose_controller(checks, server, counters, title):
    controller = holder(server, CONTROLLER)
    controller.kill()
    judge(checks, counters, time.monotonic(), f"{title}: {controller.name} killed, the Controller")
    nothing_is_lost(checks, server, counters, title)
    bring_back(checks, server, controller, title)
    controller = holder(server, CONTROLLER)
    node = most_leading(server)
    controller.kill()
    node.kill()
    killed = time.monotonic()
    repaired = wait_until(lambda: are_complete(server, node.name), REPAIRED_WITHIN_SECONDS)
    pauses = [counter.longest_pause(killed - 0.5) for counter in counters]
    note(
        f"    {title}: {node.name} killed with the Controller: writes paused for {max(pauses):.1f} s at most, all shards "
        f"had two copies again after {time.monotonic() - killed:.0f} s"
    )
    checks.that(f"{title}: the next Controller makes new copies", repaired, placements(server))
    nothing_is_lost(checks, server, counters, f"{title}, and a data node")
    bring_back(checks, server, controller, title)
    node.start(patience=120)
    checks.that(f"{title}: all are back", settle(server), placements(server))


def has_table(server):
    with server.connect(timeout=60) as connection:
        connection.query("CREATE TABLE counter (id bigint PRIMARY KEY, value bigint NOT NULL) SHARD KEY (id) SHARDS 12 REPLICAS 2")
        connection.query(f"INSERT INTO counter VALUES {', '.join(f'({row}, 0)' for row in range(ROWS))}")
    return True


def work(checks):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    server = MultiProcess(data_nodes=3, coordinators=2)
    server.start(patience=120)
    # Data nodes are ready before the coordinator has heard of all of them.
    checks.that("the coordinators have seen the data nodes", wait_until(lambda: has_table(server), 60))
    checks.that("both copies of all shards are in sync", settle(server))
    counters = [Counter(server, row) for row in range(ROWS)]
    checks.that("all rows are written", wait_until(lambda: all(counter.moments for counter in counters), 60))
    for number in range(1, options.rounds + 1):
        lose_data_node(checks, server, counters, f"round {number}, a data node")
        lose_leader(checks, server, counters, f"round {number}, the leader")
        lose_controller(checks, server, counters, f"round {number}, the Controller")
    for counter in counters:
        counter.stop.set()
    for counter in counters:
        counter.thread.join(30)
    nothing_is_lost(checks, server, counters, "at the end")
    checks.equal("every write met its row", [said for counter in counters for said in counter.surprises], [])
    codes = server.stop()
    checks.that("all processes end cleanly", all(code == 0 for code in codes), codes)


Checks("resume").run(work)
