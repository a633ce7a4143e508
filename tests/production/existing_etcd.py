#!/usr/bin/env python3
"""Goal: a cluster can keep its store in an etcd that others run, with a CA of their own. Method: as production.py, the
real programs in network namespaces; the third machine runs the etcd, which serves nobody without a certificate.

Wrong certificates are refused with a sentence and nothing is made; two hosts join; a VM runs; etcd's own members stay
as they are, and everything of Holdfast's is below one prefix.
"""
import json
import sys

import production
from machines import run, wait
from production import expect


class ExistingEtcd(production.Production):
    def __init__(self, world, guest):
        super().__init__(world, guest)
        self.second, self.theirs = world.machines[1:]
        self.pki = world.folder / "their-pki"
        self.url = f"https://{self.theirs.address}:2379"

    def certificate(self, name, address=None):
        """<name>.pem and <name>-key.pem, of their CA."""
        key, cert, request = (self.pki / f"{name}{end}" for end in ("-key.pem", ".pem", ".csr"))
        names = self.pki / f"{name}.names"
        names.write_text(f"subjectAltName=IP:{address}\n" if address else "extendedKeyUsage=clientAuth\n")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
            request, "-subj", f"/CN={name}")
        run("openssl", "x509", "-req", "-in", request, "-CA", self.pki / "ca.pem", "-CAkey", self.pki / "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", names, "-out", cert)

    def their_etcd(self):
        self.pki.mkdir()
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            self.pki / "ca-key.pem", "-out", self.pki / "ca.pem", "-subj", "/CN=theirs", "-days", "2")
        self.certificate("server", self.theirs.address)
        self.certificate("holdfast")
        # What it tells its clients is no address that hosts can use: only the given one counts.
        self.theirs.start("etcd", ["etcd", "--name=theirs", f"--data-dir={self.theirs.folder}/etcd",
                                   f"--listen-client-urls={self.url}", "--advertise-client-urls=https://10.99.0.1:2379",
                                   f"--cert-file={self.pki}/server.pem", f"--key-file={self.pki}/server-key.pem",
                                   "--client-cert-auth=true", f"--trusted-ca-file={self.pki}/ca.pem", "--logger=zap",
                                   "--log-outputs=stderr", "--log-level=warn"])
        wait("their etcd", lambda: self.ask_them("member", "list", check=False).returncode == 0)

    def ask_them(self, *words, check=True):
        return self.first.run("env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={self.url}", "--cacert",
                              self.pki / "ca.pem", "--cert", self.pki / "holdfast.pem", "--key",
                              self.pki / "holdfast-key.pem", *words, check=check)

    def store_options(self):
        return ["--store-ca", self.pki / "ca.pem", "--store-cert", self.pki / "holdfast.pem", "--store-key",
                self.pki / "holdfast-key.pem"]

    def init(self):
        host = self.first
        words = ["cluster", "init", "--address", host.address, "--host-name", "host1", "--store", f"etcd={self.url}",
                 *host.places()]
        missing = [*self.store_options()[:-1], self.pki / "no-such-key.pem"]
        self.refused(3, "no-such-key.pem", host.holdfast(*words, *missing, check=False))
        self.refused(8, "The store does not answer", host.holdfast(*words, check=False))  # with the cluster's own CA
        expect(not (host.etc / "config.json").exists(), "a refused init leaves no configuration")
        expect(self.keys() == [], "a refused init leaves nothing in the store")
        said = host.holdfast(*words, *self.store_options())
        expect("holdfast-etcd" not in said.stdout, "no member of its own")
        host.fit_config()
        host.follow(said.stdout)
        wait("the first host", lambda: self.connected() == ["host1"])

    def keys(self):
        return self.ask_them("get", "", "--prefix", "--keys-only").stdout.split()

    def join(self, host):
        invite = wait("an invite", lambda: self.invite(host))
        said = host.follow_while("cluster", "join", "--address", host.address, *self.store_options(), *host.places(),
                                 stdin=invite)
        host.fit_config()
        host.follow(said)
        wait("both hosts", lambda: sorted(self.connected()) == ["host1", "host2"])

    def theirs_is_theirs(self):
        members = json.loads(self.ask_them("member", "list", "-w", "json").stdout)["members"]
        expect([one["name"] for one in members] == ["theirs"], f"Holdfast adds no members: {members}")
        prefix = f"/holdfast/{json.loads((self.first.etc / 'config.json').read_text())['cluster_id']}/"
        expect(all(key.startswith(prefix) for key in self.keys()), f"all keys stand below {prefix}")
        for host in (self.first, self.second):
            expect(self.endpoints(host) == {self.url}, "nobody uses the address that their etcd tells")

    def join_second(self):
        self.join(self.second)

    def run(self):
        for step in (self.their_etcd, self.init, self.add_inventory, self.start_vm, self.join_second,
                     self.theirs_is_theirs):
            print(step.__name__, flush=True)
            step()


if __name__ == "__main__":
    sys.exit(production.main(ExistingEtcd))
