"""What keeps a cluster busy while it is tormented: the workloads with their checkers, and pgbench.

Both leave behind when each of their transactions was served, so that stalls can be seen afterwards.
"""

import glob
import json
import os
import re
import subprocess
import threading
import time

from processes import at_end, binary, client_program

SUMS = (
    "SELECT sum(abalance) FROM pgbench_accounts",
    "SELECT sum(bbalance) FROM pgbench_branches",
    "SELECT sum(tbalance) FROM pgbench_tellers",
    "SELECT coalesce(sum(delta), 0) FROM pgbench_history",
)
#: Reads what is left at the end, not a client.
FINAL_READER = 2**32 - 1


def workload_binary():
    path = os.path.join(os.path.dirname(binary()), "neorunbase-workload")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is missing: cargo build -p neorunbase-workloads")
    return path


class Workloads:
    """One run of `neorunbase-workload` with all its workloads: histories and verdicts."""

    def __init__(self, server, directory, seconds, clients, seed, only="all", recovery_seconds=120):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        addresses = ",".join(f"{host}:{port}" for host, port in zip(server.hosts, server.ports))
        command = [workload_binary(), "--address", addresses, "--user", server.user, "--password", server.password]
        command += ["--database", server.database, "--workload", only, "--seconds", str(seconds)]
        command += ["--clients", str(clients), "--seed", str(seed), "--history", directory]
        command += ["--recovery-seconds", str(recovery_seconds)]
        self.patience = seconds + 4 * recovery_seconds
        # Histories count from here on, but for the milliseconds that the program takes to start.
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
        )
        at_end(self.kill)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()

    def finish(self):
        """Waits for the verdicts: by workload, whether it passed, and what was said of it."""
        try:
            output, _ = self.process.communicate(timeout=self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            output += "\nstill not at its end; killed"
        with open(f"{self.directory}/verdicts", "w") as file:
            file.write(output)
        verdicts, name = {}, None
        for line in output.splitlines():
            found = re.match(r"(\S+): (passed|FAILED) \((.*)\)$", line)
            if found:
                name = found[1]
                verdicts[name] = [found[2] == "passed", found[3]]
            elif name and line.startswith("  "):
                verdicts[name][1] += f"\n      {line.strip()}"
        return self.process.returncode, verdicts, output

    def _records(self):
        """Of all clients, each with the name of its workload."""
        for path in sorted(glob.glob(f"{self.directory}/*.jsonl")):
            workload = os.path.basename(path).removesuffix(".jsonl")
            with open(path) as lines:
                for line in lines:
                    record = json.loads(line)
                    # Some note other things than operations as well.
                    if "outcome" in record and record["client"] != FINAL_READER:
                        yield workload, record

    def served(self):
        """By client (`workload/number`) the moments at which it was served, as `time.monotonic`."""
        moments = {}
        for workload, record in self._records():
            client = moments.setdefault(f"{workload}/{record['client']}", [])
            if record["outcome"] == "done" and record["completed_micros"] is not None:
                client.append(self.started + record["completed_micros"] / 1e6)
        return {client: sorted(times) for client, times in moments.items()}

    def errors(self):
        """What clients were told of transactions that failed, or whose outcome they do not know."""
        records = [record for _, record in self._records() if record["outcome"] != "done"]
        # What was under way when the clients were stopped was never heard of.
        return [record["error"] for record in records if record.get("error")]


class Pgbench:
    """pgbench's TPC-B by any number of clients, run again for those whose connections broke."""

    def __init__(self, server, directory, clients, seconds):
        self.server, self.directory, self.clients = server, directory, clients
        self.until = time.monotonic() + seconds
        os.makedirs(directory, exist_ok=True)
        self.stop = threading.Event()
        # Log lines tell the time of day.
        self.offset = time.time() - time.monotonic()
        self.lock = threading.Lock()
        self.processes = {}
        #: What ended clients, and how often.
        self.ends = {}
        self.threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]
        at_end(self.kill)

    @staticmethod
    def initialise(server, scale):
        result = server.run_client([client_program("pgbench"), "-i", "-q", "-s", str(scale)], timeout=1800)
        if result.returncode != 0:
            raise RuntimeError(f"pgbench -i: {result.stderr[-2000:]}")

    def start(self):
        for thread in self.threads:
            thread.start()

    def _client(self, number):
        """A pgbench for each client: one that loses its connection does not end the others."""
        hosts = list(zip(self.server.hosts, self.server.ports))
        for turn in range(1_000_000):
            # pgbench must end by itself, or what it has not yet written to its log is lost.
            seconds = int(self.until - time.monotonic())
            if self.stop.is_set() or seconds < 1:
                return
            chosen = hosts[(number + turn) % len(hosts) :] + hosts[: (number + turn) % len(hosts)]
            # A server that vanished without a word must not be waited for until the kernel gives up, in a quarter of an hour.
            target = " ".join(
                [
                    f"host={','.join(host for host, _ in chosen)} port={','.join(str(port) for _, port in chosen)}",
                    f"dbname={self.server.database} connect_timeout=5 tcp_user_timeout=10000",
                    "keepalives_idle=5 keepalives_interval=2 keepalives_count=3",
                ]
            )
            command = [client_program("pgbench"), "-n", "-M", "prepared", "-c", "1", "-T", str(seconds), "--max-tries=0"]
            command += ["--random-seed", str(1 + number * 1009 + turn), "-l", "--log-prefix", f"{number}.{turn}", target]
            variables = self.server.client_environment()
            with self.lock:
                if self.stop.is_set():
                    return
                process = subprocess.Popen(
                    command, env=variables, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                self.processes[number] = process
            _, errors = process.communicate()
            lines = [line for line in errors.splitlines() if "error:" in line or "failed:" in line or "FATAL" in line]
            said = lines[0] if lines else errors.strip()[-200:] or f"exit code {process.returncode}"
            if process.returncode != 0 and not self.stop.is_set():
                with self.lock:
                    self.ends[said] = self.ends.get(said, 0) + 1
                time.sleep(0.2)

    def finish(self, patience=60):
        """Waits for all to end, each after its last transaction. Those that had to be killed."""
        for thread in self.threads:
            thread.join(max(0.0, self.until + patience - time.monotonic()))
        stuck = [number for number, thread in enumerate(self.threads) if thread.is_alive()]
        self.kill()
        return stuck

    def kill(self):
        self.stop.set()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()

    def served(self):
        """By client the moments at which it was served, as `time.monotonic`."""
        moments = {f"pgbench/{number}": [] for number in range(self.clients)}
        for path in glob.glob(f"{self.directory}/*.*.*"):
            number = os.path.basename(path).split(".")[0]
            with open(path) as lines:
                for line in lines:
                    columns = line.split()
                    # A line that was cut off, or a transaction that was given up.
                    if len(columns) < 6 or not line.endswith("\n") or not columns[2].isdigit():
                        continue
                    moments[f"pgbench/{number}"].append(int(columns[4]) + int(columns[5]) / 1e6 - self.offset)
        return {client: sorted(times) for client, times in moments.items()}


def sums(server, timeout=300):
    """All four, of one snapshot."""
    with server.connect(timeout=timeout) as connection:
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        found = [connection.query(sql)[0][0] for sql in SUMS]
        count = int(connection.query("SELECT count(*) FROM pgbench_history")[0][0])
        connection.query("COMMIT")
    return found, count
