#include "sys/etcd/read_range.hpp"

namespace hf::etcd {
namespace {

constexpr std::int64_t kPageKeys = 500;

}  // namespace

Entry to_entry(const mvccpb::KeyValue& from, const std::string& hidden) {
  return Entry{from.key().substr(hidden.size()), from.value(), from.mod_revision(), LeaseId{from.lease()}};
}

RangeReader::RangeReader(const std::string& hidden, const std::string& prefix)
    : hidden_(hidden), range_(range_of(hidden + prefix)) {}

grpc::Status RangeReader::next_page(Endpoint& endpoint, grpc::ClientContext& context) {
  pb::RangeRequest request;
  request.set_key(range_.key);
  request.set_range_end(range_.end);
  request.set_limit(kPageKeys);
  request.set_revision(snapshot_.version);  // 0 for the first page: the newest
  pb::RangeResponse response;
  const auto status = endpoint.kv->Range(&context, request, &response);
  if (!status.ok()) return status;
  if (snapshot_.version == 0) snapshot_.version = response.header().revision();
  for (const auto& found : response.kvs()) snapshot_.entries.push_back(to_entry(found, hidden_));
  done_ = !response.more();
  if (!response.kvs().empty()) range_.key = response.kvs().rbegin()->key() + '\0';
  return status;
}

}  // namespace hf::etcd
