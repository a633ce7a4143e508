#pragma once
// run_tool: one run of another program, to its end, without a shell. For short tools (qemu-img, xorriso, ip);
// not for QEMU, which outlives its starter. Any thread; blocks. The program gets no descriptor but its three,
// an empty signal mask, a process group of its own and a fixed environment (PATH, LC_ALL=C). Its standard input
// is /dev/null, or what it is given.
#include <cstddef>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::process {

constexpr std::size_t kInputMax = 32 << 10;  // a pipe takes it at once

struct RunOptions {
  Duration timeout = 60s;                  // then the program and its children are killed; 0: none
  std::stop_token stop;                    // a request to stop kills them as well
  std::size_t output_bytes_max = 1 << 20;  // kept of each stream; what comes after is read and dropped
  std::string input = {};                  // at most kInputMax bytes
  std::function<void(std::string_view)> on_output;  // called with each piece of standard output, as it comes
};

struct RunOutput {
  int exit_status = 0;  // 128 + signal where a signal ended it
  std::string out, err;
  bool ok() const { return exit_status == 0; }
  // The last thing the program said on standard error (else standard output), in one line, for an error's
  // text.
  std::string complaint() const;
};

// An Error only where the program did not run to its end: not_found (no such program), timed_out, failed
// (stopped by request, or the system refused). Whether it succeeded says RunOutput::exit_status. REQUIRES:
// !argv.empty()
Result<RunOutput> run_tool(const std::vector<std::string>& argv, const RunOptions& options = {});

}  // namespace hf::process
