"""Servers that a test starts for itself: NeorunBase in one process or in several, ZooKeeper, PostgreSQL 15.

Each listens on free loopback ports, keeps its files in a temporary directory and is ended with the test.
"""

import atexit
import glob
import itertools
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pg_client

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MASTER_KEY = "end-to-end master key, 32 characters or more"
PASSWORD = "end-to-end password"
ZOOKEEPER_JAR = "/usr/share/java/zookeeper.jar"

_cleanups = []


def _clean_up():
    while _cleanups:
        try:
            _cleanups.pop()()
        except Exception as error:  # the others still have to be cleaned up
            print(f"cleaning up: {error}", file=sys.stderr)


def at_end(action):
    _cleanups.append(action)


atexit.register(_clean_up)
for _signal in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signal, lambda number, _frame: sys.exit(128 + number))


def temporary_directory():
    # Not /tmp on purpose where TMPDIR says otherwise: it may be a tmpfs, on which fsync costs nothing.
    path = tempfile.mkdtemp(prefix="neorunbase-test-")
    os.chmod(path, 0o755)
    at_end(lambda: shutil.rmtree(path, ignore_errors=True))
    return path


_handed_out = set()


def free_port():
    # Below the ephemeral range, so that no outgoing connection takes the port while its server restarts.
    while True:
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 12000
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port


def binary():
    """The program under test: $NEORUNBASE_BINARY, else what cargo has built last."""
    given = os.environ.get("NEORUNBASE_BINARY")
    if given:
        return os.path.abspath(given)
    target = os.environ.get("CARGO_TARGET_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    targets = [target] if target else [f"{cache}/neorunbase/target", f"{REPOSITORY}/target"]
    found = [
        path
        for directory in targets
        for profile in ("release", "debug")
        if os.access(path := f"{directory}/{profile}/neorunbase", os.X_OK)
    ]
    if not found:
        sys.exit("no neorunbase found: build it (cargo build -p neorunbase) or set NEORUNBASE_BINARY")
    return max(found, key=os.path.getmtime)


def environment(master_key=MASTER_KEY, password=PASSWORD):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NEORUNBASE_")}
    if "NEORUNBASE_LOG" in os.environ:
        variables["NEORUNBASE_LOG"] = os.environ["NEORUNBASE_LOG"]
    if master_key is not None:
        variables["NEORUNBASE_MASTER_KEY"] = master_key
    if password is not None:
        variables["NEORUNBASE_ADMIN_PASSWORD"] = password
    return variables


class Daemon:
    """One process of NeorunBase that can be started, killed and started again."""

    def __init__(self, name, arguments, log, prefix=()):
        self.name, self.arguments, self.log, self.prefix = name, arguments, log, prefix
        self.process = None
        self.output = []
        at_end(self.kill)

    def start(self, patience=60, **secrets):
        """Starts it and waits for the line `ready`; how long that took."""
        self.launch(**secrets)
        return self.wait_ready(patience)

    def launch(self, **secrets):
        self.started = time.monotonic()
        self.output = []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, binary(), *self.arguments], env=environment(**secrets), stdout=subprocess.PIPE, stderr=log
            )

    def wait_ready(self, patience=60):
        deadline = self.started + patience
        pending = b""
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.kill()
                raise RuntimeError(f"{self.name} is not ready after {patience} s\n{self.log_tail()}")
            readable, _, _ = select.select([self.process.stdout], [], [], remaining)
            if not readable:
                continue
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                code = self.process.wait()
                raise RuntimeError(f"{self.name} ended with exit code {code}\n{self.log_tail()}")
            pending += data
            *lines, pending = pending.split(b"\n")
            self.output += [line.decode(errors="replace") for line in lines]
            if "ready" in self.output:
                return time.monotonic() - self.started

    def log_tail(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-30:])

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """As a crash: SIGKILL."""
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def stop(self, patience=30):
        """As an operator: SIGTERM. Its exit code."""
        self.process.terminate()
        code = self.process.wait(patience)
        self.process.stdout.close()
        self.process = None
        return code

    def listening_ports(self):
        """All TCP ports that the process listens on."""
        inodes = set()
        for descriptor in glob.glob(f"/proc/{self.process.pid}/fd/*"):
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        ports = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table) as lines:
                for line in list(lines)[1:]:
                    columns = line.split()
                    if columns[3] == "0A" and columns[9] in inodes:
                        ports.add(int(columns[1].rsplit(":", 1)[1], 16))
        return ports


class Clients:
    """How clients of a server connect: mixed into everything that has `port`, `user`, `password`, `database`."""

    host = "127.0.0.1"

    def connect(self, **arguments):
        return self.connect_to(self.port, **arguments)

    def connect_to(self, port, **arguments):
        """To what listens there, as the server's user unless told otherwise."""
        settings = dict(host=self.host, port=port, user=self.user, password=self.password, database=self.database)
        return pg_client.Connection(**{**settings, **arguments})

    def wait_until_it_serves(self, sql="SELECT 1", patience=60):
        """Tries until a statement succeeds; how long that took."""
        started = time.monotonic()
        while True:
            try:
                with self.connect(timeout=10) as connection:
                    connection.query(sql)
                return time.monotonic() - started
            except (pg_client.ConnectionBroken, pg_client.ServerError) as error:
                if os.environ.get("NEORUNBASE_TEST_VERBOSE"):
                    print(f"    after {time.monotonic() - started:.1f} s: {error}")
                if time.monotonic() - started > patience:
                    raise RuntimeError(f"no answer to {sql!r} within {patience} s: {error}") from error
                time.sleep(0.2)

    def client_environment(self):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        variables.update(
            PGHOST=self.host,
            PGPORT=str(self.port),
            PGUSER=self.user,
            PGPASSWORD=self.password,
            PGDATABASE=self.database,
            PGCONNECT_TIMEOUT="20",
            LC_ALL="C.UTF-8",
        )
        return variables

    def run_client(self, command, **arguments):
        """Runs psql or pgbench against the server."""
        return subprocess.run(command, env=self.client_environment(), capture_output=True, text=True, **arguments)


class SingleProcess(Daemon, Clients):
    """`neorunbase start`."""

    user, password, database = "admin", PASSWORD, "neorunbase"

    def __init__(self, directory=None, data_nodes=2, extra=()):
        self.directory = directory or temporary_directory()
        self.data = f"{self.directory}/data"
        self.port, self.admin_port = free_port(), free_port()
        arguments = ["start", "--data-dir", self.data, "--pg-addr", f"127.0.0.1:{self.port}"]
        arguments += ["--admin-addr", f"127.0.0.1:{self.admin_port}", "--data-nodes", str(data_nodes), *extra]
        super().__init__("neorunbase start", arguments, f"{self.directory}/log")


class Here:
    """Where processes run unless told otherwise: all on the loopback address."""

    def address(self, _name):
        return "127.0.0.1"

    def prefix(self, _name):
        """What the command line of a process begins with."""
        return []


class ZooKeeperServer:
    """One server of an ensemble, or the only one, that can be killed and started again."""

    def __init__(self, name="zookeeper", site=None):
        if not os.path.exists(ZOOKEEPER_JAR):
            sys.exit(f"{ZOOKEEPER_JAR} is missing (apt-get install zookeeper)")
        site = site or Here()
        self.name, self.prefix = name, site.prefix(name)
        self.address, self.port = site.address(name), free_port()
        self.directory = temporary_directory()
        self.peer_ports = f"{free_port()}:{free_port()}"
        self.process = None
        at_end(self.kill)

    def configure(self, members):
        """`members` is the whole ensemble, this server among them."""
        os.makedirs(f"{self.directory}/data", exist_ok=True)
        with open(f"{self.directory}/zoo.cfg", "w") as file:
            file.write(
                f"tickTime=500\ninitLimit=20\nsyncLimit=8\ndataDir={self.directory}/data\nclientPort={self.port}\n"
                f"clientPortAddress={self.address}\nadmin.enableServer=false\nminSessionTimeout=1000\nmaxClientCnxns=0\n"
            )
            if len(members) > 1:
                for number, member in enumerate(members, 1):
                    file.write(f"server.{number}={member.address}:{member.peer_ports}\n")
        with open(f"{self.directory}/data/myid", "w") as file:
            file.write(f"{members.index(self) + 1}\n")
        with open(f"{self.directory}/log4j.properties", "w") as file:
            file.write("log4j.rootLogger=OFF\n")

    def launch(self):
        self.process = subprocess.Popen(
            [*self.prefix, "java", "-Xmx128m", "-cp", f"{self.directory}:{ZOOKEEPER_JAR}",
             "org.apache.zookeeper.server.quorum.QuorumPeerMain", f"{self.directory}/zoo.cfg"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait_listening(self, patience=60):
        deadline = time.monotonic() + patience
        while True:
            try:
                socket.create_connection((self.address, self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("ZooKeeper does not start")
                time.sleep(0.1)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """As a crash: SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class ZooKeeper:
    """An ensemble of `servers` processes; one of them is a ZooKeeper as well."""

    def __init__(self, servers=1, site=None):
        names = ["zookeeper"] if servers == 1 else [f"zookeeper-{number}" for number in range(1, servers + 1)]
        self.servers = [ZooKeeperServer(name, site) for name in names]
        for server in self.servers:
            server.configure(self.servers)
            server.launch()
        for server in self.servers:
            server.wait_listening()

    def addresses(self):
        return ",".join(f"{server.address}:{server.port}" for server in self.servers)


class MultiProcess(Clients):
    """Coordinators and data nodes as processes of their own, with a real ZooKeeper."""

    user, password, database = "admin", PASSWORD, "neorunbase"

    def __init__(self, data_nodes=2, coordinators=1, site=None, zookeepers=1, settings="", directories=None):
        """`settings`: more lines for the coordinators. `directories`: by name, for what is not kept in the test's own."""
        self.site = site or Here()
        self.directories = directories or {}
        self.zookeeper = ZooKeeper(zookeepers, self.site)
        self.directory = temporary_directory()
        self.ports = [free_port() for _ in range(coordinators)]
        self.admin_ports = [free_port() for _ in range(coordinators)]
        self.port, self.admin_port = self.ports[0], self.admin_ports[0]
        self.connections = itertools.count()
        names = ["coordinator", *(f"coordinator-{number}" for number in range(2, coordinators + 1))]
        self.hosts = [self.site.address(name) for name in names]
        self.host = self.hosts[0]
        self.coordinators = [
            self._daemon(
                "coordinator",
                name,
                f'pg_address = "{host}:{port}"\nadmin_address = "{host}:{admin_port}"\n{settings}',
            )
            for name, host, port, admin_port in zip(names, self.hosts, self.ports, self.admin_ports)
        ]
        self.coordinator = self.coordinators[0]
        self.data_nodes = [self._data_node(number) for number in range(1, data_nodes + 1)]
        self.daemons = [*self.data_nodes, *self.coordinators]

    def _data_node(self, number):
        name = f"datanode-{number}"
        return self._daemon("datanode", name, f'admin_address = "{self.site.address(name)}:{free_port()}"\n')

    def _daemon(self, command, name, lines):
        path = f"{self.directory}/{name}.toml"
        data = self.directories.get(name, f"{self.directory}/{name}")
        with open(path, "w") as file:
            file.write(f'name = "{name}"\ndata_directory = "{data}"\n')
            file.write(f'internal_address = "{self.site.address(name)}:{free_port()}"\n{lines}')
            file.write(f'\n[zookeeper]\nservers = "{self.zookeeper.addresses()}"\nroot = "/test"\n')
        return Daemon(name, [command, "--config", path], f"{self.directory}/{name}.log", self.site.prefix(name))

    def add_data_node(self):
        """One more data node, not started yet."""
        node = self._data_node(len(self.data_nodes) + 1)
        self.data_nodes.append(node)
        self.daemons.insert(0, node)
        return node

    def start(self, patience=60):
        """All at once, as an operator would; data nodes wait for their coordinator."""
        for daemon in self.daemons:
            daemon.launch()
        for daemon in self.daemons:
            daemon.wait_ready(patience)
        self.wait_until_it_serves(patience=patience)

    def stop(self):
        """From the coordinators down. Their exit codes."""
        return [daemon.stop() for daemon in reversed(self.daemons)]

    def connect(self, **arguments):
        """To one coordinator after the other, and to the next one if that cannot be reached, as libpq's host lists do."""
        first = next(self.connections)
        for attempt in range(len(self.ports)):
            chosen = (first + attempt) % len(self.ports)
            try:
                return self.connect_to(self.ports[chosen], host=self.hosts[chosen], **arguments)
            except pg_client.ConnectionBroken:
                if attempt + 1 == len(self.ports):
                    raise


class PostgreSql(Clients):
    """A PostgreSQL 15 with its defaults (fsync on), collation C and UTF-8, to compare with."""

    user, password, database = "admin", PASSWORD, "neorunbase"

    def __init__(self, settings=()):
        programs = next(
            (path for path in sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: "/15/" not in path)),
            None,
        )
        if programs is None:
            sys.exit("PostgreSQL is missing (apt-get install postgresql)")
        self.directory = temporary_directory()
        self.port = free_port()
        # PostgreSQL refuses to run as root.
        owner = {}
        if os.geteuid() == 0:
            account = next(name for name in ("postgres", "nobody") if _account(name))
            entry = pwd.getpwnam(account)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            owner = dict(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
        variables = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": self.directory, "TZ": "UTC"}
        password_file = f"{self.directory}/password"
        with open(password_file, "w") as file:
            file.write(self.password)
        os.chmod(password_file, 0o644)
        data = f"{self.directory}/data"
        subprocess.run(
            [f"{programs}/initdb", "-D", data, "-U", self.user, "-A", "scram-sha-256", f"--pwfile={password_file}",
             "--encoding=UTF8", "--locale=C", "--no-instructions"],
            env=variables, cwd=self.directory, check=True, stdout=subprocess.DEVNULL, **owner,
        )  # fmt: skip
        with open(f"{data}/postgresql.conf", "a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n")
            file.write(f"unix_socket_directories = '{self.directory}'\ntimezone = 'UTC'\n")
            file.writelines(f"{line}\n" for line in settings)
        self.log = f"{self.directory}/log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [f"{programs}/postgres", "-D", data],
                env=variables, cwd=self.directory, stdout=log, stderr=subprocess.STDOUT, **owner,
            )  # fmt: skip
        at_end(self.stop)
        self.database = "postgres"
        self.wait_until_it_serves()
        with self.connect() as connection:
            connection.query("CREATE DATABASE neorunbase")
        self.database = "neorunbase"

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def _account(name):
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def client_program(name):
    """psql or pgbench, also where Debian does not put it into the path."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))), None)
    return found or sys.exit(f"{name} is missing (apt-get install postgresql postgresql-client)")
