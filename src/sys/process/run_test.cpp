// Goal: a tool's end, output and failure are reported exactly, and no limit can be overrun. Method: real
// programs.
#include "sys/process/run.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

namespace hf::process {
namespace {

TEST(RunTool, output_and_exit_status_are_kept_apart) {
  auto output = run_tool({"sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3"});
  ASSERT_TRUE(output.ok()) << output.error().what;
  EXPECT_EQ(output->exit_status, 3);
  EXPECT_EQ(output->out, "out\n");
  EXPECT_EQ(output->err, "one\ntwo\n");
  EXPECT_EQ(output->complaint(), "two");
}

TEST(RunTool, missing_program_is_not_found) {
  EXPECT_EQ(run_tool({"holdfast-no-such-program"}).code(), Code::not_found);
}

TEST(RunTool, arguments_are_not_read_by_a_shell) {
  EXPECT_EQ(run_tool({"printf", "%s", "$(id); a 'b' \"c\""})->out, "$(id); a 'b' \"c\"");
}

TEST(RunTool, input_is_read_to_its_end) {
  RunOptions options;
  options.input = "one\ntwo\n";
  EXPECT_EQ(run_tool({"cat"}, options)->out, "one\ntwo\n");
}

TEST(RunTool, signal_is_an_exit_status) {
  EXPECT_EQ(run_tool({"sh", "-c", "kill -9 $$"})->exit_status, 128 + SIGKILL);
}

TEST(RunTool, program_gets_no_descriptor_environment_or_input_of_ours) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);  // without O_CLOEXEC, on purpose
  EXPECT_EQ(run_tool({"sh", "-c", "ls /proc/$$/fd"})->out, "0\n1\n2\n");
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  EXPECT_EQ(run_tool({"sh", "-c", "echo $HOME$LC_ALL; cat"})->out, "C\n");
}

TEST(RunTool, output_beyond_the_cap_is_dropped_but_seen) {
  RunOptions options;
  options.output_bytes_max = 1000;
  std::size_t seen = 0;
  options.on_output = [&](std::string_view piece) { seen += piece.size(); };
  auto output = run_tool({"head", "-c", "3000000", "/dev/zero"}, options);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out.size(), 1000U);
  EXPECT_EQ(seen, 3000000U);
}

TEST(RunTool, time_limit_ends_the_program_even_while_it_writes) {
  RunOptions options;
  options.timeout = 200ms;
  EXPECT_EQ(run_tool({"yes"}, options).code(), Code::timed_out);
}

TEST(RunTool, request_to_stop_ends_the_program_and_its_children) {
  std::stop_source source;
  RunOptions options;
  options.timeout = 0s;
  options.stop = source.get_token();
  std::string child;
  options.on_output = [&](std::string_view piece) {
    child += piece;
    if (child.ends_with('\n')) source.request_stop();
  };
  auto output = run_tool({"sh", "-c", "sleep 1000 & echo $!; wait"}, options);
  EXPECT_EQ(output.code(), Code::failed);
  // The child is killed with its parent; it is init's to reap, so it may still be there as a zombie.
  std::string state = "Z";
  for (const auto limit = std::chrono::steady_clock::now() + 30s; std::chrono::steady_clock::now() < limit;) {
    std::ifstream stat("/proc/" + child.substr(0, child.size() - 1) + "/stat");
    std::string pid, name;
    if (!(stat >> pid >> name >> state) || state == "Z") break;
    std::this_thread::yield();
  }
  EXPECT_TRUE(state == "Z" || state == "X") << state;
  EXPECT_EQ(run_tool({"true"}, options).code(), Code::failed);
}

TEST(RunTool, background_child_that_keeps_the_pipe_is_not_waited_for) {
  auto output = run_tool({"sh", "-c", "sleep 1000 & echo $!"});
  ASSERT_TRUE(output.ok()) << output.error().what;
  ::kill(std::stoi(output->out), SIGKILL);
}

}  // namespace
}  // namespace hf::process
