"""Each process in a network namespace of its own, joined by a bridge, so that networks can be cut between them.

The bridge is in a namespace too: no rule of the machine's own firewall reaches it, and it leads nowhere else. Everything
that this makes begins with `neorunbase-` and goes away with the test, or with the next one if the test was killed.
"""

import fcntl
import os
import shutil
import signal
import subprocess

from checks import note
from processes import at_end

PREFIX = "neorunbase-"
SWITCH = f"{PREFIX}switch"
#: In the network for benchmarks of network devices (RFC 2544), which nobody uses.
NETWORK = "198.18.53"
LOCK = "/run/lock/neorunbase-namespaces"


# Where Debian keeps ip, nft and mkfs.ext4, which is not in everybody's path.
os.environ["PATH"] += ":/usr/sbin:/sbin"


class NotPossible(Exception):
    """Namespaces cannot be made here."""


def _run(*command, check=True):
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NotPossible(str(error)) from error
    if check and result.returncode != 0:
        raise NotPossible(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def _remove_all():
    """What this run, or one that was killed, has made."""
    for line in _run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0]
        if not name.startswith(PREFIX):
            continue
        for pid in _run("ip", "netns", "pids", name, check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        _run("ip", "netns", "delete", name, check=False)
    # The other cables go with their namespaces.
    _run("ip", "link", "delete", f"{PREFIX}0", check=False)


class Namespaces:
    """A site (see `processes.Here`) whose network can be cut."""

    title = "a network namespace for each process"
    can_cut = True

    def __init__(self, names):
        if os.geteuid() != 0:
            raise NotPossible("not root")
        if not shutil.which("nft"):
            raise NotPossible("nft is missing (apt-get install nftables)")
        self.numbers = {name: number for number, name in enumerate(names, 2)}
        try:
            self.lock = open(LOCK, "w")
        except OSError as error:
            raise NotPossible(str(error)) from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note("    waiting for another run that uses namespaces to end")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        _remove_all()
        at_end(_remove_all)
        try:
            self._make()
        except NotPossible:
            _remove_all()
            raise

    def _make(self):
        _run("ip", "netns", "add", SWITCH)
        _run("ip", "-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", SWITCH, "link", "set", "bridge", "up")
        # The clients stay where this script runs.
        _run("ip", "link", "add", f"{PREFIX}0", "type", "veth", "peer", "name", "port0", "netns", SWITCH)
        _run("ip", "address", "add", f"{NETWORK}.1/24", "dev", f"{PREFIX}0")
        _run("ip", "link", "set", f"{PREFIX}0", "up")
        self._plug_in("port0")
        for name, number in self.numbers.items():
            namespace, port = PREFIX + name, f"port{number}"
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", SWITCH)
            _run("ip", "-n", namespace, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
            _run("ip", "-n", namespace, "link", "set", "eth0", "up")
            self._plug_in(port)
            # Dropped where they arrive, so that the sender learns nothing.
            self._nft(name, "add table ip cuts")
            self._nft(name, "add set ip cuts senders { type ipv4_addr; }")
            self._nft(name, "add chain ip cuts arriving { type filter hook input priority 0; }")
            self._nft(name, "add rule ip cuts arriving ip saddr @senders drop")

    def _plug_in(self, port):
        _run("ip", "-n", SWITCH, "link", "set", port, "master", "bridge", "up")

    def _nft(self, name, command):
        _run(*self.prefix(name), "nft", command)

    def address(self, name):
        return f"{NETWORK}.{self.numbers[name]}"

    def prefix(self, name):
        return ["nsenter", f"--net=/run/netns/{PREFIX}{name}"]

    def unplug(self, name):
        """As if its cable were pulled."""
        _run("ip", "-n", SWITCH, "link", "set", f"port{self.numbers[name]}", "down")

    def plug_in(self, name):
        _run("ip", "-n", SWITCH, "link", "set", f"port{self.numbers[name]}", "up")

    def cut(self, sender, receiver):
        """What `sender` sends does not arrive; the other direction is left alone."""
        self._nft(receiver, f"add element ip cuts senders {{ {self.address(sender)} }}")

    def mend(self, sender, receiver):
        self._nft(receiver, f"delete element ip cuts senders {{ {self.address(sender)} }}")


class LoopbackAddresses:
    """A site for machines on which namespaces cannot be made: a loopback address each, and networks stay whole."""

    title = "a loopback address for each process"
    can_cut = False

    def __init__(self, names):
        self.numbers = {name: number for number, name in enumerate(names, 2)}

    def address(self, name):
        return f"127.53.18.{self.numbers[name]}"

    def prefix(self, _name):
        return []


def site_for(names):
    """Namespaces where they can be made."""
    try:
        return Namespaces(names)
    except NotPossible as reason:
        note(f"    no network namespaces here ({reason}): networks are not cut")
        return LoopbackAddresses(names)
