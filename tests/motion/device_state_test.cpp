// Goal: a guest stopped in one QEMU goes on in another from its RAM and its saved devices, with disk and network; and
// in the first one, if the move fails after the last save. Method: both QEMUs on this machine, the lab's guest;
// the RAM is copied file to file.
#include "two_sides.hpp"

#include <fmt/format.h>

#include "sys/process/clock.hpp"

namespace hf::qemu {
namespace {
using test::eventually;
using test::kStep;

// QEMU's file behind the memory backend.
process::UniqueFd ram_of(const RunningVm& vm) {
  const std::string folder = "/proc/" + std::to_string(vm.pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.starts_with("/memfd:memory-backend-memfd")) {
      return process::UniqueFd(::open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
    }
  }
  return {};
}

void copy_ram(const RunningVm& from, const RunningVm& to, std::size_t bytes) {
  const auto source = ram_of(from), destination = ram_of(to);
  ASSERT_TRUE(source && destination);
  const std::string nothing(1 << 20, '\0');
  std::string part(nothing.size(), '\0');
  for (std::size_t at = 0; at < bytes; at += part.size()) {
    ASSERT_EQ(::pread(source.get(), part.data(), part.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(part.size()));
    if (part == nothing) continue;
    ASSERT_EQ(::pwrite(destination.get(), part.data(), part.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(part.size()));
  }
}

void print(const std::string& what, Duration took) {
  std::fputs(fmt::format("{:>24} {:8.2f} ms\n", what, static_cast<double>(took.count()) / 1e6).c_str(),
             stdout);
}

class Timer {
 public:
  Duration lap() {
    const Instant now = sys::boot_now(), before = std::exchange(last_, now);
    return now - before;
  }

 private:
  Instant last_ = sys::boot_now();
};

class DeviceState : public test::TwoSides {
 protected:
  static constexpr const char* kWords =
      "hf.ledger=1 hf.rate=100 hf.ip=10.78.9.1/24 hf.pattern=16 hf.dirty=20";

  std::size_t ram_bytes() const { return memory_mib_ << 20; }
  // The last count that the guest's pattern printed, and that it found no error.
  std::size_t lines(const VmId& side) {
    const std::string text = console(side);
    EXPECT_EQ(text.find("PATTERN BROKEN"), std::string::npos) << text;
    std::size_t count = 0;
    for (std::size_t at = 0; (at = text.find("errors=0", at)) != std::string::npos; ++at) ++count;
    return count;
  }
  bool guest_goes_on(const VmId& side) {
    const std::size_t before = lines(side);
    return eventually([&] { return lines(side) > before + 2; });
  }
};

TEST_F(DeviceState, guest_goes_on_in_another_qemu_with_its_disk_and_network) {
  const RunningVm source = boot(kWords, "errors=0");
  const RunningVm destination = launch(b_, kWords, true);
  EXPECT_EQ(destination.guest, GuestState::waits_for_memory);
  const auto from = engine(a_), to = engine(b_);
  ASSERT_TRUE(from && to);
  const Status prepared = to->prepare_to_load(kStep);
  ASSERT_TRUE(prepared.ok()) << prepared.error().what;
  ASSERT_TRUE(from->prepare_to_save(kStep).ok());
  Timer timer;
  const Status stopped = from->stop(kStep);
  print("stop", timer.lap());
  ASSERT_TRUE(stopped.ok()) << stopped.error().what;
  copy_ram(source, destination, ram_bytes());
  timer.lap();
  const auto state = from->save_devices(Images::released, kStep);
  print("save", timer.lap());
  ASSERT_TRUE(state.ok()) << state.error().what;
  std::fputs(fmt::format("{:>24} {:8} bytes\n", "device state", state->size()).c_str(), stdout);
  // The destination's hold page holds everything: nobody has admitted the VM yet.
  timer.lap();
  const Status loaded = to->load_devices(*state, kStep);
  print("load", timer.lap());
  ASSERT_TRUE(loaded.ok()) << loaded.error().what;
  EXPECT_EQ(to->guest(kStep), GuestState::stopped);
  ASSERT_TRUE(hypervisor_->kill(a_).ok());
  let_write(b_, true);
  timer.lap();
  const Status resumed = hypervisor_->resume(b_);
  print("cont and announce", timer.lap());
  ASSERT_TRUE(resumed.ok()) << resumed.error().what;
  EXPECT_TRUE(guest_goes_on(b_)) << console(b_);
  EXPECT_TRUE(disk_goes_on());
  EXPECT_TRUE(network_works());
  EXPECT_FALSE(says(b_, "guest up")) << "it booted instead of going on";
}

TEST_F(DeviceState, guest_goes_on_where_it_was_after_a_last_save_and_can_be_saved_again) {
  boot(kWords, "errors=0");
  const auto monitor = engine(a_);
  ASSERT_TRUE(monitor && monitor->prepare_to_save(kStep).ok());
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(monitor->stop(kStep).ok());
    const auto state = monitor->save_devices(Images::released, kStep);
    ASSERT_TRUE(state.ok()) << state.error().what;
    EXPECT_GT(state->size(), 10'000U);
    Timer timer;
    const Status resumed = monitor->run(kStep);
    print("cont after a failed move", timer.lap());
    ASSERT_TRUE(resumed.ok()) << resumed.error().what;
    EXPECT_TRUE(guest_goes_on(a_));
    EXPECT_TRUE(disk_goes_on());
  }
  EXPECT_TRUE(network_works());
}

TEST_F(DeviceState, guest_whose_memory_is_not_there_does_not_run) {
  launch(b_, kWords, true);
  const auto monitor = engine(b_);
  ASSERT_TRUE(monitor);
  EXPECT_EQ(hypervisor_->resume(b_).code(), Code::conflict);
  EXPECT_EQ(monitor->run(kStep).code(), Code::conflict);
  EXPECT_EQ(monitor->guest(kStep), GuestState::waits_for_memory);
}

TEST_F(DeviceState, damaged_state_is_refused_and_ends_the_waiting_qemu) {
  boot(kWords, "guest up");
  const auto from = engine(a_);
  ASSERT_TRUE(from);
  ASSERT_TRUE(from->prepare_to_save(kStep).ok());
  ASSERT_TRUE(from->stop(kStep).ok());
  auto state = from->save_devices(Images::kept, kStep);
  ASSERT_TRUE(state.ok()) << state.error().what;
  launch(b_, kWords, true);
  const auto to = engine(b_);
  ASSERT_TRUE(to && to->prepare_to_load(kStep).ok());
  EXPECT_EQ(to->load_devices(std::string_view(*state).substr(0, state->size() / 2), kStep).code(),
            Code::failed);
  EXPECT_TRUE(eventually([&] { return hypervisor_->resume(b_).code() == Code::not_found; }));
  EXPECT_TRUE(from->run(kStep).ok());
}

TEST_F(DeviceState, new_daemon_sees_who_waits_and_who_stands_still) {
  boot(kWords, "guest up");
  launch(b_, kWords, true);
  const auto monitor = engine(a_);
  ASSERT_TRUE(monitor && monitor->stop(kStep).ok());
  hypervisor_.reset();
  hypervisor_ = std::make_unique<QemuHypervisor>(options_);
  const auto adopted = hypervisor_->adopt([](const VmExit&) {}, [](const VmPause&) {});
  ASSERT_TRUE(adopted.ok());
  ASSERT_EQ(adopted->size(), 2U);
  EXPECT_EQ(adopted->at(0).guest, GuestState::stopped);
  EXPECT_TRUE(adopted->at(0).motion.empty());
  EXPECT_EQ(adopted->at(1).guest, GuestState::waits_for_memory);
  EXPECT_EQ(adopted->at(1).motion, TaskId("task-1"));
}

}  // namespace
}  // namespace hf::qemu
