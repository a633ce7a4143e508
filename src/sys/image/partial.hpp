#pragma once
// A file in the making: "<path>.partial" until it is whole. Internal to sys/image.
#include <string>

#include "base/result.hpp"

namespace hf::image {

inline constexpr const char* kPartialSuffix = ".partial";

// Removes the partial file, unless it was published.
class Partial {
 public:
  explicit Partial(std::string target) : target_(std::move(target)), path_(target_ + kPartialSuffix) {}
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;
  ~Partial();

  const std::string& path() const { return path_; }
  // Syncs it, gives it its name, syncs the directory.
  Status publish();

 private:
  std::string target_, path_;
  bool is_published_ = false;
};

// fsync of a file or directory.
Status sync(const std::string& path);

}  // namespace hf::image
