#!/usr/bin/env python3
"""EVC in a cluster whose hosts can give guests different processors, because their QEMUs emulate different features.

host1 and host2 have QEMU 10, host3 the installed 7.2. Their QEMU is a symbolic link, so that the test can exchange it,
as a package's upgrade does. Exit status 77 where QEMU 10 is not there: tools/qemu-backports brings it."""
import os
import pathlib
import shutil
import sys
import tempfile

import lab as e2e
from lab import read, wait

OLD, NEW = shutil.which("qemu-system-x86_64"), "/var/cache/holdfast/qemu-10/bin/qemu-system-x86_64"
PINNED = "qemu64-v1,enforce=on,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm"
WESTMERE = "Westmere-v2,enforce=on,spec-ctrl=off"
SKYLAKE = "Skylake-Client-v3,enforce=on,invpcid=off,pcid=off,spec-ctrl=off,tsc-deadline=off,xsavec=off"
links = pathlib.Path(tempfile.mkdtemp(prefix="hf-evc-"))


def give(host, qemu):
    """This program is the host's QEMU from now on."""
    made = links / f"{host}.new"
    made.symlink_to(qemu)
    made.rename(links / host)


def cpu_of(lab, name):
    """The -cpu of the VM's QEMU, which is one only, and its host."""
    vm = lab.vms()[name]["id"]
    (qemu,) = wait(lambda: lab.qemus(vm) if len(lab.qemus(vm)) == 1 else None, f"{name} is on one host only")
    words = read(f"/proc/{qemu.pid}/cmdline").split("\0")
    return words[words.index("-cpu") + 1], qemu.host


def refused(lab, *words):
    done = lab.cli(*words, check=False)
    assert done.returncode != 0, f"{words} was not refused: {done.stdout}"
    return done.stderr + done.stdout


def hidden(evc, host):
    return next(one for one in evc["hosts"] if one["host"] == host)["hidden"]


def chosen(lab):
    """The best that all can give, explained; what is higher is refused with the host that cannot."""
    lab.create("old", start=False, number=1)
    lab.cli("vm", "start", "old", "--on", "host1")
    assert cpu_of(lab, "old") == (PINNED, "host1")
    wait(lambda: lab.ask("cluster", "show")["level"] == 2, "the leader has seen that every host knows baselines")
    assert "host3 lacks x2apic of the cluster's CPU baseline SandyBridge-v2." in refused(
        lab, "cluster", "set", "--evc", "SandyBridge")
    assert "is no CPU baseline" in refused(lab, "cluster", "set", "--evc", "Z80")
    evc = lab.ask("cluster", "set", "--evc", "auto")
    assert evc["baseline"] == "Westmere-v2" and evc["automatic"] and evc["keep"] == ["old"], evc
    assert len(evc["forced_by"]) == 1 and evc["forced_by"][0].startswith("host3 lacks x2apic"), evc
    assert "avx2" in hidden(evc, "host1") and "x2apic" not in hidden(evc, "host3"), evc
    print(lab.cli("cluster", "evc"), end="")


def kept(lab):
    """A VM that was started before keeps what it sees, a new one gets the baseline; both take theirs with them."""
    lab.create("new", start=False, number=2)
    lab.cli("vm", "start", "new", "--on", "host3")
    lab.wait_up("old", "new")
    assert cpu_of(lab, "new") == (WESTMERE, "host3")
    streams = [lab.stream("10.78.1.1"), lab.stream("10.78.1.2")]
    lab.cli("vm", "migrate", "new", "--to", "host1")
    lab.cli("vm", "migrate", "old", "--to", "host2")
    assert cpu_of(lab, "new") == (WESTMERE, "host1") and cpu_of(lab, "old") == (PINNED, "host2")
    for stream in streams:
        assert e2e.end_of(stream)["tcp"] == "held"
    lab.cli("vm", "kill", "old")
    lab.cli("vm", "start", "old")
    assert cpu_of(lab, "old")[0] == WESTMERE
    assert lab.ask("cluster", "evc")["keep"] == []


def raised(lab):
    """The host that was in the way gets another QEMU: no daemon is restarted, and a higher baseline can be set."""
    give("host3", NEW)
    wait(lambda: lab.ask("cluster", "evc")["best"] == "Skylake-Client-v3", "the new QEMU of host3 is seen")
    assert lab.ask("cluster", "set", "--evc", "auto")["baseline"] == "Skylake-Client-v3"
    lab.create("best", start=False, number=3)
    lab.cli("vm", "start", "best", "--on", "host1")
    lab.wait_up("best")
    lab.cli("vm", "migrate", "best", "--to", "host2")
    assert cpu_of(lab, "best") == (SKYLAKE, "host2") and cpu_of(lab, "new")[0] == WESTMERE
    assert "new" in lab.ask("cluster", "evc")["keep"]


def fallen(lab):
    """A host that comes back with less is given no VM, and says why."""
    give("host3", OLD)
    wait(lambda: not next(h for h in lab.ask("cluster", "evc")["hosts"] if h["host"] == "host3")["meets"],
         "host3 is seen to be below the baseline")
    why = refused(lab, "vm", "migrate", "best", "--to", "host3", "--dry-run")
    assert "of the VM's CPU Skylake-Client-v3" in why and "x2apic" in why, why
    assert "host3 lacks" in why and "of the cluster's CPU baseline" in why, why
    lab.create("late", start=False, memory=64)
    why = refused(lab, "vm", "start", "late", "--on", "host3")
    assert "host3 lacks" in why and "x2apic" in why, why
    lab.cli("vm", "start", "late")
    assert cpu_of(lab, "late")[1] != "host3" and cpu_of(lab, "late")[0] == SKYLAKE
    assert lab.ask("cluster", "set", "--evc", "off")["baseline"] == ""
    lab.cli("vm", "kill", "late")
    lab.cli("vm", "start", "late", "--on", "host3")
    assert cpu_of(lab, "late") == (PINNED, "host3")


if __name__ == "__main__":
    if not os.path.exists(NEW):
        print(f"{NEW} is not there: run tools/qemu-backports")
        sys.exit(77)
    links.chmod(0o755)
    try:
        for host, qemu in (("host1", NEW), ("host2", NEW), ("host3", OLD)):
            give(host, qemu)
        qemus = [word for host in ("host1", "host2", "host3") for word in ("--qemu", f"{host}={links / host}")]
        e2e.run([chosen, kept, raised, fallen], "e2eevc", words=qemus)
    finally:
        shutil.rmtree(links)
