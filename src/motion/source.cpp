#include "motion/source.hpp"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/break_point.hpp"
#include "base/log.hpp"
#include "engine/attach.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/hurry.hpp"

namespace hf::motion {
namespace {

constexpr Duration kLoadLimit = 30s;
constexpr std::uint64_t kWritesShare = 4;  // of a limited link: a quarter for what the guest writes on its disks

// Time since the last lap.
class Laps {
 public:
  Duration lap() {
    const Instant now = sys::boot_now();
    return now - std::exchange(last_, now);
  }

 private:
  Instant last_ = sys::boot_now();
};

std::uint64_t percent(double share) { return static_cast<std::uint64_t>(std::lround(share * 100)); }

}  // namespace

Source::Source(Master& master, Send order)
    : master_(master),
      order_(std::move(order)),
      began_(sys::boot_now()),
      pacing_({.stop_max = order_.stop_max}) {
  master_.watch([failure = failure_](const Error& why) { failure->set(why); });
}

// The sender tells from the guest's memory, and both go before what they stand on.
Source::~Source() {
  reporter_ = std::jthread();
  sender_.reset();
}

int Source::run() {
  if (const Status copied = copy(); !copied.ok()) return give_up(copied.error());
  return settle();
}

Status Source::copy() {
  if (order_.leg.engine == Engine::qemu) return copy_by_qemu();
  TRY(open());
  TRY(arm());
  TRY(round({{0, memory_->page_count()}}));
  break_point("source.copied");
  for (;;) {
    TRY_ASSIGN(engine::PageSet written, scan());
    if (disks_) TRY(disks_->check());
    const Duration fixed =
        done_.stop.stop + done_.stop.scan + 2 * save_took_;  // a load takes about as long as a save
    if (pacing_.scanned(engine::count_of(written), fixed) == Pacing::Next::stop) {
      return stop_for_good(std::move(written));
    }
    guest_->set_share(pacing_.share());
    done_.least_share_percent = std::min(done_.least_share_percent, percent(pacing_.share()));
    TRY(guest_->release());
    end_hurry();
    TRY(round(std::move(written)));
  }
}

Status Source::open() {
  const qemu::RunDir dir{order_.leg.run_dir};
  TRY_ASSIGN(monitor_, qemu::EngineMonitor::connect(dir.engine_socket(), kQemuLimit));
  if (monitor_->guest(kQemuLimit) != GuestState::running) {
    return Error{Code::conflict, "The guest does not run: only a running VM is moved with its memory."};
  }
  TRY(monitor_->prepare_to_save(kQemuLimit));
  guest_ = std::make_unique<PacedGuest>(*monitor_);
  TRY_ASSIGN(qemu::ShimAnswer shim, qemu::ask_shim(dir.memory_socket(), kQemuLimit));
  note_niceness(shim.qemu_pid);
  TRY_ASSIGN(engine::GuestMemory memory, engine::map_guest_memory(shim));
  memory_.emplace(std::move(memory));
  TRY_ASSIGN(const qemu::LaunchRecord record, launch_record(dir));
  TRY_ASSIGN(tracker_, engine::make_tracker(*memory_, std::move(shim), !is_emulated(record)));
  done_.tracker = tracker_->describe();
  TRY_ASSIGN(const engine::ConnectionOptions options, connection_options(order_.leg));
  TRY_ASSIGN(engine::Connections connections,
             engine::connect(order_.endpoint, options, memory_->blocks(), failure_));
  const bool encrypted = connections.encrypted;
  sender_ =
      engine::Sender::start(*memory_, std::move(connections), {.bytes_per_second = order_.bytes_per_second});
  shown_.pages_all = memory_->page_count();
  reporter_ = std::jthread([this](const std::stop_token& stop) { report_progress(stop); });
  return order_.disks.empty() ? Status() : copy_disks(options, encrypted);
}

Status Source::copy_disks(const engine::ConnectionOptions& options, bool encrypted) {
  const engine::TunnelOptions tunnel{options, encrypted, order_.bytes_per_second};
  TRY_ASSIGN(disks_, DiskSender::start(order_, *monitor_, tunnel, failure_));
  break_point("source.disks");
  TRY(disks_->copy([this](std::uint64_t left, std::uint64_t all) {
    const std::scoped_lock lock(mutex_);
    shown_.phase = Phase::disks;
    shown_.disk_bytes_left = left;
    shown_.disk_bytes_all = all;
  }));
  if (order_.bytes_per_second > 0) {
    const std::uint64_t writes = order_.bytes_per_second / kWritesShare;
    disks_->limit(writes);
    sender_->limit(order_.bytes_per_second - writes);
  }
  break_point("source.disks_equal");
  return {};
}

Status Source::copy_by_qemu() {
  const qemu::RunDir dir{order_.leg.run_dir};
  TRY_ASSIGN(monitor_, qemu::EngineMonitor::connect(dir.engine_socket(), kQemuLimit));
  if (monitor_->guest(kQemuLimit) != GuestState::running) {
    return Error{Code::conflict, "The guest does not run: only a running VM is moved with its memory."};
  }
  TRY_ASSIGN(const qemu::LaunchRecord record, launch_record(dir));
  note_niceness(record.pid);
  TRY_ASSIGN(qemu_copy_, QemuCopy::start(order_, *monitor_, failure_));
  const auto show = [this](const Progress& progress) {
    (void)master_.report(progress);  // its end is noticed elsewhere
  };
  return qemu_copy_->run({show, [this] { hurry(); }}, done_);
}

Status Source::arm() {
  hurry();
  TRY(guest_->hold());
  TRY(tracker_->arm());
  Laps laps;
  TRY_ASSIGN(const std::string state, monitor_->save_devices(qemu::Images::kept, kQemuLimit));
  save_took_ = laps.lap();
  TRY(guest_->release());
  end_hurry();
  return {};
}

void Source::note_niceness(int qemu) {
  qemu_ = qemu;
  qemu_nice_ = ::getpriority(PRIO_PROCESS, static_cast<id_t>(qemu_));
  own_nice_ = ::getpriority(PRIO_PROCESS, 0);
}

void Source::hurry() {
  process::hurry(qemu_);
  process::hurry(::getpid());
}

void Source::end_hurry() {
  process::end_hurry(qemu_, qemu_nice_);
  process::end_hurry(::getpid(), own_nice_);
}

Status Source::round(engine::PageSet pages) {
  show(Phase::copying, engine::count_of(pages));
  TRY(sender_->start_round(std::move(pages)));
  TRY_ASSIGN(const engine::RoundReport report, sender_->finish_round());
  ++done_.rounds;
  pacing_.copied({report.plain_pages + report.delta_pages, report.took});
  log(Level::info, "a round was copied",
      {{"round", std::to_string(report.round)},
       {"pages", std::to_string(report.pages())},
       {"bytes", std::to_string(report.bytes)},
       {"ms", std::to_string(std::chrono::round<std::chrono::milliseconds>(report.took).count())},
       {"share", std::to_string(percent(pacing_.share()))}});
  return {};
}

Result<engine::PageSet> Source::scan() {
  hurry();
  TRY(guest_->hold());
  done_.stop.stop = guest_->standing();
  Laps laps;
  TRY_ASSIGN(engine::PageSet written, tracker_->take_written());
  done_.stop.scan = laps.lap();
  return written;
}

Status Source::stop_for_good(engine::PageSet pages) {
  show(Phase::stopping, engine::count_of(pages));
  break_point("source.stopped");
  done_.stopped_before = guest_->stopped() - done_.stop.stop - done_.stop.scan;
  Laps laps;
  TRY(sender_->start_round(std::move(pages)));
  // Beside the copy. The guest cannot run between the scan and this: it is held.
  // safety: the destination's images have all that the guest was told of, before any commit is asked for.
  if (disks_) TRY(disks_->finish());
  break_point("source.disks_sent");
  TRY_ASSIGN(const std::string state, monitor_->save_devices(qemu::Images::released, kQemuLimit));
  done_.stop.save = laps.lap();
  done_.state_bytes = state.size();
  TRY(sender_->send_device_state(std::as_bytes(std::span(state))));
  TRY(sender_->finish_round());
  ++done_.rounds;
  done_.stop.copy = laps.lap();
  break_point("source.sent");
  TRY(sender_->wait_loaded(kLoadLimit));
  done_.stop.load = laps.lap();
  return {};
}

// The destination has all of it, and the guest stands still.
int Source::settle() {
  asked_at_ = sys::boot_now();
  // safety: until the report is out nothing can have been committed, and the guest may go on here. From then on only
  // holdfastd's word counts: neither the destination's silence nor a signal of QEMU's gives it back its guest.
  const auto early = master_.word();
  if (early && early->kind != Word::Kind::committed) return give_up(as_error(*early));
  break_point("source.loaded");
  if (const Status asked = master_.report(ReadyToCommit{}); !asked.ok()) return give_up(asked.error());
  const Word word = master_.wait_for_word();
  switch (word.kind) {
    case Word::Kind::committed:
      return finish(word.version);
    case Word::Kind::abort:
      return give_up(as_error(word));
    case Word::Kind::gone:
      break;
  }
  // safety: it may have committed before it went. The next holdfastd reads the store.
  log(Level::warn, "holdfastd is gone after it was asked to commit: the guest stays stopped",
      {{"vm", order_.leg.vm.text}, {"why", word.why}});
  return info(Code::outcome_unknown).exit_status;
}

void Source::tell_committed(std::uint64_t version) {
  // Its host learns it from the store as well.
  if (const Status told = sender_->tell_committed(version); !told.ok()) {
    log(Level::warn, "the destination was not told of the commit", {{"why", told.error().what}});
  }
  // What is left here is to be taken down, which takes as long as memory is large.
  end_hurry();
  reporter_ = std::jthread();
  done_.disks = order_.disks.size();
  done_.disk_bytes = disks_ ? disks_->bytes() : 0;
  const engine::RoundReport all = sender_->total();
  done_.zero_pages = all.zero_pages;
  done_.delta_pages = all.delta_pages;
  done_.plain_pages = all.plain_pages;
  done_.bytes = all.bytes;
}

int Source::finish(std::uint64_t version) {
  done_.stop.commit = sys::boot_now() - asked_at_;
  break_point("source.finish");
  if (qemu_copy_) {
    qemu_copy_->tell_committed(version);
    done_.bytes = qemu_copy_->bytes();
  } else {
    tell_committed(version);
  }
  done_.took = sys::boot_now() - began_;
  if (const Status told = master_.report(done_); !told.ok()) {
    log(Level::warn, "the last report was not taken", {{"why", told.error().what}});
  }
  return 0;
}

// Fine where it was never stopped.
Status Source::resume() {
  if (qemu_copy_) return qemu_copy_->give_back();
  return guest_ ? guest_->release() : Status();
}

// safety: only where holdfastd was not asked, or has said Abort: this host still has the right to run the VM.
int Source::give_up(const Error& why) {
  const Error first = reason_of(*failure_, why);
  log(Level::warn, "a motion has failed", {{"vm", order_.leg.vm.text}, {"why", first.what}});
  Guest state = Guest::runs;
  if (guest_) guest_->set_share(1);
  if (const Status resumed = resume(); !resumed.ok()) {
    state = Guest::stopped;
    log(Level::error, "the guest could not be resumed",
        {{"vm", order_.leg.vm.text}, {"why", resumed.error().what}});
  } else if (shown_.phase == Phase::stopping || qemu_copy_) {
    // The destination may have called it to itself.
    if (const Status told = monitor_->announce(kQemuLimit); !told.ok()) {
      log(Level::warn, "the guest was not announced to its networks", {{"why", told.error().what}});
    }
  }
  disks_.reset();  // before the destination hears of it and closes them
  if (qemu_ != 0) end_hurry();
  if (tracker_) tracker_->disarm();
  if (sender_) sender_->abort(first.what);
  if (qemu_copy_) qemu_copy_->abort(first.what);
  reporter_ = std::jthread();
  if (const Status told = master_.report(Failed{first, state}); !told.ok()) {
    log(Level::warn, "nobody was told that the motion has failed", {{"why", told.error().what}});
  }
  return info(first.code).exit_status;
}

void Source::show(Phase phase, std::uint64_t pages) {
  const std::uint64_t sent = sender_->total().pages();
  const std::scoped_lock lock(mutex_);
  shown_.phase = phase;
  ++shown_.round;
  pages_before_ = sent;
  round_pages_ = pages;
  shown_.share_percent = percent(pacing_.share());
  const auto left = pacing_.time_left();
  shown_.knows_end = left.has_value();
  shown_.time_left = left.value_or(0ns);
}

void Source::report_progress(std::stop_token stop) {
  ::pthread_setname_np(::pthread_self(), "hf-progress");
  constexpr Duration kInterval = Duration(1s) / kProgressPerSecond;
  std::condition_variable_any changed;
  std::uint64_t bytes_before = 0;
  for (Instant before = sys::boot_now();;) {
    std::unique_lock lock(mutex_);
    if (changed.wait_for(lock, stop, kInterval, [&] { return stop.stop_requested(); })) return;
    const Instant now = sys::boot_now();
    const engine::RoundReport total = sender_->total();
    shown_.bytes = total.bytes;
    const double seconds = std::chrono::duration<double>(now - std::exchange(before, now)).count();
    shown_.bytes_per_second = static_cast<std::uint64_t>(
        static_cast<double>(total.bytes - std::exchange(bytes_before, total.bytes)) / seconds);
    const std::uint64_t sent = total.pages() - pages_before_;
    shown_.pages_left = round_pages_ > sent ? round_pages_ - sent : 0;
    const Progress progress = shown_;
    lock.unlock();
    if (!master_.report(progress).ok()) return;  // its end is noticed elsewhere
  }
}

}  // namespace hf::motion
