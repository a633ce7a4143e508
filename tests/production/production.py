#!/usr/bin/env python3
"""Goal: what doc/install.md tells people to do makes machines a cluster. Method: the real program with the real
etcd and QEMU in network namespaces; every command that it prints is started as it stands, no systemd.

A single host on SQLite gets a datastore, a network and a running VM; it grows to etcd while the VM runs; two more hosts
join, each with a member of its own; strangers are refused; so is bad input, with a sentence, and nothing is changed.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

import machines
from machines import Failed, run, wait

MISSING = 77


def missing_here():
    if os.geteuid() != 0:
        return "root"
    if machines.cgroup2_mount() is None:
        return "a cgroup2 mount"
    for program in ("etcd", "etcdctl", "ip", "nsenter", "setpriv", "openssl", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            return program
    return None


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Production:
    def __init__(self, world, guest):
        self.world, self.guest = world, guest
        self.first = world.machines[0]
        # Whoever is up answers; before they join, the others refuse the connection.
        self.admin = ["--context", self.first.etc / "admin", "--host",
                      ",".join(f"{one.address}:7443" for one in world.machines)]
        self.shared = world.folder / "shared"
        self.shared.mkdir()

    def cli(self, *words, check=True):
        return self.first.holdfast(*self.admin, *words, check=check)

    def ask(self, *words):
        return json.loads(self.cli(*words, "-o", "json").stdout)

    def refused(self, status, text, done):
        expect(done.returncode == status, f"{done.args}: {done.returncode}, not {status}: {done.stdout}{done.stderr}")
        expect(text in done.stderr, f"\"{text}\" is not in: {done.stderr}")

    def etcdctl(self, *words, pki=None, ca=None, check=True):
        folder = pki or self.first.etc / "pki"
        tls = ["--cacert", ca or self.first.etc / "pki/ca.pem"]
        if pki != "none":
            tls += ["--cert", folder / "cert.pem", "--key", folder / "key.pem"]
        return self.first.run("env", "ETCDCTL_API=3", "etcdctl", "--endpoints", f"https://{self.first.address}:2379",
                              "--command-timeout=5s", "--dial-timeout=5s", *tls, *words, check=check)

    def vm(self):
        return self.ask("vm", "show", "probe")

    def vm_runs(self):
        shown = self.cli("vm", "show", "probe", "-o", "json", check=False)
        return shown.returncode == 0 and (json.loads(shown.stdout)["status"] or {}).get("state") == "running"

    def qemu(self):
        record = next(self.first.runs.glob("vms/*/launch.json"))
        return json.loads(record.read_text())["pid"]

    def init_refuses_bad_input(self):
        host = self.first
        program = self.world.programs / "holdfast"
        outsider = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run([*outsider, str(program), "version"], capture_output=True, check=False).returncode == 0:
            self.refused(7, "root", run(*outsider, program, "cluster", "init", "--address", host.address, check=False))
        places = host.places()
        self.refused(2, "does not have the address",
                     host.holdfast("cluster", "init", "--address", "10.78.0.99", "--store", "etcd", *places,
                                   check=False))
        busy = subprocess.Popen(host.inside(sys.executable, "-c",
                                            "import socket, sys; s = socket.create_server(('', 7443));"
                                            "print(1, flush=True); sys.stdin.read()"),
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        busy.stdout.readline()
        self.refused(5, "Port 7443", host.holdfast("cluster", "init", "--address", host.address, *places, check=False))
        busy.communicate()
        self.refused(2, "host", host.holdfast("cluster", "init", "--address", host.address, "--host-name", "No Name",
                                              *places, check=False))
        expect(not (host.etc / "config.json").exists(), "refused input must change nothing")

    def init(self):
        host = self.first
        said = host.holdfast("cluster", "init", "--address", host.address, "--host-name", "host1", "--name", "shop",
                             *host.places())
        host.fit_config()
        config = json.loads((host.etc / "config.json").read_text())
        expect(pathlib.Path(config["qemu"]["shim"]).exists(), "init names a shim that exists")
        expect(config["heartbeat_ms"] == 1000 and config["store"]["kind"] == "sqlite", "init's configuration")
        host.follow(said.stdout)
        wait("the single host", lambda: self.cli("host", "ls", check=False).returncode == 0)
        self.refused(4, "is a host already", host.holdfast("cluster", "init", "--address", host.address, *host.places(),
                                                           check=False))
        self.refused(12, "cluster grow", self.cli("cluster", "invite", "host2", check=False))

    def add_inventory(self):
        self.refused(3, "is not a folder", self.cli("datastore", "add", "shared", "/no/such/folder", check=False))
        self.refused(2, "not absolute", self.cli("datastore", "add", "shared", "relative", check=False))
        added = self.cli("datastore", "add", "shared", self.shared)
        expect("is not a mount point" in added.stderr, f"a folder of the root disk is worth a note: {added.stderr}")
        marker = json.loads((self.shared / ".holdfast/datastore.json").read_text())
        expect(self.ask("datastore", "show", "shared")["id"] == marker["id"], "the marker has the datastore's id")
        self.cli("datastore", "add", "shared", self.shared)  # the same again
        self.refused(4, "another datastore named", self.cli("datastore", "add", "shared", "/srv", check=False))
        self.refused(4, "already, as shared", self.cli("datastore", "add", "again", self.shared, check=False))
        self.cli("network", "add", "lan", "--bridge", "vmbr0")
        wait("the datastore's use", lambda: "host1" in self.cli("datastore", "show", "shared").stdout)

    def start_vm(self):
        spec = self.world.folder / "probe.toml"
        line = f"{self.guest['cmdline']} hf.name=probe hf.ledger=1"
        spec.write_text('version = 1\nname = "probe"\nvcpus = 1\nmemory = "128 MiB"\ndatastore = "shared"\n'
                        '[[disks]]\nname = "root"\nsize = "64 MiB"\n[[nics]]\nnetwork = "lan"\n[direct_kernel]\n'
                        f'kernel = "{self.guest["kernel"]}"\ninitrd = "{self.guest["initrd"]}"\ncmdline = "{line}"\n')
        wait("room for the VM", lambda: self.cli("vm", "create", spec, check=False).returncode in (0, 4))
        self.cli("vm", "start", "probe")
        wait("the VM", self.vm_runs)

    def grow(self):
        host, pid, epoch = self.first, self.qemu(), self.vm()["owner"]["epoch"]
        self.refused(5, "Stop it first", host.holdfast("cluster", "grow", *host.places(run_dir=False), check=False))
        expect(self.vm_runs(), "a refused growth changes nothing")
        host.stop("holdfastd")
        said = host.follow_while("cluster", "grow", *host.places(run_dir=False))
        # A daemon that meets the old guard must not act.
        daemon = [line for line in said.splitlines() if line.startswith("Restart holdfastd")]
        host.follow(daemon[0])
        expect(host.services["holdfastd"][0].wait(machines.PATIENCE) == 5, "the guard of a single host is refused")
        del host.services["holdfastd"]
        host.follow(said)
        wait("the grown cluster", lambda: self.cli("vm", "ls", check=False).returncode == 0)
        wait("the VM after growing", self.vm_runs)
        expect(self.qemu() == pid and pathlib.Path(f"/proc/{pid}").exists(), "the VM's QEMU is the same one")
        expect(self.vm()["owner"]["epoch"] == epoch, "the VM was not started anew")
        config = json.loads((host.etc / "config.json").read_text())
        expect(config["store"]["kind"] == "etcd", "config.json names etcd")
        expect((host.state / "store.db.before-grow").exists(), "the old store is kept")
        self.refused(4, "etcd already", host.holdfast("cluster", "grow", *host.places(run_dir=False), check=False))
        self.not_frozen()

    def not_frozen(self):
        wait("host1's session", lambda: "host1" in self.connected())
        frozen = next(self.world.cgroup.glob("host1/**/cgroup.freeze"), None)
        wait("the VM's thaw", lambda: all(p.read_text().strip() == "0"
                                          for p in self.world.cgroup.glob("host1/**/cgroup.freeze")))
        expect(frozen is not None, "the VM has a cgroup")

    def join(self, host):
        invite = wait("an invite", lambda: self.invite(host))
        self.refused(2, "", host.holdfast("cluster", "join", invite[:-20], "--address", host.address, *host.places(),
                                          check=False))
        said = host.follow_while("cluster", "join", "--address", host.address, "--store-member", *host.places(),
                                 stdin=invite)
        host.fit_config()
        host.follow(said)
        wait(f"{host.name}'s connection", lambda: host.name in self.connected())

    def invite(self, host):
        made = self.cli("cluster", "invite", host.name, "--address", host.address, check=False)
        return made.stdout if made.returncode == 0 else None

    def connected(self):
        listed = self.cli("host", "ls", "-o", "json", check=False)
        if listed.returncode != 0:
            return []
        return [one["host"] for one in json.loads(listed.stdout)["hosts"] if one["connected"]]

    def three_hosts(self):
        wait("three connected hosts", lambda: len(self.connected()) == 3)
        members = json.loads(self.etcdctl("member", "list", "-w", "json").stdout)["members"]
        voting = [one for one in members if not one.get("isLearner")]
        expect(len(voting) == 3, f"three members vote: {members}")
        for host in self.world.machines:
            # Whoever was there before learns of the later ones too.
            wait("all endpoints", lambda h=host: len(self.endpoints(h)) == 3)
        wait("the datastore on three hosts", lambda: all(
            one in self.cli("datastore", "ls", check=False).stdout for one in ("host1, host2, host3",)))
        expect(self.vm_runs(), "the VM ran on all the time")

    @staticmethod
    def endpoints(host):
        known = set(json.loads((host.etc / "config.json").read_text())["store"]["endpoints"])
        more = host.state / "store-endpoints"
        return known | set(more.read_text().split()) if more.exists() else known

    def a_copied_marker_is_found(self):
        real, copy = self.world.folder / "twin", self.world.folder / "twin-of-host3"
        real.mkdir()
        self.cli("datastore", "add", "twin", real, "--path", f"host3={copy}")
        wait("the twin on two hosts",
             lambda: "host1, host2" in self.cli("datastore", "show", "twin", check=False).stdout)
        expect("Not on host3" in self.cli("datastore", "show", "twin").stdout, "host3 has no such folder")
        shutil.copytree(real, copy)

        def found():
            hosts = json.loads(self.cli("host", "ls", "-o", "json", check=False).stdout or '{"hosts": []}')["hosts"]
            problems = {one["host"]: "".join(one["datastore_problems"].values()) for one in hosts}
            return "is not one storage" in problems.get("host3", "")
        wait("host3 to see that its twin is a copy", found)
        expect("host1, host2" in self.cli("datastore", "show", "twin").stdout, "the others go on with it")
        kinds = [one["kind"] for one in self.ask("event", "ls")["events"]]
        expect("datastore.not_shared" in kinds, "an event says so")

    def strangers_are_refused(self):
        folder = self.world.folder / "stranger"
        other = self.world.machines[1]
        # A CA of the same name, with all that a host has.
        other.holdfast("cluster", "init", "--address", "10.78.0.1", "--host-name", "host1", "--name", "shop",
                       "--api-port", "17443", "--heartbeat-port", "17444", "--etc", folder,
                       "--state-dir", folder / "var",
                       "--run-dir", folder / "run", "--no-start")
        mixed = self.world.folder / "mixed"  # trusts the right CA, shows a foreign certificate
        shutil.copytree(folder / "admin", mixed)
        shutil.copy(self.first.etc / "pki/ca.pem", mixed / "ca.pem")
        for context in (folder / "admin", mixed):
            done = self.first.holdfast("--context", context, "--host", f"{self.first.address}:7443", "vm", "ls",
                                       check=False)
            expect(done.returncode in (7, 8), f"a foreign certificate is refused: {done.returncode} {done.stderr}")
        for pki in (folder / "pki", "none"):
            done = self.etcdctl("get", "", "--prefix", "--limit=1", pki=pki, check=False)
            expect(done.returncode != 0, "etcd serves nobody without a certificate of the cluster")
        third = self.world.machines[2]
        self.refused(4, "is a host already",
                     third.holdfast("cluster", "join", self.invite(other), "--address", third.address, "--api-port",
                                    "17443", "--heartbeat-port", "17444", *third.places(), check=False))

    def a_host_is_removed(self):
        host, others = self.world.machines[2], ["host1", "host2"]
        self.refused(5, "is connected", self.cli("host", "remove", host.name, check=False))
        for name in ("holdfastd", "holdfast-guard"):
            host.stop(name)
        wait("the end of its session", lambda: sorted(self.connected()) == others)
        self.cli("host", "remove", host.name)
        names = [one["name"] for one in json.loads(self.etcdctl("member", "list", "-w", "json").stdout)["members"]]
        expect(sorted(names) == others, f"its member of the store is gone: {names}")
        old = self.world.folder / "old-pki"
        shutil.copytree(host.etc / "pki", old)

        def shows(pki):
            return self.first.holdfast("--context", pki, "--host", f"{self.first.address}:7443", "vm", "ls",
                                       check=False)
        self.refused(7, "was removed from the cluster", shows(old))
        for name in ("holdfast-guard", "holdfastd"):
            host.start(name, [self.world.programs / name, "--config", host.etc / "config.json"])
        wait("it is told", lambda: "was removed from the cluster" in (host.folder / "holdfastd.log").read_text())
        expect(host.name not in self.cli("host", "ls").stdout, "a removed host that starts is none")
        for name in list(host.services):
            host.stop(name)
        for folder in (host.etc, host.state, host.runs):
            shutil.rmtree(folder)
        self.join(host)
        self.refused(7, "was removed from the cluster", shows(old))
        expect(shows(host.etc / "pki").returncode == 0, "its new certificate is accepted")

    def run(self):
        for step in (self.init_refuses_bad_input, self.init, self.add_inventory, self.start_vm, self.grow):
            print(step.__name__, flush=True)
            step()
        for host in self.world.machines[1:]:
            print("join", host.name, flush=True)
            self.join(host)
        for step in (self.three_hosts, self.a_copied_marker_is_found, self.strangers_are_refused,
                     self.a_host_is_removed):
            print(step.__name__, flush=True)
            step()


def main(story):
    """Runs the class `story` on three machines; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    options = parser.parse_args()
    lacking = missing_here()
    if lacking is not None:
        print(f"skipped: needs {lacking}")
        return MISSING
    guest = json.loads(run(options.programs / "holdfast", "lab", "guest", "-o", "json").stdout)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hf-prod-"))
    folder.chmod(0o755)
    world = machines.World(folder, options.programs.resolve(), 3)
    failed = True
    try:
        story(world, guest).run()
        failed = False
    except Failed:
        traceback.print_exc()
        for log in sorted(folder.glob("host*/*.log")):
            print(f"--- {log}\n" + "\n".join(log.read_text().splitlines()[-25:]))
    finally:
        world.close()
        if not options.keep:
            shutil.rmtree(folder)
    print("failed" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Production))
