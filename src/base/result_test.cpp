// Goal: the code table is complete and in order, and Result carries what it was given and gives nothing else.
#include "base/result.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

namespace hf {
namespace {

Result<int> half(int x) {
  if (x % 2 != 0) return Error{Code::invalid, "Odd."};
  return x / 2;
}
Result<int> quarter(int x) {
  TRY_ASSIGN(int once, half(x));
  TRY(half(once));
  return once / 2;
}

TEST(Result, every_code_has_its_own_row_name_and_exit_status) {
  std::set<int> exits;
  for (int i = 0; i <= static_cast<int>(Code::failed); ++i) {
    auto code = static_cast<Code>(i);
    EXPECT_EQ(info(code).code, code);
    EXPECT_EQ(code_named(info(code).name), code);
    exits.insert(info(code).exit_status);
  }
  EXPECT_EQ(exits.size(), static_cast<std::size_t>(Code::failed) + 1);
}

TEST(Result, try_leaves_with_the_first_error) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).code(), Code::invalid);
  EXPECT_EQ(quarter(7).error().what, "Odd.");
}

TEST(Result, because_keeps_the_code_of_the_cause) {
  EXPECT_EQ(because("Cannot create disk", Error{Code::no_room, "Full."}).code, Code::no_room);
  EXPECT_EQ(from_errno("Cannot write /x", ENOSPC).code, Code::no_room);
}

TEST(Result, the_error_of_a_success_stops_the_process) {
  const Result<int> value = 4;
  const Status done;
  EXPECT_DEATH(value.error(), "holds a value has no error");
  EXPECT_DEATH(value.code(), "holds a value has no error");
  EXPECT_DEATH(done.error(), "a success has no error");
  EXPECT_DEATH(done.code(), "a success has no error");
}

TEST(Result, the_value_of_a_failure_stops_the_process) {
  Result<std::string> failed = Error{Code::invalid, "No."};
  EXPECT_DEATH(failed.value(), "holds an error has no value");
  EXPECT_DEATH((void)failed->size(), "holds an error has no value");  // stops in the call
  EXPECT_DEATH(std::as_const(failed).value(), "holds an error has no value");
}

}  // namespace
}  // namespace hf
