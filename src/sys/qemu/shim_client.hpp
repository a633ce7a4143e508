#pragma once
// What the shim inside a QEMU tells of its guest's memory (src/shim/track.c; doc/formats.md "Memory socket").
// Stateless; blocking, with a limit. The QEMU at the other end is not trusted: whatever it answers, the call ends
// within its limit, and what does not fit together is refused. It can still take its own files' memory away while
// they are mapped: whoever maps them gets SIGBUS then, so one process maps the memory of one VM.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {

inline constexpr std::size_t kRamBlocksMax = 64;

// One memory backend.
struct SharedRam {
  std::uint64_t address = 0;  // in QEMU
  std::uint64_t bytes = 0;    // a multiple of page_bytes
  std::uint64_t page_bytes = 0;
  process::UniqueFd file;  // at least `bytes` long
};

struct ShimAnswer {
  int qemu_pid = 0;
  std::vector<SharedRam> ram;     // in the order of the command line
  process::UniqueFd userfaultfd;  // for process::track_writes; with one side at a time
  process::UniqueFd pagemap;      // for process::scan_written
  std::string why_not_tracked;    // empty: both descriptors are there and of use
};

// Code::unavailable: no shim serves there. Code::timed_out: QEMU may be frozen. Code::corrupt: that is not the shim's
// answer. Code::unsupported: the shim cannot hand over all of the guest's memory.
Result<ShimAnswer> ask_shim(const std::string& memory_socket, Duration limit);

// The answer's bytes, and the files that came with them. Pure but for looking at the files.
Result<ShimAnswer> decode_shim_answer(std::string_view bytes, std::vector<process::UniqueFd> files);

// What status.memory_tracker shows: "PAGEMAP_SCAN", or "comparison: " and why not better, or "none: " and why. "not
// known: " where it did not answer in time.
std::string describe_tracking(const Result<ShimAnswer>& answer);

}  // namespace hf::qemu
