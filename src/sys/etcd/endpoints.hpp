#pragma once
// Endpoints: the members of an etcd cluster as this process reaches them, and the rules for asking the next
// one. Internal to sys/etcd: the only header that includes gRPC. Thread-safe. It never sends a request twice
// unless the caller chose a policy that allows it.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "etcd_rpc.grpc.pb.h"
#include "sys/etcd/options.hpp"

namespace hf::etcd {

namespace pb = ::etcdserverpb;

struct Endpoint {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;  // shared with the stubs
  std::unique_ptr<pb::KV::Stub> kv;
  std::unique_ptr<pb::Watch::Stub> watch;
  std::unique_ptr<pb::Lease::Stub> lease;
  std::unique_ptr<pb::Cluster::Stub> cluster;
};

// Now + `after`, on a clock that nobody sets.
gpr_timespec deadline_after(Duration after);

// Gives the connection time to come up, at most `limit`, and little if it has just failed. gRPC connects only
// while some call waits; a call on a failed connection returns at once, so calls alone would never let it
// come back.
void await_connection(Endpoint& endpoint, Duration limit);

// What a failed call means, in general: not_found, invalid, ... for etcd's own refusals; Code::unavailable
// for every failure that leaves open whether the request was carried out (see is_definite).
Error to_error(const grpc::Status& status, const std::string& address);
// True if etcd itself refused, so that the request was certainly not carried out.
bool is_definite(const grpc::Status& status);

class Endpoints {
 public:
  static Result<std::shared_ptr<Endpoints>> open(const EtcdOptions& options);

  // One attempt; it must obey the context's deadline.
  using Call = std::function<grpc::Status(Endpoint&, grpc::ClientContext&)>;
  // Any endpoint, as often as the timeout allows. For requests that change nothing.
  Status read(const Call& call);
  // As read, for changes that may be made twice. Code::unavailable: certainly not done; outcome_unknown:
  // perhaps. `again` tells the call that an earlier attempt may have been carried out.
  using RepeatableCall = std::function<grpc::Status(Endpoint&, grpc::ClientContext&, bool again)>;
  Status repeat(const RepeatableCall& call);
  // At most one attempt, at an endpoint that has just answered; before that, endpoints are tried in turn.
  Status once(const Call& call);

  // A linearizable read of nothing: OK if the member is in touch with a majority. `term`: the raft term then.
  grpc::Status probe(Endpoint& endpoint, gpr_timespec deadline, std::uint64_t* term = nullptr);

  std::size_t size() const { return list_.size(); }
  Endpoint& at(std::size_t index) { return *list_[index % list_.size()]; }
  std::size_t preferred() const { return preferred_; }
  Duration attempt() const { return attempt_; }
  const std::string& prefix() const { return prefix_; }

 private:
  explicit Endpoints(const EtcdOptions& options);
  struct Round;

  std::vector<std::unique_ptr<Endpoint>> list_;
  std::string prefix_;
  Duration timeout_;
  Duration attempt_;                       // of one endpoint, so that a hung one leaves time for the others
  std::atomic<std::size_t> preferred_{0};  // answered last
};

// [key, end) of all keys that begin with `prefix`.
struct KeyRange {
  std::string key, end;
};
KeyRange range_of(const std::string& prefix);

}  // namespace hf::etcd
