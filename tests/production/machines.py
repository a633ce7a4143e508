"""Machines for a test: network namespaces on one switch, and processes kept in them. Root only.

Nothing outside the namespaces, the given folder and one cgroup folder is touched; close() ends what was started.
"""
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

PATIENCE = 180  # seconds: a limit for what hangs, not a figure


class Failed(Exception):
    pass


def run(*words, check=True):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise Failed(f"{shlex.join(str(w) for w in words)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done


def wait(what, condition, patience=PATIENCE):
    """Until condition() gives something; that is returned."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"waited {patience} s in vain: {what}")
        time.sleep(0.1)


def cgroup2_mount():
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return pathlib.Path(line.split()[4])
    return None


class Machine:
    """One namespace; its folders; the processes that a service manager would keep there."""

    def __init__(self, world, index):
        self.world, self.name, self.index = world, f"host{index}", index
        self.namespace = f"{world.prefix}-{index}"
        self.address = f"10.78.0.{index}"
        self.folder = world.folder / self.name
        self.etc, self.state, self.runs = self.folder / "etc", self.folder / "var", self.folder / "run"
        self.folder.mkdir()
        self.services = {}  # name -> (process, words)

    def inside(self, *words):
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *(str(w) for w in words)]

    def run(self, *words, check=True):
        return run(*self.inside(*words), check=check)

    def places(self, run_dir=True):
        words = ["--etc", self.etc, "--state-dir", self.state, "--no-start"]
        return words + (["--run-dir", self.runs] if run_dir else [])

    def holdfast(self, *words, check=True):
        return self.run(self.world.programs / "holdfast", *words, check=check)

    def start(self, name, words):
        if name in self.services:
            self.stop(name)
        log = open(self.folder / f"{name}.log", "a", encoding="utf-8")
        process = subprocess.Popen(self.inside(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        log.close()
        self.services[name] = (process, words)

    def stop(self, name, how=signal.SIGTERM):
        process, _ = self.services.pop(name)
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed(f"{name} of {self.name} did not end") from None

    def cut_power(self):
        """Everything that runs there ends at once, VMs too; what to start again, in the order of before."""
        begun = [(name, words) for name, (_, words) in self.services.items()]
        for name, _ in begun:
            self.stop(name, signal.SIGKILL)
        vms = self.world.cgroup / self.name
        if vms.exists():
            (vms / "cgroup.kill").write_text("1")
        return begun

    def follow(self, text):
        """Does what the printed lines say: "Start NAME: COMMAND", "Restart NAME: COMMAND"."""
        for line in text.splitlines():
            found = re.match(r"(?:Start|Restart) (\S+): (.+)", line)
            if found:
                self.start(found[1], shlex.split(found[2]))

    def follow_while(self, *words, stdin=""):
        """Runs a command that waits for what it tells the user to start, and starts it."""
        process = subprocess.Popen(self.inside(self.world.programs / "holdfast", *words), text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(stdin)
        process.stdin.close()
        late = ""
        for line in process.stdout:
            # The etcd member at once, the rest once the command is through: config.json is still to be fitted.
            if line.startswith("Start holdfast-etcd"):
                self.follow(line)
            else:
                late += line
        errors = process.stderr.read()
        if process.wait() != 0:
            raise Failed(f"{words}: {process.returncode}: {late}{errors}")
        return late

    def fit_config(self):
        """What three hosts on one machine need: cgroup folders of their own."""
        path = self.etc / "config.json"
        config = json.loads(path.read_text())
        config["cgroup_root"] = str(self.world.cgroup / self.name)
        config["memory_mib"] = 1024
        path.write_text(json.dumps(config, indent=2))


class World:
    """A switch and `count` machines on it, of the class `machine`."""

    def __init__(self, folder, programs, count, machine=Machine):
        self.folder, self.programs = folder, programs
        self.prefix = f"hfp{os.getpid()}"
        self.cgroup = cgroup2_mount() / self.prefix
        self.cgroup.mkdir()
        self.machines = []
        switch = f"{self.prefix}-sw"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for index in range(1, count + 1):
            one = machine(self, index)
            run("ip", "netns", "add", one.namespace)
            run("ip", "-n", switch, "link", "add", f"p{index}", "type", "veth", "peer", "name", "eth0", "netns",
                one.namespace)
            run("ip", "-n", switch, "link", "set", f"p{index}", "master", "br0", "up")
            run("ip", "-n", one.namespace, "address", "add", f"{one.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", one.namespace, "link", "set", link, "up")
            run("ip", "-n", one.namespace, "link", "add", "vmbr0", "type", "bridge")
            run("ip", "-n", one.namespace, "link", "set", "vmbr0", "up")
            self.machines.append(one)

    def close(self):
        for machine in self.machines:
            for name in list(machine.services):
                try:
                    machine.stop(name)
                except Failed as failed:
                    print(failed)
        self._end_cgroups()
        for line in run("ip", "netns", "list", check=False).stdout.splitlines():
            if line.split()[0].startswith(self.prefix + "-"):
                run("ip", "netns", "delete", line.split()[0], check=False)

    def _end_cgroups(self):
        def empty():
            return "populated 0" in (self.cgroup / "cgroup.events").read_text()

        (self.cgroup / "cgroup.kill").write_text("1")
        wait("the VMs' end", empty)
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            os.rmdir(folder)
