#pragma once
// RangeReader: reads all keys under a prefix in pages, all as of one version. Internal to sys/etcd. A plain
// value.
#include "sys/etcd/endpoints.hpp"

namespace hf::etcd {

// `hidden`: the store's own prefix, taken off the key.
Entry to_entry(const mvccpb::KeyValue& from, const std::string& hidden);

class RangeReader {
 public:
  RangeReader(const std::string& hidden, const std::string& prefix);
  bool done() const { return done_; }
  // May be called again, on any endpoint, after it failed. grpc::OUT_OF_RANGE: compacted meanwhile, begin
  // anew.
  grpc::Status next_page(Endpoint& endpoint, grpc::ClientContext& context);
  // REQUIRES: done()
  Snapshot snapshot() && { return std::move(snapshot_); }

 private:
  std::string hidden_;
  KeyRange range_;
  Snapshot snapshot_;
  bool done_ = false;
};

}  // namespace hf::etcd
