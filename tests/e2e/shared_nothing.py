#!/usr/bin/env python3
"""A running VM goes to another host and takes its disks along, to a datastore that only that host has; and whatever is
killed meanwhile, one guest runs, loses nothing of what it was told is written, and nothing is left behind."""
import os
import signal

import lab as e2e
import storage
from lab import wait
from storage import NAME, begin, clean, disk, ended, figures, home_of, intact, task, told_all, vm

SEED = '[cloud_init]\nuser_data = "#cloud-config\\n"\n'


def local(host):
    return f"local-{host}"


def make_guest(lab):
    for host in lab.hosts:
        lab.folders[local(host)] = lab.dir / "hosts" / host / "datastores" / "local"
    storage.make_guest(lab, datastore=local("host1"))


def other(lab):
    """The host that it is to go to: the next one."""
    return lab.hosts[(lab.hosts.index(vm(lab)["owner"]["host"]) + 1) % len(lab.hosts)]


def helpers(lab, host, name):
    """Processes of motions on that host."""
    pids = e2e.read(f"{lab.group}/{host}/motions/cgroup.procs").split()
    return [int(pid) for pid in pids if e2e.read(f"/proc/{pid}/comm").strip() == name]


def words(lab, to=None):
    to = to or other(lab)
    return "--to", to, "--datastore", local(to)


def is_on(lab, host):
    return vm(lab)["owner"]["host"] == host and vm(lab)["spec"]["datastore"] == local(host)


def moves(lab):
    """From host to host, converted on the way, and one disk alone to shared storage."""
    since = figures(lab)["incarnation"]
    for more in (["--format", "qcow2"], ["--format", "raw"], []):
        to = other(lab)
        said = lab.ask("vm", "migrate", NAME, *words(lab, to), *more)
        assert is_on(lab, to), vm(lab)
        assert not more or all(each["format"] == more[1] for each in vm(lab)["spec"]["disks"])
        intact(lab, since)
        report = task(lab, said["id"])["report"]
        print(f"  {' '.join(['to', to, *more])}: {report['disks']} disks, {report['disk_bytes'] >> 20} MiB, "
              f"{report['took_ms']} ms, stop {report['stop_us'] / 1000:.1f} ms")
        assert report["disks"] == 2
    told_all(lab)


def seed(lab):
    """The cloud-init seed goes along."""
    host, to = "host1", "host2"
    text = lab.spec("seeded", datastore=local(host)).replace("[direct_kernel]", SEED + "[direct_kernel]")
    lab.create("seeded", text=text)
    lab.wait_up("seeded")
    lab.cli("vm", "migrate", "seeded", "--to", to, "--datastore", local(to))
    moved = lab.vms()["seeded"]
    here, there = (lab.folders[local(where)] / moved["id"] for where in (host, to))
    wait(lambda: not here.exists(), "nothing is left at its old host")
    assert [f.name for f in there.iterdir()] == [f"seed.{moved['spec']['home_tag']}.iso"]
    assert moved["owner"]["host"] == to
    lab.cli("vm", "kill", "seeded")
    wait(lambda: not lab.qemus(moved["id"]), "its QEMU is gone")
    lab.cli("vm", "delete", "seeded")


def limited(lab):
    """A limit holds for disks and memory together."""
    since = figures(lab)["incarnation"]
    said = lab.ask("vm", "migrate", NAME, *words(lab), "--limit-bandwidth", "100")
    intact(lab, since)
    report = task(lab, said["id"])["report"]
    sent = report["disk_bytes"] + report["bytes_sent"]
    assert sent * 8 / 100e6 < report["took_ms"] / 1000 * 1.1, report


def refused(lab):
    """Every reason at once, and nothing is changed."""
    host, to = vm(lab)["owner"]["host"], other(lab)
    before = vm(lab)["spec"]
    answer = lab.ask("vm", "migrate", NAME, *words(lab), "--dry-run")
    assert answer["to"] == to and not answer["reasons"], answer
    for wrong, why in ((["--to", to], "local to its host"),
                       (["--to", to, "--datastore", local(host)], "nothing to move"),
                       (["--to", to, "--datastore", "nowhere"], "no datastore named"),
                       (["--to", to, "--datastore", local(to), "--disk", "data"], "local to its host"),
                       (["--to", to, "--datastore", local(to), "--engine", "qemu"], "does not take the disks")):
        said = lab.cli("vm", "migrate", NAME, *wrong, check=False)
        print(f"  {said.stderr.strip()}")
        assert said.returncode != 0 and why in said.stderr, said
    assert vm(lab)["spec"] == before and vm(lab)["owner"]["host"] == host
    clean(lab)


def one_disk(lab):
    """What is on shared storage stays there while the rest goes along; and one disk may go alone."""
    since = figures(lab)["incarnation"]
    lab.cli("vm", "migrate", NAME, "--datastore", "shared1", "--disk", "data")
    to = other(lab)
    lab.cli("vm", "migrate", NAME, "--to", to, "--datastore", "shared2")
    assert vm(lab)["owner"]["host"] == to and home_of(lab, "data") == home_of(lab, "ledger") == "shared2"
    intact(lab, since)
    to = other(lab)
    lab.cli("vm", "migrate", NAME, "--to", to, "--datastore", local(to), "--disk", "data")
    assert home_of(lab, "data") == local(to) and vm(lab)["spec"]["datastore"] == "shared2"
    intact(lab, since)
    to = other(lab)
    lab.cli("vm", "migrate", NAME, *words(lab, to))
    assert is_on(lab, to) and not disk(lab, "data")["datastore"]
    intact(lab, since)


def cancelled(lab):
    since, before, host = figures(lab)["incarnation"], vm(lab)["spec"], vm(lab)["owner"]["host"]
    number = begin(lab, *words(lab))
    lab.cli("task", "cancel", number)
    wait(lambda: ended(lab, number), "the task has ended")
    assert task(lab, number)["state"] == "failed" and vm(lab)["spec"] == before and vm(lab)["owner"]["host"] == host
    intact(lab, since)


def overridden(lab):
    """`vm kill` ends it: nothing runs, nothing is left."""
    number = begin(lab, *words(lab))
    lab.cli("vm", "kill", NAME)
    assert task(lab, number)["state"] == "failed"
    wait(lambda: not lab.qemus(), "no QEMU is left")
    clean(lab)
    lab.cli("vm", "start", NAME)
    lab.wait_up(NAME)


def killed(lab):
    """SIGKILL to each process that has a part in it, while disks are copied, at either side."""
    for side in ("source", "destination"):
        for victim in ("holdfast-motion", "qemu-nbd", "holdfastd"):
            since, to = figures(lab)["incarnation"], other(lab)
            host = vm(lab)["owner"]["host"] if side == "source" else to
            number = begin(lab, *words(lab, to))
            pids = lab.service(host, victim) if victim == "holdfastd" else helpers(lab, host, victim)
            assert pids or (side == "source" and victim == "qemu-nbd"), f"no {victim} on {host}"
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            wait(lambda: lab.try_vms() and ended(lab, number), "the task has ended")
            print(f"  {victim} of the {side}: {task(lab, number)['state']}: {task(lab, number)['message']}")
            assert not pids or task(lab, number)["state"] == "failed"
            intact(lab, since)
    since = figures(lab)["incarnation"]
    for host in ("source", "destination"):
        to = other(lab)
        number = begin(lab, *words(lab, to))
        victim = next(q.pid for q in lab.qemus() if (q.host == to) == (host == "destination"))
        os.kill(victim, signal.SIGKILL)
        wait(lambda: ended(lab, number), "the task has ended")
        print(f"  QEMU of the {host}: {task(lab, number)['message']}")
        since += 1 if host == "source" else 0
        lab.wait_up(NAME)
        intact(lab, since)
    told_all(lab)


def power(lab):
    """The destination's power goes while disks are copied."""
    since, before, to = figures(lab)["incarnation"], vm(lab)["spec"], other(lab)
    number = begin(lab, *words(lab, to))
    lab.fault(to, "power")
    wait(lambda: lab.try_vms() and ended(lab, number), "the task has ended")
    print(f"  {task(lab, number)['message']}")
    assert vm(lab)["spec"] == before
    lab.heal()
    wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
    intact(lab, since)
    told_all(lab)


def full(lab):
    """A datastore that is too small is refused before anything is copied; one that fills up costs the guest nothing."""
    to = other(lab)
    lab.cli("datastore", "add", "small", "--local", "--path", f"{to}={small.path}")
    lab.folders["small"] = small.path
    made = lab.ask("datastore", "show", "small")["id"]
    wait(lambda: any(made in host["datastores"] for host in lab.ask("host", "ls")["hosts"]), "its host has it")
    since, before = figures(lab)["incarnation"], vm(lab)["spec"]
    said = lab.cli("vm", "migrate", NAME, "--to", to, "--datastore", "small", check=False)
    print(f"  {said.stderr.strip()}")
    assert said.returncode != 0 and "free for them" in said.stderr, said
    assert vm(lab)["spec"] == before
    intact(lab, since)


if __name__ == "__main__":
    with storage.SmallDatastore() as small:
        e2e.run([moves, seed, limited, refused, one_disk, cancelled, overridden, killed, power, full],
                "e2eapart", setup=make_guest)
