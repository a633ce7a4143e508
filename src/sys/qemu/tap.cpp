#include "sys/qemu/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/ensure.hpp"
#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"

namespace hf::qemu {
namespace {

// FNV-1a, 64 bits.
std::uint64_t digest(std::string_view text) {
  std::uint64_t sum = 0xcbf29ce484222325ULL;
  for (const char letter : text) sum = (sum ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
  return sum;
}

ifreq request_for(const std::string& device) {
  ifreq request{};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

using Mac = std::array<std::uint8_t, 6>;

Result<Mac> parse_mac(const std::string& text) {
  unsigned byte[6];
  if (std::sscanf(text.c_str(), "%x:%x:%x:%x:%x:%x", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) != 6) {
    return Error{Code::invalid, "\"" + text + "\" is not a MAC address."};
  }
  Mac mac;
  std::copy(byte, byte + 6, mac.begin());
  return mac;
}

// RFC 903; like QEMU's own announcement (net/announce.c).
std::vector<std::uint8_t> announcement(const Mac& mac) {
  std::vector<std::uint8_t> frame(6, 0xff);
  const auto add = [&frame](const auto& bytes) { frame.insert(frame.end(), std::begin(bytes), std::end(bytes)); };
  add(mac);
  // Reverse ARP of Ethernet and IPv4 addresses: a request.
  add(std::initializer_list<std::uint8_t>{0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3});
  for (int half = 0; half < 2; ++half) {
    add(mac);
    add(std::initializer_list<std::uint8_t>{0, 0, 0, 0});
  }
  frame.resize(60);
  return frame;
}

// A duplicate of the descriptor by which `qemu` holds `tap`.
Result<process::UniqueFd> borrow_tap(int qemu, const std::string& tap) {
  const process::UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, qemu, 0)));
  if (!process) return from_errno("Cannot look at QEMU", errno);
  const std::string folder = "/proc/" + std::to_string(qemu) + "/fdinfo";
  std::error_code problem;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem)) {
    const auto text = process::read_small_file(at->path());
    if (!text.ok() || text->find("iff:\t" + tap + "\n") == std::string::npos) continue;
    const int number = std::atoi(at->path().filename().c_str());
    process::UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    if (!fd) return from_errno("Cannot reach " + tap, errno);
    return fd;
  }
  return Error{Code::not_found, "QEMU holds no " + tap + "."};
}

Status set_address(int control, const TapRequest& tap) {
  TRY_ASSIGN(Mac mac, parse_mac(tap.guest_mac));
  ifreq request = request_for(tap.name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  mac[0] = 0xfe;
  std::copy(mac.begin(), mac.end(), request.ifr_hwaddr.sa_data);
  if (::ioctl(control, SIOCSIFHWADDR, &request) < 0)
    return from_errno("Cannot set the address of " + tap.name, errno);
  return {};
}

Status join_bridge(int control, const TapRequest& tap) {
  if (::if_nametoindex(tap.bridge.c_str()) == 0) {
    return Error{Code::not_found,
                 "This host has no bridge " + tap.bridge + ": create it, or correct the network."};
  }
  ifreq request = request_for(tap.bridge);
  request.ifr_ifindex = static_cast<int>(::if_nametoindex(tap.name.c_str()));
  if (::ioctl(control, SIOCBRADDIF, &request) < 0) {
    return from_errno("Cannot put " + tap.name + " on the bridge " + tap.bridge, errno);
  }
  return {};
}

Status join_vlan(const TapRequest& tap) {
  if (tap.vlan == 0) return {};
  const auto filters = process::read_small_file("/sys/class/net/" + tap.bridge + "/bridge/vlan_filtering");
  if (!filters.ok() || filters->substr(0, 1) != "1") {
    return Error{Code::unsupported,
                 "The bridge " + tap.bridge + " of this host does not tell VLANs apart, but its network has VLAN " +
                     std::to_string(tap.vlan) + ": turn that on (ip link set " + tap.bridge +
                     " type bridge vlan_filtering 1), or use a bridge of that VLAN."};
  }
  for (const auto& words : vlan_plan(tap.name, tap.vlan)) {
    TRY_ASSIGN(const process::RunOutput done, process::run_tool(words));
    if (!done.ok()) {
      return Error{Code::failed, "Cannot put " + tap.name + " into VLAN " + std::to_string(tap.vlan) + ": " +
                                     done.complaint()};
    }
  }
  return {};
}

Status bring_up(int control, const TapRequest& tap) {
  ifreq request = request_for(tap.name);
  if (::ioctl(control, SIOCGIFFLAGS, &request) < 0) return from_errno("Cannot read " + tap.name, errno);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(control, SIOCSIFFLAGS, &request) < 0) return from_errno("Cannot bring up " + tap.name, errno);
  return {};
}

}  // namespace

std::string tap_name(const VmId& vm, std::size_t index) {
  ENSURE(index < 100, "a VM's NICs are numbered with two digits");
  char name[16];
  std::snprintf(name, sizeof name, "hf%010llx-%u",
                static_cast<unsigned long long>(digest(vm.text) & 0xffffffffffULL),
                static_cast<unsigned>(index % 100));
  return name;
}

std::vector<std::vector<std::string>> vlan_plan(const std::string& tap, int vlan) {
  if (vlan == 0) return {};
  return {{"bridge", "vlan", "del", "dev", tap, "vid", "1"},
          {"bridge", "vlan", "add", "dev", tap, "vid", std::to_string(vlan), "pvid", "untagged"}};
}

Status announce(int qemu, const std::string& tap, const std::string& mac) {
  TRY_ASSIGN(const Mac address, parse_mac(mac));
  TRY_ASSIGN(const process::UniqueFd fd, borrow_tap(qemu, tap));
  int header = 0;  // what QEMU and the TAP put before each frame
  if (::ioctl(fd.get(), TUNGETVNETHDRSZ, &header) < 0) return from_errno("Cannot read " + tap, errno);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(header));
  const auto frame = announcement(address);
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  const ssize_t written = ::write(fd.get(), bytes.data(), bytes.size());
  if (written < 0) return from_errno("Cannot send through " + tap, errno);
  return {};
}

Result<process::UniqueFd> open_tap(const TapRequest& tap) {
  process::UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return from_errno("Cannot open /dev/net/tun", errno);
  ifreq request = request_for(tap.name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) < 0)
    return from_errno("Cannot create the TAP " + tap.name, errno);
  const process::UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control) return from_errno("Cannot make a socket", errno);
  TRY(set_address(control.get(), tap));
  TRY(join_bridge(control.get(), tap));
  TRY(join_vlan(tap));
  TRY(bring_up(control.get(), tap));
  return fd;
}

}  // namespace hf::qemu
