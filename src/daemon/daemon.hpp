#pragma once
// Daemon: all of holdfastd, put together from its configuration. Starting and stopping it touches no VM.
#include <memory>

#include "base/result.hpp"
#include "config/config.hpp"

namespace hf::daemon {

class Daemon {
 public:
  // Waits for the store as long as it must (it says so in the log); everything else that is missing is an error that
  // says what to do. Returns once the API answers.
  static Result<std::unique_ptr<Daemon>> start(const config::HostConfig& config);
  // VMs run on.
  virtual ~Daemon() = default;
};

}  // namespace hf::daemon
