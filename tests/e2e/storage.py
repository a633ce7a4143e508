#!/usr/bin/env python3
"""The disks of a VM go to another datastore while it runs, and whatever is killed meanwhile, it loses nothing of what
it was told is written, and nothing is left behind."""
import os
import signal
import subprocess
import time

import lab as e2e
from full_disk import SmallDatastore
from lab import wait

NAME = "mover"
SLOW = "40"  # Mbit/s: the copy lasts for seconds
BALLAST = 24 << 20


def make_guest(lab, datastore="shared1", more=""):
    image = lab.dir / "ballast.raw"
    image.write_bytes(os.urandom(BALLAST))
    more += f'[[disks]]\nname = "data"\nimport_from = "{image}"\nformat = "qcow2"\n'
    text = lab.spec(NAME, ledger=True, rate=4, disk=64, datastore=datastore)
    lab.create(NAME, text=text.replace("[direct_kernel]", more + "[direct_kernel]"))
    lab.wait_up(NAME)
    wait(lambda: figures(lab)["last_sequence"] > 3, "it writes its ledger")


def vm(lab):
    return lab.vms()[NAME]


def task(lab, number):
    return lab.ask("task", "show", number)


def ended(lab, number):
    return task(lab, number)["state"] in ("succeeded", "failed")


def begin(lab, *words, limit=SLOW):
    """Starts a move of the disks; its task, once they are copied."""
    number = lab.ask("vm", "migrate", NAME, *words, "--limit-bandwidth", limit, "--no-wait")["id"]
    wait(lambda: task(lab, number)["progress"] > 0 or ended(lab, number), "disks are copied")
    assert not ended(lab, number), task(lab, number)
    return number


def figures(lab):
    """Of the ledger as it is on the disk now; the check fails if a record is missing that was acknowledged."""
    done = lab.run_cli("lab", "ledger-check", str(lab.disk(NAME)), check=False)
    pairs = (word.split("=") for word in done.stdout.split() if "=" in word)
    return {name: int(value) if value.isdigit() else value for name, value in pairs}


def goes_on(lab):
    before = figures(lab)["last_sequence"]
    wait(lambda: figures(lab)["last_sequence"] > before + 3, "the guest writes its disk")


def stores(lab):
    return {f.name: f for f in (lab.dir / "datastores").iterdir()} | lab.folders


def folders(lab):
    """Datastore -> the VM's folder there."""
    machine = vm(lab)["id"]
    return {name: path / machine for name, path in stores(lab).items() if (path / machine).exists()}


def expected(lab):
    spec = vm(lab)["spec"]
    files = {f"{disk['datastore'] or spec['datastore']}/" + e2e.image_of(disk) for disk in spec["disks"]}
    if spec.get("cloud_init"):
        seed = ("seed", spec.get("home_tag", ""), "iso")
        files.add(f"{spec['datastore']}/" + ".".join(part for part in seed if part))
    return files


def present(lab):
    return {f"{name}/{file.name}" for name, folder in folders(lab).items() for file in folder.iterdir()}


def clean(lab):
    """Every file is one that the spec names, and every one of these is there."""
    wait(lambda: present(lab) == expected(lab), "only the VM's own images are there")
    home = vm(lab)["spec"]["datastore"]
    owners = {name: path / ".holdfast/vms" / f"{vm(lab)['id']}.owner" for name, path in stores(lab).items()}
    wait(lambda: [name for name, file in owners.items() if file.exists()] == [home], "its owner file is at home")


def intact(lab, since):
    lab.all_run()
    goes_on(lab)
    assert figures(lab)["incarnation"] == since, "the guest has booted"
    clean(lab)


def told_all(lab):
    """Nothing that the guest was told of is missing: it is stopped for that, and started again."""
    lab.cli("vm", "stop", NAME)
    print(f"  {lab.ledger(NAME)}")
    subprocess.run(["qemu-img", "compare", "-q", lab.dir / "ballast.raw", folders(lab)[home_of(lab, "data")] / image(
        lab, "data")], check=True)
    lab.cli("vm", "start", NAME)
    lab.wait_up(NAME)


def disk(lab, name):
    return next(disk for disk in vm(lab)["spec"]["disks"] if disk["name"] == name)


def home_of(lab, name):
    return disk(lab, name)["datastore"] or vm(lab)["spec"]["datastore"]


def image(lab, name):
    return e2e.image_of(disk(lab, name))


def other(lab):
    return "shared2" if vm(lab)["spec"]["datastore"] == "shared1" else "shared1"


def moves(lab):
    """There and back, converted each time, and one disk alone."""
    since, pids = figures(lab)["incarnation"], lab.pids()
    for words in (["--format", "qcow2"], ["--format", "raw"], ["--disk", "data"], []):
        to = other(lab)
        said = lab.ask("vm", "migrate", NAME, "--datastore", to, *words)
        moved = ["data"] if "--disk" in words else ["ledger", "data"]
        for name in moved:
            assert home_of(lab, name) == to
            assert "--format" not in words or disk(lab, name)["format"] == words[1]
        report = said["relocation"]
        intact(lab, since)
        assert lab.pids() == pids
        held = task(lab, said["id"])["relocation"]["held_us"]
        print(f"  {' '.join(['to', to, *words])}: {report['disks']} disks, {report['bytes'] >> 20} MiB, "
              f"{report['took_ms']} ms, requests held {held / 1000:.1f} ms")
        assert report["disks"] == len(moved) - (0 if "--format" in words or words else 1) and held > 0
    told_all(lab)


def sparse(lab):
    """What was never written takes no room at the other side."""
    lab.cli("vm", "migrate", NAME, "--datastore", other(lab), "--format", "qcow2")
    allocated = os.stat(lab.disk(NAME)).st_blocks * 512
    assert allocated < 32 << 20, allocated


def refused(lab):
    """Every reason at once, and nothing is changed."""
    here = vm(lab)["spec"]["datastore"]
    answer = lab.ask("vm", "migrate", NAME, "--datastore", other(lab), "--dry-run")
    assert answer["to"] == vm(lab)["owner"]["host"] and not answer["reasons"], answer
    for words in (["--datastore", here], ["--datastore", "nowhere"], ["--datastore", other(lab), "--disk", "none"],
                  ["--format", "raw"]):
        said = lab.cli("vm", "migrate", NAME, *words, check=False)
        print(f"  {said.stderr.strip()}")
        assert said.returncode != 0
    clean(lab)


def off(lab):
    """A VM that is off moves as well."""
    lab.cli("vm", "stop", NAME)
    to = other(lab)
    lab.cli("vm", "migrate", NAME, "--datastore", to)
    assert vm(lab)["spec"]["datastore"] == to
    clean(lab)
    print(f"  {lab.ledger(NAME)}")
    lab.cli("vm", "start", NAME)
    lab.wait_up(NAME)


def cancelled(lab):
    since, before = figures(lab)["incarnation"], vm(lab)["spec"]
    number = begin(lab, "--datastore", other(lab))
    busy = lab.cli("vm", "stop", NAME, check=False)
    assert busy.returncode != 0 and "cancel" in busy.stderr, busy
    lab.cli("task", "cancel", number)
    wait(lambda: ended(lab, number), "the task has ended")
    assert task(lab, number)["state"] == "failed" and vm(lab)["spec"] == before
    intact(lab, since)


def killed(lab):
    """SIGKILL to each process that has a part in it, while disks are copied."""
    for victim in ("holdfastd", "holdfast-guard", "etcd"):
        since, host = figures(lab)["incarnation"], vm(lab)["owner"]["host"]
        number = begin(lab, "--datastore", other(lab))
        for pid in lab.service(host, victim):
            os.kill(pid, signal.SIGKILL)
        wait(lambda: lab.try_vms() and ended(lab, number), "the task has ended")
        print(f"  {victim}: {task(lab, number)['state']}: {task(lab, number).get('message', '')}")
        intact(lab, since)
    since, host = figures(lab)["incarnation"], vm(lab)["owner"]["host"]
    number = begin(lab, "--datastore", other(lab))
    os.kill(next(q.pid for q in lab.qemus_of(host) if q.vm == vm(lab)["id"]), signal.SIGKILL)
    wait(lambda: ended(lab, number), "the task has ended")
    print(f"  QEMU: {task(lab, number)['message']}")
    assert task(lab, number)["state"] == "failed"
    lab.wait_up(NAME)
    intact(lab, since + 1)
    told_all(lab)


def at_the_end(lab):
    """holdfastd is killed about when the disks are held and the commit is on its way: again and again, at other
    moments. Whatever the record says then, the guest goes on with that."""
    since = figures(lab)["incarnation"]
    ends = []
    for delay in range(5):
        host, number = vm(lab)["owner"]["host"], begin(lab, "--datastore", other(lab))
        wait(lambda: task(lab, number)["progress"] >= 90 or ended(lab, number), "nearly all is copied", pause=0.02)
        time.sleep(delay * 0.2)
        for pid in lab.service(host, "holdfastd"):
            os.kill(pid, signal.SIGKILL)
        wait(lambda: lab.try_vms() and ended(lab, number), "the task has ended")
        ends.append(task(lab, number)["state"])
        intact(lab, since)
    print(f"  {', '.join(ends)}")
    told_all(lab)


def power(lab):
    """The host's power goes while disks are copied: the VM is restarted elsewhere, with the old ones."""
    since, before, spec = figures(lab)["incarnation"], vm(lab)["owner"]["host"], vm(lab)["spec"]
    number = begin(lab, "--datastore", other(lab))
    lab.fault(before, "power")
    wait(lambda: lab.try_vms() and vm(lab)["owner"]["host"] != before, "it was restarted elsewhere")
    wait(lambda: ended(lab, number), "the task has ended")
    print(f"  {task(lab, number)['message']}")
    assert vm(lab)["spec"] == spec
    lab.wait_up(NAME)
    intact(lab, since + 1)
    lab.heal()
    wait(lambda: lab.connected() == set(lab.hosts), "all hosts are connected")
    told_all(lab)


def away(lab):
    """A guest that is paused because its datastore is full goes on as soon as its disk is elsewhere."""
    since, home = figures(lab)["incarnation"], home_of(lab, "ledger")
    lab.cli("vm", "migrate", NAME, "--datastore", "small", "--disk", "ledger")
    small.fill()
    wait(lambda: vm(lab)["status"]["state"] == "paused", "the VM is paused")
    lab.cli("vm", "migrate", NAME, "--datastore", home, "--disk", "ledger")
    small.free()
    wait(lambda: vm(lab)["status"]["state"] == "running", "the VM goes on")
    intact(lab, since)
    told_all(lab)


def full(lab):
    """A target that is too small is refused before anything is made; one that fills up costs the guest nothing."""
    lab.cli("datastore", "add", "small", str(small.path))
    lab.folders["small"] = small.path
    made = lab.ask("datastore", "show", "small")["id"]
    wait(lambda: all(made in host["datastores"] for host in lab.ask("host", "ls")["hosts"]), "every host has it")
    since, before = figures(lab)["incarnation"], vm(lab)["spec"]
    said = lab.cli("vm", "migrate", NAME, "--datastore", "small", check=False)
    print(f"  {said.stderr.strip()}")
    assert said.returncode == 6, said
    intact(lab, since)
    number = begin(lab, "--datastore", "small", "--disk", "ledger", limit="2")
    small.fill()
    wait(lambda: ended(lab, number), "the task has ended")
    print(f"  {task(lab, number)['state']}: {task(lab, number)['message']}")
    small.free()
    assert task(lab, number)["state"] == "failed" and vm(lab)["spec"] == before
    intact(lab, since)
    told_all(lab)


if __name__ == "__main__":
    with SmallDatastore() as small:
        tests = [moves, sparse, refused, off, cancelled, killed, at_the_end, power, full, away]
        e2e.run(tests, "e2edisks", setup=make_guest)
