// Goal: a guest under load moves from QEMU to QEMU and back with holdfast-motion, its memory, disk and network whole;
// and whoever dies on the way, it goes on at exactly one side. Method: the real processes on this machine; the test
// plays holdfastd and the store (who owns the VM) for both sides.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "motion/motion_process.hpp"
#include "sys/pki/pki.hpp"
#include "sys/process/small_file.hpp"
#include "two_sides.hpp"

namespace hf::motion {
namespace {
using test::eventually;
using test::kPatience;

// The reports of one process, in order.
class Reports {
 public:
  MotionProcess::OnReport taker() {
    return [this](const Report& report) {
      const std::scoped_lock lock(mutex_);
      all_.push_back(report);
      changed_.notify_all();
    };
  }
  // The next one of this kind, or the end of the process's work; what comes before it is dropped.
  template <class Wanted>
  std::optional<Wanted> next() {
    for (;;) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_for(lock, kPatience, [this] { return !all_.empty(); })) return {};
      const Report report = all_.front();
      all_.pop_front();
      if (const auto* wanted = std::get_if<Wanted>(&report)) return *wanted;
      if (const auto* failed = std::get_if<Failed>(&report)) {
        failed_ = *failed;
        return {};
      }
    }
  }
  const Failed& failed() const { return failed_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Report> all_;
  Failed failed_;
};

// One side's process and what it said.
struct Party {
  Reports reports;
  std::unique_ptr<MotionProcess> process;
};

double ms(Duration duration) { return static_cast<double>(duration.count()) / 1e6; }

class Motion : public test::TwoSides {
 protected:
  static std::string words(unsigned pattern_mib, unsigned dirty_mb) {
    return fmt::format("hf.ledger=1 hf.rate=100 hf.ip=10.78.9.1/24 hf.pattern={} hf.dirty={}", pattern_mib,
                       dirty_mb);
  }
  void start_guest(const std::string& options) {
    words_ = options;
    boot(words_, "errors=0");
    ASSERT_TRUE(says(a_, "errors=0"));
  }
  const VmId& other() const { return owner_ == a_ ? b_ : a_; }

  Leg leg(const VmId& side, const std::string& peer) {
    Leg made;
    made.motion = TaskId("task-1");
    made.vm = VmId("vm");
    made.token = "token-1";
    made.peer = HostId(peer);
    made.run_dir = options_.dir_of(side).path;
    made.engine = engine_;
    made.encryption = encryption_;
    if (encryption_ == engine::Encryption::off) return made;
    const std::string own = folder_ / ("pki-" + std::string(peer == "host-a" ? "host-b" : "host-a"));
    made.ca = own + "/ca.pem";
    made.certificate = own + "/cert.pem";
    made.key = own + "/key.pem";
    return made;
  }
  MotionProgram program(const std::string& side) { return {HF_MOTION, folder_ / (side + ".log"), ""}; }

  // A QEMU and a process that wait at the other side.
  std::string prepare(Party& receiver) {
    launch(other(), words_, true);
    auto started = MotionProcess::start(
        program("receive"), Receive{leg(other(), "host-a"), "127.0.0.1:0", 60s, {}}, receiver.reports.taker());
    EXPECT_TRUE(started.ok()) << started.error().what;
    if (!started) return "";
    receiver.process = std::move(*started);
    const auto listening = receiver.reports.next<Listening>();
    EXPECT_TRUE(listening) << receiver.reports.failed().error.what;
    return listening ? listening->endpoint : "";
  }
  void send(Party& sender, const std::string& endpoint, std::uint64_t bytes_per_second = 0) {
    auto started =
        MotionProcess::start(program("send"), Send{leg(owner_, "host-b"), endpoint, 20ms, bytes_per_second},
                             sender.reports.taker());
    ASSERT_TRUE(started.ok()) << started.error().what;
    sender.process = std::move(*started);
  }
  // What the two holdfastds do once the store has taken the swap.
  void commit(Party& sender) {
    const VmId before = owner_;
    owner_ = other();
    let_write(before, false);
    EXPECT_TRUE(sender.process == nullptr || sender.process->tell(Committed{4711}).ok());
  }
  void resume_owner() {
    let_write(owner_, true);
    const Status resumed = hypervisor_->resume(owner_);
    ASSERT_TRUE(resumed.ok()) << resumed.error().what;
  }
  void discard_other() {
    const Status killed = hypervisor_->kill(other());
    EXPECT_TRUE(killed.ok() || killed.code() == Code::not_found) << killed.error().what;
  }

  void move(std::uint64_t bytes_per_second = 0) {
    Party sender, receiver;
    const std::string endpoint = prepare(receiver);
    send(sender, endpoint, bytes_per_second);
    ASSERT_TRUE(sender.reports.next<ReadyToCommit>()) << sender.reports.failed().error.what << logs();
    commit(sender);
    EXPECT_TRUE(receiver.reports.next<Arrived>()) << receiver.reports.failed().error.what;
    resume_owner();
    const auto finished = sender.reports.next<Finished>();
    ASSERT_TRUE(finished) << sender.reports.failed().error.what;
    discard_other();
    finished_ = *finished;
    const StopTimes& stop = finished->stop;
    std::fputs(
        fmt::format(
            "stop {:7.2f} ms = stop {:.2f} scan {:.2f} save {:.2f} copy {:.2f} load {:.2f} commit {:.2f}; "
            "{} rounds in {:.0f} ms, {} zero {} delta {} plain pages, {:.1f} MB, {} % at least, {}\n",
            ms(stop.total()), ms(stop.stop), ms(stop.scan), ms(stop.save), ms(stop.copy), ms(stop.load),
            ms(stop.commit), finished->rounds, ms(finished->took), finished->zero_pages,
            finished->delta_pages, finished->plain_pages, static_cast<double>(finished->bytes) / 1e6,
            finished->least_share_percent, finished->tracker)
            .c_str(),
        stdout);
    std::fflush(stdout);
  }
  std::string logs() {
    std::string all;
    for (const char* side : {"send", "receive"}) {
      const auto text = process::read_small_file(folder_ / (std::string(side) + ".log"));
      all += "\n" + std::string(side) + ":\n" + (text ? *text : "");
    }
    return all;
  }

  // The guest's own check of its memory has gone on, twice over all of it, and found nothing.
  void expect_guest_whole() {
    const std::string before = console(owner_);
    const bool went_on = eventually([&] {
      const std::string text = console(owner_).substr(before.size());
      return std::count(text.begin(), text.end(), '\n') >= 3 || text.find("BROKEN") != std::string::npos;
    });
    EXPECT_TRUE(went_on) << console(owner_) << logs();
    EXPECT_EQ(console(owner_).find("BROKEN"), std::string::npos) << console(owner_);
    EXPECT_EQ(console(owner_).find("errors=1"), std::string::npos) << console(owner_);
  }
  // No thread of the owner's QEMU goes before others on its host any more.
  void expect_not_hurried() {
    const std::string threads = "/proc/" + std::to_string(pids_[owner_.text]) + "/task";
    std::error_code gone;
    for (const auto& thread : std::filesystem::directory_iterator(threads, gone)) {
      const auto id = static_cast<id_t>(std::stoul(thread.path().filename()));
      EXPECT_EQ(::getpriority(PRIO_PROCESS, id), options_.nice) << thread.path();
    }
    EXPECT_FALSE(gone) << gone.message();
  }
  // Whether the own migration of the QEMU under test keeps what an emulated guest writes (EngineMonitor::migrate_to).
  bool qemu_keeps_writes() const {
    const auto said = lab::run({options_.qemu_binary, "--version"});
    const std::string sign = "version ";
    const std::size_t at = said.ok() ? said->find(sign) : std::string::npos;
    return at != std::string::npos && std::stoi(said->substr(at + sign.size())) >= 9;
  }
  // Exactly one side can write to the disk, and it does.
  void expect_one_runs() {
    expect_guest_whole();
    expect_not_hurried();
    EXPECT_TRUE(disk_goes_on());
    const auto there = qemu::EngineMonitor::connect(options_.dir_of(other()).engine_socket(), test::kStep);
    EXPECT_TRUE(!there || (*there)->guest(test::kStep) != GuestState::running);
  }

  VmId owner_ = VmId("vm-a");  // as the store says
  engine::Encryption encryption_ = engine::Encryption::off;
  Engine engine_ = Engine::holdfast;
  std::string words_;
  Finished finished_;  // of the latest move
};

TEST_F(Motion, guest_that_writes_40_MB_a_second_is_whole_after_each_of_ten_moves) {
  ASSERT_NO_FATAL_FAILURE(start_guest(words(32, 40)));
  for (int round = 0; round < 10; ++round) {
    ASSERT_NO_FATAL_FAILURE(move());
    expect_guest_whole();
    EXPECT_TRUE(network_works());
  }
  EXPECT_TRUE(disk_goes_on());
}

TEST_F(Motion, guest_that_writes_200_MB_a_second_is_whole_after_each_of_ten_moves) {
  memory_mib_ = 256;
  ASSERT_NO_FATAL_FAILURE(start_guest(words(64, 200)));
  for (int round = 0; round < 10; ++round) {
    ASSERT_NO_FATAL_FAILURE(move());
    expect_guest_whole();
  }
  EXPECT_TRUE(disk_goes_on());
  EXPECT_TRUE(network_works());
}

TEST_F(Motion, guest_moves_over_TLS_between_hosts_that_know_each_other) {
  encryption_ = engine::Encryption::required;
  const auto ca = pki::make_ca("test");
  ASSERT_TRUE(ca.ok());
  for (const char* host : {"host-a", "host-b"}) {
    const auto own = pki::issue(*ca, {pki::Role::host, host, {}});
    ASSERT_TRUE(own.ok());
    const std::string folder = folder_ / (std::string("pki-") + host);
    std::filesystem::create_directories(folder);
    ASSERT_TRUE(pki::save({ca->certificate_pem, *own}, folder).ok());
  }
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 40)));
  ASSERT_NO_FATAL_FAILURE(move());
  expect_guest_whole();
}

TEST_F(Motion, guest_moved_by_qemu_itself_is_whole_after_each_of_ten_moves) {
  engine_ = Engine::qemu;
  if (!qemu_keeps_writes()) GTEST_SKIP() << "this QEMU's own migration is refused";
  memory_mib_ = 256;
  ASSERT_NO_FATAL_FAILURE(start_guest(words(64, 40)));
  for (int round = 0; round < 10; ++round) {
    ASSERT_NO_FATAL_FAILURE(move());
    expect_guest_whole();
    EXPECT_TRUE(network_works());
  }
  EXPECT_TRUE(disk_goes_on());
  // What QEMU was told for its own migration is not in the engine's way, nor the other way round.
  for (const Engine engine : {Engine::holdfast, Engine::qemu}) {
    engine_ = engine;
    ASSERT_NO_FATAL_FAILURE(move());
    expect_guest_whole();
  }
}

TEST_F(Motion, guest_is_not_moved_by_a_qemu_that_loses_its_writes) {
  engine_ = Engine::qemu;
  if (qemu_keeps_writes()) GTEST_SKIP() << "this QEMU's own migration is good";
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 20)));
  launch(other(), words_, true);
  Party receiver;
  auto started = MotionProcess::start(program("receive"), Receive{leg(other(), "host-a"), "127.0.0.1:0", 60s, {}},
                                      receiver.reports.taker());
  ASSERT_TRUE(started.ok());
  receiver.process = std::move(*started);
  EXPECT_FALSE(receiver.reports.next<Listening>());
  EXPECT_EQ(receiver.reports.failed().error.code, Code::unsupported);
  discard_other();
  expect_one_runs();
}

TEST_F(Motion, guest_that_outruns_its_link_is_slowed_down_and_arrives) {
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 40)));
  ASSERT_NO_FATAL_FAILURE(move(3'000'000));
  EXPECT_LT(finished_.least_share_percent, 100U);
  expect_guest_whole();
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(finished_.least_share_percent, 100U);
  expect_guest_whole();
}

// For measuring, not for checking: the times of each move (HACKING.md).
class MotionTimes : public Motion, public testing::WithParamInterface<std::tuple<Engine, unsigned>> {};

TEST_P(MotionTimes, DISABLED_of_twenty_moves) {
  memory_mib_ = 256;
  engine_ = std::get<0>(GetParam());
  ASSERT_NO_FATAL_FAILURE(start_guest(words(64, std::get<1>(GetParam()))));
  for (int round = 0; round < 20; ++round) ASSERT_NO_FATAL_FAILURE(move());
  expect_guest_whole();
}

INSTANTIATE_TEST_SUITE_P(EngineAndWrittenMegabytesASecond, MotionTimes,
                         testing::Combine(testing::Values(Engine::holdfast, Engine::qemu),
                                          testing::Values(0U, 200U)));

// Who dies, or what happens, and when.
enum class Event { sender_killed, receiver_killed, destination_qemu_killed, source_daemon_gone, cancelled };
enum class Step { copying, ready };

class MotionFault : public Motion, public testing::WithParamInterface<std::tuple<Event, Step, Engine>> {};

TEST_P(MotionFault, before_the_commit_leaves_the_guest_running_at_the_source_alone) {
  const auto [event, step, engine] = GetParam();
  engine_ = engine;
  if (engine_ == Engine::qemu && !qemu_keeps_writes()) GTEST_SKIP() << "this QEMU's own migration is refused";
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 20)));
  for (int time = 0; time < 2; ++time) {
    Party sender, receiver;
    const std::string endpoint = prepare(receiver);
    send(sender, endpoint, step == Step::copying ? 5'000'000 : 0);
    if (step == Step::ready) {
      ASSERT_TRUE(sender.reports.next<ReadyToCommit>()) << sender.reports.failed().error.what << logs();
    } else {
      for (std::optional<Progress> seen; !seen || seen->bytes < 100'000;) {
        seen = sender.reports.next<Progress>();
        ASSERT_TRUE(seen) << sender.reports.failed().error.what << logs();
      }
    }
    switch (event) {
      case Event::sender_killed:
        EXPECT_TRUE(sender.process->kill(test::kStep).ok());
        break;
      case Event::receiver_killed:
        EXPECT_TRUE(receiver.process->kill(test::kStep).ok());
        break;
      case Event::destination_qemu_killed:
        EXPECT_TRUE(hypervisor_->kill(other()).ok());
        break;
      case Event::source_daemon_gone:
        sender.process.reset();
        break;
      case Event::cancelled:
        EXPECT_TRUE(sender.process->tell(Abort{"The user has cancelled it."}).ok());
        break;
    }
    // What holdfastd does then. At `ready` the source does not look at the other side any more: holdfastd decides.
    if (event == Event::destination_qemu_killed && step == Step::copying) receiver.process.reset();
    const bool destination_lost = event == Event::receiver_killed || event == Event::destination_qemu_killed;
    if (destination_lost && step == Step::ready) {
      EXPECT_TRUE(sender.process->tell(Abort{"The destination is gone."}).ok());
    }
    if (sender.process) {
      EXPECT_FALSE(sender.reports.next<Finished>());
      const Failed& failed = sender.reports.failed();
      EXPECT_EQ(failed.guest, event == Event::sender_killed ? Guest::stopped : Guest::runs)
          << failed.error.what;
    }
    // The next holdfastd, or the one whose process died, finds the VM its own.
    if (event == Event::sender_killed || event == Event::source_daemon_gone) resume_owner();
    receiver.process.reset();
    discard_other();
    expect_one_runs();
  }
  ASSERT_NO_FATAL_FAILURE(move());
  expect_one_runs();
}

INSTANTIATE_TEST_SUITE_P(Each, MotionFault,
                         testing::Combine(testing::Values(Event::sender_killed, Event::receiver_killed,
                                                          Event::destination_qemu_killed,
                                                          Event::source_daemon_gone, Event::cancelled),
                                          testing::Values(Step::copying, Step::ready),
                                          testing::Values(Engine::holdfast, Engine::qemu)));

TEST_F(Motion, source_whose_holdfastd_goes_before_the_question_resumes_its_guest_by_itself) {
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 20)));
  Party sender, receiver;
  send(sender, prepare(receiver), 5'000'000);
  ASSERT_TRUE(sender.reports.next<Progress>());
  sender.process.reset();
  expect_one_runs();
}

TEST_F(Motion, source_whose_holdfastd_goes_after_the_question_leaves_its_guest_stopped) {
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 20)));
  Party sender, receiver;
  send(sender, prepare(receiver));
  ASSERT_TRUE(sender.reports.next<ReadyToCommit>()) << sender.reports.failed().error.what << logs();
  const int pid = sender.process->pid();
  sender.process.reset();
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists("/proc/" + std::to_string(pid)); }));
  const auto monitor = engine(a_);
  ASSERT_TRUE(monitor);
  EXPECT_EQ(monitor->guest(test::kStep), GuestState::stopped);
  // The swap had been done: the destination goes on, on its own view of the store.
  owner_ = b_;
  let_write(a_, false);
  discard_other();
  resume_owner();
  expect_one_runs();
}

TEST_F(Motion, source_or_its_qemu_killed_after_the_commit_takes_nothing_from_the_destination) {
  ASSERT_NO_FATAL_FAILURE(start_guest(words(16, 20)));
  Party sender, receiver;
  send(sender, prepare(receiver));
  ASSERT_TRUE(sender.reports.next<ReadyToCommit>()) << sender.reports.failed().error.what << logs();
  EXPECT_TRUE(sender.process->kill(test::kStep).ok());
  owner_ = b_;
  discard_other();
  EXPECT_FALSE(receiver.reports.next<Arrived>());  // the word is lost; the store is not
  resume_owner();
  expect_one_runs();
}

}  // namespace
}  // namespace hf::motion
