#pragma once
// Reads a test guest's disk and says whether somebody wrote to it who had lost the right to, or whether an
// acknowledged write is missing. The format and why it shows that: guest/ledger_format.h. The guest must be
// off.
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::lab {

struct LedgerReport {
  std::uint64_t incarnation = 0;  // of the last boot
  std::uint64_t records = 0;      // that stand on the disk
  std::uint64_t last_sequence = 0;
  std::vector<std::string> problems;  // sentences; empty: all is well
};

// raw, or qcow2 by way of qemu-img. Code::corrupt if it holds no ledger.
Result<LedgerReport> check_ledger(const std::string& image);

// The blocks of a raw disk. Pure.
Result<LedgerReport> check_ledger_blocks(const std::string& disk);

}  // namespace hf::lab
