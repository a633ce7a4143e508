#pragma once
// Source: the process of the host that a VM leaves. Copies its memory in rounds while it runs, stops it, sends the
// rest, asks holdfastd to commit.
//
// | state    | the guest    | what happens                          | next                                           |
// |----------|--------------|---------------------------------------|-------------------------------------------------|
// | copying  | runs, mostly | disks that go along; then rounds,     | -> stopping                                    |
// |          |              | until the rest is small               |                                                |
// | stopping | stands still | last pages, devices, "loaded"         | reports ReadyToCommit -> asked                 |
// | both     |              | any failure, Abort, holdfastd is gone | `cont`, reports Failed, ends                   |
// | asked    | stands still | Committed                             | tells the destination, reports Finished, ends  |
// | asked    | stands still | Abort                                 | `cont`, reports Failed, ends                   |
// | asked    | stands still | holdfastd is gone                     | ends, the guest stays stopped: the next        |
// |          |              |                                       | holdfastd reads the store                      |
// | asked    | stands still | anything else                         | nothing: only holdfastd's word counts          |
//
// With Engine::qemu, QEMU's own migration does what "copying" and "stopping" say (qemu_copy.hpp); the rest is the same.
//
// One thread drives it; "hf-progress" reports.
#include <memory>
#include <optional>
#include <thread>

#include "core/motion/pacing.hpp"
#include "engine/sender.hpp"
#include "engine/tracker.hpp"
#include "motion/disk_sender.hpp"
#include "motion/leg.hpp"
#include "motion/master.hpp"
#include "motion/paced_guest.hpp"
#include "motion/qemu_copy.hpp"

namespace hf::motion {

class Source {
 public:
  Source(Master& master, Send order);
  ~Source();

  // To the end. The exit status of the process: 0 only after Committed.
  int run();

 private:
  Status copy();
  Status open();
  Status copy_disks(const engine::ConnectionOptions& options, bool encrypted);
  Status copy_by_qemu();
  // The guest stopped for the first time: tracking begins, and its devices are saved for a try: what QEMU cannot save
  // is known before anything is sent.
  Status arm();
  Status round(engine::PageSet pages);
  // What the guest waits for while it stands still comes first on this host, or no more than others.
  void note_niceness(int qemu);
  void hurry();
  void end_hurry();
  // Stops the guest and says what was written since the last time.
  Result<engine::PageSet> scan();
  Status stop_for_good(engine::PageSet pages);
  int settle();
  int finish(std::uint64_t version);
  void tell_committed(std::uint64_t version);
  int give_up(const Error& why);
  Status resume();
  void show(Phase phase, std::uint64_t pages);
  void report_progress(std::stop_token stop);

  Master& master_;
  const Send order_;
  const Instant began_;
  const std::shared_ptr<engine::Failure> failure_ = std::make_shared<engine::Failure>();
  std::unique_ptr<qemu::EngineMonitor> monitor_;
  std::optional<engine::GuestMemory> memory_;
  std::unique_ptr<engine::Tracker> tracker_;
  std::unique_ptr<PacedGuest> guest_;
  std::unique_ptr<engine::Sender> sender_;
  std::unique_ptr<DiskSender> disks_;    // none: none go along
  std::unique_ptr<QemuCopy> qemu_copy_;  // in place of all before it but `monitor_`
  Pacing pacing_;
  Finished done_;
  int qemu_ = 0;                      // its process
  int qemu_nice_ = 0, own_nice_ = 0;  // before they were hurried
  Duration save_took_{};              // at the try
  Instant asked_at_{};

  std::mutex mutex_;  // of what the reporting thread shows
  std::condition_variable ending_;
  Progress shown_;
  std::uint64_t pages_before_ = 0;  // that the sender had sent when this round began
  std::uint64_t round_pages_ = 0;
  std::jthread reporter_;
};

}  // namespace hf::motion
