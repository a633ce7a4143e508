#!/usr/bin/env python3
"""A guest that boots by UEFI moves, and its firmware's variables with it: the memory that the firmware has them in, and
the file on the datastore that both hosts' QEMUs open. Exit status 77 where the hosts' QEMU is older than 9, which loses
what an emulated guest writes while it moves: tools/qemu-backports brings another one."""
import os
import re
import subprocess
import sys

import lab as e2e
import motion
from lab import wait
from motion import ADDRESS, NAME, NUMBER, boots, intact, other, owner, vm

NEW = "/var/cache/holdfast/qemu-10/bin/qemu-system-x86_64"
SINCE = 9


def make_guest(lab):
    lab.create(NAME, number=NUMBER, ledger=True, memory=256, words="hf.pattern=48 hf.dirty=4",
               extra='firmware = "uefi"')
    lab.wait_up(NAME)


def variables(lab):
    """The file with the firmware's variables."""
    return (lab.dir / "datastores" / "shared1" / vm(lab)["id"] / "uefi-vars.fd").read_bytes()


def refused(lab):
    """Holdfast's engine does not carry the flash, and says so; without a word QEMU's own migration is chosen."""
    words = ["vm", "migrate", NAME, "--to", other(lab), "--dry-run"]
    said = lab.cli(*words, "--engine", "holdfast", check=False)
    assert said.returncode != 0 and "system.flash1" in said.stdout + said.stderr, said
    assert "by QEMU's own migration" in lab.cli(*words)


def moves(lab):
    """There and back. The firmware that boots the guest after a move finds its variables, and writes them: OVMF counts
    its boots there."""
    stream = lab.stream(ADDRESS)
    since = boots(lab)
    for _ in range(2):
        before, to = variables(lab), other(lab)
        report = lab.ask("vm", "migrate", NAME, "--to", to)["report"]
        assert owner(lab) == to and report["engine"] == "qemu", report
        intact(lab, since)
        assert variables(lab) == before, "the move has changed the variables"
    told = e2e.end_of(stream)
    print(f"  {told}")
    assert told["tcp"] == "held"
    lab.cli("vm", "reset", NAME)
    wait(lambda: boots(lab) == since + 1, "the firmware has booted the guest again")
    wait(lambda: variables(lab) != before, "it has written its variables")
    motion.goes_on(lab)


def started_elsewhere(lab):
    """The file alone is enough for the next start, on another host."""
    since, to = boots(lab), other(lab)
    lab.cli("vm", "kill", NAME)
    lab.cli("vm", "start", NAME, "--on", to)
    wait(lambda: boots(lab) == since + 1, "the guest has booted there")
    assert owner(lab) == to


def version_of(qemu):
    found = re.search(r"version (\d+)", subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout)
    return int(found.group(1)) if found else 0


if __name__ == "__main__":
    wanted = os.environ.get("HOLDFAST_QEMU", NEW if os.path.exists(NEW) else "qemu-system-x86_64")
    if version_of(wanted) < SINCE:
        print(f"{wanted} is older than {SINCE}.0: run tools/qemu-backports")
        sys.exit(77)
    os.environ["HOLDFAST_QEMU"] = wanted
    e2e.run([refused, moves, started_elsewhere], "e2euefi", hosts=2, setup=make_guest)
