#pragma once
// TempFolder: a folder of its own for a test, below the system's temporary folder or the one named; removed with its
// owner. For tests only.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "base/ensure.hpp"

namespace hf::test {

class TempFolder {
 public:
  explicit TempFolder(const std::filesystem::path& below = std::filesystem::temp_directory_path()) {
    std::string name = (below / "holdfast-test-XXXXXX").string();
    ENSURE(::mkdtemp(name.data()) != nullptr, "a temporary folder is needed");
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;  // what is left is in the temporary folder
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace hf::test
