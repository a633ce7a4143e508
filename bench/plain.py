"""Two QEMUs beside Holdfast, for comparison: the command line of a VM that Holdfast has started, in the same hosts of
the lab, without its daemons; moved by QEMU's own migration with its default settings, over plain TCP, driven by QMP."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import lab as e2e

PORT = 4747
TAP = "plaintap"


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines, self.events = self.socket.makefile(), []
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            line = self.lines.readline()
            assert line, f"QEMU ended when it was asked to {command}"
            said = json.loads(line)
            if "event" in said:
                self.events.append(said)
            elif "error" in said:
                raise AssertionError(f"{command}: {said['error']['desc']}")
            else:
                return said["return"]


class Plain:
    """One QEMU in a host of the lab, made from the launch record of a VM."""

    def __init__(self, lab, host, launch, incoming, nice=0):
        self.lab, self.host = lab, host
        self.space = f"hf-{lab.name}-{host}"
        self.folder = pathlib.Path(f"/run/holdfast-plain-{lab.name}-{host}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.ip("tuntap", "add", "dev", TAP, "mode", "tap")
        self.ip("link", "set", TAP, "master", "vmbr0", "up")
        log = open(self.folder / "qemu.log", "w")
        self.process = subprocess.Popen(["ip", "netns", "exec", self.space, *self.command(launch, incoming)],
                                        stdout=log, stderr=log, start_new_session=True,
                                        preexec_fn=lambda: self.rank(nice))
        self.qmp = e2e.wait(self.connect, "QEMU's monitor answers")

    @staticmethod
    def rank(nice):
        """As far behind others as Holdfast's QEMUs: within its session, and the session among sessions."""
        os.nice(nice - os.nice(0))
        if os.path.exists("/proc/self/autogroup"):
            pathlib.Path("/proc/self/autogroup").write_text(str(nice))

    def ip(self, *words, check=True):
        subprocess.run(["ip", "-n", self.space, *words], check=check, capture_output=True)

    def command(self, launch, incoming):
        words, skip = [], 0
        run = next(re.search(r"path=(.*)/qmp\.sock", word).group(1) for word in launch if "/qmp.sock" in word)
        for word in launch:
            # -global: migration.send-configuration=off, which QEMU 10 does not survive with its other defaults.
            if skip or word in ("-S", "-trace", "-incoming", "-global"):
                skip = 0 if skip else int(word != "-S")
                continue
            words.append(re.sub(r"^tap,(id=\w+),fd=\d+", rf"tap,\1,ifname={TAP},script=no,downscript=no",
                                word.replace(run, str(self.folder))))
        return words + (["-incoming", "defer"] if incoming else [])

    def connect(self):
        assert self.process.poll() is None, e2e.read(self.folder / "qemu.log")
        try:
            return Qmp(self.folder / "qmp.sock")
        except OSError:
            return None

    def console(self):
        return e2e.read(self.folder / "console.log")

    def end(self):
        if self.process.poll() is not None:
            print(f"QEMU ended by itself: {self.process.returncode}\n{e2e.read(self.folder / 'qemu.log')}")
        self.process.kill()
        self.process.wait()
        self.ip("link", "delete", TAP, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def move(source, destination, address, patience):
    """What it took; None if it did not come to an end in time. The destination runs on by itself."""
    destination.qmp.ask("migrate-incoming", uri=f"tcp:{address}:{PORT}")
    begin = time.time()
    source.qmp.ask("migrate", uri=f"tcp:{address}:{PORT}")
    while True:
        now = source.qmp.ask("query-migrate")
        if now["status"] == "completed" and destination.qmp.ask("query-status")["running"]:
            return {"total": time.time() - begin, "stop": float(now["downtime"]),
                    "rounds": now["ram"]["dirty-sync-count"]}
        assert now["status"] in ("setup", "active", "device", "completed"), now
        if time.time() - begin > patience and now["status"] == "active":
            source.qmp.ask("migrate_cancel")
            e2e.wait(lambda: source.qmp.ask("query-migrate")["status"] == "cancelled", "it is cancelled")
            return None
        time.sleep(0.02)
