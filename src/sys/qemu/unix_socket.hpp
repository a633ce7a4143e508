#pragma once
// Stream sockets in the file system, always with a time limit: a frozen QEMU accepts nothing and reads
// nothing.
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {

// Does not wait: Code::unavailable if nobody listens there or too many wait already. The socket is
// non-blocking.
Result<process::UniqueFd> connect_unix(const std::string& path);
// Listens there; what was there is replaced. The socket belongs to the owner of its folder, who alone may connect. It
// is non-blocking.
Result<process::UniqueFd> listen_unix(const std::string& path);
// All of it, or an error: Code::timed_out (nothing was sent), Code::outcome_unknown (a part was). `passed_fd`, if
// there is one, travels with the first byte (SCM_RIGHTS); it stays the caller's too.
Status send_all(int fd, std::string_view bytes, Duration limit, int passed_fd = -1);
// What has come, at most 64 KiB; empty at the end of the stream. Code::timed_out.
Result<std::string> receive_some(int fd, Duration limit);

}  // namespace hf::qemu
