// Goal: what the lab promises of hosts, cables, storage and faults holds. Method: the lab itself, on this machine:
// real namespaces, bridges, bindfs and cgroups, small stand-ins for the services.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "lab/cgroup.hpp"
#include "lab/command.hpp"
#include "lab/files.hpp"
#include "lab/lab.hpp"

namespace hf::lab {
namespace {

// Until it holds; the limit only ends a test that has failed.
bool eventually(const std::function<bool()>& holds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

// A lab of three hosts through the commands, as a user makes it.
class Lab : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (!has_program("bindfs") || !has_program("busybox")) GTEST_SKIP() << "needs bindfs and busybox";
    if (!run({"unshare", "-n", "true"})) GTEST_SKIP() << "needs network namespaces";
    base_ = folder_ / "labs";
    name_ = "t" + std::to_string(::getpid());
    before_ = traces();
    const auto up = lab({"up", "--stand-in"});
    ASSERT_TRUE(up.ok()) << up.error().what;
  }
  void TearDown() override {
    if (base_.empty()) return;
    const auto down = lab({"down"});
    EXPECT_TRUE(down.ok()) << down.error().what;
    EXPECT_EQ(traces(), before_);
    EXPECT_FALSE(exists(base_));
  }

  Result<std::string> lab(std::vector<std::string> words) {
    std::vector<std::string> argv = {HF_LAB_PROGRAM, "lab", words.front(), "--base", base_, "--name", name_};
    argv.insert(argv.end(), words.begin() + 1, words.end());
    return run(argv);
  }
  Result<std::string> on(const std::string& host, const std::vector<std::string>& command) {
    std::vector<std::string> words = {"exec", host, "--"};
    words.insert(words.end(), command.begin(), command.end());
    return lab(words);
  }
  LabState state() {
    auto now = list(base_, name_);
    EXPECT_TRUE(now.ok());
    return now ? *now : LabState{};
  }
  HostState host(int index) {
    const auto now = state();
    const auto at = static_cast<std::size_t>(index - 1);
    return now.hosts.size() > at ? now.hosts[at] : HostState{};
  }
  bool has_all_services(int index) {
    const auto now = host(index);
    return std::all_of(now.services.begin(), now.services.end(),
                       [](const auto& s) { return !s.pids.empty(); });
  }
  bool pings(const std::string& from, const std::string& to) {
    return on(from, {"ping", "-c", "1", "-W", "1", to}).ok();
  }
  std::string datastore(const std::string& name) { return state().layout.mount_path(name); }

  // Everything on the machine that has this lab's name or mentions it.
  std::string traces() {
    std::string found;
    for (const auto& name : names_in("/run/netns")) {
      if (name.find("-" + name_ + "-") != std::string::npos) found += name + "\n";
    }
    if (exists("/run/holdfast-lab/" + name_)) found += "run folder\n";
    std::istringstream mounts(*process::read_small_file("/proc/self/mountinfo", kMountinfoMax));
    for (std::string line; std::getline(mounts, line);) {
      if (line.find("holdfast-lab/" + name_) != std::string::npos || line.find(base_) != std::string::npos)
        found += line;
      if (line.find(" - cgroup2 ") == std::string::npos) continue;
      if (exists(cgroup2_mount(line) + "/holdfast-lab/" + name_)) found += "cgroup\n";
    }
    for (const auto& pid : names_in("/proc")) {
      const auto words = process::read_small_file("/proc/" + pid + "/cmdline");
      const bool mine = pid == std::to_string(::getpid());
      if (words && !mine && words->find(base_) != std::string::npos) found += "process " + *words + "\n";
    }
    return found + run({"ip", "-o", "addr", "show", "scope", "global"}).value() +
           run({"ip", "route"}).value();
  }

  test::TempFolder folder_;
  std::string base_, name_, before_;
};

TEST_F(Lab, is_up_with_services_that_reach_each_other) {
  ASSERT_TRUE(eventually([&] { return has_all_services(1) && has_all_services(2) && has_all_services(3); }));
  EXPECT_TRUE(pings("host1", "10.77.0.2"));
  EXPECT_TRUE(pings("host2", "10.77.1.3"));
  EXPECT_TRUE(pings("net", "10.77.0.1"));
  const auto json = nlohmann::json::parse(*lab({"ls", "-o", "json"}));
  EXPECT_EQ(json["hosts"].size(), 3u);
  EXPECT_EQ(json["hosts"][0]["power"], "on");
  const std::string url = "http://127.0.0.1:" + std::to_string(host(2).api_port) + "/services.json";
  EXPECT_TRUE(eventually([&] { return run({"busybox", "wget", "-q", "-O", "-", url}).ok(); }))
      << "through the relay";
}

TEST_F(Lab, second_up_shows_what_is_there) {
  const auto pids = host(1).services.size();
  ASSERT_TRUE(lab({"up", "--stand-in"}).ok());
  EXPECT_EQ(host(1).services.size(), pids);
  const auto other = lab({"up", "--stand-in", "--hosts", "2"});
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().what.find("there with 3 hosts"), std::string::npos);
}

TEST_F(Lab, up_replaces_remains_whose_processes_are_all_gone) {
  ASSERT_TRUE(cgroup::kill(state().layout.cgroup()).ok());
  const auto again = lab({"up", "--stand-in"});
  ASSERT_TRUE(again.ok()) << again.error().what;
  EXPECT_TRUE(eventually([&] { return has_all_services(1) && has_all_services(3); }));
  // A lab whose hosts are merely off is no remains.
  ASSERT_TRUE(lab({"fault", "all", "power"}).ok());
  ASSERT_TRUE(lab({"up", "--stand-in"}).ok());
  EXPECT_EQ(host(1).power, HostState::Power::off);
}

TEST_F(Lab, power_cut_ends_everything_and_heal_brings_it_back) {
  ASSERT_TRUE(eventually([&] { return has_all_services(2); }));
  ASSERT_TRUE(lab({"fault", "host2", "power"}).ok());
  EXPECT_TRUE(cgroup::pids(state().layout.cgroup("host2")).empty());
  EXPECT_EQ(host(2).power, HostState::Power::off);
  EXPECT_FALSE(pings("host1", "10.77.0.2"));
  EXPECT_FALSE(on("host2", {"true"}).ok());
  ASSERT_TRUE(lab({"heal", "host2"}).ok());
  EXPECT_TRUE(eventually([&] { return has_all_services(2); }));
  EXPECT_TRUE(eventually([&] { return pings("host1", "10.77.0.2"); }));
  EXPECT_TRUE(on("host2", {"sh", "-c", "echo x > " + datastore("shared1") + "/after"}).ok());
}

TEST_F(Lab, hung_host_stands_still_and_goes_on) {
  ASSERT_TRUE(eventually([&] { return has_all_services(1); }));
  const auto pid = host(1).services.at(0).pids.at(0);
  ASSERT_TRUE(lab({"fault", "host1", "hang"}).ok());
  EXPECT_EQ(host(1).power, HostState::Power::hung);
  ASSERT_TRUE(lab({"heal", "host1"}).ok());
  EXPECT_EQ(host(1).power, HostState::Power::on);
  EXPECT_EQ(host(1).services.at(0).pids.at(0), pid) << "the same processes";
}

TEST_F(Lab, cut_network_is_cut_alone) {
  ASSERT_TRUE(lab({"fault", "host1", "net=mgmt"}).ok());
  EXPECT_FALSE(pings("host2", "10.77.0.1"));
  EXPECT_TRUE(pings("host2", "10.77.1.1"));
  EXPECT_EQ(host(1).cut, std::vector<std::string>{"mgmt"});
  ASSERT_TRUE(lab({"heal", "all"}).ok());
  EXPECT_TRUE(eventually([&] { return pings("host2", "10.77.0.1"); }));
  ASSERT_TRUE(lab({"fault", "host1", "link=mgmt:rate=1mbit"}).ok());
  EXPECT_EQ(host(1).slow, std::vector<std::string>{"mgmt"});
  ASSERT_TRUE(lab({"heal"}).ok());
  EXPECT_TRUE(host(1).slow.empty());
}

TEST_F(Lab, killed_service_comes_back_and_stopped_one_is_shown) {
  ASSERT_TRUE(eventually([&] { return has_all_services(1); }));
  const auto pid = host(1).services.at(0).pids.at(0);
  ASSERT_TRUE(lab({"fault", "host1", "process=etcd"}).ok());
  EXPECT_TRUE(eventually([&] {
    const auto now = host(1).services.at(0).pids;
    return !now.empty() && now.at(0) != pid;
  }));
  ASSERT_TRUE(lab({"fault", "host1", "process=etcd:stop"}).ok());
  EXPECT_TRUE(host(1).services.at(0).stopped);
  ASSERT_TRUE(lab({"heal", "host1"}).ok());
  EXPECT_FALSE(host(1).services.at(0).stopped);
  EXPECT_FALSE(lab({"fault", "host1", "process=nobody"}).ok());
}

TEST_F(Lab, datastore_is_shared_uncached_and_direct) {
  const std::string file = datastore("shared1") + "/file";
  ASSERT_TRUE(
      on("host1", {"dd", "if=/dev/zero", "of=" + file, "bs=4096", "count=4", "oflag=direct,sync"}).ok());
  EXPECT_TRUE(on("host2", {"dd", "if=" + file, "of=/dev/null", "bs=4096", "iflag=direct"}).ok());
  ASSERT_TRUE(on("host2", {"sh", "-c", "echo -n A | dd of=" + file + " conv=notrunc 2>/dev/null"}).ok());
  EXPECT_EQ(*on("host1", {"head", "-c", "1", file}), "A");
  // The right to write for QEMU's own user.
  ASSERT_TRUE(on("host1", {"chmod", "666", file}).ok());
  EXPECT_TRUE(on("host1", {"setpriv", "--reuid=65534", "--clear-groups", "dd", "if=/dev/zero", "of=" + file,
                           "bs=4096", "count=1", "conv=notrunc"})
                  .ok());
  EXPECT_FALSE(exists(datastore("shared1") + "/file")) << "the machine itself does not have the mount";
}

TEST_F(Lab, apd_hangs_one_host_and_pdl_fails_it) {
  const std::string file = datastore("shared1") + "/file";
  ASSERT_TRUE(on("host1", {"sh", "-c", "echo text > " + file}).ok());
  const std::vector<std::string> read_file_now = {"timeout", "1", "cat", file};
  ASSERT_TRUE(lab({"fault", "host1", "storage=shared1:apd"}).ok());
  EXPECT_EQ(host(1).apd, std::vector<std::string>{"shared1"});
  // The reader waits in the kernel; it is left behind, to end when the datastore comes back.
  const std::string done = state().layout.run_dir() + "/done";
  ASSERT_TRUE(on("host1", {"sh", "-c",
                           "(cat " + file + " > " + done + ".1; mv " + done + ".1 " + done +
                               ") </dev/null >/dev/null 2>&1 &"})
                  .ok());
  EXPECT_TRUE(on("host2", read_file_now).ok()) << "the other host has its own path";
  EXPECT_FALSE(exists(done));
  ASSERT_TRUE(lab({"heal", "host1"}).ok());
  EXPECT_TRUE(eventually([&] { return exists(done); })) << "what hung goes on";
  ASSERT_TRUE(lab({"fault", "host1", "storage=shared1:pdl"}).ok());
  EXPECT_EQ(host(1).pdl, std::vector<std::string>{"shared1"});
  EXPECT_FALSE(on("host1", read_file_now).ok());
  EXPECT_TRUE(on("host2", read_file_now).ok());
  ASSERT_TRUE(lab({"heal", "host1"}).ok());
  EXPECT_TRUE(on("host1", read_file_now).ok());
}

TEST_F(Lab, power_cut_ends_a_host_that_waits_for_storage) {
  const std::string file = datastore("shared1") + "/file";
  ASSERT_TRUE(on("host1", {"sh", "-c", "echo text > " + file}).ok());
  ASSERT_TRUE(lab({"fault", "host1", "storage"}).ok());
  ASSERT_TRUE(on("host1", {"sh", "-c", "cat " + file + " </dev/null >/dev/null 2>&1 &"}).ok());
  ASSERT_TRUE(lab({"fault", "host1", "power"}).ok());
  EXPECT_TRUE(cgroup::pids(state().layout.cgroup("host1")).empty());
  EXPECT_TRUE(lab({"heal", "host1"}).ok());
}

}  // namespace
}  // namespace hf::lab
