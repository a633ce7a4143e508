#!/usr/bin/env python3
"""A datastore that is full: a tmpfs of a fixed size, which every host of the lab has at the same path."""
import os
import pathlib
import signal
import subprocess
import tempfile

import lab as e2e
from lab import wait

CONFLICT, NO_ROOM = 5, 6
MIB = 1 << 20
FULL = "datastore small is full"


class SmallDatastore:
    """Mounted before the lab is made: so it is in the hosts' own views of the file system too."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-small-", dir="/var/lib"))
        self.path.chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "holdfast-small", self.path], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path], check=True)
        self.path.rmdir()

    def fill(self):
        """To the last byte."""
        with open(self.path / "filler", "ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def free(self):
        (self.path / "filler").unlink()


def boot(lab):
    lab.cli("datastore", "add", "small", str(small.path))
    lab.folders["small"] = small.path
    made = lab.ask("datastore", "show", "small")["id"]
    wait(lambda: all(made in host["datastores"] for host in lab.ask("host", "ls")["hosts"]), "every host has it")
    # Each record goes to a new place of its sparse disk, for the first 250 s.
    lab.create("a", ledger=True, rate=4, datastore="small")
    lab.wait_up("a")
    wait(lambda: written(lab) > 4, "it writes its ledger")


def written(lab):
    """Blocks of its disk that the guest has written to."""
    return os.stat(lab.disk("a")).st_blocks // 8


def status(lab):
    vms = lab.try_vms()
    return vms["a"]["status"] if vms else None


def is_in(lab, state):
    now = status(lab)
    return now and now["state"] == state


def tries(lab, host):
    return lab.log_of(host, "holdfastd").count("A paused guest goes on")


def events(lab):
    return [e["kind"] for e in lab.events("vm.") if e["kind"] in ("vm.paused", "vm.continued")]


def paused(lab):
    """The guest stands still, and the user is told why, once."""
    before = lab.vms()["a"]
    small.fill()
    wait(lambda: is_in(lab, "paused"), "the VM is paused")
    now = lab.vms()["a"]
    assert FULL in now["status"]["message"], now
    assert now["owner"] == before["owner"]
    table = lab.cli("vm", "ls")
    assert "paused" in table, table
    shown = lab.cli("vm", "show", "a")
    assert "paused" in shown and FULL in shown, shown
    said = lab.events("vm.paused")[0]
    print(f"  {said['text']}")
    assert FULL in said["text"] and said["host"] == now["owner"]["host"], said
    answer = lab.cli("vm", "start", "a", check=False)
    print(f"  {answer.stderr.strip()}")
    assert answer.returncode == CONFLICT and "paused" in answer.stderr, answer
    count = tries(lab, said["host"])
    wait(lambda: tries(lab, said["host"]) >= count + 2, "it has been tried again, in vain")
    assert is_in(lab, "paused") and events(lab) == ["vm.paused"], (status(lab), events(lab))


def daemon(lab):
    """A new daemon finds it as it is, says nothing new, and goes on trying."""
    host, pids = lab.vms()["a"]["owner"]["host"], lab.pids()
    count = tries(lab, host)
    for pid in lab.service(host, "holdfastd"):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: tries(lab, host) > count, "the new daemon tries again")
    wait(lambda: is_in(lab, "paused"), "it is still paused")
    assert events(lab) == ["vm.paused"] and lab.pids() == pids


def nothing_half_made(lab):
    """What needs room says so, and leaves nothing."""
    before = sorted(small.path.iterdir())
    image = lab.dir / "image.raw"
    image.write_bytes(os.urandom(2 * MIB))
    spec = 'version = 1\nname = "b"\nmemory = "64 MiB"\ndatastore = "small"\n[[disks]]\nname = "root"\nsize = "8 MiB"\n'
    file = lab.dir / "b.toml"
    file.write_text(spec)
    for words in (["create", file], ["import", image, "--name", "b", "--datastore", "small", "--memory", "64 MiB"]):
        answer = lab.cli("vm", *map(str, words), check=False)
        print(f"  {answer.stderr.strip()}")
        assert answer.returncode == NO_ROOM and "full" in answer.stderr, (answer.returncode, answer.stderr)
        assert sorted(small.path.iterdir()) == before, list(small.path.rglob("*"))
        assert "b" not in lab.vms()


def continued(lab):
    """Room again: the same guest goes on where it was, and has lost nothing."""
    vm, pids, before = lab.vms()["a"], lab.pids(), written(lab)
    small.free()
    wait(lambda: written(lab) > before + 8, "the guest writes again")
    wait(lambda: is_in(lab, "running"), "the VM is running")
    assert sorted(events(lab)) == ["vm.continued", "vm.paused"], events(lab)
    assert lab.pids() == pids and lab.vms()["a"]["owner"] == vm["owner"]
    lab.cli("vm", "stop", "a")
    print(f"  {lab.ledger('a')}")


def resize(lab):
    """To grow a disk takes room as well."""
    lab.cli("vm", "import", str(lab.dir / "image.raw"), "--name", "b", "--datastore", "small", "--memory", "64 MiB")
    disk = lab.vms()["b"]["spec"]["disks"][0]["name"]
    files = set((small.path / lab.vms()["b"]["id"]).iterdir())
    small.fill()
    answer = lab.cli("vm", "resize", "b", disk, "64 TiB", check=False)
    print(f"  {answer.stderr.strip()}")
    assert answer.returncode == NO_ROOM and "full" in answer.stderr, (answer.returncode, answer.stderr)
    assert files == set((small.path / lab.vms()["b"]["id"]).iterdir())
    subprocess.run(["qemu-img", "check", "-q", *files], check=True)
    small.free()
    lab.cli("vm", "delete", "b")


if __name__ == "__main__":
    with SmallDatastore() as small:
        e2e.run([boot, paused, daemon, nothing_half_made, continued, resize], "e2efull", hosts=2)
