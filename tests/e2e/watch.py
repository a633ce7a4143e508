#!/usr/bin/env python3
"""watch.py LAB: looks every 20 ms at all QEMU processes of a lab, from outside, and fails if a VM runs twice.

A process can act if its cgroup is not frozen and its host does not hang. It can change disks if moreover its hold
page's deadline has not passed. Two that can change disks are an error at once. When a host comes back from hanging, its
QEMUs can act until its guard, which hung as well, has frozen them; their disk writes are held meanwhile. That must be
over in OVERLAP.

While a VM moves, its QEMU at the destination waits for memory, and the one at the source stands still from the commit
until it is ended. No page or freezer tells that, but the processor time of their vCPU threads does: both growing by
more than RUNS, in two looks one after the other, is an error.

The VM is what QEMU's command line (-uuid) says, not what the cgroup is called.
"""
import struct
import sys
import threading
import time

import lab as lab_module

PERIOD = 0.02
OVERLAP = 2.0  # seconds; the machine may be busy
PF_EXITING = 4  # include/linux/sched.h
RUNS = 1e6  # ns; a vCPU thread that only waits wakes up now and then


def start_time(pid):
    """Clock ticks since boot: tells a process from a later one with its number."""
    return lab_module.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20]


class Watch:
    def __init__(self, lab):
        self.lab, self.problems, self.samples, self.longest, self.slowest = lab, [], 0, 0.0, 0.0
        self.names, self.since = {}, {}
        self.moved, self.ran, self.both = {}, {}, {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def check(self):
        assert not self.problems, "; ".join(self.problems[:5])

    def summary(self):
        return (f"watch: {self.samples} samples, longest pause {self.slowest * 1000:.0f} ms, {len(self.problems)} "
                f"problems, longest time until a returned host's QEMU was frozen: {self.longest * 1000:.0f} ms")

    def run(self):
        last = time.monotonic()
        while not self.stop.wait(PERIOD):
            self.look()
            now = time.monotonic()
            self.slowest, last = max(self.slowest, now - last), now
            self.samples += 1

    def uuid_of(self, pid):
        """None for a process that is not (or no longer) QEMU."""
        key = (pid, tuple(start_time(pid)))
        if key not in self.names:
            words = lab_module.read(f"/proc/{pid}/cmdline").split("\0")
            if "-uuid" not in words:
                return None
            self.names[key] = words[words.index("-uuid") + 1]
            self.moved[key] = "-incoming" in words
        return self.names[key]

    def came(self, qemu):
        """It was started to take a guest over."""
        return self.moved.get((qemu.pid, tuple(start_time(qemu.pid))), False)

    def runs(self, qemu):
        """Its vCPUs have run since the last look at it."""
        now = 0
        for task in qemu.tasks():
            stat = lab_module.read(f"/proc/{qemu.pid}/task/{task}/stat").rpartition(")")[2].split()
            ends = len(stat) < 7 or int(stat[6]) & PF_EXITING  # it gives its memory back, which takes time as well
            if not ends and lab_module.read(f"/proc/{qemu.pid}/task/{task}/comm").startswith("CPU "):
                now += int((lab_module.read(f"/proc/{qemu.pid}/task/{task}/schedstat").split() or ["0"])[0])
        before, self.ran[qemu.pid] = self.ran.get(qemu.pid, now), now
        return now - before > RUNS

    def can_write(self, qemu, now):
        try:
            with open(self.lab.run / qemu.host / "vms" / qemu.vm / "hold.page", "rb") as page:
                return struct.unpack("<Q", page.read(8))[0] > now
        except (OSError, struct.error):
            return False

    def look(self):
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        able = {}
        hung = {host for host in self.lab.hosts if self.lab.hangs(host)}
        for qemu in self.lab.qemus():
            vm = self.uuid_of(qemu.pid)
            if vm and qemu.host not in hung and not qemu.frozen():
                able.setdefault(vm, []).append(qemu)
        for vm, qemus in able.items():
            if len(qemus) > 1 and any(self.came(qemu) for qemu in qemus):
                self.moving(vm, qemus)
            elif len(qemus) > 1:
                self.twice(vm, qemus, now)
        for vm in [vm for vm in self.since if len(able.get(vm, [])) < 2]:
            del self.since[vm]

    def moving(self, vm, qemus):
        running = [qemu for qemu in qemus if self.runs(qemu)]
        self.both[vm] = self.both.get(vm, 0) + 1 if len(running) > 1 else 0
        if self.both[vm] > 1:
            self.problems.append(f"two that run: {running}")

    def twice(self, vm, qemus, now):
        # A second look at each: states of a moment ago do not count.
        still = [q for q in qemus if self.uuid_of(q.pid) and not q.frozen() and not self.lab.hangs(q.host)]
        if len(still) < 2:
            return
        lasted = (now - self.since.setdefault(vm, now)) / 1e9
        self.longest = max(self.longest, lasted)
        writers = [q for q in still if self.can_write(q, now)]
        if len(writers) > 1:
            self.problems.append(f"two that can write: {writers}")
        elif lasted > OVERLAP:
            self.problems.append(f"two that can act for {lasted:.1f} s: {still}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with Watch(lab_module.Lab(sys.argv[1])) as watcher:
        try:
            while not watcher.problems:
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
    print(watcher.summary(), *watcher.problems, sep="\n")
    sys.exit(1 if watcher.problems else 0)
