// Goal: the real guard freezes a real process that writes under the real shim, in every way contact can be
// lost, and lets it go on only after a confirmation. Method: own cgroup, own run directory, a folder as
// datastore; needs root and cgroup v2.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "core/ha/slot.hpp"
#include "guard/client.hpp"
#include "sys/process/clock.hpp"
#include "shim/testing/harness.hpp"
#include "sys/datastore/datastore.hpp"

namespace hf::guard {
namespace {

using shim_test::Child;
using shim_test::eventually;
using shim_test::HoldPage;
using shim_test::slurp;
using shim_test::TempFolder;
using State = ha::Guard::State;

constexpr Duration kFreezeAfter = 1200ms  /* four heartbeats */;
const VmId kVm("vm-1");
const DatastoreId kDatastore("ds-1");
const HostId kHost("host1");

std::string cgroup2_mount() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(" - cgroup2 ") == std::string::npos) continue;
    std::istringstream fields(line);
    std::string field;
    for (int i = 0; i < 5; ++i) fields >> field;
    return field;
  }
  return {};
}

class Cgroup {
 public:
  Cgroup() {
    static std::atomic<int> number{0};
    path_ = cgroup2_mount() + "/holdfast-test-" + std::to_string(getpid()) + "-" + std::to_string(++number);
    ENSURE(mkdir(path_.c_str(), 0755) == 0, "A cgroup is needed.");
  }
  ~Cgroup() {
    std::ofstream(path_ + "/cgroup.kill") << "1";
    EXPECT_TRUE(eventually([&] { return rmdir(path_.c_str()) == 0 || errno == ENOENT; }));
  }
  Cgroup(const Cgroup&) = delete;
  Cgroup& operator=(const Cgroup&) = delete;
  void add(pid_t pid) const { std::ofstream(path_ + "/cgroup.procs") << pid; }
  bool is_frozen() const { return slurp(path_ + "/cgroup.events").find("frozen 1") != std::string::npos; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Renews the store session for as long as it lives.
class StoreContact {
 public:
  explicit StoreContact(GuardClient& client) : client_(client) {
    EXPECT_TRUE(client_.renewed(sys::boot_now(), SessionId("s-1")).ok());
    thread_ = std::thread([this] {
      std::unique_lock lock(mutex_);
      while (!changed_.wait_for(lock, 50ms, [this] { return stop_; })) {
        (void)client_.renewed(sys::boot_now(), SessionId("s-1"));  // fails while a test has killed the guard
      }
    });
  }
  ~StoreContact() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  StoreContact(const StoreContact&) = delete;
  StoreContact& operator=(const StoreContact&) = delete;

 private:
  GuardClient& client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

class Events {
 public:
  void put(const GuardEvent& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
  }
  bool have(GuardEvent::Kind kind) {
    const std::lock_guard lock(mutex_);
    for (const auto& event : events_) {
      if (event.kind == kind) return true;
    }
    return false;
  }

 private:
  std::mutex mutex_;
  std::vector<GuardEvent> events_;
};

class GuardProcess : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0 || cgroup2_mount().empty()) GTEST_SKIP() << "needs root and cgroup v2";
    std::ofstream(run_ / "guard.json")
        << R"({"host":"host1","cluster_id":"c-1","store":{"kind":"etcd","endpoints":["none"]},"run_dir":")"
        << run_.path() << R"(","heartbeat_ms":)" << kFreezeAfter / 4ms << "}";
    ASSERT_EQ(mkdir((run_ / "vm").c_str(), 0755), 0);
    page_ = std::make_unique<HoldPage>(run_ / "vm/hold");
    start_guard();
    subscription_ = std::make_unique<GuardSubscription>(
        run_ / "guard.sock",
        GuardSubscription::Callbacks{[](const GuardStatus&) {},
                                     [this](const GuardEvent& event) { events_.put(event); },
                                     [](const Error&) {}});
    writer_ = std::make_unique<Child>(HF_SHIM, page_->path(),
                                      std::vector<std::string>{HF_SHIM_WRITER, disk(), "2"});
    cgroup_.add(writer_->pid());
    ASSERT_TRUE(eventually([&] { return shim_test::naps(writer_->pid(), writer_->pid()); }));
  }
  void TearDown() override { subscription_.reset(); }

  void start_guard() {
    guard_ =
        std::make_unique<Child>("", "", std::vector<std::string>{HF_GUARD, "--config", run_ / "guard.json"});
    ASSERT_TRUE(eventually([&] { return client_.status().ok(); }));
  }
  std::string disk() const { return datastore_ / "disk"; }
  ha::Admission admission() const { return {kVm, Epoch{1}, cgroup_.path(), page_->path(), true}; }
  std::uint64_t generation() {
    const auto status = client_.status();
    EXPECT_TRUE(status.ok());
    return status.ok() ? status->generation : 0;
  }
  VmReport report() {
    const auto status = client_.status();
    EXPECT_TRUE(status.ok());
    return status.ok() && status->vms.size() == 1 ? status->vms[0] : VmReport{};
  }
  bool writes_go_on() {
    const std::string before = slurp(disk());
    return eventually([&] { return slurp(disk()) != before; });
  }
  void expect_frozen() {
    ASSERT_TRUE(eventually([&] { return report().state == State::frozen && cgroup_.is_frozen(); }));
    const std::string content = slurp(disk());
    EXPECT_FALSE(report().reason.empty());
    EXPECT_EQ(slurp(disk()), content);
  }
  static void wait_until_past(Instant deadline) {
    ASSERT_TRUE(eventually([&] { return sys::boot_now() > deadline; }));
  }

  TempFolder run_;
  TempFolder datastore_;
  Cgroup cgroup_;
  std::unique_ptr<HoldPage> page_;
  GuardClient client_{run_ / "guard.sock"};
  Events events_;
  std::unique_ptr<Child> guard_, writer_;
  std::unique_ptr<GuardSubscription> subscription_;
};

TEST_F(GuardProcess, freezes_without_contact_and_thaws_only_after_a_confirmation) {
  EXPECT_EQ(client_.admit(admission(), generation()).code(), Code::unavailable);
  {
    StoreContact contact(client_);
    ASSERT_TRUE(client_.admit(admission(), generation()).ok());
    EXPECT_TRUE(writes_go_on());
  }
  expect_frozen();
  EXPECT_TRUE(eventually([&] { return events_.have(GuardEvent::Kind::frozen); }));
  const std::uint64_t generation = report().generation;
  EXPECT_EQ(client_.thaw(kVm, Epoch{1}, generation).code(), Code::unavailable);
  StoreContact contact(client_);
  EXPECT_EQ(client_.thaw(kVm, Epoch{1}, generation - 1).code(), Code::conflict);
  EXPECT_EQ(client_.thaw(kVm, Epoch{2}, generation).code(), Code::conflict);
  expect_frozen();
  ASSERT_TRUE(client_.thaw(kVm, Epoch{1}, generation).ok());
  EXPECT_TRUE(writes_go_on());
  EXPECT_TRUE(eventually([&] { return events_.have(GuardEvent::Kind::thawed); }));
  ASSERT_TRUE(client_.drop(kVm, Epoch{1}).ok());
  ASSERT_TRUE(shim_test::all_come_to_nap(writer_->pid()));
  EXPECT_TRUE(client_.status()->vms.empty());
}

TEST_F(GuardProcess, a_slot_alone_keeps_the_vm_running_until_its_datastore_is_lost) {
  ASSERT_TRUE(datastore::make_marker(datastore_.path(), {kDatastore, "d", 0}).ok());
  ASSERT_TRUE(client_.set_slots({{kDatastore, datastore_.path()}}).ok());
  ASSERT_TRUE(eventually([&] { return client_.status()->contact_fresh; }));
  ASSERT_TRUE(client_.admit(admission(), generation()).ok());
  ASSERT_TRUE(eventually([&] {
    const auto bytes = datastore::read_slot(datastore_.path(), kHost);
    const auto slot = bytes.ok() ? ha::decode_slot(*bytes) : Result<ha::Slot>(bytes.error());
    return slot.ok() && slot->sequence > 20 && slot->running.size() == 1 && !slot->stopped_all;
  }));
  EXPECT_EQ(report().state, State::running);
  std::filesystem::rename(datastore_ / ".holdfast", datastore_ / "gone");
  expect_frozen();
  EXPECT_TRUE(eventually([&] { return events_.have(GuardEvent::Kind::slot_lost); }));
  std::filesystem::rename(datastore_ / "gone", datastore_ / ".holdfast");
  EXPECT_TRUE(eventually([&] { return events_.have(GuardEvent::Kind::slot_back); }));
  expect_frozen();
}

TEST_F(GuardProcess, killed_it_leaves_writes_held_and_its_successor_latches) {
  Instant deadline{};
  {
    StoreContact contact(client_);
    ASSERT_TRUE(client_.admit(admission(), generation()).ok());
    EXPECT_TRUE(writes_go_on());
    deadline = client_.status()->deadline + kFreezeAfter;
    kill(guard_->pid(), SIGKILL);
    guard_->wait_for_end();
  }
  wait_until_past(deadline);
  ASSERT_TRUE(shim_test::all_come_to_nap(writer_->pid()));
  const std::string held = slurp(disk());
  EXPECT_FALSE(cgroup_.is_frozen());
  start_guard();
  expect_frozen();
  StoreContact contact(client_);
  EXPECT_EQ(report().state, State::frozen);
  EXPECT_EQ(slurp(disk()), held);
  ASSERT_TRUE(client_.thaw(kVm, Epoch{1}, generation()).ok());
  EXPECT_TRUE(writes_go_on());
}

TEST_F(GuardProcess, restarted_it_keeps_a_frozen_vm_frozen_with_a_newer_generation) {
  StoreContact contact(client_);
  ASSERT_TRUE(client_.admit(admission(), generation()).ok());
  ASSERT_TRUE(client_.freeze_all("test").ok());
  const std::uint64_t generation = report().generation;
  kill(guard_->pid(), SIGTERM);
  guard_->wait_for_end();
  start_guard();
  expect_frozen();
  EXPECT_GT(report().generation, generation);
}

TEST_F(GuardProcess, stopped_itself_it_freezes_before_it_hears_of_a_renewal) {
  {
    StoreContact contact(client_);
    ASSERT_TRUE(client_.admit(admission(), generation()).ok());
  }
  const Instant deadline = client_.status()->deadline;
  ASSERT_EQ(kill(guard_->pid(), SIGSTOP), 0);
  wait_until_past(deadline);
  ASSERT_TRUE(shim_test::all_come_to_nap(writer_->pid()));
  std::thread late([this] { (void)client_.renewed(sys::boot_now(), SessionId("s-1")); });  // answered late, or not
  ASSERT_EQ(kill(guard_->pid(), SIGCONT), 0);
  late.join();
  expect_frozen();
}

TEST_F(GuardProcess,
       a_hung_datastore_delays_neither_freeze_nor_answers_and_costs_a_bounded_number_of_threads) {
  ASSERT_EQ(mkdir((datastore_ / ".holdfast").c_str(), 0755), 0);
  const std::string marker = datastore_ / ".holdfast/datastore.json";
  ASSERT_EQ(mkfifo(marker.c_str(), 0644), 0);  // open() of it hangs
  {
    StoreContact contact(client_);
    ASSERT_TRUE(client_.set_slots({{kDatastore, datastore_.path()}}).ok());
    ASSERT_TRUE(client_.admit(admission(), generation()).ok());
    EXPECT_TRUE(eventually([&] { return events_.have(GuardEvent::Kind::slot_lost); }));
    EXPECT_EQ(report().state, State::running);
  }
  expect_frozen();
  Status status;
  int tries = 0;
  for (; status.ok() && tries < 100; ++tries) {
    status = client_.set_slots({{DatastoreId("ds-" + std::to_string(tries)), datastore_.path()}});
  }
  EXPECT_EQ(status.code(), Code::no_room);
  EXPECT_LT(tries, 20);
}

TEST_F(GuardProcess, a_vm_whose_process_does_not_obey_the_page_is_not_admitted) {
  StoreContact contact(client_);
  Cgroup other;
  Child plain("", "", {"sleep", "1000"});
  other.add(plain.pid());
  // Until it has become `sleep`, it is a copy of this test, which has the page mapped.
  ASSERT_TRUE(eventually([&] { return slurp("/proc/" + std::to_string(plain.pid()) + "/comm") == "sleep\n"; }));
  ha::Admission wrong = admission();
  wrong.cgroup = other.path();
  const Status refused = client_.admit(wrong, generation());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.code(), Code::invalid);
  wrong.is_protected = false;
  const Status admitted = client_.admit(wrong, generation());
  EXPECT_TRUE(admitted.ok()) << admitted.error().what;
}

TEST_F(GuardProcess, a_second_guard_is_refused) {
  Child second("", "", {HF_GUARD, "--config", run_ / "guard.json"});
  const int status = second.wait_for_end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 5);
  EXPECT_TRUE(client_.status().ok());
}

}  // namespace
}  // namespace hf::guard
