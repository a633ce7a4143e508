#include "sys/qemu/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/ensure.hpp"

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

Status set_address(int control, const TapRequest& tap) {
  unsigned byte[6];
  const char* mac = tap.guest_mac.c_str();
  if (std::sscanf(mac, "%x:%x:%x:%x:%x:%x", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) != 6) {
    return Error{Code::invalid, "\"" + tap.guest_mac + "\" is not a MAC address."};
  }
  ifreq request = request_for(tap.name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  byte[0] = 0xfe;
  for (int index = 0; index < 6; ++index) request.ifr_hwaddr.sa_data[index] = static_cast<char>(byte[index]);
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

Result<process::UniqueFd> open_tap(const TapRequest& tap) {
  if (tap.vlan != 0) {
    return Error{Code::unsupported, "VLAN " + std::to_string(tap.vlan) +
                                        " needs VLAN filtering on the bridge " + tap.bridge +
                                        ", which this version does not set up: use a bridge of that VLAN."};
  }
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
  TRY(bring_up(control.get(), tap));
  return fd;
}

}  // namespace hf::qemu
