"""A lab to test with: drives the program `holdfast` and looks at the machine itself. Standard library only.

Every wait is for a condition, with a limit that only a failure reaches. HOLDFAST_BIN: folder of the programs.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HOLDFAST_BIN", ROOT / "build/release/bin"))
FREEZER = ("get_signal", "do_freezer_trap")  # where a thread that its cgroup has frozen waits
PATIENCE = float(os.environ.get("HOLDFAST_PATIENCE", "120"))  # seconds: the machine may have much else to do


class Failed(Exception):
    """A command of the program that did not succeed: its exit status and what it said."""

    def __init__(self, words, status, said):
        super().__init__(f"{' '.join(words)}: exit status {status}: {said}")
        self.status, self.said = status, said


def wait(condition, what, seconds=PATIENCE, pause=0.05):
    """Returns the first true answer of `condition`."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"after {seconds:.0f} s still not so: {what}"
        time.sleep(pause)


def cgroup2():
    for line in open("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return before.split()[4]
    raise AssertionError("this machine has no cgroup2")


def read(path):
    """A small file's text; empty where it has gone."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Qemu:
    """A QEMU process as the machine shows it."""

    def __init__(self, host, vm, pid, cgroup):
        self.host, self.vm, self.pid, self.cgroup = host, vm, pid, cgroup

    def frozen(self):
        """No thread of it can act: each is frozen, or waits in the kernel for a storage that hangs and then is."""
        if "frozen 1" in read(f"{self.cgroup}/cgroup.events"):
            return True
        return read(f"{self.cgroup}/cgroup.freeze").strip() == "1" and not any(self.acts(task) for task in self.tasks())

    def tasks(self):
        try:
            return os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            return []

    def acts(self, task):
        state = read(f"/proc/{self.pid}/task/{task}/stat").rpartition(")")[2].split()[:1]
        return state not in ([], ["D"]) and read(f"/proc/{self.pid}/task/{task}/wchan") not in FREEZER

    def __repr__(self):
        return f"{self.vm} on {self.host} (pid {self.pid}{', frozen' if self.frozen() else ''})"


class Lab:
    def __init__(self, name, hosts=3, words=()):
        """`words`: more options of `lab up`."""
        self.name, self.size, self.words = name, hosts, list(words)
        self.hosts = [f"host{number}" for number in range(1, hosts + 1)]
        self.dir = pathlib.Path("/var/lib/holdfast/lab") / name
        self.run = pathlib.Path("/run/holdfast-lab") / name
        self.group = f"{cgroup2()}/holdfast-lab/{name}"
        self.guest = None
        self.folders = {}  # of datastores that the lab did not make, by name

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and os.environ.get("HOLDFAST_KEEP"):
            print(f"the lab {self.name} is kept; remove it: holdfast lab down --name {self.name}")
            return
        if kind is not None:
            self.tell_all()
        self.down()

    def run_cli(self, *words, check=True, seconds=180):
        done = subprocess.run([BIN / "holdfast", *words], capture_output=True, text=True, timeout=seconds)
        if check and done.returncode != 0:
            raise Failed(words, done.returncode, (done.stderr or done.stdout).strip())
        return done

    def admin(self):
        return ["--context", str(self.dir / "admin")]

    def cli(self, *words, check=True, seconds=180):
        """A command to the cluster; what it printed."""
        done = self.run_cli(*self.admin(), *words, check=check, seconds=seconds)
        return done.stdout if check else done

    def ask(self, *words):
        return json.loads(self.cli(*words, "-o", "json"))

    def lab(self, command, *words, check=True):
        return self.run_cli("lab", command, "--name", self.name, *words, check=check).stdout

    def up(self):
        self.lab("up", "--hosts", str(self.size), *self.words)
        self.guest = json.loads(self.run_cli("lab", "guest", "-o", "json", seconds=900).stdout)

    def down(self):
        self.lab("down")

    def fault(self, hosts, fault):
        self.lab("fault", hosts, fault)

    def heal(self, hosts="all"):
        self.lab("heal", hosts)

    # What the cluster says
    def vms(self):
        return {vm["name"]: vm for vm in self.ask("vm", "ls")["vms"]}

    def try_vms(self):
        """None while no host answers."""
        try:
            return self.vms()
        except Failed:
            return None

    def connected(self):
        try:
            return {host["host"] for host in self.ask("host", "ls")["hosts"] if host["connected"]}
        except Failed:
            return set()

    def leader(self):
        try:
            return next((host["host"] for host in self.ask("host", "ls")["hosts"] if host["leader"]), "")
        except Failed:
            return ""

    def events(self, kind=""):
        return [e for e in self.ask("event", "ls", "--limit", "1000")["events"] if e["kind"].startswith(kind)]

    def all_run(self, names=None, seconds=PATIENCE):
        """Waits until every VM (of `names`) runs, owned by a connected host, by exactly one QEMU that is not
        frozen. A host that hangs does not count."""

        def so():
            vms, there = self.try_vms(), self.connected()
            if vms is None:
                return None
            wanted = [vm for name, vm in vms.items() if names is None or name in names]
            for vm in wanted:
                owner, state = vm["owner"], vm["status"]
                if not owner or not state or state["state"] != "running" or owner["host"] not in there:
                    return None
                here = [q for q in self.qemus(vm["id"]) if not self.hangs(q.host)]
                if len(here) != 1 or here[0].host != owner["host"] or here[0].frozen():
                    return None
            return {vm["name"]: vm for vm in wanted}

        return wait(so, "every VM runs once", seconds, pause=0.2)

    # What the machine shows
    def qemus(self, vm=None):
        found = []
        for host in self.hosts:
            folder = f"{self.group}/{host}/vms"
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                group = f"{folder}/{name}"
                for pid in read(f"{group}/cgroup.procs").split() if vm in (None, name) else []:
                    found.append(Qemu(host, name, int(pid), group))
        return found

    def hangs(self, host):
        return "frozen 1" in read(f"{self.group}/{host}/cgroup.events")

    def pids(self):
        return {qemu.vm: qemu.pid for qemu in self.qemus()}

    def qemus_of(self, host):
        return [qemu for qemu in self.qemus() if qemu.host == host]

    def hosts_now(self):
        return json.loads(self.lab("ls", "-o", "json"))["hosts"]

    def service(self, host, name):
        return [int(pid) for pid in read(f"{self.group}/{host}/services/{name}/cgroup.procs").split()]

    def console(self, vm, host):
        """All that the guest wrote on its console in this life."""
        folder = self.run / host / "vms" / vm
        return read(folder / "console.log.1") + read(folder / "console.log")

    def log_of(self, host, service):
        return read(self.dir / "hosts" / host / "var/log" / f"{service}.log")

    def tell_all(self):
        """For a failed test: what there is to know."""
        print("---- what the lab knows", flush=True)
        for words in (["host", "ls"], ["vm", "ls", "-o", "wide"], ["event", "ls"], ["task", "ls"]):
            print(self.cli(*words, check=False).stdout, flush=True)
        print(self.lab("ls", check=False), self.qemus(), flush=True)
        for host in self.hosts:
            for service in ("holdfastd", "holdfast-guard", "init"):
                print(f"---- {host} {service}\n" + "\n".join(self.log_of(host, service).splitlines()[-25:]), flush=True)
        for name, vm in (self.try_vms() or {}).items():
            print(f"---- console of {name}\n" + self.console(vm["id"], vm["owner"]["host"])[-600:], flush=True)

    # Guests
    def spec(self, name, number=0, ledger=False, rate=20, words="", extra="", memory=128, disk=8, datastore="shared1"):
        """The spec of a test guest. `number`: its address is 10.78.1.<number>, with a web page."""
        line = f"{self.guest['cmdline']} hf.name={name} {words}"
        text = f'version = 1\nname = "{name}"\nmemory = "{memory} MiB"\ndatastore = "{datastore}"\n{extra}\n'
        if ledger:
            text += f'[[disks]]\nname = "ledger"\nsize = "{disk} MiB"\nformat = "raw"\n'
            line += f" hf.ledger=1 hf.rate={rate}"
        if number:
            text += '[[nics]]\nnetwork = "vm"\n'
            line += f" hf.http=1 hf.ip=10.78.1.{number}/16"
        return text + (f'[direct_kernel]\nkernel = "{self.guest["kernel"]}"\n'
                       f'initrd = "{self.guest["initrd"]}"\ncmdline = "{line}"\n')

    def create(self, name, start=True, text="", **how):
        """Makes a VM of the test guest, or of `text`; its id."""
        file = self.dir / f"{name}.toml"
        file.write_text(text or self.spec(name, **how))
        self.cli("vm", "create", str(file), *(["--start"] if start else []))
        return self.vms()[name]["id"]

    def is_up(self, name, vms=None):
        vm = (vms or self.vms())[name]
        return "guest up" in self.console(vm["id"], vm["owner"]["host"])

    def wait_up(self, *names):
        """Waits until the guests have booted."""
        for name in names:
            wait(lambda name=name: self.is_up(name), f"the guest {name} is up", pause=0.3)

    def disk(self, name):
        vm = self.vms()[name]
        disk = next(disk for disk in vm["spec"]["disks"] if disk["name"] == "ledger")
        datastore = disk["datastore"] or vm["spec"]["datastore"]
        return self.folders.get(datastore, self.dir / "datastores" / datastore) / vm["id"] / image_of(disk)

    def stop_all(self):
        """Ends every VM at once."""
        for name, vm in self.vms().items():
            if vm["desired"] == "running":
                self.cli("vm", "kill", name)

    def ledger(self, name):
        """Checks the ledger of a VM that is off: its figures. Fails if anybody wrote who had lost the right to."""
        done = self.run_cli("lab", "ledger-check", str(self.disk(name)), check=False)
        assert done.returncode == 0, f"the ledger of {name} is broken:\n{done.stdout}{done.stderr}"
        return dict(pair.split("=") for pair in done.stdout.split())

    def stream(self, address):
        """Starts stream.py to a guest inside the lab's network; end_of() it gives what it saw."""
        words = [BIN / "holdfast", "lab", "exec", "--name", self.name, "net", "--", sys.executable,
                 ROOT / "tests/e2e/stream.py", address]
        stream = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert stream.stdout.readline() == "begun\n"
        return stream

    def probe(self, *addresses):
        """Starts a prober inside the lab's network: one line each time an address begins or ceases to answer. A session
        of its own, to be ended as a group."""
        return subprocess.Popen([BIN / "holdfast", "lab", "exec", "--name", self.name, "net", "--", sys.executable,
                                 ROOT / "tests/e2e/probe.py", *addresses], stdout=subprocess.PIPE, text=True,
                                start_new_session=True)


def image_of(disk):
    """The file of a disk of a spec."""
    return ".".join(part for part in (disk["name"], disk.get("tag", ""), disk["format"]) if part)


def end_of(stream):
    os.killpg(stream.pid, signal.SIGTERM)
    with stream:
        return json.loads(stream.stdout.read())


def run(tests, name, hosts=3, setup=None, words=()):
    """Runs the functions in `tests` on one lab, or those named on the command line. They take the lab."""
    import watch
    wanted = [t for t in tests if not sys.argv[1:] or t.__name__ in sys.argv[1:]]
    assert wanted, f"there is {', '.join(t.__name__ for t in tests)}"
    with Lab(os.environ.get("HOLDFAST_LAB", name), hosts, words) as lab, watch.Watch(lab) as watcher:
        if setup:
            setup(lab)
        for test in wanted:
            begin = time.monotonic()
            test(lab)
            watcher.check()
            print(f"{test.__name__}: passed in {time.monotonic() - begin:.1f} s", flush=True)
        print(watcher.summary())
