#pragma once
// PauseNote: what a QEMU's monitor says about a guest that it holds because a disk's I/O failed. A request that fails
// gives BLOCK_IO_ERROR, then comes STOP; `cont` gives RESUME, then the request is tried again. QEMU tells only who
// listens: after a new connection it must be asked. Not thread-safe; pure.
#include <optional>
#include <string>

#include "port/hypervisor.hpp"

namespace hf::qemu {

using DiskError = VmPause::DiskError;

// Of the data of a BLOCK_IO_ERROR event; none if the guest was not paused for it.
std::optional<DiskError> disk_error_of_event(const std::string& data);
// Of query-block's answer: the first disk that has failed.
DiskError disk_error_of_query(const std::string& answer);
// Of query-status's answer.
bool is_paused_by_disk(const std::string& answer);

class PauseNote {
 public:
  PauseNote(VmId vm, Epoch epoch) : vm_(std::move(vm)), epoch_(epoch) {}

  // Each returns what is to be told, if anything is.
  std::optional<VmPause> on_event(const std::string& event, const std::string& data);
  // What QEMU said when asked: the guest is held for that error, or for none.
  std::optional<VmPause> on_answer(std::optional<DiskError> error);

 private:
  const VmId vm_;
  const Epoch epoch_;
  std::optional<DiskError> failed_;  // since the guest last went on
  bool told_ = false;                // that it is held
};

}  // namespace hf::qemu
