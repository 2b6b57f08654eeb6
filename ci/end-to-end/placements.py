"""Where the copies of shards are, as a coordinator tells it, and whether that is as it should be."""

import collections
import time

import pg_client

COPY_BASE = 16 << 20
# A node that holds less in the mean holds little.
LITTLE = 128 << 20


def placements(server):
    """(primary, in-sync set, copies wanted) of each shard."""
    with server.connect(timeout=30) as connection:
        rows = connection.query("SELECT primary_node, in_sync, replicas_wanted FROM neorunbase_shards")
    # Shards of tables that were dropped stay for a while; nothing is wanted of them.
    return [(primary, in_sync.split(", "), int(wanted)) for primary, in_sync, wanted in rows if wanted is not None]


def are_complete(server, without):
    """Whether every shard has all its copies in sync, none of them on `without`."""
    shards = placements(server)
    return bool(shards) and all(
        len(in_sync) >= wanted and without not in in_sync for _, in_sync, wanted in shards
    )


def is_even(server, nodes):
    """Whether no node holds, or leads, more than one shard more than another."""
    shards = placements(server)
    copies = collections.Counter(name for _, in_sync, _ in shards for name in in_sync)
    leads = collections.Counter(primary for primary, _, _ in shards)
    counts = [*(sorted(counter.values()) for counter in (copies, leads))]
    return are_complete(server, None) and all(len(count) == nodes and count[-1] - count[0] <= 1 for count in counts)


def copies(server):
    """How many copies of shards each node has, and how many bytes they are."""
    with server.connect(timeout=30) as connection:
        counts = collections.Counter()
        for (replicas,) in connection.query("SELECT replicas FROM neorunbase_shards"):
            counts.update(replicas.split(", "))
        return {
            name: (counts[name], int(size))
            for name, size in connection.query("SELECT name, bytes FROM neorunbase_nodes")
        }


def even_out(server, nodes, within):
    """Whether all nodes hold as many bytes as the others, as near as that.

    Where there is little, the Controller counts 16 MiB more for each copy: sizes are mostly memory that is set aside then.
    """
    found = copies(server)
    if not are_complete(server, None) or len(found) != nodes:
        return False
    weights = [size for _, size in found.values()]
    if sum(weights) / nodes < LITTLE:
        weights = [size + count * COPY_BASE for count, size in found.values()]
    mean = sum(weights) / nodes
    return all(abs(weight - mean) <= within * mean for weight in weights)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except (pg_client.ServerError, pg_client.ConnectionBroken, OSError):
            pass
        time.sleep(0.5)
    return False
