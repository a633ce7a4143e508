#!/usr/bin/env python3
"""Maintenance of a host with 8 guests: all of them leave it by vMotion, several at a time, none boots, each keeps
its connections; the host is given nothing until it leaves maintenance; and it can be called off.

How long new connections failed is printed, not judged: the guests' emulation shares two processors here."""
import os
import queue
import signal
import subprocess
import threading
import time

import lab as e2e
from lab import BIN, wait

HOST = "host1"
GUESTS = {f"web{number}": f"10.78.1.{number}" for number in range(1, 9)}


def make_guests(lab):
    for number, name in enumerate(GUESTS, 1):
        lab.create(name, start=False, number=number)
        lab.cli("vm", "start", name, "--on", HOST, "--no-wait")
    lab.all_run()
    lab.wait_up(*GUESTS)


class Probes:
    """Asks every guest for its web page all the time; how long each had no answer at most."""

    def __init__(self, lab):
        self.child = lab.probe(*GUESTS.values())
        self.lines, self.state, self.since, self.longest = queue.Queue(), {}, {}, {}
        threading.Thread(target=self.read, daemon=True).start()
        wait(lambda: self.look() and self.all_up(), "every guest answers")
        self.longest = {}

    def read(self):
        for line in self.child.stdout:
            self.lines.put(line.split())

    def look(self):
        while not self.lines.empty():
            when, address, state = self.lines.get()
            if state == "up" and self.state.get(address) == "down":
                self.longest[address] = max(self.longest.get(address, 0.0), float(when) - self.since[address])
            self.state[address], self.since[address] = state, float(when)
        return True

    def all_up(self):
        return len(self.state) == len(GUESTS) and set(self.state.values()) == {"up"}

    def end(self):
        wait(lambda: self.look() and self.all_up(), "every guest answers")
        os.killpg(self.child.pid, signal.SIGTERM)
        self.child.wait()
        return {name: self.longest.get(address, 0.0) for name, address in GUESTS.items()}


class Streams:
    """A TCP connection to every guest, busy until the end."""

    def __init__(self, lab):
        self.children = {name: lab.stream(address) for name, address in GUESTS.items()}

    def end(self):
        return {name: e2e.end_of(child) for name, child in self.children.items()}


def host(lab):
    return lab.ask("host", "show", HOST)


def on_host(lab):
    return [name for name, vm in lab.vms().items() if vm["owner"] and vm["owner"]["host"] == HOST]


def evacuated(lab):
    assert sorted(on_host(lab)) == sorted(GUESTS)
    before = {name: vm["owner"]["epoch"] for name, vm in lab.vms().items()}
    probes, streams = Probes(lab), Streams(lab)
    begin = time.monotonic()
    words = [BIN / "holdfast", *lab.admin(), "host", "maintenance", HOST]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command:
        most = 0
        while command.poll() is None:
            moving = [vm for vm in lab.vms().values() if vm["motion"]]
            most = max(most, len(moving))
        said = command.stdout.read()
    took = time.monotonic() - begin
    assert command.returncode == 0, said
    silent, told = probes.end(), streams.end()
    print(said, end="")
    print(f"  {len(GUESTS)} guests in {took:.1f} s, up to {most} at a time")
    for name, one in told.items():
        print(f"  {name}: new connections failed for {silent[name]:.1f} s; TCP {one['tcp']}, longest wait "
              f"{one['longest_ms']:.0f} ms; {one['lost_in_a_row']} datagrams lost in a row")
    assert most > 1, "one after the other"
    for name, one in told.items():
        assert one["tcp"] == "held" and one["answers"] > 10, f"{name}: {one}"
    assert not on_host(lab) and not lab.qemus_of(HOST) and host(lab)["maintenance"]["state"] == "in"
    for name, vm in lab.all_run().items():
        assert vm["owner"]["epoch"] == before[name] + 1, f"{name} has not moved once"
        assert "guest up" not in lab.console(vm["id"], vm["owner"]["host"]), f"{name} has booted"


def closed(lab):
    """Neither a start nor a move nor a restart brings a VM to it."""
    refused = lab.cli("vm", "migrate", "web1", "--to", HOST, "--dry-run", check=False)
    assert "is in maintenance" in refused.stdout, refused.stdout
    lab.create("late", start=False, memory=64)
    assert lab.cli("vm", "start", "late", "--on", HOST, check=False).returncode != 0
    lab.cli("vm", "start", "late")
    victim = lab.vms()["web1"]["owner"]["host"]
    lab.fault(victim, "power")
    wait(lambda: (lab.try_vms() or {"web1": {"owner": {"host": victim}}})["web1"]["owner"]["host"] != victim,
         "its VMs are restarted")
    lab.heal()
    wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
    lab.all_run()
    assert not on_host(lab) and not lab.qemus_of(HOST)


def left(lab):
    lab.cli("host", "maintenance", HOST, "--leave")
    assert host(lab)["maintenance"] is None
    lab.cli("vm", "migrate", "late", "--to", HOST)
    assert on_host(lab) == ["late"]


def called_off(lab):
    """What waits ends, what is under way arrives, and nothing more leaves the host."""
    busy = max((name for name in lab.hosts if name != HOST), key=lambda name: len(lab.qemus_of(name)))
    lab.cli("host", "maintenance", busy, "--no-wait")
    wait(lambda: any(vm["motion"] for vm in lab.vms().values()), "the first VM is on its way")
    lab.cli("host", "maintenance", busy, "--leave")

    def over():
        tasks = [t for t in lab.ask("task", "ls")["tasks"] if t["requested_by"] == f"maintenance of {busy}"]
        return tasks and all(t["state"] in ("succeeded", "failed") for t in tasks)

    wait(over, "no task of it is left")
    lab.all_run()
    assert lab.ask("host", "show", busy)["maintenance"] is None


if __name__ == "__main__":
    e2e.run([evacuated, closed, left, called_off], "e2emaint", setup=make_guests)
