#include "sys/image/image.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/ensure.hpp"
#include "sys/image/partial.hpp"
#include "sys/process/run.hpp"

namespace hf::image {
namespace fs = std::filesystem;
using process::run_tool;
using process::RunOptions;
using process::RunOutput;
using vm::DiskFormat;

namespace {

constexpr Duration kHeaderTime = 30s;  // reading or changing a header; a datastore slower than this is gone
const char* name_of(DiskFormat format) { return format == DiskFormat::qcow2 ? "qcow2" : "raw"; }

bool is_there(const std::string& path) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0;
}

std::string in_mib(std::uint64_t bytes) {
  const std::uint64_t mib = bytes >> 20;
  if (mib << 20 != bytes) return std::to_string(bytes) + " bytes";
  return mib != 0 && mib % 1024 == 0 ? std::to_string(mib / 1024) + " GiB" : std::to_string(mib) + " MiB";
}

// qemu-img names no codes: its words are all there is.
Error complaint_of(const std::string& what, const RunOutput& output) {
  const std::string text = output.complaint();
  for (const char* full : {"No space left on device", "Disk quota exceeded"}) {
    if (output.err.find(full) != std::string::npos) {
      return Error{Code::no_room, what + ": the datastore is full. Free some space on it and try again."};
    }
  }
  return Error{Code::failed, what + ": " + text + "."};
}

Status run_img(const std::string& what, std::vector<std::string> arguments, const RunOptions& options) {
  arguments.insert(arguments.begin(), "qemu-img");
  TRY_ASSIGN(const RunOutput output, run_tool(arguments, options));
  if (!output.ok()) return complaint_of(what, output);
  return {};
}

// "    (12.34/100%)\r", cut anywhere.
class ProgressReader {
 public:
  explicit ProgressReader(std::function<void(int)> report) : report_(std::move(report)) {}
  void feed(std::string_view piece) {
    for (char c : piece) {
      if (c == '(')
        number_.clear();
      else if (c == '/')
        tell();
      else if (number_.size() < 8)
        number_ += c;
    }
  }

 private:
  void tell() {
    const int percent = std::atoi(number_.c_str());
    if (percent <= last_ || percent > 100 || !report_) return;
    last_ = percent;
    report_(percent);
  }
  std::function<void(int)> report_;
  std::string number_;
  int last_ = 0;
};

Status check_target(const std::string& path) {
  ENSURE(!path.empty() && path[0] == '/', "an image's path is absolute");
  if (is_there(path)) return Error{Code::exists, "There is an image " + path + " already."};
  return {};
}

Status set_size(const std::string& path, DiskFormat format, std::uint64_t size_bytes) {
  RunOptions options;
  options.timeout = kHeaderTime;
  return run_img("Cannot grow the image " + path,
                 {"resize", "-q", "-f", name_of(format), path, std::to_string(size_bytes)}, options);
}

// What an import needs of its source.
Result<Info> source_info(const std::string& source, const NewImage& image) {
  if (source.empty() || source[0] != '/') {
    return Error{Code::invalid, "The image to import, " + source + ", must be an absolute path."};
  }
  TRY_ASSIGN(Info found, info(source, image.source_format));
  if (!found.is_self_contained) {
    return Error{Code::invalid, "The image " + source +
                                    " needs another file (its backing or data file). Make one image of them "
                                    "first: qemu-img convert -O qcow2 " +
                                    source + " <new file>."};
  }
  if (image.size_bytes != 0 && image.size_bytes < found.size_bytes) {
    return Error{Code::invalid, "The image " + source + " has " + in_mib(found.size_bytes) +
                                    " and does not fit into a disk of " + in_mib(image.size_bytes) +
                                    ". Make the disk larger, or leave its size out."};
  }
  return found;
}

}  // namespace

Result<Info> info(const std::string& path, std::optional<DiskFormat> format) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0) return from_errno("Cannot read the image " + path, errno);
  RunOptions options;
  options.timeout = kHeaderTime;
  std::vector<std::string> words = {"qemu-img", "info", "--output=json", "-U"};
  if (format) words.insert(words.end(), {"-f", name_of(*format)});
  words.push_back(path);
  TRY_ASSIGN(const RunOutput output, run_tool(words, options));
  if (!output.ok()) return complaint_of("Cannot read the image " + path, output);
  const auto tree = nlohmann::json::parse(output.out, nullptr, false);
  try {
    Info info;
    info.format = tree.at("format").get<std::string>();
    info.size_bytes = tree.at("virtual-size").get<std::uint64_t>();
    info.allocated_bytes = tree.value("actual-size", std::uint64_t{0});
    const bool has_data_file = tree.contains("format-specific") && tree["format-specific"].contains("data") &&
                               tree["format-specific"]["data"].contains("data-file");
    info.is_self_contained = !tree.contains("backing-filename") && !has_data_file;
    return info;
  } catch (const nlohmann::json::exception& problem) {
    return Error{Code::corrupt, "Cannot read what qemu-img says of " + path + ": " + problem.what() + "."};
  }
}

Status create(const std::string& path, const NewImage& image, const Job& job) {
  TRY(check_target(path));
  Partial partial(path);
  std::vector<std::string> arguments = {"create", "-q", "-f", name_of(image.format)};
  if (image.format == DiskFormat::qcow2 && image.preallocate_metadata) {
    arguments.insert(arguments.end(), {"-o", "preallocation=metadata"});
  }
  arguments.insert(arguments.end(), {partial.path(), std::to_string(image.size_bytes)});
  RunOptions options;
  options.timeout = 0s;
  options.stop = job.stop;
  TRY(run_img("Cannot create the image " + path, std::move(arguments), options));
  TRY(partial.publish());
  if (job.on_progress) job.on_progress(100);
  return {};
}

Status import(const std::string& source, const std::string& path, const NewImage& image, const Job& job) {
  TRY(check_target(path));
  TRY_ASSIGN(const Info found, source_info(source, image));
  Partial partial(path);
  ProgressReader progress(job.on_progress);
  RunOptions options;
  options.timeout = 0s;
  options.stop = job.stop;
  options.on_output = [&](std::string_view piece) { progress.feed(piece); };
  std::vector<std::string> arguments = {"convert", "-p", "-f", found.format, "-O", name_of(image.format)};
  // Past the page cache where that works: a large copy would push out what the host needs.
  if (supports_direct_io(fs::path(path).parent_path())) arguments.insert(arguments.end(), {"-t", "none"});
  if (job.bytes_per_second > 0) arguments.insert(arguments.end(), {"-r", std::to_string(job.bytes_per_second)});
  arguments.insert(arguments.end(), {source, partial.path()});
  TRY(run_img("Cannot import the image " + source, std::move(arguments), options));
  if (job.stop.stop_requested())
    return Error{Code::failed, "The import of " + source + " was stopped on request."};
  if (image.size_bytes > found.size_bytes) TRY(set_size(partial.path(), image.format, image.size_bytes));
  return partial.publish();
}

Status grow(const std::string& path, DiskFormat format, std::uint64_t size_bytes) {
  TRY_ASSIGN(const Info found, info(path));
  if (size_bytes == found.size_bytes) return {};
  if (size_bytes < found.size_bytes) {
    return Error{Code::invalid, "The disk " + path + " has " + in_mib(found.size_bytes) +
                                    " and cannot be shrunk to " + in_mib(size_bytes) +
                                    ": what stands at its end would be lost."};
  }
  TRY(set_size(path, format, size_bytes));
  return sync(path);
}

Result<int> remove_partials(const std::string& directory) {
  int removed = 0;
  std::error_code problem;
  for (fs::directory_iterator entry(directory, problem), end; !problem && entry != end;
       entry.increment(problem)) {
    if (entry->path().extension() != kPartialSuffix) continue;
    std::error_code refused;
    fs::remove_all(entry->path(), refused);
    if (refused) return from_errno("Cannot remove " + entry->path().string(), refused.value());
    ++removed;
  }
  if (problem) return from_errno("Cannot read the directory " + directory, problem.value());
  return removed;
}

bool supports_direct_io(const std::string& directory) {
  constexpr std::size_t kBlock = 4096;
  std::string path = directory + "/.direct-XXXXXX";
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return false;
  const int direct = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  ::unlink(path.c_str());
  ::close(fd);
  if (direct < 0) return false;
  std::unique_ptr<void, decltype(&std::free)> block(std::aligned_alloc(kBlock, kBlock), &std::free);
  std::fill_n(static_cast<char*>(block.get()), kBlock, '\0');
  const bool wrote = ::pwrite(direct, block.get(), kBlock, 0) == static_cast<ssize_t>(kBlock);
  ::close(direct);
  return wrote;
}

}  // namespace hf::image
