#include "sys/etcd/watch.hpp"

#include <grpc/support/time.h>

#include "base/ensure.hpp"
#include "sys/etcd/read_range.hpp"

namespace hf::etcd {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr Duration kPing = 500ms;
constexpr Duration kSilence = 1500ms;
constexpr Duration kPause = 200ms;  // after all endpoints have failed

enum Tag : std::intptr_t { kStart = 1, kWrite, kRead, kFinish, kWake };
void* to_pointer(Tag tag) { return reinterpret_cast<void*>(static_cast<std::intptr_t>(tag)); }
Tag to_tag(void* pointer) { return static_cast<Tag>(reinterpret_cast<std::intptr_t>(pointer)); }

SteadyTime steady_now() { return std::chrono::steady_clock::now(); }

}  // namespace

// One watch stream to one member, driven by events of the completion queue.
class EtcdWatch::Stream {
 public:
  Stream(Endpoint& endpoint, grpc::CompletionQueue& queue, const KeyRange& range, Version from)
      : queue_(queue) {
    auto* create = create_.mutable_create_request();
    create->set_key(range.key);
    create->set_range_end(range.end);
    create->set_start_revision(from);
    ping_.mutable_progress_request();
    context_.AddMetadata("hasleader", "true");
    rpc_ = endpoint.watch->PrepareAsyncWatch(&context_, &queue_);
    rpc_->StartCall(to_pointer(kStart));
    pending_ = 1;
  }
  // Takes every event of the stream off the queue: its tags must not meet the next stream.
  ~Stream() {
    context_.TryCancel();
    void* tag = nullptr;
    bool ok = false;
    while (pending_ > 0 && queue_.Next(&tag, &ok)) settle(to_tag(tag));
    grpc::Status status;
    rpc_->Finish(&status, to_pointer(kFinish));
    pending_ = 1;
    while (pending_ > 0 && queue_.Next(&tag, &ok)) settle(to_tag(tag));
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  enum class Heard { nothing, response, end };
  // Waits for the next event, or until it is time to ask for a sign of life.
  Heard wait() {
    const SteadyTime now = steady_now();
    if (now >= heard_ + kSilence) return Heard::end;
    if (now >= ping_at_ && !writing_ && created_) write(ping_);
    const Duration left = std::min(heard_ + kSilence, std::max(ping_at_, now + 1ms)) - now;
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, deadline_after(left)) != grpc::CompletionQueue::GOT_EVENT)
      return Heard::nothing;
    settle(to_tag(tag));
    switch (to_tag(tag)) {
      case kStart:
        if (!ok) return Heard::end;
        read();
        write(create_);
        return Heard::nothing;
      case kRead:
        if (!ok) return Heard::end;
        heard_ = steady_now();
        created_ = created_ || response_.created();
        return Heard::response;
      case kWrite:
        return ok ? Heard::nothing : Heard::end;
      case kFinish:
      case kWake:
        return Heard::nothing;
    }
    return Heard::nothing;
  }
  void read() {
    rpc_->Read(&response_, to_pointer(kRead));
    ++pending_;
  }
  const pb::WatchResponse& response() const { return response_; }
  bool created() const { return created_; }

 private:
  void write(const pb::WatchRequest& request) {
    rpc_->Write(request, to_pointer(kWrite));
    ++pending_;
    writing_ = true;
    ping_at_ = steady_now() + kPing;
  }
  void settle(Tag tag) {
    if (tag == kWake) return;
    --pending_;
    if (tag == kWrite) writing_ = false;
  }

  grpc::CompletionQueue& queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<pb::WatchRequest, pb::WatchResponse>> rpc_;
  pb::WatchRequest create_, ping_;
  pb::WatchResponse response_;
  int pending_ = 0;
  bool writing_ = false;
  bool created_ = false;
  SteadyTime heard_ = steady_now();
  SteadyTime ping_at_ = steady_now() + kPing;
};

EtcdWatch::EtcdWatch(std::shared_ptr<Endpoints> endpoints, const std::string& prefix, Watcher& watcher)
    : endpoints_(std::move(endpoints)), prefix_(prefix), watcher_(watcher), thread_([this] { run(); }) {}

EtcdWatch::~EtcdWatch() {
  ENSURE(std::this_thread::get_id() != thread_.get_id(), "a watch is ended from within its own watcher");
  stopping_ = true;
  wake_.Set(&queue_, gpr_inf_past(GPR_CLOCK_MONOTONIC), to_pointer(kWake));
  thread_.join();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void EtcdWatch::run() {
  std::size_t failures = 0;
  for (std::size_t index = endpoints_->preferred(); !stopping_; ++index) {
    Endpoint& endpoint = endpoints_->at(index);
    await_connection(endpoint, std::min(endpoints_->attempt(), kSilence));
    if (stopping_) return;
    const bool known = next_ > 0 || start_over(endpoint);
    const bool contact = known && !stopping_ && follow(endpoint);
    if (stopping_) return;
    if (contact && next_ == 0) {  // compacted: nothing is lost that starting over does not show
      failures = 0;
      continue;
    }
    failures = contact ? 1 : failures + 1;
    if (failures < endpoints_->size()) continue;
    lose();
    pause();
  }
}

void EtcdWatch::lose() {
  next_ = 0;
  if (lost_) return;
  lost_ = true;
  watcher_.on_lost(Error{Code::unavailable, "Contact with etcd is lost: " + why_});
}

void EtcdWatch::pause() {
  void* tag = nullptr;
  bool ok = false;
  queue_.AsyncNext(&tag, &ok, deadline_after(kPause));  // only the wake-up call can come
}

// False: this endpoint cannot say what the state is.
bool EtcdWatch::start_over(Endpoint& endpoint) {
  RangeReader reader(endpoints_->prefix(), prefix_);
  while (!reader.done()) {
    grpc::ClientContext context;
    context.set_deadline(deadline_after(std::min<Duration>(endpoints_->attempt(), kSilence)));
    const auto status = reader.next_page(endpoint, context);
    if (status.ok() && !stopping_) continue;
    why_ = to_error(status, endpoint.address).what;
    return false;
  }
  const Snapshot snapshot = std::move(reader).snapshot();
  watcher_.on_reset(snapshot);
  lost_ = false;
  next_ = snapshot.version + 1;
  return true;
}

// Hands on changes until the stream breaks. False: it never came up.
bool EtcdWatch::follow(Endpoint& endpoint) {
  why_ = endpoint.address + " does not answer.";
  Stream stream(endpoint, queue_, range_of(endpoints_->prefix() + prefix_), next_);
  while (!stopping_) {
    const auto heard = stream.wait();
    if (heard == Stream::Heard::end) break;
    if (heard == Stream::Heard::nothing) continue;
    if (!take(stream.response())) break;
    stream.read();
  }
  return stream.created();
}

// False: the watch was cancelled.
bool EtcdWatch::take(const pb::WatchResponse& response) {
  if (response.canceled()) {
    why_ = "the watch was cancelled (" + response.cancel_reason() + ").";
    if (response.compact_revision() > 0) next_ = 0;
    return false;
  }
  std::vector<Change> changes;
  const auto hand_on = [&] {
    if (changes.empty()) return;
    const Version version = changes.front().entry.version;
    watcher_.on_changes(changes, version);
    next_ = version + 1;
    changes.clear();
  };
  for (const auto& event : response.events()) {
    const Version version = event.kv().mod_revision();
    if (version < next_) continue;
    if (!changes.empty() && changes.front().entry.version != version) hand_on();
    changes.push_back({to_entry(event.kv(), endpoints_->prefix()), event.type() == mvccpb::Event::DELETE});
  }
  hand_on();
  return true;
}

}  // namespace hf::etcd
