#!/usr/bin/env python3
"""Hosts that fail: who takes over, who must not, and what the ledgers say afterwards."""
import time

import lab as e2e
from lab import wait

VMS = ("a", "b", "c")


def make_guests(lab):
    for number, name in enumerate(VMS, 1):
        lab.create(name, number=number, ledger=True, rate=200)
    lab.wait_up(*VMS)


def victim(lab, avoid_leader=True):
    """A host with VMs, not the leader's where that can be."""
    vms, leader = lab.vms(), lab.leader()
    hosts = sorted({vm["owner"]["host"] for vm in vms.values()}, key=lambda host: (host == leader) == avoid_leader)
    host = hosts[0]
    return host, [name for name, vm in vms.items() if vm["owner"]["host"] == host]


def settled(lab):
    """Every host is healed and in contact, every VM runs."""
    lab.heal()
    wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
    lab.all_run()


def taken_over(lab, host, names):
    def so():
        vms = lab.try_vms()
        owners = [vms[name]["owner"] for name in names] if vms else []
        return vms and all(owner["host"] != host and owner["phase"] == "claimed" for owner in owners)

    wait(so, f"the VMs of {host} are claimed elsewhere")
    return lab.all_run(names)


def check_ledgers(lab):
    lab.stop_all()
    wait(lambda: not lab.qemus(), "no QEMU is left")
    figures = {name: lab.ledger(name) for name in VMS}
    print(f"  ledgers are clean: {figures}")
    for name in VMS:
        lab.cli("vm", "start", name)
    lab.wait_up(*VMS)
    return {name: int(one["incarnation"]) for name, one in figures.items()}


def power(lab):
    host, names = victim(lab)
    before = {name: lab.vms()[name] for name in names}
    begin = time.monotonic()
    lab.fault(host, "power")
    after = taken_over(lab, host, names)
    print(f"  {names} of {host} run elsewhere after {time.monotonic() - begin:.1f} s")
    for name in names:
        assert after[name]["owner"]["epoch"] > before[name]["owner"]["epoch"]
    lab.wait_up(*names)
    assert any(event["subject"] == host for event in lab.events("ha.host.dead"))
    settled(lab)
    incarnations = check_ledgers(lab)
    assert all(incarnations[name] == 2 for name in names)


def frozen(lab):
    """A hanging host is taken over while its guests write; then it goes on."""
    host, names = victim(lab)
    lab.fault(host, "hang")
    taken_over(lab, host, names)
    lab.wait_up(*names)
    lab.heal(host)
    wait(lambda: all(len(lab.qemus(vm["id"])) == 1 for vm in lab.vms().values()), "one QEMU of each VM is left")
    settled(lab)
    assert all(vm["owner"]["host"] != host for name, vm in lab.vms().items() if name in names)
    check_ledgers(lab)


def contact(lab):
    """All contact of one host is cut just long enough that its VMs pause: nobody takes over, they go on."""
    settled(lab)
    for attempt in range(8):
        host, names = victim(lab)
        before, mine = lab.pids(), [q for q in lab.qemus() if q.host == host]
        for fault in ("storage", "net"):
            lab.fault(host, fault)
        wait(lambda: all(qemu.frozen() for qemu in mine), "the guard has frozen its VMs", pause=0.005)
        lab.heal(host)
        settled(lab)
        if lab.pids() == before:
            print(f"  paused and went on, at attempt {attempt + 1}")
            return
        print(f"  attempt {attempt + 1}: the margin was missed, the VMs were taken over")
        lab.wait_up(*VMS)
    raise AssertionError("the VMs were taken over each time")


def outage(lab, seconds=15):
    """The whole cluster stands without network and storage: everything pauses, nothing moves, everything goes on."""
    settled(lab)
    before, restarts = lab.pids(), len(lab.events("ha.vm.restart"))
    for fault in ("storage", "net"):
        lab.fault("all", fault)
    begin = time.monotonic()
    wait(lambda: all(qemu.frozen() for qemu in lab.qemus()), "all VMs are frozen", pause=0.005)
    frozen_after = time.monotonic() - begin
    time.sleep(max(0.0, begin + seconds - time.monotonic()))  # the outage itself
    begin = time.monotonic()
    settled(lab)
    print(f"  frozen after {frozen_after:.1f} s; all VMs run {time.monotonic() - begin:.1f} s after the end")
    assert lab.pids() == before, f"{lab.pids()} is not {before}"
    assert len(lab.events("ha.vm.restart")) == restarts
    wait(lambda: {event["subject"] for event in lab.events("ha.vm.frozen")} >= set(VMS), "each freeze is told of")
    check_ledgers(lab)


if __name__ == "__main__":
    e2e.run([power, frozen, contact, outage], "e2etake", setup=make_guests)
