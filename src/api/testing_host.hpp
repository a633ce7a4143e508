#pragma once
// A served API for tests: a TestingCluster, a CA, the services of a host that has no QEMU (its consoles
// echo), a server on a free port of 127.0.0.1. Used by the tests of src/api and src/cli.
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "api/client.hpp"
#include "api/handler.hpp"
#include "api/server.hpp"
#include "api/testing_cluster.hpp"

namespace hf::api {

// A console that answers each byte with itself, after "hello\n".
class EchoServices : public HostServices {
 public:
  explicit EchoServices(std::string host) : host_(std::move(host)) {}
  ~EchoServices() override {
    for (auto& thread : echoes_) thread.join();
  }
  HostId here() override { return HostId(host_); }
  Result<int> open_console(const VmId&) override {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
      return from_errno("socketpair", errno);
    echoes_.emplace_back([fd = pair[1]] {
      (void)::send(fd, "hello\n", 6, MSG_NOSIGNAL);  // the test sees what came
      char buffer[256];
      for (ssize_t n = ::read(fd, buffer, sizeof buffer); n > 0; n = ::read(fd, buffer, sizeof buffer)) {
        (void)::send(fd, buffer, static_cast<std::size_t>(n), MSG_NOSIGNAL);  // as above
      }
      ::close(fd);
    });
    return pair[0];
  }
  LocalStatus local_status() override { return {"0.1.0", "renewing", "", {"vm-1"}, true}; }
  std::vector<TimingRow> timing() override {
    return {{"freeze_after", 4000, "a host without contact freezes its VMs"}};
  }
  StoreInfo store_info() override { return {store_kind, {"https://10.77.0.1:2379"}}; }
  Result<StoreMember> add_store_member(const std::string& host, const std::string& url) override {
    return StoreMember{url.empty() ? "" : host + "=" + url};
  }
  Status remove_store_member(const std::string& host) override {
    removed_members.push_back(host);
    return {};
  }
  Result<MarkedDatastore> mark_datastore(const std::string& name, const std::string& path, bool) override {
    if (path == "/missing") return Error{Code::not_found, "/missing is not a folder."};
    return MarkedDatastore{DatastoreId("ds-of-" + name), ""};
  }
  std::string store_kind = "etcd";
  std::vector<std::string> removed_members;

 private:
  std::string host_;
  std::vector<std::thread> echoes_;
};

struct TestingHost {
  explicit TestingHost(TestingCluster& a_cluster, const pki::KeyPair& a_ca, const std::string& name)
      : cluster(a_cluster),
        ca(a_ca),
        services(name),
        peers(credentials(pki::Role::host, name)),
        handler(cluster.store, services, &peers, cluster.world(name)),
        server(handler, credentials(pki::Role::host, name)) {}

  pki::Credentials credentials(pki::Role role, const std::string& name) const {
    return {ca.certificate_pem, *pki::issue(ca, {role, name, {}, std::chrono::hours(1)})};
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(server.port()); }
  // Starts, and tells the cluster where.
  Status start() {
    TRY(server.start("127.0.0.1:0"));
    TRY_ASSIGN(auto host,
               read<record::HostRecord>(cluster.store, record::key::kHosts + services.here().text));
    host.record.api_address = address();
    cluster.store.put(host.key, record::encode(host.record));
    return {};
  }

  TestingCluster& cluster;
  pki::KeyPair ca;
  EchoServices services;
  HttpPeers peers;
  Handler handler;
  Server server;
};

}  // namespace hf::api
