#!/usr/bin/env python3
"""Goal: two hosts and a witness survive the loss of any one of the three. Method: as production.py, the real programs
in network namespaces: a cluster on etcd from its first host, `cluster witness` on a machine that is no host.

The host of the running VM loses its power: the other one restarts the VM, because with the witness the store still has
a majority. The host comes back, the witness goes: the cluster still takes commands.
"""
import json
import sys

import production
from machines import wait
from production import expect


class Witness(production.Production):
    def __init__(self, world, guest):
        super().__init__(world, guest)
        self.second, self.witness = world.machines[1:]

    def init(self):
        said = self.first.follow_while("cluster", "init", "--address", self.first.address, "--host-name", "host1",
                                       "--store", "etcd", *self.first.places())
        self.first.fit_config()
        self.first.follow(said)
        wait("the first host", lambda: self.connected() == ["host1"])

    def add_witness(self):
        host = self.first
        invite = wait("an invite", lambda: self.invite(self.witness))
        self.refused(4, "a witness is a machine that runs no VMs",
                     host.run("sh", "-c", f"echo {invite.strip()} | {self.world.programs}/holdfast cluster witness "
                              f"--address {host.address} --no-start --etc {host.etc} --state-dir {host.state}",
                              check=False))
        self.witness.follow_while("cluster", "witness", "--address", self.witness.address,
                                  *self.witness.places(run_dir=False), stdin=invite)
        members = json.loads(self.etcdctl("member", "list", "-w", "json").stdout)["members"]
        expect(sorted(one["name"] for one in members if not one.get("isLearner")) == ["host1", "host2", "host3"],
               f"three members vote: {members}")
        for one in (self.first, self.second):
            wait("all know the witness's member", lambda h=one: len(self.endpoints(h)) == 3)
        wait("both hosts", lambda: sorted(self.connected()) == ["host1", "host2"])
        wait("the datastore on both", lambda: "host1, host2" in self.cli("datastore", "show", "shared",
                                                                        check=False).stdout)

    def owner(self):
        shown = self.cli("vm", "show", "probe", "-o", "json", check=False)
        return json.loads(shown.stdout)["owner"]["host"] if shown.returncode == 0 else ""

    def the_host_of_the_vm_dies(self):
        expect(self.owner() == "host1", "the VM runs on the host that dies")
        begun = self.first.cut_power()
        wait("the VM on host2", lambda: self.owner() == "host2" and self.vm_runs())
        for name, words in begun:
            self.first.start(name, words)
        wait("host1's return", lambda: sorted(self.connected()) == ["host1", "host2"])
        expect(self.owner() == "host2" and self.vm_runs(), "the VM stays where it is")

    def the_witness_dies(self):
        self.witness.cut_power()
        self.cli("vm", "stop", "probe", "--timeout", "1")
        wait("a start without the witness", lambda: self.cli("vm", "start", "probe", "--on", "host1",
                                                             check=False).returncode in (0, 4))
        wait("the VM on host1", lambda: self.owner() == "host1" and self.vm_runs())

    def join_second(self):
        self.join(self.second)

    def run(self):
        for step in (self.init, self.add_inventory, self.start_vm, self.join_second, self.add_witness,
                     self.the_host_of_the_vm_dies, self.the_witness_dies):
            print(step.__name__, flush=True)
            step()


if __name__ == "__main__":
    sys.exit(production.main(Witness))
