#!/usr/bin/env python3
"""The life of a VM by way of the program, with its sentences."""
import signal
import subprocess
import threading
import time

import lab as e2e
from lab import wait

INVALID, CONFLICT, NO_ROOM, INTERRUPTED = 2, 5, 6, 130


def boot(lab):
    lab.create("a", number=1, ledger=True)
    lab.wait_up("a")


def console(lab):
    """The console shows what the guest says, from the beginning."""
    vm = lab.vms()["a"]
    lab.cli("vm", "reset", "a")
    wait(lambda: lab.console(vm["id"], vm["owner"]["host"]).count("guest up") == 2, "the guest has booted again")
    assert lab.pids()[vm["id"]] and lab.vms()["a"]["owner"]["epoch"] == vm["owner"]["epoch"]


def stop_graceful(lab):
    vm = lab.vms()["a"]
    begin = time.monotonic()
    lab.cli("vm", "stop", "a")
    print(f"  the guest switched itself off in {time.monotonic() - begin:.1f} s")
    assert not lab.qemus(vm["id"])
    kept = e2e.read(lab.dir / "hosts" / vm["owner"]["host"] / "var/log" / f"{vm['id']}-console.log")
    assert "guest powering off" in kept, kept
    lab.ledger("a")


def stop_forced(lab):
    """A guest that does not listen to its power button: it is ended after the limit."""
    # Nothing to boot: the BIOS waits for ever.
    lab.create("deaf", text='version = 1\nname = "deaf"\nmemory = "64 MiB"\n')
    vm = lab.vms()["deaf"]
    lab.cli("vm", "stop", "deaf", "--timeout", "2")
    assert not lab.qemus(vm["id"])
    lab.cli("vm", "delete", "deaf")
    assert "deaf" not in lab.vms()


def two_at_once(lab):
    """Of two commands to one VM one is done, and the other is told so."""
    results = []

    def start():
        results.append(lab.cli("vm", "start", "a", check=False))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.returncode for r in results) in ([0, 0], [0, CONFLICT]), [(r.returncode, r.stderr) for r in results]
    print("  " + " | ".join((r.stdout or r.stderr).strip() for r in results))
    lab.all_run(["a"])
    lab.wait_up("a")


def full_host(lab):
    """No host has the room: a sentence, and nothing runs."""
    big = [f"big{number}" for number in range(len(lab.hosts) + 1)]
    for name in big:
        lab.create(name, start=False, text=f'version = 1\nname = "{name}"\nmemory = "1200 MiB"\n')
    for name in big[1:]:
        lab.cli("vm", "start", name)
    answer = lab.cli("vm", "start", big[0], check=False)
    print(f"  {answer.stderr.strip()}")
    assert answer.returncode == NO_ROOM and "MiB" in answer.stderr, (answer.returncode, answer.stderr)
    assert not lab.qemus(lab.vms()[big[0]]["id"])
    for name in big[1:]:
        lab.cli("vm", "kill", name)
    for name in big:
        lab.cli("vm", "delete", name)
    answer = lab.cli("vm", "create", "-", check=False)
    assert answer.returncode == INVALID, answer.stderr


def ctrl_c(lab):
    """Ctrl-C in the middle of a start leaves the start alone."""
    lab.cli("vm", "kill", "a")
    words = [e2e.BIN / "holdfast", *lab.admin(), "vm", "start", "a"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wait(lambda: lab.vms()["a"]["active_task"], "the start has begun", pause=0)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    print(f"  exit status {process.returncode}: {said.strip()}")
    assert process.returncode in (INTERRUPTED, 0), said
    assert process.returncode == 0 or "goes on" in said
    lab.all_run(["a"])


if __name__ == "__main__":
    e2e.run([boot, console, stop_graceful, two_at_once, stop_forced, full_host, ctrl_c], "e2ecmd")
