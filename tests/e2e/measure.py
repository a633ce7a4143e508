"""One failure of a host, with a clock: when it was declared dead, when restarts were issued, when QEMU ran, when guests
answered. Used by ./demo and bench/ha. Times are seconds since the fault."""
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time

from lab import BIN


def address_of(vm):
    """Of a test guest; empty for another VM."""
    found = re.search(r"hf\.ip=([0-9.]+)", (vm["spec"]["direct_kernel"] or {}).get("cmdline", ""))
    return found[1] if found else ""


class Failure:
    """`report(seconds, text)` is called for each thing as it is seen."""

    def __init__(self, lab, host, fault, report=lambda seconds, text: None):
        self.lab, self.host, self.fault, self.report = lab, host, fault, report
        self.vms = {vm["name"]: vm for vm in lab.vms().values()
                    if vm["owner"] and vm["owner"]["host"] == host and address_of(vm)}
        self.address = {name: address_of(vm) for name, vm in self.vms.items()}
        self.others = [f"127.0.0.1:{h['api_port']}" for h in lab.hosts_now() if h["name"] != host]
        self.lines = queue.Queue()
        self.children = []
        self.dead, self.evidence, self.issued, self.runs, self.answers, self.where = None, "", {}, {}, {}, {}

    def listen(self, child, kind):
        self.children.append(child)

        def read():
            for line in child.stdout:
                self.lines.put((kind, line))

        threading.Thread(target=read, daemon=True).start()

    def measure(self, seconds=120):
        """Does it and waits until all guests answer again; self."""
        try:
            self.begin(seconds)
            end = time.time() + seconds
            while len(self.answers) < len(self.vms):
                assert time.time() < end, f"no answer of {set(self.vms) - set(self.answers)} in {seconds} s"
                self.look_at_lines()
                self.look_at_qemus()
        finally:
            for child in self.children:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait()
        return self

    def begin(self, seconds):
        self.by_address = by_address = {address: name for name, address in self.address.items()}
        self.waiting = set(by_address)
        self.listen(self.lab.probe(*by_address), "probe")
        up = set()
        while up != set(by_address):
            _, line = self.lines.get(timeout=seconds)
            _, address, state = line.split()
            (up.add if state == "up" else up.discard)(address)
        words = [BIN / "holdfast", *self.lab.admin(), "--host", ",".join(self.others)]
        self.listen(subprocess.Popen([*words, "event", "ls", "-f", "-o", "json"], stdout=subprocess.PIPE, text=True,
                                     start_new_session=True), "event")
        self.begun = time.time()
        self.lab.fault(self.host, self.fault)
        self.report(0.0, f"{self.fault} of {self.host}")

    def look_at_lines(self):
        try:
            kind, line = self.lines.get(timeout=0.02)
        except queue.Empty:
            return
        if kind == "probe":
            self.on_probe(*line.split())
        else:
            self.on_event(json.loads(line))

    def on_probe(self, at, address, state):
        name, after = self.by_address[address], float(at) - self.begun
        if state == "down":
            self.waiting.discard(address)
            self.report(after, f"{name} does not answer any more")
        elif address not in self.waiting and name not in self.answers:
            self.answers[name] = after
            self.report(after, f"{name} answers again")

    def on_event(self, event):
        after = event["time"] / 1000 - self.begun
        if after < 0:
            return
        if event["kind"] == "ha.host.dead" and event["subject"] == self.host and self.dead is None:
            self.dead, self.evidence = after, event["text"]
            self.report(after, event["text"])
        elif event["kind"] == "ha.vm.restart" and event["subject"] in self.vms:
            self.issued.setdefault(event["subject"], after)
            self.report(after, event["text"].partition(":")[0] + " (restart issued)")

    def look_at_qemus(self):
        for qemu in self.lab.qemus():
            name = next((name for name, vm in self.vms.items() if vm["id"] == qemu.vm), None)
            if not name or name in self.runs or qemu.host == self.host:
                continue
            try:  # admitted: its guard has set a deadline
                page = (self.lab.run / qemu.host / "vms" / qemu.vm / "hold.page").read_bytes()[:8]
            except OSError:
                continue
            if any(page):
                self.runs[name], self.where[name] = time.time() - self.begun, qemu.host
                self.report(self.runs[name], f"QEMU of {name} runs on {qemu.host}")
