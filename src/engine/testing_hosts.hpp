#pragma once
// Two hosts of a cluster that are about to move a VM: what each tells its connections, with certificates from a CA made
// here. For tests.
#include "base/ensure.hpp"
#include "engine/connection.hpp"

namespace hf::engine::test {

inline pki::KeyPair make_ca() {
  auto ca = pki::make_ca("test");
  ENSURE(ca.ok(), "a CA can be made");
  return *ca;
}

inline pki::Credentials credentials_of(const pki::KeyPair& ca, const std::string& host,
                                       pki::Role role = pki::Role::host) {
  auto own = pki::issue(ca, {.role = role, .name = host, .addresses = {}});
  ENSURE(own.ok(), "a certificate can be issued");
  return {ca.certificate_pem, *own};
}

// Both as they should be: host1 sends to host2.
struct TwoHosts {
  pki::KeyPair ca = make_ca();
  ConnectionOptions source, destination;

  TwoHosts() {
    source.motion = destination.motion = TaskId("task-1");
    source.vm = destination.vm = VmId("vm-1");
    source.token = destination.token = "a secret";
    source.data_streams = 2;
    source.peer = HostId("host2");
    destination.peer = HostId("host1");
    source.credentials = credentials_of(ca, "host1");
    destination.credentials = credentials_of(ca, "host2");
  }
};

}  // namespace hf::engine::test
