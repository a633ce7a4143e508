#include "sys/etcd/endpoints.hpp"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <thread>

#include "base/log.hpp"
#include "sys/process/small_file.hpp"

namespace hf::etcd {
namespace {

constexpr Duration kAttemptMin = 200ms;
constexpr Duration kRetryWait = 100ms;  // for a connection that failed before
constexpr Duration kPause = 50ms;       // after all endpoints have refused

Result<std::shared_ptr<grpc::ChannelCredentials>> credentials(const std::optional<EtcdTls>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  TRY_ASSIGN(ssl.pem_root_certs, process::read_small_file(tls->ca_file));
  TRY_ASSIGN(ssl.pem_cert_chain, process::read_small_file(tls->cert_file));
  TRY_ASSIGN(ssl.pem_private_key, process::read_small_file(tls->key_file));
  return grpc::SslCredentials(ssl);
}

// gRPC writes a line per failed connection; our Errors say it already.
void quieten_grpc() {
  gpr_set_log_function([](gpr_log_func_args* line) { log(Level::debug, line->message, {{"from", "grpc"}}); });
}

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // a page of a list; its size is bounded by what we wrote
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A member that comes back is found again soon; the first figure is also the limit of one connection
  // attempt.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  return arguments;
}

// etcd's texts for UNAVAILABLE and RESOURCE_EXHAUSTED that it gives before it proposes anything.
constexpr std::array<std::string_view, 3> kNotProposed = {
    "etcdserver: unhealthy cluster", "etcdserver: too many requests", "etcdserver: not capable"};

bool not_proposed(const grpc::Status& status) {
  return std::any_of(kNotProposed.begin(), kNotProposed.end(),
                     [&](std::string_view text) { return status.error_message() == text; });
}

Code code_of(const grpc::Status& status) {
  if (not_proposed(status)) return Code::unavailable;
  switch (status.error_code()) {
    case grpc::INVALID_ARGUMENT:
      return Code::invalid;
    case grpc::NOT_FOUND:
      return Code::not_found;
    case grpc::ALREADY_EXISTS:
      return Code::exists;
    case grpc::PERMISSION_DENIED:
    case grpc::UNAUTHENTICATED:
      return Code::denied;
    case grpc::RESOURCE_EXHAUSTED:
      return Code::no_room;
    case grpc::DATA_LOSS:
      return Code::corrupt;
    case grpc::UNIMPLEMENTED:
      return Code::unsupported;
    case grpc::OUT_OF_RANGE:
      return Code::conflict;  // the revision is compacted; only list() meets it
    case grpc::FAILED_PRECONDITION:
      return Code::failed;
    default:
      return Code::unavailable;
  }
}

}  // namespace

gpr_timespec deadline_after(Duration after) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(after.count(), GPR_TIMESPAN));
}

void await_connection(Endpoint& endpoint, Duration limit) {
  const auto begin = endpoint.channel->GetState(true);
  const auto full = deadline_after(limit);
  const auto brief = deadline_after(std::min(limit, kRetryWait));
  auto state = begin;
  while (state != GRPC_CHANNEL_READY && state != GRPC_CHANNEL_SHUTDOWN) {
    const bool failed = state == GRPC_CHANNEL_TRANSIENT_FAILURE;
    if (failed && begin != GRPC_CHANNEL_TRANSIENT_FAILURE) return;
    if (!endpoint.channel->WaitForStateChange(state, failed ? brief : full)) return;
    state = endpoint.channel->GetState(true);
  }
}

bool is_definite(const grpc::Status& status) {
  return code_of(status) != Code::unavailable || not_proposed(status);
}

Error to_error(const grpc::Status& status, const std::string& address) {
  const Code code = code_of(status);
  if (code == Code::no_room)
    return Error{code, fmt::format("etcd at {} is full ({}). Raise its quota or remove old records.", address,
                                   status.error_message())};
  return Error{code, fmt::format("etcd at {}: {}.", address, status.error_message())};
}

KeyRange range_of(const std::string& prefix) {
  std::string end = prefix;
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(end.back() + 1);
  // "\0" means, to etcd: from the first key, or to the last one.
  const std::string zero(1, '\0');
  return {prefix.empty() ? zero : prefix, end.empty() ? zero : end};
}

// One call's walk over the endpoints: which one is next, and how much time is left.
struct Endpoints::Round {
  explicit Round(const Endpoints& all)
      : end(std::chrono::steady_clock::now() + all.timeout_), index(all.preferred_), count(all.size()) {}

  Duration left() const { return end - std::chrono::steady_clock::now(); }
  void next(const grpc::Status& status, const std::string& address) {
    last = status;
    last_address = address;
    ++index;
    if (++failures % count == 0 && left() > Duration::zero())
      std::this_thread::sleep_for(std::min(kPause, left()));
  }
  Error unreachable() const {
    const std::string why = last_address.empty() ? "no time" : last_address + ": " + last.error_message();
    return Error{Code::unavailable,
                 fmt::format("No etcd member answers ({}). Check etcd and the network.", why)};
  }
  Error unknown(const grpc::Status& status, const std::string& address) const {
    return Error{Code::outcome_unknown, fmt::format("etcd at {} may or may not have made the change: {}.",
                                                    address, status.error_message())};
  }

  std::chrono::steady_clock::time_point end;
  std::size_t index;
  std::size_t count;
  std::size_t failures = 0;
  grpc::Status last;
  std::string last_address;
};

Endpoints::Endpoints(const EtcdOptions& options)
    : prefix_(options.prefix), timeout_(options.store.timeout), attempt_(options.store.timeout) {
  const auto count = static_cast<int>(options.endpoints.size());
  if (count > 1) attempt_ = std::max(kAttemptMin, timeout_ / (count + 1));
}

Result<std::shared_ptr<Endpoints>> Endpoints::open(const EtcdOptions& options) {
  if (options.endpoints.empty()) return Error{Code::invalid, "No etcd endpoint is named. Name at least one."};
  quieten_grpc();
  TRY_ASSIGN(const auto secrets, credentials(options.tls));
  const auto arguments = channel_arguments();
  std::shared_ptr<Endpoints> all(new Endpoints(options));  // shared: the store and its watches
  for (const auto& address : options.endpoints) {
    const auto channel = grpc::CreateCustomChannel(address, secrets, arguments);
    auto endpoint = std::make_unique<Endpoint>();
    endpoint->address = address;
    endpoint->channel = channel;
    endpoint->kv = pb::KV::NewStub(channel);
    endpoint->watch = pb::Watch::NewStub(channel);
    endpoint->lease = pb::Lease::NewStub(channel);
    endpoint->cluster = pb::Cluster::NewStub(channel);
    all->list_.push_back(std::move(endpoint));
  }
  return all;
}

grpc::Status Endpoints::probe(Endpoint& endpoint, gpr_timespec deadline, std::uint64_t* term) {
  grpc::ClientContext context;
  context.set_deadline(deadline);
  pb::RangeRequest request;
  request.set_key(prefix_.empty() ? std::string(1, '\0') : prefix_);
  request.set_count_only(true);
  pb::RangeResponse response;
  const auto status = endpoint.kv->Range(&context, request, &response);
  if (term != nullptr) *term = response.header().raft_term();
  return status;
}

Status Endpoints::read(const Call& call) {
  Round round(*this);
  while (round.left() > Duration::zero()) {
    Endpoint& endpoint = at(round.index);
    await_connection(endpoint, std::min(attempt_, round.left()));
    grpc::ClientContext context;
    context.set_deadline(deadline_after(std::min(attempt_, round.left())));
    const auto status = call(endpoint, context);
    if (status.ok()) {
      preferred_ = round.index % size();
      return {};
    }
    if (is_definite(status) && !not_proposed(status)) return to_error(status, endpoint.address);
    round.next(status, endpoint.address);
  }
  return round.unreachable();
}

Status Endpoints::repeat(const RepeatableCall& call) {
  Round round(*this);
  bool sent = false;
  while (round.left() > Duration::zero()) {
    Endpoint& endpoint = at(round.index);
    await_connection(endpoint, std::min(attempt_, round.left()));
    auto status = probe(endpoint, deadline_after(std::min(attempt_, round.left())));
    if (status.ok()) {
      grpc::ClientContext context;
      context.set_deadline(deadline_after(std::min(attempt_, std::max(round.left(), Duration(1ms)))));
      status = call(endpoint, context, sent);
      if (status.ok()) {
        preferred_ = round.index % size();
        return {};
      }
      if (!is_definite(status)) sent = true;
    }
    if (is_definite(status) && !not_proposed(status)) return to_error(status, endpoint.address);
    round.next(status, endpoint.address);
  }
  return sent ? round.unknown(round.last, round.last_address) : round.unreachable();
}

Status Endpoints::once(const Call& call) {
  Round round(*this);
  while (round.left() > Duration::zero()) {
    Endpoint& endpoint = at(round.index);
    await_connection(endpoint, std::min(attempt_, round.left()));
    auto status = probe(endpoint, deadline_after(std::min(attempt_, round.left())));
    if (status.ok() && round.left() > Duration::zero()) {
      grpc::ClientContext context;
      context.set_deadline(deadline_after(round.left()));
      status = call(endpoint, context);
      if (status.ok()) {
        preferred_ = round.index % size();
        return {};
      }
      // safety: a change that may have been made is never reported as not made, nor sent again (linearizable
      // store).
      if (!is_definite(status)) return round.unknown(status, endpoint.address);
    }
    if (is_definite(status) && !not_proposed(status)) return to_error(status, endpoint.address);
    round.next(status, endpoint.address);
  }
  return round.unreachable();
}

}  // namespace hf::etcd
