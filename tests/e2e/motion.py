#!/usr/bin/env python3
"""A running VM moves between hosts: its memory, its disk and its connections with it, and whatever is killed meanwhile,
it runs once, with its memory, and nothing is left behind. HOLDFAST_ENGINE=qemu: by QEMU's own migration (QEMU 9 or
later, where guests are emulated)."""
import os
import signal

import lab as e2e
from lab import wait

NAME, NUMBER = "walker", 1
ADDRESS = f"10.78.1.{NUMBER}"
ENGINE = os.environ.get("HOLDFAST_ENGINE", "holdfast")
SLOW = "100"  # Mbit/s: the copy lasts for seconds


def make_guest(lab):
    lab.create(NAME, number=NUMBER, ledger=True, words="hf.pattern=48 hf.dirty=4")
    lab.wait_up(NAME)


def vm(lab):
    return lab.vms()[NAME]


def owner(lab):
    return vm(lab)["owner"]["host"]


def other(lab):
    """A host that the VM is not on."""
    return next(host for host in lab.hosts if host != owner(lab) and host in lab.connected())


def task(lab, number):
    return lab.ask("task", "show", number)


def begin(lab, to, *words):
    """Starts a motion; its task, once memory is copied."""
    number = lab.ask("vm", "migrate", NAME, "--to", to, "--engine", ENGINE, "--no-wait", *words)["id"]
    wait(lambda: task(lab, number)["progress"] > 0 or ended(lab, number), "memory is copied", pause=0.05)
    return number


def ended(lab, number):
    return task(lab, number)["state"] in ("succeeded", "failed")


def processes(lab, host):
    """The motion processes of a host."""
    return [int(pid) for pid in e2e.read(f"{lab.group}/{host}/motions/cgroup.procs").split()]


def consoles(lab):
    """All that the guest said on any host since it booted there or came there."""
    return "".join(lab.console(vm(lab)["id"], host) for host in lab.hosts)


def boots(lab):
    return int(lab.run_cli("lab", "ledger-check", str(lab.disk(NAME)), check=False).stdout.partition("incarnation=")[2]
               .split()[0])


def goes_on(lab):
    """It writes its disk."""

    def last():
        words = lab.run_cli("lab", "ledger-check", str(lab.disk(NAME)), check=False).stdout
        return int(words.partition("last_sequence=")[2].split()[0])

    before = last()
    wait(lambda: last() > before + 3, "the guest writes its disk")


def intact(lab, since):
    """It runs once and goes on, with the memory that it had, and nothing of a motion is left."""
    lab.all_run()
    goes_on(lab)
    assert boots(lab) == since, "the guest has booted"
    assert "PATTERN BROKEN" not in consoles(lab), "its memory is damaged"
    clean(lab)


def interfaces(lab, host):
    """Of its network namespace. The guest's TAPs begin with "hf"."""
    return [line.split()[1].rstrip(":").partition("@")[0]
            for line in lab.lab("exec", host, "--", "ip", "-o", "link").splitlines()]


def clean(lab):
    """Nothing of the VM is left but where it runs."""
    here, machine = owner(lab), vm(lab)["id"]

    def so():
        for host in lab.hosts:
            if processes(lab, host):
                return False
            folder = lab.run / host / "vms" / machine
            if host != here and (folder.exists() or os.path.isdir(f"{lab.group}/{host}/vms/{machine}")):
                return False
            if host != here and any(name.startswith("hf") for name in interfaces(lab, host)):
                return False
        return not lab.cli("vm", "show", NAME, "-o", "json").count('"preparing"')

    wait(so, "nothing of a motion is left")


def moves(lab):
    """Six moves: the guest never boots, one TCP connection lasts through all of them, the last stop is reported."""
    since = boots(lab)
    stream = lab.stream(ADDRESS)
    for _ in range(6):
        to = other(lab)
        said = lab.ask("vm", "migrate", NAME, "--to", to, "--engine", ENGINE)
        assert owner(lab) == to
        report = said["report"]
        assert report["engine"] == ENGINE
        assert report["to"] == to and report["rounds"] > 1 and report["stop_us"] > 0
        print(f"  to {to}: {report['took_ms']} ms, {report['rounds']} rounds, {report['bytes_sent'] >> 20} MiB, "
              f"stop {report['stop_us'] / 1000:.1f} ms")
        intact(lab, since)
    told = e2e.end_of(stream)
    print(f"  {told}")
    assert told["tcp"] == "held" and told["answers"] > 10


def chosen(lab):
    """Without --to the leader chooses; a dry run says where, and why not, and changes nothing."""
    before = owner(lab)
    answer = lab.ask("vm", "migrate", NAME, "--dry-run")
    assert answer["to"] and answer["to"] != before and not answer["reasons"]
    refused = lab.cli("vm", "migrate", NAME, "--to", before, "--dry-run", "-o", "json", check=False)
    assert before in refused.stdout + refused.stderr
    assert owner(lab) == before
    lab.cli("vm", "migrate", NAME)
    assert owner(lab) != before
    intact(lab, boots(lab))


def cancelled(lab):
    since, before = boots(lab), owner(lab)
    number = begin(lab, other(lab), "--limit-bandwidth", SLOW)
    lab.cli("task", "cancel", number)
    wait(lambda: ended(lab, number), "the task has ended")
    assert task(lab, number)["state"] == "failed" and owner(lab) == before
    intact(lab, since)


def ended_by_user(lab):
    """`vm kill` while memory is copied: the motion ends with the VM, on both hosts, and it can be started again."""
    number = begin(lab, other(lab), "--limit-bandwidth", SLOW)
    lab.cli("vm", "kill", NAME)
    moved = task(lab, number)
    assert moved["state"] == "failed" and "overridden" in moved["message"] and moved["finished"], moved
    wait(lambda: not lab.qemus(vm(lab)["id"]) and not any(processes(lab, host) for host in lab.hosts), "all has ended")
    assert vm(lab)["status"]["state"] == "stopped" and not vm(lab)["motion"]
    lab.ledger(NAME)
    lab.cli("vm", "start", NAME)
    lab.wait_up(NAME)
    (kill,) = [t for t in lab.ask("task", "ls")["tasks"] if t["kind"] == "vm.kill"]
    assert kill["state"] == "succeeded" and kill["finished"], "the leader's or the agent's end has a time"


def killed(lab):
    """SIGKILL to each process that has a part in it, while memory is copied."""
    for victim in ("source's motion", "destination's motion", "source's holdfastd", "destination's holdfastd",
                   "source's holdfast-guard", "destination's holdfast-guard", "destination's QEMU", "leader's etcd"):
        since, before, to = boots(lab), owner(lab), other(lab)
        number = begin(lab, to, "--limit-bandwidth", SLOW)
        side, _, what = victim.partition("'s ")
        host = {"source": before, "destination": to, "leader": lab.leader()}[side]
        pids = (processes(lab, host) if what == "motion" else
                [q.pid for q in lab.qemus_of(host) if q.vm == vm(lab)["id"]] if what == "QEMU" else
                lab.service(host, what))
        assert pids, f"there is no {victim}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait(lambda: ended(lab, number), "the task has ended")
        print(f"  {victim}: {task(lab, number)['state']}: {task(lab, number).get('message', '')}")
        assert owner(lab) == (to if task(lab, number)["state"] == "succeeded" else before)
        intact(lab, since)


def broken(lab):
    """The link, the destination's power, the source's power go while memory is copied."""
    for fault in ("net=motion", "power"):
        since, before, to = boots(lab), owner(lab), other(lab)
        number = begin(lab, to, "--limit-bandwidth", SLOW)
        lab.fault(to, fault)
        wait(lambda: ended(lab, number), "the task has ended")
        print(f"  destination's {fault}: {task(lab, number)['message']}")
        assert owner(lab) == before
        lab.heal()
        wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
        intact(lab, since)
    since, before, to = boots(lab), owner(lab), other(lab)
    begin(lab, to, "--limit-bandwidth", SLOW)
    lab.fault(before, "power")
    wait(lambda: lab.vms()[NAME]["owner"]["host"] != before, "it was restarted elsewhere")
    lab.heal()
    wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
    lab.wait_up(NAME)
    intact(lab, since + 1)


if __name__ == "__main__":
    e2e.run([moves, chosen, cancelled, ended_by_user, killed, broken], "e2emove", setup=make_guest)
