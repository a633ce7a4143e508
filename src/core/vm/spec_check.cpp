#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "core/vm/spec_problem.hpp"

namespace hf::vm {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kMemoryMibMax = std::uint64_t{16} << 20;  // 16 TiB
constexpr std::uint64_t kDiskMibMax = std::uint64_t{64} << 20;    // 64 TiB
constexpr std::size_t kDisksMax = 32, kCdromsMax = 5, kNicsMax = 16;
constexpr std::size_t kNameMax = 63;
constexpr std::size_t kDeviceNameMax = 20;  // virtio-blk's serial number carries it, and that has 20 bytes
constexpr std::size_t kDescriptionMax = 4096, kPathMax = 1024;
constexpr std::size_t kCmdlineMax = 2047;         // Linux: COMMAND_LINE_SIZE on x86, less its NUL
constexpr std::size_t kCloudInitMax = 256 << 10;  // of one document: the store's records stay small
// What the command line and boot_order use for themselves.
constexpr std::array<std::string_view, 4> kReserved = {"network", kSeedName, "firmware", "firmware-vars"};

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool is_name(std::string_view text, std::size_t bytes_max) {
  if (text.empty() || text.size() > bytes_max || !is_lower_or_digit(text[0])) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return is_lower_or_digit(c) || c == '.' || c == '-'; });
}

// Letters, digits and ". _ -", as QEMU's names of models are.
bool is_model(std::string_view text) {
  auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
  };
  return text.size() <= kNameMax && std::all_of(text.begin(), text.end(), allowed);
}

// Of a task: part of a file's name.
bool is_tag(std::string_view text) {
  return text.size() <= kNameMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_lower_or_digit(c) || c == '-'; });
}

bool is_pinned_machine(std::string_view text) {
  constexpr std::string_view kPrefix = "pc-q35-";
  if (text.size() > 16 || text.substr(0, kPrefix.size()) != kPrefix) return false;
  std::string_view version = text.substr(kPrefix.size());
  auto digits = [](std::string_view part) {
    return !part.empty() &&
           std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  auto dot = version.find('.');
  return dot != std::string_view::npos && digits(version.substr(0, dot)) && digits(version.substr(dot + 1));
}

// Empty: the path is good. A path is never interpreted by a shell or split at commas, so both are allowed in
// it.
std::string wrong_with_path(std::string_view path) {
  if (path.size() > kPathMax) return "The path is longer than 1024 bytes.";
  if (std::any_of(path.begin(), path.end(), is_control))
    return "The path contains a line break or a control character.";
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t end = std::min(path.find('/', begin), path.size());
    if (path.substr(begin, end - begin) == "..") return "The path contains \"..\". Write it without.";
    begin = end + 1;
  }
  return "";
}

class Checker {
 public:
  explicit Checker(const VmSpec& spec) : spec_(spec) {}

  std::vector<Problem> run() {
    machine();
    for (std::size_t i = 0; i < spec_.disks.size(); ++i) disk(spec_.disks[i], item("disks", i));
    for (std::size_t i = 0; i < spec_.cdroms.size(); ++i) cdrom(spec_.cdroms[i], item("cdroms", i));
    for (std::size_t i = 0; i < spec_.nics.size(); ++i) nic(spec_.nics[i], item("nics", i));
    counts();
    boot_order();
    if (spec_.direct_kernel) direct_kernel(*spec_.direct_kernel);
    if (spec_.cloud_init) cloud_init(*spec_.cloud_init);
    if (spec_.ha.max_crash_restarts < 0 || spec_.ha.max_crash_restarts > 100) {
      say("ha.max_crash_restarts", "The number of restarts must be between 0 and 100.");
    }
    return std::move(problems_);
  }

 private:
  static std::string item(std::string_view list, std::size_t index) {
    return std::string(list) + "[" + std::to_string(index) + "]";
  }
  void say(std::string path, std::string text) { problems_.push_back({std::move(path), std::move(text)}); }

  void machine() {
    if (spec_.name.empty()) {
      say("name", "The VM needs a name.");
    } else if (!is_name(spec_.name, kNameMax)) {
      say("name",
          "A name has 1 to 63 lower-case letters, digits, \".\" and \"-\", and begins with a letter or "
          "digit.");
    }
    long_text("description", spec_.description, kDescriptionMax);
    if (spec_.vcpus < 1 || spec_.vcpus > 255) say("vcpus", "The number of vCPUs must be between 1 and 255.");
    if (spec_.memory_mib < 16 || spec_.memory_mib > kMemoryMibMax) {
      say("memory_mib", "Memory must be between 16 MiB and 16 TiB.");
    }
    if (!spec_.machine.empty() && !is_pinned_machine(spec_.machine)) {
      say("machine", "The machine must be a pinned q35 version, such as \"pc-q35-7.2\", or left out.");
    }
    if (!is_model(spec_.cpu_model)) {
      say("cpu_model",
          "The CPU model must be one name that QEMU knows, such as \"Nehalem-v1\", or left out.");
    }
    if (!spec_.datastore.empty() && !is_name(spec_.datastore, kNameMax)) {
      say("datastore",
          "This is no name of a datastore. Run \"holdfast datastore list\" to see those there are.");
    }
    if (spec_.stop_timeout_seconds < 0 || spec_.stop_timeout_seconds > 3600) {
      say("stop_timeout_seconds", "The stop timeout must be between 0 and 3600 seconds.");
    }
    if (!is_tag(spec_.home_tag)) say("home_tag", "This is no tag of a file.");
    needs_datastore();
  }

  void needs_datastore() {
    if (!spec_.datastore.empty()) return;
    std::string_view why;
    if (!spec_.disks.empty())
      why = "disks";
    else if (spec_.firmware == Firmware::uefi)
      why = "UEFI variables";
    else if (spec_.cloud_init)
      why = "a cloud-init seed";
    if (why.empty()) return;
    say("datastore",
        "A VM with " + std::string(why) + " needs a datastore of its own. Add: datastore = \"<name>\".");
  }

  void counts() {
    if (spec_.disks.size() > kDisksMax) say("disks", "A VM has at most 32 disks.");
    if (spec_.cdroms.size() > kCdromsMax) say("cdroms", "A VM has at most 5 cdroms.");
    if (spec_.nics.size() > kNicsMax) say("nics", "A VM has at most 16 nics.");
  }

  void device_name(const std::string& name, const std::string& path, std::string_view what) {
    if (name.empty()) {
      say(path + ".name", "Each " + std::string(what) + " needs a name, such as \"root\".");
    } else if (!is_name(name, kDeviceNameMax)) {
      say(path + ".name",
          "A " + std::string(what) +
              "'s name has 1 to 20 lower-case letters, digits, \".\" and \"-\", and begins with "
              "a letter or digit.");
    } else if (std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end()) {
      say(path + ".name", "The name \"" + name + "\" is reserved. Choose another.");
    } else if (!devices_.insert(name).second) {
      say(path + ".name",
          "The name \"" + name + "\" is used twice. Disks and cdroms share one set of names.");
    }
  }

  void disk(const Disk& disk, const std::string& path) {
    device_name(disk.name, path, "disk");
    if (!is_tag(disk.tag)) say(path + ".tag", "This is no tag of an image.");
    if (!disk.datastore.empty() && !is_name(disk.datastore, kNameMax)) {
      say(path + ".datastore",
          "This is no name of a datastore. Run \"holdfast datastore list\" to see those there are.");
    }
    if (disk.size_bytes == 0 && disk.import_from.empty()) {
      say(path + ".size_bytes",
          "The disk needs a size, such as \"10 GiB\", or an image to import (import_from).");
    } else if (disk.size_bytes % kMiB != 0) {
      say(path + ".size_bytes", "The size of a disk must be a whole number of MiB.");
    } else if (disk.size_bytes / kMiB > kDiskMibMax) {
      say(path + ".size_bytes", "The size of a disk must be between 1 MiB and 64 TiB.");
    }
    if (disk.import_from.empty()) return;
    if (disk.import_from[0] != '/') {
      say(path + ".import_from",
          "The image to import must be an absolute path on the host that creates the VM.");
    } else if (auto wrong = wrong_with_path(disk.import_from); !wrong.empty()) {
      say(path + ".import_from", wrong);
    }
  }

  // "<datastore>:<path below it>"
  void reference(const std::string& text, const std::string& path) {
    auto colon = text.find(':');
    if (colon == std::string::npos || !is_name(std::string_view(text).substr(0, colon), kNameMax) ||
        colon + 1 == text.size() || text[colon + 1] == '/') {
      say(path, "Write it as \"<datastore>:<path below the datastore>\", such as \"iso:debian-12.iso\".");
    } else if (auto wrong = wrong_with_path(std::string_view(text).substr(colon + 1)); !wrong.empty()) {
      say(path, wrong);
    }
  }

  void cdrom(const Cdrom& cdrom, const std::string& path) {
    device_name(cdrom.name, path, "cdrom");
    reference(cdrom.image, path + ".image");
  }

  void nic(const Nic& nic, const std::string& path) {
    if (nic.network.empty()) {
      say(path + ".network",
          "Each nic needs the network it joins. Run \"holdfast network list\" to see those there are.");
    } else if (!is_name(nic.network, kNameMax)) {
      say(path + ".network",
          "This is no name of a network. Run \"holdfast network list\" to see those there are.");
    }
    if (!nic.mac.empty()) mac(nic.mac, path + ".mac");
  }

  void mac(const std::string& text, const std::string& path) {
    bool well_formed = text.size() == 17;
    for (std::size_t i = 0; well_formed && i < text.size(); ++i) {
      bool colon = i % 3 == 2;
      well_formed = colon ? text[i] == ':' : std::isxdigit(static_cast<unsigned char>(text[i])) != 0;
    }
    if (!well_formed) {
      say(path,
          "A MAC address is six pairs of hexadecimal digits with colons, such as \"52:54:00:12:34:56\".");
      return;
    }
    std::string lower = text;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
    constexpr std::string_view kOdd = "13579bdf";
    if (kOdd.find(lower[1]) != std::string_view::npos) {
      say(path,
          "This is a multicast address, which no nic can have. Make the second digit even, such as in "
          "52:54:00:...");
    } else if (lower == "00:00:00:00:00:00") {
      say(path, "A nic cannot have the address of zeros. Leave mac out to have one made.");
    } else if (!macs_.insert(lower).second) {
      say(path, "The MAC address " + lower + " is used twice in this VM.");
    }
  }

  void boot_order() {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < spec_.boot_order.size(); ++i) {
      const std::string& name = spec_.boot_order[i];
      const std::string path = item("boot_order", i);
      if (name == "network" && spec_.nics.empty()) {
        say(path, "The VM has no nic to boot from. Add one, or take \"network\" out.");
      } else if (name != "network" && devices_.count(name) == 0) {
        say(path,
            "There is no disk or cdrom of this name. boot_order lists names of disks and cdroms, and "
            "\"network\".");
      } else if (!seen.insert(name).second) {
        say(path, "\"" + name + "\" stands twice in boot_order.");
      }
    }
  }

  void kernel_file(const std::string& file, const std::string& path) {
    if (file[0] != '/') {
      reference(file, path);
    } else if (auto wrong = wrong_with_path(file); !wrong.empty()) {
      say(path, wrong);
    }
  }

  void direct_kernel(const DirectKernel& direct) {
    if (direct.kernel.empty()) {
      say("direct_kernel.kernel",
          "A direct kernel needs its file: \"<datastore>:<path>\" or an absolute path on every host.");
    } else {
      kernel_file(direct.kernel, "direct_kernel.kernel");
    }
    if (!direct.initrd.empty()) kernel_file(direct.initrd, "direct_kernel.initrd");
    if (direct.cmdline.size() > kCmdlineMax) {
      say("direct_kernel.cmdline", "The kernel's command line has at most 2047 bytes.");
    } else if (std::any_of(direct.cmdline.begin(), direct.cmdline.end(), is_control)) {
      say("direct_kernel.cmdline", "The kernel's command line contains a line break or a control character.");
    }
  }

  void cloud_init(const CloudInit& seed) {
    long_text("cloud_init.user_data", seed.user_data, kCloudInitMax);
    long_text("cloud_init.meta_data", seed.meta_data, kCloudInitMax);
    long_text("cloud_init.network_config", seed.network_config, kCloudInitMax);
  }

  void long_text(const std::string& path, const std::string& text, std::size_t bytes_max) {
    if (text.size() > bytes_max)
      say(path, "The text is too long: at most " + std::to_string(bytes_max) + " bytes.");
    if (text.find('\0') != std::string::npos) say(path, "The text contains a NUL character.");
  }

  const VmSpec& spec_;
  std::vector<Problem> problems_;
  std::set<std::string> devices_, macs_;
};

}  // namespace

std::vector<Problem> check_spec(const VmSpec& spec) { return Checker(spec).run(); }

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (std::size_t i = 0; i < std::min(lines.size(), kProblemsShown); ++i) {
    if (i > 0) text += '\n';
    text += lines[i];
  }
  if (lines.size() > kProblemsShown) {
    text += "\n... and " + std::to_string(lines.size() - kProblemsShown) + " more.";
  }
  return text;
}

std::string described(const std::vector<Problem>& problems) {
  std::vector<std::string> lines;
  for (const Problem& problem : problems) {
    lines.push_back(problem.path.empty() ? problem.text : problem.path + ": " + problem.text);
  }
  return joined(lines);
}

Status validate(const VmSpec& spec) {
  auto problems = check_spec(spec);
  if (problems.empty()) return {};
  return Error{Code::invalid, described(problems)};
}

}  // namespace hf::vm
