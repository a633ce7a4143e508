#pragma once
// LineSocket: whole lines over a stream socket, both ways. One thread may read while others write.
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::motion {

class LineSocket {
 public:
  explicit LineSocket(process::UniqueFd fd) : fd_(std::move(fd)) {}

  // All of the line, its newline included. An error: the other side has not got the whole of it, and never will.
  Status write(std::string_view line, Duration limit);
  // The next line, without its newline; nullopt: the other side is gone. Code::invalid beyond `bytes_max`.
  Result<std::optional<std::string>> read(std::size_t bytes_max);
  // Both directions end; whoever reads gets nullopt.
  void shut_down();

 private:
  const process::UniqueFd fd_;
  std::mutex write_mutex_;
  bool broken_ = false;  // a part of a line was sent
  std::string partial_;  // the reader's
};

}  // namespace hf::motion
