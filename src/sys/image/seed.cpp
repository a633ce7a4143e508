#include "sys/image/seed.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "sys/image/partial.hpp"
#include "sys/process/run.hpp"

namespace hf::image {
namespace fs = std::filesystem;

namespace {

// The directory the ISO is made of: beside it and named as a partial, so that a crash leaves no secret where
// nobody looks.
class Sources {
 public:
  explicit Sources(const std::string& iso) : path_(iso + ".sources" + kPartialSuffix) {}
  Sources(const Sources&) = delete;
  Sources& operator=(const Sources&) = delete;
  ~Sources() { remove(); }

  Status make() {
    remove();
    if (::mkdir(path_.c_str(), 0700) != 0) return from_errno("Cannot make the directory " + path_, errno);
    return {};
  }
  Status add(const std::string& name, const std::string& text) {
    std::ofstream file(path_ + "/" + name, std::ios::binary);
    file << text;
    file.close();
    if (!file) return Error{Code::no_room, "Cannot write " + path_ + "/" + name + ". Is the datastore full?"};
    return {};
  }
  const std::string& path() const { return path_; }

 private:
  void remove() {
    std::error_code ignored;  // remove_partials is the second line
    fs::remove_all(path_, ignored);
  }
  std::string path_;
};

}  // namespace

Status make_seed(const vm::CloudInit& seed, const std::string& vm_name, const std::string& vm_id,
                 const std::string& path) {
  Sources sources(path);
  TRY(sources.make());
  TRY(sources.add("user-data", seed.user_data.empty() ? "#cloud-config\n" : seed.user_data));
  TRY(sources.add("meta-data", seed.meta_data.empty()
                                   ? "instance-id: " + vm_id + "\nlocal-hostname: " + vm_name + "\n"
                                   : seed.meta_data));
  if (!seed.network_config.empty()) TRY(sources.add("network-config", seed.network_config));
  Partial partial(path);
  auto output = process::run_tool({"xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet",
                                   "-rational-rock", "-output", partial.path(), sources.path()});
  if (!output.ok() && output.code() == Code::not_found) {
    return Error{Code::unsupported,
                 "Cannot make the cloud-init seed: xorriso is not here. Install the package xorriso."};
  }
  TRY(output);
  if (!output->ok()) {
    const bool is_full = output->err.find("No space left on device") != std::string::npos;
    return Error{is_full ? Code::no_room : Code::failed,
                 "Cannot make the cloud-init seed " + path + ": " + output->complaint()};
  }
  return partial.publish();
}

}  // namespace hf::image
