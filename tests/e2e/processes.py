#!/usr/bin/env python3
"""Programs that are killed on every host: no guest notices, and they are back at once."""
import os
import signal
import time

import lab as e2e
from lab import wait

VMS = ("a", "b", "c")


def make_guests(lab):
    for number, name in enumerate(VMS, 1):
        lab.create(name, number=number, ledger=True)
    lab.wait_up(*VMS)


def kill_each(lab, service, back):
    """SIGKILL to a service on each host in turn; `back(host)` says when it does its work again."""
    before = lab.pids()
    for host in lab.hosts:
        old = lab.service(host, service)
        begin = time.monotonic()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait(lambda: set(lab.service(host, service)) - set(old), f"{service} of {host} is started again", pause=0.01)
        wait(lambda: back(host), f"{service} of {host} works again", pause=0.02)
        print(f"  {service} of {host} works again after {time.monotonic() - begin:.2f} s")
        assert lab.pids() == before
    lab.all_run()
    assert lab.pids() == before
    assert not [q for q in lab.qemus() if q.frozen()]


def daemon(lab):
    """It answers again, with its VMs adopted."""

    def back(host):
        port = next(h["api_port"] for h in lab.hosts_now() if h["name"] == host)
        answer = lab.cli("--host", f"127.0.0.1:{port}", "vm", "ls", check=False)
        here = lab.qemus_of(host)
        adopted = lab.log_of(host, "holdfastd").rpartition("msg=timing")[2].count("a running VM is taken up again")
        return answer.returncode == 0 and adopted == len(here)

    kill_each(lab, "holdfastd", back)


def guard(lab):
    """It protects its VMs again: their hold pages move on."""

    def deadline(qemu):
        return (lab.run / qemu.host / "vms" / qemu.vm / "hold.page").read_bytes()[:8]

    def back(host):
        pages = {qemu: deadline(qemu) for qemu in lab.qemus_of(host)}
        wait(lambda: all(deadline(qemu) != page for qemu, page in pages.items()), f"the hold pages of {host} move on")
        return True

    kill_each(lab, "holdfast-guard", back)


def etcd(lab):
    kill_each(lab, "etcd", lambda host: lab.connected() == set(lab.hosts))


def qemu(lab):
    """A QEMU that dies is started again where it was."""
    before = lab.vms()["a"]
    for running in lab.qemus(before["id"]):
        os.kill(running.pid, signal.SIGKILL)
    wait(lambda: (lab.vms()["a"]["owner"]["epoch"] > before["owner"]["epoch"]), "it has a new epoch")
    after = lab.all_run(["a"])["a"]
    assert after["owner"]["host"] == before["owner"]["host"]
    lab.wait_up("a")
    assert any(event["subject"] == "a" for event in lab.events("vm.crashed"))


if __name__ == "__main__":
    e2e.run([daemon, guard, etcd, qemu], "e2eproc", setup=make_guests)
