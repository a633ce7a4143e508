#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "cli/init.hpp"

namespace hf::cli {
namespace {

// Empty address: all of this machine's.
Status check_free(const std::string& address, int port, int type, const std::string& whose) {
  addrinfo wanted{};
  wanted.ai_socktype = type;
  wanted.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  wanted.ai_family = address.empty() ? AF_INET : AF_UNSPEC;
  addrinfo* raw = nullptr;
  const int failed =
      ::getaddrinfo(address.empty() ? nullptr : address.c_str(), std::to_string(port).c_str(), &wanted, &raw);
  if (failed != 0) return Error{Code::invalid, fmt::format("The address {} cannot be resolved.", address)};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> found(raw, &::freeaddrinfo);
  const int fd = ::socket(found->ai_family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return from_errno("Cannot make a socket", errno);
  const int on = 1;
  // As the services do it: what a closed connection left behind is no hindrance.
  if (type == SOCK_STREAM) (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // a hint
  const int error_number = ::bind(fd, found->ai_addr, found->ai_addrlen) == 0 ? 0 : errno;
  ::close(fd);
  if (error_number == 0) return {};
  if (error_number == EADDRNOTAVAIL) {
    return Error{Code::invalid, fmt::format("This machine does not have the address {}.", address)};
  }
  if (error_number == EADDRINUSE) {
    return Error{Code::conflict,
                 fmt::format("Port {}, which {} needs, is in use: `ss -lntup` says by whom. Free it, or "
                             "choose another port (--help).",
                             port, whose)};
  }
  return from_errno(fmt::format("Port {} cannot be used", port), error_number);
}

}  // namespace

Status check_ports(const InitOptions& options, bool api, bool member) {
  std::error_code ignored;  // cannot be looked at: not there
  if (std::filesystem::exists(options.config_path(), ignored)) return {};
  if (api) {
    TRY(check_free("", options.api_port, SOCK_STREAM, "the API"));
    TRY(check_free("", options.heartbeat_port, SOCK_DGRAM, "the heartbeat"));
  }
  if (member) {
    TRY(check_free(options.address, options.client_port, SOCK_STREAM, "the etcd member"));
    TRY(check_free(options.address, options.peer_port, SOCK_STREAM, "the etcd member"));
  }
  return {};
}

}  // namespace hf::cli
