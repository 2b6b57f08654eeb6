"""Faults for real processes, drawn from a seed, never more of them at a time than a cluster with REPLICAS 2 survives.

There are three kinds of machines: data nodes, coordinators, ZooKeeper servers. Of each kind at most one is broken at a time;
a cut between two machines counts as broken the one that is not a ZooKeeper server.
"""

import collections
import os
import random
import signal
import threading
import time

Fault = collections.namedtuple("Fault", "title begin end")

#: By the kind of machine that breaks. What is broken, in words, is said by the fault itself.
KINDS = {
    "data nodes": ("kill-data-node", "pause-data-node", "isolate-data-node", "cut-data-node", "full-disk"),
    "coordinators": ("kill-coordinator", "pause-coordinator", "isolate-coordinator", "cut-coordinator"),
    "ZooKeeper": ("kill-zookeeper", "pause-zookeeper", "isolate-zookeeper"),
}
NAMES = [name for names in KINDS.values() for name in names] + ["lose-zookeeper"]
#: Shorter than leases and sessions; about as long; longer than both; longer than the Controller's grace period.
LENGTHS = ((0.2, 1.5), (1.5, 6.0), (6.0, 15.0), (32.0, 45.0))
LONGEST_RESTART = 120


class Tormentor:
    """Breaks a cluster, and everything that it has broken it makes whole again."""

    def __init__(self, server, site, disks, timeline, seed):
        self.server, self.site, self.disks, self.timeline, self.seed = server, site, disks, timeline, seed
        self.zookeepers = {zookeeper.name: zookeeper for zookeeper in server.zookeeper.servers}
        self.daemons = {daemon.name: daemon for daemon in server.daemons}
        #: Processes that are meant to be down.
        self.down = set()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        #: Processes that ended by themselves, and what they said.
        self.ended = []
        self.surprises = []
        self.counts = collections.Counter()
        self.supervisor = threading.Thread(target=self._supervise, daemon=True)
        self.supervisor.start()

    def possible(self, names):
        """Those of the faults that can be made here."""
        without_cuts = [name for name in names if not name.startswith(("isolate-", "cut-"))]
        names = list(names) if self.site.can_cut else without_cuts
        return [name for name in names if name != "full-disk" or self.disks]

    # Processes

    def _processes(self):
        return {**self.daemons, **self.zookeepers}

    def _supervise(self):
        """As an operator's supervisor: starts again what has ended by itself. That should never be needed."""
        while not self.stop.wait(0.5):
            for name, process in self._processes().items():
                with self.lock:
                    if name in self.down or process.process is None or process.is_running():
                        continue
                    self.down.add(name)
                said = process.log_tail()[-1500:] if name in self.daemons else ""
                self.ended.append(f"{name}: exit code {process.process.returncode}\n{said}")
                self.timeline(f"{name} has ended by itself, and is started again")
                threading.Thread(target=self._start, args=(name,), daemon=True).start()

    def _kill(self, name):
        with self.lock:
            self.down.add(name)
        self._processes()[name].kill()

    def _start(self, name):
        process = self._processes()[name]
        deadline = time.monotonic() + LONGEST_RESTART
        while True:
            try:
                process.kill()
                process.launch()
                if name in self.daemons:
                    process.wait_ready(LONGEST_RESTART)
                break
            except RuntimeError as error:
                if time.monotonic() > deadline:
                    self.surprises.append(str(error))
                    return
                self.timeline(f"{name} does not start, and is started again: {str(error).splitlines()[0]}")
                time.sleep(1)
        with self.lock:
            self.down.discard(name)

    def _signal(self, name, number):
        process = self._processes()[name].process
        if process is not None:
            os.kill(process.pid, number)

    # Faults

    def _killed(self, name):
        return Fault(f"kill -9 {name}", lambda: self._kill(name), lambda: self._start(name))

    def _paused(self, name):
        return Fault(
            f"SIGSTOP {name}",
            lambda: self._signal(name, signal.SIGSTOP),
            lambda: self._signal(name, signal.SIGCONT),
        )

    def _isolated(self, name):
        return Fault(f"{name} isolated", lambda: self.site.unplug(name), lambda: self.site.plug_in(name))

    def _cut(self, one, other, way):
        pairs = {"both ways": [(one, other), (other, one)], "sends nothing to": [(one, other)], "hears nothing of": [(other, one)]}
        title = f"{one} and {other} cut, both ways" if way == "both ways" else f"{one} {way} {other}"

        def change(action):
            for sender, receiver in pairs[way]:
                action(sender, receiver)

        return Fault(title, lambda: change(self.site.cut), lambda: change(self.site.mend))

    def _full_disk(self, name):
        disk = self.disks[name]
        return Fault(f"the disk of {name} is full", disk.fill, disk.free)

    def draw(self, kind, source):
        """A fault of that kind, with its victim."""
        what, _, whose = kind.partition("-")
        if kind == "full-disk":
            return self._full_disk(source.choice(sorted(self.disks)))
        groups = {
            "data-node": [node.name for node in self.server.data_nodes],
            "coordinator": [coordinator.name for coordinator in self.server.coordinators],
            "zookeeper": sorted(self.zookeepers),
        }
        victim = source.choice(groups[whose])
        if what == "cut":
            # A coordinator's cuts to data nodes would break a data node as well.
            others = groups["zookeeper"] + groups["coordinator"] + (groups["data-node"] if whose == "data-node" else [])
            other = source.choice([name for name in others if name != victim])
            return self._cut(victim, other, source.choice(("both ways", "sends nothing to", "hears nothing of")))
        return {"kill": self._killed, "pause": self._paused, "isolate": self._isolated}[what](victim)

    def _during(self, kind, fault, seconds, until):
        """Lets a fault last for so long."""
        started = time.monotonic()
        self.timeline(f"{fault.title}, for {seconds:.1f} s")
        self.counts[kind] += 1
        try:
            fault.begin()
            self.stop.wait(max(0.0, min(started + seconds, until) - time.monotonic()))
        finally:
            fault.end()
            self.timeline(f"    over: {fault.title} ({time.monotonic() - started:.1f} s)")

    def _torment(self, kinds, source, until, lengths):
        try:
            while not self.stop.wait(source.uniform(0.3, 4.0)):
                remaining = until - time.monotonic()
                if remaining < 0.5:
                    return
                kind = source.choice(kinds)
                self._during(kind, self.draw(kind, source), source.uniform(*source.choices(LENGTHS, lengths)[0]), until)
        except Exception as error:  # a test that stops testing must not pass
            self.surprises.append(f"while tormenting: {error!r}")

    def torment(self, names, seconds, turn):
        """Faults of these names, those of different kinds of machines side by side. When it returns, all are over."""
        until = time.monotonic() + seconds
        # Faults beyond the Controller's grace period need time.
        lengths = (4, 4, 2, 1 if seconds > 100 else 0)
        threads = []
        for machines, kinds in KINDS.items():
            possible = self.possible([kind for kind in kinds if kind in names])
            if not possible:
                continue
            source = random.Random(f"{self.seed} {turn} {machines}")
            # Not everything every time: what seldom happens alone would seldom be seen alone.
            kept = [kind for kind in possible if source.random() < 0.7] or [source.choice(possible)]
            threads.append(threading.Thread(target=self._torment, args=(kept, source, until, lengths), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + LONGEST_RESTART + 60)
            if thread.is_alive():
                self.surprises.append("a fault does not end")

    def lose_zookeeper(self, seconds):
        """All servers at once."""
        names = sorted(self.zookeepers)

        def start_all():
            for name in names:
                self._start(name)

        fault = Fault("kill -9 all ZooKeeper servers", lambda: [self._kill(name) for name in names], start_all)
        self._during("lose-zookeeper", fault, seconds, time.monotonic() + seconds)

    def end(self):
        self.stop.set()
        self.supervisor.join(5)
