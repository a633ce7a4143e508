#include "motion/qemu_copy.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "engine/stream/connection.hpp"
#include "engine/wire/message.hpp"
#include "sys/process/clock.hpp"
#include "sys/qemu/shim_client.hpp"

namespace hf::motion {
namespace {
using engine::wire::Kind;

constexpr Duration kLook = Duration(1s) / kProgressPerSecond;
constexpr Duration kLoadLimit = 30s;
constexpr Duration kWordsLimit = 1s;  // for the destination's own words, once something has broken
constexpr std::uint64_t kPageBytes = 4096;

}  // namespace

Result<std::unique_ptr<QemuCopy>> QemuCopy::start(const Send& order, qemu::EngineMonitor& monitor,
                                                  std::shared_ptr<engine::Failure> failure) {
  TRY_ASSIGN(engine::ConnectionOptions options, connection_options(order.leg));
  TRY_ASSIGN(engine::Connections connections, engine::connect(order.endpoint, options, {}, std::move(failure)));
  return std::unique_ptr<QemuCopy>(new QemuCopy(order, monitor, std::move(connections), std::move(options)));
}

QemuCopy::QemuCopy(const Send& order, qemu::EngineMonitor& monitor, engine::Connections connections,
                   engine::ConnectionOptions options)
    : order_(order),
      monitor_(monitor),
      connections_(std::move(connections)),
      control_(*connections_.control, *connections_.failure, connections_.silence, "destination"),
      tunnel_(engine::TunnelEntrance::start(
          order_.endpoint, {std::move(options), connections_.encrypted, order_.bytes_per_second},
          connections_.failure)),
      began_(sys::boot_now()),
      pacing_({order_.stop_max, order_.stop_max_fixed}),
      answer_(answered_.get_future()) {
  listener_ = std::jthread([this] {
    ::pthread_setname_np(::pthread_self(), "hf-control");
    const auto frame = control_.read();
    const bool loaded = frame.ok() && frame->header.kind == Kind::loaded;
    const Error misplaced{Code::corrupt, "The destination said something that has no place here."};
    if (frame.ok() && !loaded) control_.fail(misplaced);
    answered_.set_value(loaded ? Status() : frame.ok() ? Status(misplaced) : Status(frame.error()));
  });
}

QemuCopy::~QemuCopy() { connections_.failure->set({Code::failed, "The motion has ended."}); }

Status QemuCopy::run(const Course& course, Finished& done) {
  const qemu::RunDir dir{order_.leg.run_dir};
  TRY_ASSIGN(const qemu::LaunchRecord record, launch_record(dir));
  done.tracker = qemu::describe_tracking(qemu::ask_shim(dir.memory_socket(), kQemuLimit));
  TRY(tunnel_->open(kMigrationChannel, dir.migration_socket()));
  const qemu::OwnMigrationLimits limits{order_.stop_max, order_.bytes_per_second};
  TRY(monitor_.migrate_to(dir.migration_socket(), limits, is_emulated(record), kQemuLimit));
  if (const Status copied = copy(course, done); !copied.ok()) return better_known(copied.error());
  const Instant sent = sys::boot_now();
  const Instant stopped = monitor_.stopped_at().value_or(sent);
  done.stop.copy = sent - stopped;
  TRY(look(course, done));  // beside the load; QEMU's event may have reached us late
  if (answer_.wait_for(kLoadLimit) != std::future_status::ready)
    return Error{Code::timed_out, "The destination did not load the guest in time."};
  TRY(answer_.get());
  done.stop.load = sys::boot_now() - sent;
  return {};
}

Status QemuCopy::copy(const Course& course, Finished& done) {
  for (bool stands = false;;) {
    TRY(connections_.failure->status());
    TRY_ASSIGN(const bool completed, monitor_.has_migrated(kLook));
    if (!std::exchange(stands, monitor_.stopped_at().has_value()) && stands) {
      course.on_stop();
      TRY(control_.write(Kind::stopped));
    }
    if (completed) return {};
    if (!stands) TRY(look(course, done));
  }
}

// Shows how far it is, and whether it will ever end.
Status QemuCopy::look(const Course& course, Finished& done) {
  TRY_ASSIGN(const qemu::OwnMigrationProgress now, monitor_.own_progress(kQemuLimit));
  done.rounds = now.rounds;
  done.stop.copy = std::max(done.stop.copy, now.stood);
  done.zero_pages = now.zero_pages;
  done.plain_pages = now.plain_pages;
  done.least_share_percent =
      std::min(done.least_share_percent, 100 - std::min<std::uint64_t>(now.throttle_percent, 100));
  const Instant at = sys::boot_now();
  const std::uint64_t sent = bytes(), before = std::exchange(bytes_before_, sent);
  const double seconds = std::chrono::duration<double>(at - std::exchange(looked_at_, at)).count();
  Progress progress;
  progress.phase = monitor_.stopped_at() ? Phase::stopping : Phase::copying;
  progress.round = std::max<std::uint64_t>(1, now.rounds);
  progress.pages_left = now.pages_left;
  progress.pages_all = now.pages_all;
  progress.bytes = sent;
  progress.bytes_per_second = static_cast<std::uint64_t>(static_cast<double>(sent - before) / seconds);
  progress.share_percent = 100 - std::min<std::uint64_t>(now.throttle_percent, 100);
  course.show(progress);
  if (monitor_.stopped_at()) return {};
  switch (pacing_.looked(now.rounds, at - began_)) {
    case QemuPacing::Next::go_on:
      return {};
    case QemuPacing::Next::aim_longer:
      log(Level::info, "the guest's stop may be longer: QEMU's own migration did not end so far",
          {{"vm", order_.leg.vm.text}, {"ms", std::to_string(pacing_.stop_max() / 1ms)}});
      return monitor_.aim_at_stop(pacing_.stop_max(), kQemuLimit);
    case QemuPacing::Next::give_up:
      break;
  }
  return pacing_.given_up(now.pages_written_per_second * kPageBytes, now.throttle_percent);
}

// QEMU sees no more than a closed socket; the destination may know why it was closed.
Error QemuCopy::better_known(const Error& why) {
  if (answer_.wait_for(kWordsLimit) != std::future_status::ready) return why;
  const Status answer = answer_.get();
  return answer.ok() ? why : answer.error();
}

Status QemuCopy::give_back() {
  TRY(monitor_.end_migration(kQemuLimit));
  return monitor_.run(kQemuLimit);
}

void QemuCopy::tell_committed(std::uint64_t version) {
  // Its host learns it from the store as well.
  const Status told = control_.write(Kind::committed, engine::wire::encode_version(version));
  if (!told.ok()) log(Level::warn, "the destination was not told of the commit", {{"why", told.error().what}});
}

void QemuCopy::abort(const std::string& why) { control_.fail({Code::failed, why}); }

}  // namespace hf::motion
