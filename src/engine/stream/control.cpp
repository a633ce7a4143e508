#include "engine/stream/control.hpp"

#include <pthread.h>

#include <algorithm>

#include "sys/process/clock.hpp"

namespace hf::engine::stream {

Control::Control(Connection& connection, Failure& failure, Duration silence, std::string peer_role)
    : connection_(connection), failure_(failure), silence_(silence), peer_role_(std::move(peer_role)) {
  thread_ = std::thread([this] { keep_alive(); });
}

Control::~Control() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Status Control::write(wire::Kind kind, wire::Bytes body) {
  return connection_.write(wire::frame_of(kind, body));
}

void Control::fail(const Error& error) {
  if (failure_.is_set()) return;
  failure_.set(error);
  connection_.try_write(wire::frame_of(wire::Kind::aborted, wire::encode_reason(error.what)));
}

Result<Frame> Control::read_once(std::optional<Instant> deadline) {
  while (true) {
    const Duration left = deadline ? std::max(Duration::zero(), *deadline - sys::boot_now()) : silence_;
    Result<Frame> next = connection_.read(std::min(silence_, left));
    if (!next.ok() && deadline && sys::boot_now() >= *deadline)
      return Error{Code::timed_out, "The " + peer_role_ + " did not answer in time."};
    if (!next.ok() && next.code() == Code::timed_out)
      return Error{Code::unavailable, "The " + peer_role_ + " is silent. " + next.error().what};
    TRY_ASSIGN(const Frame frame, std::move(next));
    if (frame.header.kind == wire::Kind::aborted) {
      TRY_ASSIGN(const std::string why, wire::decode_reason(frame.body));
      return Error{Code::failed, "The " + peer_role_ + " gave up: " + why};
    }
    if (frame.header.kind != wire::Kind::keep_alive) return frame;
  }
}

// What has arrived is read before a failure is noticed, so the other side's words come first.
Result<Frame> Control::read(std::optional<Instant> deadline) {
  Result<Frame> frame = read_once(deadline);
  if (frame.ok()) return frame;
  // What came first ended the motion, unless it was only the connections that broke.
  const Status first = failure_.status();
  if (!first.ok() && !(first.code() == Code::unavailable && frame.code() == Code::failed)) return first.error();
  fail(frame.error());
  return frame;
}

void Control::keep_alive() {
  ::pthread_setname_np(::pthread_self(), "hf-keepalive");
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, silence_ / 3, [this] { return ending_; })) {
    if (failure_.is_set()) continue;
    lock.unlock();
    if (const Status sent = write(wire::Kind::keep_alive); !sent.ok()) fail(sent.error());
    lock.lock();
  }
}

}  // namespace hf::engine::stream
