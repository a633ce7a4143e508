#pragma once
// Disk images, through qemu-img. Every file is made as "<path>.partial", synced and then renamed: a file with
// its right name is whole, also after a crash. What a crash leaves behind goes with remove_partials. Made
// files belong to the caller's user, mode 0600. Any thread; blocks. It knows nothing of ownership: the caller
// sees to it that nobody uses the image meanwhile.
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::image {

struct Info {
  std::string format;                 // as qemu-img calls it: "qcow2", "raw", "vmdk", ...
  std::uint64_t size_bytes = 0;       // that a guest sees
  std::uint64_t allocated_bytes = 0;  // on the file system
  bool is_self_contained = true;      // no backing file, no data file
};

// What a long operation reports to and obeys. A request to stop gives Code::failed; nothing is left behind.
struct Job {
  std::stop_token stop;
  std::function<void(int percent)> on_progress;  // grows; from the calling thread
  std::uint64_t bytes_per_second = 0;            // import: at most; 0: no limit
};

// Reads the image's header; safe while a VM uses it. All paths are absolute. `format`: what it is; unset: what its
// content looks like, which for a raw disk is its guest's word.
Result<Info> info(const std::string& path, std::optional<vm::DiskFormat> format = {});

struct NewImage {
  vm::DiskFormat format = vm::DiskFormat::qcow2;
  std::uint64_t size_bytes = 0;
  // qcow2: all of the mapping is written at once (1/8192 of the size), so that first writes cost no more than
  // later ones.
  bool preallocate_metadata = false;
  std::optional<vm::DiskFormat> source_format = {};  // import: as info()'s `format`
};
// Code::exists if the path is taken; Code::no_room if the datastore is full.
Status create(const std::string& path, const NewImage& image, const Job& job = {});

// Copies an image of any format qemu-img reads. image.size_bytes 0: the source's size; larger: the copy is
// grown. Code::invalid if it is smaller than the source, or the source needs other files (a backing file).
Status import(const std::string& source, const std::string& path, const NewImage& image, const Job& job = {});

// Code::invalid if it would shrink; nothing to do if it has the size. REQUIRES: no QEMU has it open.
Status grow(const std::string& path, vm::DiskFormat format, std::uint64_t size_bytes);

// Removes what an interrupted create, import or make_seed left in this directory; returns how many. REQUIRES:
// none is under way.
Result<int> remove_partials(const std::string& directory);

// Whether files of this directory can be opened and written with O_DIRECT.
bool supports_direct_io(const std::string& directory);

}  // namespace hf::image
