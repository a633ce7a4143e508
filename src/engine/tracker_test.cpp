// Goal: each tracker reports every page that was written, whoever wrote it, and once; what cannot be tracked is said.
// Method: a process that maps memory as QEMU does, with the real shim preloaded, on the kernel that runs here.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <optional>

#include "engine/attach.hpp"
#include "engine/compare_tracker.hpp"
#include "engine/pagemap_tracker.hpp"
#include "engine/testing/memory_user.hpp"

namespace hf::engine {
namespace {

enum class Way { pagemap_one, pagemap_chunks, comparison };
struct Case {
  Way way;
  std::string kind;
  friend void PrintTo(const Case& some, std::ostream* out) { *out << some.kind; }
};

constexpr PageNumber kPagesOfBlock = 16 * 256;  // 16 MiB

class TrackerTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string& wanted = GetParam().kind;
    const std::string file =
        (wanted == "disk" ? "/var/tmp" : "/dev/shm") + ("/hf-ram-" + std::to_string(::getpid()));
    const std::string kind = wanted == "tmpfs" || wanted == "disk" ? "file=" + file : wanted;
    user_.emplace(std::vector<std::string>{kind + ":16", "other:1", "memfd:16"});
    ::unlink(file.c_str());
    if (!user_->started()) GTEST_SKIP() << "this machine has no memory of the kind " << kind;
    auto answer = qemu::ask_shim(user_->socket(), 10s);
    ASSERT_TRUE(answer.ok()) << answer.error().what;
    auto memory = map_guest_memory(*answer);
    if (!memory && kind == "hugetlb") GTEST_SKIP() << memory.error().what << " (no huge pages are set aside)";
    ASSERT_TRUE(memory.ok()) << memory.error().what;
    memory_.emplace(std::move(*memory));
    if (GetParam().way != Way::comparison && !answer->why_not_tracked.empty())
      GTEST_SKIP() << answer->why_not_tracked;
    ASSERT_TRUE(user_->tell("w 0 0 8 1"));  // before the tracking
    if (GetParam().way == Way::comparison) {
      tracker_ = std::make_unique<CompareTracker>(*memory_, "for the test");
    } else {
      const auto renewal = GetParam().way == Way::pagemap_one ? Renewal::one : Renewal::chunks;
      auto tracker = PagemapTracker::open(memory_->blocks(), std::move(*answer), renewal);
      ASSERT_TRUE(tracker.ok()) << tracker.error().what;
      tracker_ = std::move(*tracker);
    }
    ASSERT_TRUE(user_->tell("w 0 4 2 2"));
    const Status armed = tracker_->arm();
    ASSERT_TRUE(armed.ok()) << armed.error().what;
  }

  void tell(const std::string& command) { ASSERT_TRUE(user_->tell(command)) << command; }
  void expect_written(const PageSet& expected) {
    const auto written = tracker_->take_written();
    ASSERT_TRUE(written.ok()) << written.error().what;
    EXPECT_EQ(*written, in_tracked_units(expected));
  }
  // A huge page is written as a whole.
  PageSet in_tracked_units(const PageSet& pages) const {
    if (GetParam().kind != "hugetlb" || GetParam().way == Way::comparison) return pages;
    PageSet widened;
    for (const PageRange& range : pages) {
      for (PageNumber page = range.first; page < range.first + range.count; ++page)
        add_to(widened, page < kPagesOfBlock ? PageRange{page / 512 * 512, 512} : PageRange{page, 1});
    }
    return widened;
  }

  std::optional<MemoryUser> user_;
  std::optional<GuestMemory> memory_;
  std::unique_ptr<Tracker> tracker_;
};

TEST_P(TrackerTest, nothing_is_written_after_arm) { expect_written({}); }

TEST_P(TrackerTest, a_written_page_is_reported_once_and_again_after_the_next_write) {
  tell("w 0 5 1 11");
  expect_written({{5, 1}});
  expect_written({});
  tell("w 0 5 1 12");
  expect_written({{5, 1}});
}

TEST_P(TrackerTest, pages_of_all_blocks_are_reported_in_order_whether_they_had_memory_or_not) {
  tell("w 2 4095 1 3");
  tell("w 2 0 2 3");
  tell("w 0 4095 1 3");
  tell("w 0 600 700 3");
  tell("w 0 2 1 3");
  expect_written({{2, 1}, {600, 700}, {4095, 3}, {8191, 1}});
  expect_written({});
}

TEST_P(TrackerTest, more_ranges_than_one_call_of_the_kernel_returns_are_all_reported) {
  PageSet expected;
  for (PageNumber page = 0; page < kPagesOfBlock; page += 2) {
    tell("w 2 " + std::to_string(page) + " 1 9");
    expected.push_back({kPagesOfBlock + page, 1});
  }
  expect_written(expected);
  expect_written({});
}

TEST_P(TrackerTest, a_page_that_the_kernel_wrote_is_reported) {
  const std::string source = "/var/tmp/hf-tracker-test-" + std::to_string(::getpid());  // no tmpfs
  std::ofstream(source, std::ios::binary) << std::string(4096, 'x');
  const bool read = user_->tell("d 0 77 " + source);
  ::unlink(source.c_str());
  if (!read) GTEST_SKIP() << "/var/tmp takes no O_DIRECT";
  expect_written({{77, 1}});
}

TEST_P(TrackerTest, tracking_ends_and_begins_anew) {
  tell("w 0 1 1 5");
  tracker_->disarm();
  tell("w 0 2 1 5");
  ASSERT_TRUE(tracker_->arm().ok());
  expect_written({});
  tell("w 0 3 1 5");
  expect_written({{3, 1}});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Way way : {Way::pagemap_one, Way::pagemap_chunks, Way::comparison}) {
    for (const char* kind : {"memfd", "tmpfs", "disk", "hugetlb"}) all.push_back({way, kind});
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  constexpr const char* kWays[] = {"one_call", "chunks", "comparison"};
  return std::string(kWays[static_cast<int>(info.param.way)]) + "_" + info.param.kind;
}

INSTANTIATE_TEST_SUITE_P(all, TrackerTest, testing::ValuesIn(cases()), name_of);

class Attach : public testing::Test {
 protected:
  void start(std::vector<std::string> arguments) {
    user_.emplace(std::move(arguments));
    ASSERT_TRUE(user_->started());
  }
  Result<qemu::ShimAnswer> ask() { return qemu::ask_shim(user_->socket(), 10s); }
  // Maps the memory and makes its tracker.
  void attach() {
    auto answer = ask();
    ASSERT_TRUE(answer.ok()) << answer.error().what;
    auto memory = map_guest_memory(*answer);
    ASSERT_TRUE(memory.ok()) << memory.error().what;
    memory_.emplace(std::move(*memory));
    auto tracker = make_tracker(*memory_, std::move(*answer), false);
    ASSERT_TRUE(tracker.ok()) << tracker.error().what;
    tracker_ = std::move(*tracker);
  }
  void attach_with_pagemap() {
    ASSERT_NO_FATAL_FAILURE(attach());
    if (tracker_->describe() != "PAGEMAP_SCAN") GTEST_SKIP() << tracker_->describe();
    ASSERT_TRUE(tracker_->arm().ok());
  }

  std::optional<MemoryUser> user_;
  std::optional<GuestMemory> memory_;
  std::unique_ptr<Tracker> tracker_;
};

TEST_F(Attach, a_page_whose_mapping_the_kernel_dropped_counts_as_written) {
  ASSERT_NO_FATAL_FAILURE(start({"memfd:16"}));
  attach_with_pagemap();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_TRUE(user_->tell("w 0 9 1 1"));
  ASSERT_TRUE(user_->tell("z 0 9"));
  const PageSet expected = {{9, 1}};
  EXPECT_EQ(tracker_->take_written().value(), expected);
}

TEST_F(Attach, memory_mapped_anew_is_no_longer_tracked_and_the_scan_fails) {
  ASSERT_NO_FATAL_FAILURE(start({"memfd:16"}));
  attach_with_pagemap();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_TRUE(user_->tell("w 0 3 1 1"));
  ASSERT_TRUE(user_->tell("r 0 100"));
  EXPECT_EQ(tracker_->take_written().code(), Code::failed);
  // Armed anew it is whole again.
  tracker_->disarm();
  ASSERT_TRUE(tracker_->arm().ok());
  ASSERT_TRUE(user_->tell("w 0 100 1 1"));
  const PageSet expected = {{100, 1}};
  EXPECT_EQ(tracker_->take_written().value(), expected);
}

TEST_F(Attach, a_second_tracker_of_the_same_guest_is_refused) {
  ASSERT_NO_FATAL_FAILURE(start({"memfd:16"}));
  attach_with_pagemap();
  if (IsSkipped() || HasFatalFailure()) return;
  auto answer = ask();
  ASSERT_TRUE(answer.ok());
  auto memory = map_guest_memory(*answer);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(make_tracker(*memory, std::move(*answer), false).code(), Code::conflict);
  ASSERT_TRUE(user_->tell("w 0 3 1 1"));  // and the first goes on
  EXPECT_EQ(count_of(tracker_->take_written().value()), 1U);
}

TEST_F(Attach, a_process_that_ended_is_an_error_not_an_empty_set) {
  ASSERT_NO_FATAL_FAILURE(start({"memfd:16"}));
  attach_with_pagemap();
  if (IsSkipped() || HasFatalFailure()) return;
  user_->end();
  EXPECT_FALSE(tracker_->take_written().ok());
  tracker_->disarm();
  EXPECT_FALSE(tracker_->arm().ok());
}

TEST_F(Attach, where_userfaultfd_is_refused_memory_is_compared_and_the_reason_is_said) {
  ASSERT_NO_FATAL_FAILURE(start({"deny-userfaultfd", "memfd:16"}));
  EXPECT_EQ(qemu::describe_tracking(ask()),
            "comparison: userfaultfd is refused to QEMU (Operation not permitted)");
  ASSERT_NO_FATAL_FAILURE(attach());
  EXPECT_EQ(
      tracker_->describe(),
      "comparison (takes up to 16 MiB more, and longer stops): userfaultfd is refused to QEMU (Operation not "
      "permitted)");
  ASSERT_TRUE(tracker_->arm().ok());
  ASSERT_TRUE(user_->tell("w 0 3 1 1"));
  EXPECT_EQ(count_of(tracker_->take_written().value()), 1U);
}

TEST_F(Attach, blocks_come_in_the_order_of_mapping_without_those_that_were_unmapped) {
  ASSERT_NO_FATAL_FAILURE(start({"memfd:4", "memfd:6", "other:2", "memfd:8"}));
  ASSERT_TRUE(user_->tell("u 1"));
  ASSERT_TRUE(user_->tell("m memfd:10"));
  const auto answer = ask();
  ASSERT_TRUE(answer.ok()) << answer.error().what;
  std::vector<std::uint64_t> mib;
  for (const auto& ram : answer->ram) mib.push_back(ram.bytes >> 20);
  EXPECT_EQ(mib, (std::vector<std::uint64_t>{4, 8, 10}));
}

TEST_F(Attach, more_blocks_than_the_shim_can_tell_of_are_refused) {
  ASSERT_NO_FATAL_FAILURE(start(std::vector<std::string>(65, "memfd:1")));
  const auto answer = ask();
  EXPECT_EQ(answer.code(), Code::unsupported);
  EXPECT_EQ(qemu::describe_tracking(answer),
            "none: The guest's memory is in more than 64 pieces: the engine carries 64.");
}

TEST_F(Attach, private_memory_is_refused) {
  ASSERT_NO_FATAL_FAILURE(start({"other:1"}));
  EXPECT_EQ(ask().code(), Code::unsupported);
}

TEST_F(Attach, another_user_gets_nothing_from_the_socket) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  ASSERT_NO_FATAL_FAILURE(start({"memfd:1"}));
  const std::string path = user_->socket();
  EXPECT_EQ(::chmod(path.c_str(), 0666), 0);  // it is 0600
  EXPECT_EQ(::chmod(path.substr(0, path.rfind('/')).c_str(), 0755), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(::setuid(54321) == 0 ? static_cast<int>(ask().code()) : 255);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status),
            static_cast<int>(Code::corrupt));  // the end of the stream and nothing before it
  EXPECT_TRUE(ask().ok());
}

}  // namespace
}  // namespace hf::engine
