#pragma once
// The test guest's kernel and initrd: Debian's cloud kernel and busybox-static unpacked from their packages
// (downloaded with apt-get, never installed), the virtio modules, and our init (guest/). Built on first use,
// kept in a folder. One builder at a time; calls block, the first for as long as the download takes.
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::lab {

struct GuestImage {
  std::string kernel;
  std::string initrd;
  std::string cmdline;  // to begin with; hf.* words (guest/guest.h) follow
};

// Code::failed with what to install or to check, where the packages cannot be had.
Result<GuestImage> guest_image(const std::string& folder,
                               const std::function<void(const std::string&)>& progress);

// A file of an initramfs; the archive is the "newc" cpio format (kernel:
// Documentation/driver-api/early-userspace).
struct ArchiveFile {
  std::string path;  // without a leading slash; folders before what is in them
  std::string content;
  unsigned mode = 0100644;
};
std::string cpio_archive(const std::vector<ArchiveFile>& files);

// The names in "depends=" of a kernel module, with underscores.
std::vector<std::string> module_dependencies(const std::string& module);

}  // namespace hf::lab
