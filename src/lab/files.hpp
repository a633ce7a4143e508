#pragma once
// Small files and folders of the lab: read, write, make, remove. No state; any thread.
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::lab {

// A file descriptor that is closed with its owner. -1: none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(-1); }
  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  int release() {
    const int number = number_;
    number_ = -1;
    return number;
  }
  void reset(int number);

 private:
  int number_ = -1;
};

bool exists(const std::string& path);
Result<std::string> read_file(const std::string& path);
// One write(2), as cgroup files want it; makes the file if it is not there.
Status write_file(const std::string& path, const std::string& text);
// Parents too; succeeds if it is there.
Status make_folder(const std::string& path);
// Everything below it; succeeds if it is not there. Stays on the file system it began on.
Status remove_folder(const std::string& path);
// Names in a folder, sorted; empty if it is not there.
std::vector<std::string> names_in(const std::string& path);

}  // namespace hf::lab
