#include "sys/etcd/etcd_store.hpp"

#include <random>

#include "port/store_limits.hpp"
#include "sys/etcd/endpoints.hpp"
#include "sys/etcd/read_range.hpp"
#include "sys/etcd/watch.hpp"

namespace hf::etcd {
namespace {

constexpr int kListTriesMax = 3;  // a list that compaction overtakes begins anew

pb::TxnRequest to_request(const Txn& txn, const std::string& prefix) {
  pb::TxnRequest request;
  for (const auto& condition : txn.conditions) {
    auto* compare = request.add_compare();
    compare->set_result(pb::Compare::EQUAL);
    compare->set_target(pb::Compare::MOD);  // 0 for a key that does not exist, as our Version
    compare->set_key(prefix + condition.key);
    compare->set_mod_revision(condition.version);
  }
  for (const auto& write : txn.writes) {
    auto* operation = request.add_success();
    if (write.erase) {
      operation->mutable_request_delete_range()->set_key(prefix + write.key);
      continue;
    }
    auto* put = operation->mutable_request_put();
    put->set_key(prefix + write.key);
    put->set_value(write.value);
    put->set_lease(write.lease.number);
  }
  return request;
}

std::int64_t random_lease() {
  std::random_device device;
  const std::uint64_t bits = (static_cast<std::uint64_t>(device()) << 32) | device();
  return static_cast<std::int64_t>((bits >> 1) | 1);
}

// One request on a stream of its own.
grpc::Status renew(Endpoint& endpoint, grpc::ClientContext& context, LeaseId lease,
                   pb::LeaseKeepAliveResponse& response) {
  pb::LeaseKeepAliveRequest request;
  request.set_id(lease.number);
  const auto stream = endpoint.lease->LeaseKeepAlive(&context);
  bool answered = false;
  if (stream->Write(request)) {
    stream->WritesDone();
    answered = stream->Read(&response);
  }
  if (answered) {
    pb::LeaseKeepAliveResponse rest;
    while (stream->Read(&rest)) {
    }
  }
  const auto status = stream->Finish();
  if (answered || !status.ok()) return answered ? grpc::Status::OK : status;
  return {grpc::UNAVAILABLE, "the stream ended without an answer"};
}

}  // namespace

Result<std::unique_ptr<EtcdStore>> EtcdStore::open(const EtcdOptions& options) {
  TRY_ASSIGN(auto endpoints, Endpoints::open(options));
  return std::unique_ptr<EtcdStore>(new EtcdStore(std::move(endpoints)));
}

EtcdStore::EtcdStore(std::shared_ptr<Endpoints> endpoints) : endpoints_(std::move(endpoints)) {}
EtcdStore::~EtcdStore() = default;

Result<Snapshot> EtcdStore::list(const std::string& prefix) {
  for (int tries = 1;; ++tries) {
    RangeReader reader(endpoints_->prefix(), prefix);
    while (!reader.done()) {
      const Status read = endpoints_->read([&](Endpoint& endpoint, grpc::ClientContext& context) {
        return reader.next_page(endpoint, context);
      });
      if (read.ok()) continue;
      if (read.code() != Code::conflict) return read.error();
      if (tries == kListTriesMax)
        return Error{Code::unavailable, "etcd compacts faster than it can be read. Try again."};
      break;
    }
    if (reader.done()) return std::move(reader).snapshot();
  }
}

Result<Entry> EtcdStore::get(const std::string& key) {
  if (key.empty()) return no_such_key(key);
  pb::RangeRequest request;
  request.set_key(endpoints_->prefix() + key);
  pb::RangeResponse response;
  const auto act = [&](Endpoint& endpoint, grpc::ClientContext& context) {
    return endpoint.kv->Range(&context, request, &response);
  };
  TRY(endpoints_->read(act));
  if (response.kvs().empty()) return no_such_key(key);
  return to_entry(response.kvs(0), endpoints_->prefix());
}

Result<Committed> EtcdStore::commit(const Txn& txn) {
  TRY(check(txn));
  const auto request = to_request(txn, endpoints_->prefix());
  pb::TxnResponse response;
  const auto act = [&](Endpoint& endpoint, grpc::ClientContext& context) {
    return endpoint.kv->Txn(&context, request, &response);
  };
  TRY(endpoints_->once(act));
  if (!response.succeeded()) return Committed{};
  return Committed{true, response.header().revision()};
}

Result<LeaseId> EtcdStore::grant(std::chrono::seconds ttl) {
  TRY(check_ttl(ttl));
  pb::LeaseGrantRequest request;
  request.set_ttl(ttl.count());
  request.set_id(random_lease());  // ours, so that a second attempt finds the first one's lease
  const auto act = [&](Endpoint& endpoint, grpc::ClientContext& context, bool again) {
    pb::LeaseGrantResponse response;
    const auto status = endpoint.lease->LeaseGrant(&context, request, &response);
    if (again && status.error_message() == "etcdserver: lease already exists") return grpc::Status::OK;
    return status;
  };
  TRY(endpoints_->repeat(act));
  return LeaseId{request.id()};
}

Status EtcdStore::keep_alive(LeaseId lease) {
  const Status kept = endpoints_->repeat([&](Endpoint& endpoint, grpc::ClientContext& context, bool) {
    pb::LeaseKeepAliveResponse response;
    const auto status = renew(endpoint, context, lease, response);
    if (!status.ok()) return status;
    if (response.ttl() <= 0) return grpc::Status(grpc::NOT_FOUND, "the lease has ended");
    // safety: "a lease is never over earlier than its ttl after a keep_alive that succeeded". etcd prolongs a
    // lease in its leader's memory alone, so a deposed leader that does not know it yet may say yes to a
    // lease that its successor ends. A linearizable read afterwards, in the term of the answer, shows that it
    // was still the leader.
    std::uint64_t term = 0;
    const auto confirmed = endpoints_->probe(endpoint, context.raw_deadline(), &term);
    if (!confirmed.ok()) return confirmed;
    if (term != response.header().raft_term()) return grpc::Status(grpc::UNAVAILABLE, "the leader changed");
    return grpc::Status::OK;
  });
  if (!kept.ok() && kept.code() == Code::not_found) return lease_ended(lease);
  return kept;
}

Status EtcdStore::revoke(LeaseId lease) {
  pb::LeaseRevokeRequest request;
  request.set_id(lease.number);
  const Status revoked =
      endpoints_->repeat([&](Endpoint& endpoint, grpc::ClientContext& context, bool again) {
        pb::LeaseRevokeResponse response;
        const auto status = endpoint.lease->LeaseRevoke(&context, request, &response);
        if (again && status.error_code() == grpc::NOT_FOUND) return grpc::Status::OK;
        return status;
      });
  if (!revoked.ok() && revoked.code() == Code::not_found) return lease_ended(lease);
  return revoked;
}

Result<std::unique_ptr<Watch>> EtcdStore::watch(const std::string& prefix, Watcher& watcher) {
  return std::unique_ptr<Watch>(std::make_unique<EtcdWatch>(endpoints_, prefix, watcher));
}

}  // namespace hf::etcd
