#pragma once
// What CPU models and features a QEMU can give guests on this machine. It is asked without a machine, which takes a
// tenth of a second. Stateless but for CpuModels; blocking.
#include <cstdint>
#include <string>

#include "core/cpu/report.hpp"

namespace hf::qemu {

// `accelerator`: "kvm" or "tcg". Code::failed: in QEMU's words.
Result<cpu::Answers> ask_cpu_models(const std::string& binary, const std::string& accelerator);
// The same, as the host's record has it, with this machine's processor.
Result<record::HostCpu> host_cpu(const std::string& binary, const std::string& accelerator);

// Tells when the QEMU program has been exchanged. One thread.
class BinaryWatch {
 public:
  explicit BinaryWatch(const std::string& binary);
  // Is it another file than at the last look? What is not there now has not changed.
  bool changed();

 private:
  struct Print {
    std::uint64_t inode = 0, size = 0;
    std::int64_t modified_ns = 0;
    bool operator==(const Print&) const = default;
  };
  Print look() const;
  const std::string path_;  // the program itself, wherever PATH has it
  Print seen_;
};

}  // namespace hf::qemu
