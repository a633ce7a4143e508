#pragma once
// Members of an etcd cluster: how one is started (pure text, for systemd or a test) and how the set of them
// changes. How a cluster grows from one host: add_member(learner) at the running cluster, start the new etcd
// with state `existing` and initial_cluster_of(list_members(), ...), promote_member() once it has caught up.
// Nothing here starts or stops a process.
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/etcd/options.hpp"

namespace hf::etcd {

struct MemberConfig {
  enum class State { fresh, existing };  // a new cluster is made; one is joined

  std::string binary = "/usr/bin/etcd";
  std::string name;                   // the host's name
  std::string data_dir;               // "/var/lib/holdfast/etcd"
  std::string client_address;         // "10.77.0.1:2379": served, and told to clients
  std::string peer_address;           // "10.77.0.1:2380"
  std::optional<EtcdTls> client_tls;  // what it shows to clients, and the CA that clients must show
  std::optional<EtcdTls> peer_tls;    // among members, both ways
  std::map<std::string, std::string> initial_cluster;  // member name -> peer URL, this one included
  State state = State::fresh;
  std::string token;  // differs between clusters, so that members never mix
  std::chrono::milliseconds heartbeat{100};
  std::chrono::milliseconds election_timeout{1000};
  std::chrono::minutes keep_history{60};  // older versions are compacted
  std::uint64_t quota_bytes = std::uint64_t{2} * 1024 * 1024 * 1024;
};

std::string peer_url(const std::string& peer_address, bool tls);
// argv, argv[0] included. Every flag exists in etcd 3.4 and 3.5.
std::vector<std::string> member_command(const MemberConfig& config);
// The text of a systemd service that keeps this member running: as root, without any of root's capabilities, able to
// write its data only. The host's key, which it shows, is root's; a copy for another user would have to follow each
// renewal, and protect nothing: whoever has the store has the cluster's CA, and so every host. It counts as started
// once it runs: it is ready only with a majority of the members, and no machine's boot may wait for other machines.
// REQUIRES: data_dir exists and is root's.
std::string member_unit(const MemberConfig& config);

struct Member {
  std::uint64_t id = 0;
  std::string name;  // empty: added, but never started
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  bool learner = false;  // receives everything, does not vote
};

// MemberConfig::initial_cluster for the member that was added with `peer_url`. Code::conflict: another member
// was added and has not started yet, so its name is not known; wait for it.
Result<std::map<std::string, std::string>> initial_cluster_of(const std::vector<Member>& members,
                                                              const std::string& name,
                                                              const std::string& peer_url);

class Endpoints;

// Reads and changes the set of members. Thread-safe, blocking, errors as Store's.
class Members {
 public:
  static Result<std::unique_ptr<Members>> open(const EtcdOptions& options);
  ~Members();
  Result<std::vector<Member>> list_members();
  // A learner does not count for the majority until it is promoted: adding it endangers nothing. One at a
  // time.
  Result<Member> add_member(const std::string& peer_url, bool learner);
  // Code::failed: it has not caught up yet, try again.
  Status promote_member(std::uint64_t id);
  Status remove_member(std::uint64_t id);

 private:
  explicit Members(std::shared_ptr<Endpoints> endpoints);
  std::shared_ptr<Endpoints> endpoints_;  // as EtcdStore's
};

}  // namespace hf::etcd
