// Goal: a detached process is what it should be (user, groups, session, cgroup, files), its identity survives
// pid reuse, and a cgroup's processes die, frozen or not. Method: real processes and, where there is one, a
// real cgroup v2.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "sys/process/cgroup.hpp"
#include "sys/process/daemonize.hpp"
#include "sys/process/host_facts.hpp"
#include "sys/process/hurry.hpp"
#include "sys/process/identity.hpp"
#include "sys/process/small_file.hpp"
#include "sys/process/write_tracking.hpp"

namespace hf::process {
namespace {

class ProcessTest : public testing::Test {
 protected:
  void TearDown() override {
    if (cgroup_) {
      (void)cgroup_->kill_all(5s);  // a failure shows in remove()
      EXPECT_TRUE(cgroup_->remove().ok());
    }
  }
  bool make_cgroup() {
    const auto mount = cgroup2_mount();
    if (::geteuid() != 0 || !mount) return false;
    cgroup_ = Cgroup(*mount + "/hf-process-test-" + std::to_string(::getpid()));
    return cgroup_->create().ok();
  }
  DetachRequest shell(const std::string& script) {
    DetachRequest request;
    request.argv = {"/bin/sh", "-c", script};
    request.environment = {"PATH=/usr/bin:/bin", "COLOUR=blue"};
    request.output_path = folder_ / "output";
    return request;
  }
  std::string output() {
    const auto text = read_small_file(folder_ / "output");
    return text ? *text : text.error().what;
  }
  test::TempFolder folder_;
  std::optional<Cgroup> cgroup_;
};

TEST_F(ProcessTest, detached_has_its_own_parent_session_and_environment) {
  const auto process =
      spawn_detached(shell("echo parent=$(cut -d' ' -f4,6 /proc/$$/stat) pid=$$ $COLOUR; echo bad >&2"));
  ASSERT_TRUE(process.ok()) << process.error().what;
  ASSERT_TRUE(has_ended(process->pidfd.get(), 5s));
  int parent = 0, session = 0, pid = 0;
  ASSERT_EQ(std::sscanf(output().c_str(), "parent=%d %d pid=%d", &parent, &session, &pid), 3) << output();
  EXPECT_EQ(pid, process->pid);
  EXPECT_NE(parent, ::getpid());
  EXPECT_NE(session, ::getsid(0));
  EXPECT_NE(output().find("blue\nbad\n"), std::string::npos);
}

TEST_F(ProcessTest, detached_keeps_only_the_files_it_inherits) {
  const UniqueFd kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd not_kept(::open("/dev/null", O_RDONLY));
  auto request =
      shell("test -e /proc/$$/fd/" + std::to_string(kept.get()) + " && echo kept; test -e /proc/$$/fd/" +
            std::to_string(not_kept.get()) + " || echo closed");
  request.inherited_fds = {kept.get()};
  const auto process = spawn_detached(request);
  ASSERT_TRUE(process.ok()) << process.error().what;
  ASSERT_TRUE(has_ended(process->pidfd.get(), 5s));
  EXPECT_EQ(output(), "kept\nclosed\n");
}

TEST_F(ProcessTest, detached_runs_as_the_user_in_the_cgroup_without_new_privileges) {
  if (!make_cgroup()) GTEST_SKIP() << "needs root and cgroup v2";
  auto request = shell("id -u; id -G; nice; grep NoNewPrivs /proc/$$/status; grep ^0:: /proc/$$/cgroup");
  request.cgroup = cgroup_->path();
  request.credentials = Credentials{54321, 54322, {54323}};
  request.nice = 3;
  const auto process = spawn_detached(request);
  ASSERT_TRUE(process.ok()) << process.error().what;
  ASSERT_TRUE(has_ended(process->pidfd.get(), 5s));
  EXPECT_EQ(output().rfind("54321\n54322 54323\n3\nNoNewPrivs:\t1\n", 0), 0U) << output();
  EXPECT_NE(output().find("/hf-process-test-"), std::string::npos) << output();
}

TEST(Hurry, all_threads_of_a_process_are_hurried_and_get_their_nice_value_back) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const int before = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<int> other = 0;
  std::atomic<bool> ending = false;
  std::thread earlier([&] {
    other = ::gettid();
    other.notify_all();
    ending.wait(false);
  });
  other.wait(0);
  const auto nice_of = [](int thread) { return ::getpriority(PRIO_PROCESS, static_cast<id_t>(thread)); };
  hurry(::getpid());
  EXPECT_EQ(nice_of(0), -20);
  EXPECT_EQ(nice_of(other), -20);
  std::thread([&] { EXPECT_EQ(nice_of(0), 0); }).join();
  end_hurry(::getpid(), before);
  EXPECT_EQ(nice_of(0), before);
  EXPECT_EQ(nice_of(other), before);
  std::thread([&] { EXPECT_EQ(nice_of(0), before); }).join();
  ending = true;
  ending.notify_all();
  earlier.join();
}

TEST_F(ProcessTest, detached_program_that_is_missing_is_an_error) {
  auto request = shell("");
  request.argv = {folder_ / "no-such-program"};
  const auto process = spawn_detached(request);
  ASSERT_FALSE(process.ok());
  EXPECT_EQ(process.code(), Code::not_found);
}

TEST_F(ProcessTest, detached_program_does_not_start_when_it_cannot_be_recorded) {
  auto request = shell("echo started");
  UniqueFd pidfd;
  request.before_exec = [&](const DetachedProcess& process) -> Status {
    pidfd.reset(::dup(process.pidfd.get()));
    return Error{Code::no_room, "No."};
  };
  EXPECT_EQ(spawn_detached(request).code(), Code::no_room);
  ASSERT_TRUE(has_ended(pidfd.get(), 5s));
  EXPECT_EQ(output(), "");
}

TEST(Identity, start_time_is_field_22_after_any_name) {
  EXPECT_EQ(*parse_start_time("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n"), 4711U);
  EXPECT_EQ(parse_start_time("7 (a) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n").code(),
            Code::not_found);
  EXPECT_EQ(parse_start_time("7 (a) S 1 7").code(), Code::corrupt);
  EXPECT_EQ(parse_start_time("").code(), Code::corrupt);
}

TEST(Identity, pid_with_another_start_time_is_another_process) {
  const auto start = start_time_of(::getpid());
  ASSERT_TRUE(start.ok());
  EXPECT_TRUE(open_process(::getpid(), *start).ok());
  EXPECT_EQ(open_process(::getpid(), *start + 1).code(), Code::not_found);
}

TEST_F(ProcessTest, cgroup_kill_ends_everything_also_when_frozen) {
  if (!make_cgroup()) GTEST_SKIP() << "needs root and cgroup v2";
  for (const bool frozen : {false, true}) {
    auto request = shell("sleep 1000 & sleep 1000 & wait");
    request.cgroup = cgroup_->path();
    const auto process = spawn_detached(request);
    ASSERT_TRUE(process.ok()) << process.error().what;
    EXPECT_TRUE(*cgroup_->populated());
    ASSERT_TRUE(cgroup_->freeze(frozen).ok());
    EXPECT_TRUE(cgroup_->kill_all(5s).ok());
    EXPECT_FALSE(*cgroup_->populated());
    EXPECT_TRUE(has_ended(process->pidfd.get(), 5s));
    ASSERT_TRUE(cgroup_->freeze(false).ok());
  }
}

TEST(CgroupMissing, nothing_lives_in_it_and_killing_is_fine) {
  const Cgroup none("/tmp/hf-no-such-cgroup");
  EXPECT_FALSE(*none.populated());
  EXPECT_TRUE(none.kill_all(1s).ok());
  EXPECT_TRUE(none.remove().ok());
  EXPECT_EQ(none.processes().code(), Code::not_found);
}

TEST(CgroupMount, is_found_or_explained) {
  EXPECT_EQ(*parse_cgroup2_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                                 "41 31 0:38 / /sys/fs/cgroup/my\\040v2 rw shared:9 - cgroup2 none rw\n"),
            "/sys/fs/cgroup/my v2");
  const auto v1 = parse_cgroup2_mount("39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
  EXPECT_EQ(v1.code(), Code::unsupported);
  EXPECT_NE(v1.error().what.find("systemd.unified_cgroup_hierarchy=1"), std::string::npos);
}

TEST_F(ProcessTest, file_is_replaced_and_its_tail_read) {
  const std::string path = folder_ / "file";
  ASSERT_TRUE(replace_file(path, "one", 0600).ok());
  ASSERT_TRUE(replace_file(path, "two three", 0600).ok());
  EXPECT_EQ(*read_small_file(path), "two three");
  EXPECT_EQ(read_small_file(path, 4).code(), Code::corrupt);
  EXPECT_EQ(*read_tail(path, 5), "three");
  EXPECT_EQ(*read_tail(path, 500), "two three");
  EXPECT_EQ(*list_folder(folder_.path()), std::vector<std::string>{"file"}) << "no temporary is left behind";
  EXPECT_TRUE(list_folder(folder_ / "none")->empty());
}

TEST_F(ProcessTest, a_replaced_file_has_the_mode_asked_for_and_one_that_cannot_be_replaced_leaves_nothing) {
  ASSERT_TRUE(make_folder(folder_ / "a/b").ok());
  ASSERT_TRUE(make_folder(folder_ / "a/b").ok());
  for (const mode_t mode : {0600U, 0644U}) {
    ASSERT_TRUE(replace_file(folder_ / "a/b/file", "one", mode).ok());
    struct stat found{};
    ASSERT_EQ(::stat((folder_ / "a/b/file").c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777U, mode);
  }
  EXPECT_FALSE(replace_file(folder_ / "a/b", "x", 0600).ok()) << "it is a folder";
  EXPECT_EQ(*list_folder(folder_.path()), std::vector<std::string>{"a"});
  EXPECT_EQ(replace_file(folder_ / "none/file", "x", 0600).code(), Code::not_found);
  EXPECT_EQ(read_small_file(folder_ / "none").code(), Code::not_found);
}

TEST(HostFacts, of_this_machine_are_plausible) {
  const auto facts = host_facts();
  ASSERT_TRUE(facts.ok());
  EXPECT_GE(facts->cpus, 1);
  EXPECT_GE(facts->memory_mib, 64U);
  EXPECT_EQ(*parse_memory_mib("MemTotal:        2048 kB\nMemFree: 1 kB\n", "MemTotal:"), 2U);
  EXPECT_EQ(parse_memory_mib("MemFree: 1 kB\n", "MemTotal:").code(), Code::corrupt);
}

TEST(HostFacts, qemu_version_is_read_or_refused) {
  EXPECT_EQ(*parse_qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright"), "7.2.22");
  EXPECT_EQ(parse_qemu_version("busybox 1.35").code(), Code::unsupported);
  EXPECT_EQ(qemu_version("/bin/true").code(), Code::unsupported);
  EXPECT_EQ(qemu_version("/no/such/qemu").code(), Code::not_found);
}

TEST(WriteTracking, a_kernel_before_6_9_is_named_and_what_is_no_pagemap_refused) {
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(why_no_pagemap_scan("6.8.12-1-amd64", pagemap.get()),
            "the kernel here is 6.8.12-1-amd64, Linux 6.9 or later is needed");
  EXPECT_NE(why_no_pagemap_scan("6.1.0-40-amd64", pagemap.get()), "");
  EXPECT_NE(why_no_pagemap_scan("nonsense", pagemap.get()), "");
  const UniqueFd other(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_NE(why_no_pagemap_scan("10.0.1", other.get()).find("no PAGEMAP_SCAN"), std::string::npos);
}

}  // namespace
}  // namespace hf::process
