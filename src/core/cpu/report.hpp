#pragma once
// A host's CPU models as its QEMU says them, made short for the host's record. Pure.
#include <string>

#include "base/result.hpp"
#include "core/record/records.hpp"

namespace hf::cpu {

struct Answers {
  std::string definitions;  // what query-cpu-definitions returned, JSON
  std::string everything;   // what query-cpu-model-expansion (full) returned for "max"
};
struct Processor {
  std::string vendor, name;  // of /proc/cpuinfo
};
// vendor_id and model name of the first processor in /proc/cpuinfo's text; empty where it has none.
Processor processor_in(const std::string& cpuinfo);

// Code::corrupt: QEMU's answer is not what it should be. `accelerator`: "kvm" or "tcg".
Result<record::HostCpu> read_answers(const Answers& answers, const std::string& accelerator,
                                     const Processor& processor);

}  // namespace hf::cpu
