#include "motion/disk_sender.hpp"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.hpp"
#include "sys/process/clock.hpp"

namespace hf::motion {
namespace {
using Copy = CopyState::Phase;

constexpr Duration kLook = Duration(1s) / kProgressPerSecond;
constexpr Duration kFlushLimit = 10s;
constexpr Duration kLetGoLimit = 1s;
}  // namespace

DiskSender::DiskSender(const Send& order, qemu::EngineMonitor& monitor, std::shared_ptr<engine::Failure> failure)
    : order_(order), monitor_(monitor), failure_(std::move(failure)) {}

DiskSender::~DiskSender() {
  if (!copies_) return;
  // QEMU lets go first, while its connections still stand: where they break under it, it has ended itself (7.2, once).
  // But what hangs on a dead link, the guest's writes too, ends with the connections.
  std::jthread patience([this](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_for(lock, stop, kLetGoLimit, [] { return false; });
    if (!stop.stop_requested()) tunnel_.reset();
  });
  if (const Status ended = end(); !ended.ok()) {
    log(Level::warn, "the copy of the disks has not ended", {{"vm", order_.leg.vm.text}, {"why", ended.error().what}});
  }
}

Result<std::unique_ptr<DiskSender>> DiskSender::start(const Send& order, qemu::EngineMonitor& monitor,
                                                      const engine::TunnelOptions& options,
                                                      std::shared_ptr<engine::Failure> failure) {
  std::unique_ptr<DiskSender> sender(new DiskSender(order, monitor, std::move(failure)));
  TRY_ASSIGN(const std::uint64_t needed, monitor.disk_copy(order.leg.motion).allocated_bytes(order.disks));
  if (needed > order.room_bytes) {
    return Error{Code::no_room, fmt::format("The disks take {} MiB, and {} MiB are free for them at the destination.",
                                            (needed >> 20U) + 1, order.room_bytes >> 20U)};
  }
  sender->tunnel_ = engine::TunnelEntrance::start(order.endpoint, options, sender->link_);
  return sender;
}

Status DiskSender::begin() {
  const qemu::RunDir dir{order_.leg.run_dir};
  CopyRequest request;
  request.vm = order_.leg.vm;
  request.id = order_.leg.motion;
  for (const auto& disk : order_.disks) {
    TRY(tunnel_->open(disk_channel(disk), dir.disk_socket(disk)));
    request.disks.push_back({disk, dir.disk_socket(disk), vm::DiskFormat::raw, true});
  }
  copies_ = true;
  return monitor_.disk_copy(order_.leg.motion).begin(request);
}

Result<CopyState> DiskSender::look() {
  TRY(failure_->status());
  TRY(link_->status());
  TRY_ASSIGN(CopyState state, monitor_.disk_copy(order_.leg.motion).state());
  if (state.phase == Copy::none) return Error{Code::failed, "QEMU knows nothing of the disks' copy any more."};
  if (state.phase != Copy::failed) return state;
  const bool full = state.error.find("No space left") != std::string::npos;
  return Error{full ? Code::no_room : Code::failed, "The copy of the disks failed: " + state.error + "."};
}

Status DiskSender::copy(const Show& show) {
  TRY(begin());
  for (;;) {
    TRY_ASSIGN(const CopyState state, look());
    show(state.all_bytes - std::min(state.all_bytes, state.done_bytes), state.all_bytes);
    if (state.phase == Copy::ready) return {};
    std::this_thread::sleep_for(kLook);
  }
}

Status DiskSender::check() {
  TRY_ASSIGN(const CopyState state, look());
  if (state.phase == Copy::ready) return {};
  return Error{Code::failed, "The disks are not equal any more."};
}

Status DiskSender::finish() {
  TRY(check());
  const Status held = monitor_.disk_copy(order_.leg.motion).hold();
  if (!held.ok() && held.code() != Code::timed_out) return held;
  if (!held.ok()) TRY(wait_held());
  return end();
}

// The destination's storage writes what it has not yet.
Status DiskSender::wait_held() {
  const Instant deadline = sys::boot_now() + kFlushLimit;
  for (;;) {
    TRY_ASSIGN(const CopyState state, look());
    if (state.phase == Copy::held) return {};
    if (sys::boot_now() > deadline) {
      return Error{Code::timed_out, "The destination's storage did not write the last of the disks in time."};
    }
    std::this_thread::sleep_for(kLook);
  }
}

Status DiskSender::end() {
  copies_ = false;
  // safety: without the new images: whether the VM has them is for the commit to say, and its other QEMU opens them.
  return monitor_.disk_copy(order_.leg.motion).end(false);
}

}  // namespace hf::motion
