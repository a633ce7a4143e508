#include "sys/qemu/shim_client.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "sys/process/write_tracking.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
using process::UniqueFd;

struct Head {
  char magic[8];
  std::uint32_t version, block_count, problem, refused_call, refused_errno, zero;
};
struct Block {
  std::uint64_t address, bytes, page_bytes, file_offset;
};
constexpr std::size_t kAnswerMax = sizeof(Head) + kRamBlocksMax * sizeof(Block);
constexpr std::size_t kFilesMax = kRamBlocksMax + 1;
constexpr std::uint64_t kBlockBytesMax = std::uint64_t{1}
                                         << 46;  // what x86-64 can map in half of its addresses

Error corrupt(std::string_view what) {
  return Error{Code::corrupt, "QEMU's memory socket gave a wrong answer: " + std::string(what) + "."};
}

struct Received {
  std::string bytes;
  std::vector<UniqueFd> files;
};

void take_files(const msghdr& message, std::vector<UniqueFd>& files) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; at + CMSG_LEN(sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      files.emplace_back(fd);
    }
  }
}

// Up to the end of the stream.
Result<Received> receive(int socket, Duration limit) {
  const auto deadline = Clock::now() + limit;
  Received received;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait{socket, POLLIN, 0};
    if (left <= 0 || ::poll(&wait, 1, static_cast<int>(left)) == 0)
      return Error{Code::timed_out, "QEMU does not tell where its guest's memory is: it may be frozen."};
    std::array<char, kAnswerMax + 1> buffer;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kFilesMax * sizeof(int))> control;
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count < 0) return from_errno("Cannot read QEMU's memory socket", errno);
    take_files(message, received.files);
    if (count == 0) return received;
    received.bytes.append(buffer.data(), static_cast<std::size_t>(count));
    if (message.msg_flags & MSG_CTRUNC || received.files.size() > kFilesMax) return corrupt("too many files");
    if (received.bytes.size() > kAnswerMax) return corrupt("it is too long");
  }
}

std::string kind_of(int fd) {
  std::array<char, 64> text;
  const ssize_t length =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), text.data(), text.size());
  return length < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(length));
}

std::string why_refused(const Head& head) {
  const std::string cause = std::strerror(static_cast<int>(head.refused_errno));
  if (head.refused_call == 1) return "userfaultfd is refused to QEMU (" + cause + ")";
  if (head.refused_errno == EINVAL)
    return "the kernel does not track writes asynchronously, Linux 6.9 or later does";
  return "the userfaultfd of QEMU cannot be set up (" + cause + ")";
}

Status check_block(const Block& block, const UniqueFd& file) {
  const bool has_pages = block.page_bytes >= 4096 && (block.page_bytes & (block.page_bytes - 1)) == 0;
  if (!has_pages || block.page_bytes > kBlockBytesMax) return corrupt("a page size that does not exist");
  if (block.bytes == 0 || block.bytes > kBlockBytesMax || block.bytes % block.page_bytes != 0)
    return corrupt("memory that is not made of pages");
  if (block.address % block.page_bytes != 0 || block.address > UINT64_MAX - block.bytes)
    return corrupt("memory at no possible address");
  if (block.file_offset != 0)
    return Error{Code::unsupported, "A memory backend begins in the middle of its file: take `offset` out."};
  struct stat info{};
  if (::fstat(file.get(), &info) < 0 || !S_ISREG(info.st_mode)) return corrupt("what is no file");
  if (static_cast<std::uint64_t>(info.st_size) < block.bytes)
    return corrupt("a file shorter than its memory");
  return {};
}

Status check_disjoint(const std::vector<SharedRam>& ram) {
  for (std::size_t i = 0; i < ram.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (ram[i].address < ram[j].address + ram[j].bytes && ram[j].address < ram[i].address + ram[i].bytes)
        return corrupt("the same memory twice");
    }
  }
  return {};
}

Result<Head> check_head(std::string_view bytes, std::size_t file_count) {
  Head head;
  if (bytes.size() < sizeof head) return corrupt("it is too short");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (std::memcmp(head.magic, "HFMEMORY", sizeof head.magic) != 0)
    return corrupt("it does not come from the shim");
  if (head.version != 1)
    return Error{Code::unsupported, "The VM runs with a shim of another version: start it anew to move it."};
  if (head.problem > 2 || head.refused_call > 2 || head.zero != 0) return corrupt("an unknown word");
  if ((head.refused_call == 0) != (head.refused_errno == 0)) return corrupt("a refusal without a call");
  if (head.block_count > kRamBlocksMax || bytes.size() != sizeof head + head.block_count * sizeof(Block))
    return corrupt("its length");
  if (file_count != head.block_count + (head.refused_call == 0 ? 1 : 0))
    return corrupt("the number of files");
  // safety: memory that is not known of would stay behind.
  if (head.problem == 1)
    return Error{Code::unsupported, "The guest's memory is in more than 64 pieces: the engine carries 64."};
  if (head.problem == 2)
    return Error{Code::unsupported,
                 "QEMU has run out of file descriptors: the engine gets not all of its memory."};
  if (head.block_count == 0)
    return Error{Code::unsupported,
                 "The guest's memory is not shared: start the VM anew with a memory backend."};
  return head;
}

// Opens the pagemap; safe against a pid that was given out again, because marks are set through the userfaultfd first.
void open_pagemap(ShimAnswer& answer) {
  if (!answer.why_not_tracked.empty()) return;
  answer.pagemap.reset(
      ::open(("/proc/" + std::to_string(answer.qemu_pid) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  utsname kernel{};
  ::uname(&kernel);
  answer.why_not_tracked =
      answer.pagemap ? process::why_no_pagemap_scan(kernel.release, answer.pagemap.get())
                     : std::string("QEMU's page table cannot be read (") + std::strerror(errno) + ")";
}

}  // namespace

Result<ShimAnswer> decode_shim_answer(std::string_view bytes, std::vector<UniqueFd> files) {
  TRY_ASSIGN(const Head head, check_head(bytes, files.size()));
  ShimAnswer answer;
  for (std::size_t i = 0; i < head.block_count; ++i) {
    Block block;
    std::memcpy(&block, bytes.data() + sizeof head + i * sizeof block, sizeof block);
    TRY(check_block(block, files[i]));
    answer.ram.push_back({block.address, block.bytes, block.page_bytes, std::move(files[i])});
  }
  TRY(check_disjoint(answer.ram));
  if (head.refused_call != 0) {
    answer.why_not_tracked = why_refused(head);
    return answer;
  }
  answer.userfaultfd = std::move(files.back());
  if (kind_of(answer.userfaultfd.get()) != "anon_inode:[userfaultfd]") return corrupt("no userfaultfd");
  return answer;
}

Result<ShimAnswer> ask_shim(const std::string& memory_socket, Duration limit) {
  TRY_ASSIGN(const UniqueFd socket, connect_unix(memory_socket));
  ucred server{};
  socklen_t size = sizeof server;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &server, &size) < 0)
    return from_errno("Cannot tell who serves " + memory_socket, errno);
  TRY_ASSIGN(Received received, receive(socket.get(), limit));
  TRY_ASSIGN(ShimAnswer answer, decode_shim_answer(received.bytes, std::move(received.files)));
  answer.qemu_pid = server.pid;
  open_pagemap(answer);
  return answer;
}

std::string describe_tracking(const Result<ShimAnswer>& answer) {
  if (!answer) return (answer.code() == Code::timed_out ? "not known: " : "none: ") + answer.error().what;
  if (!answer->why_not_tracked.empty()) return "comparison: " + answer->why_not_tracked;
  return "PAGEMAP_SCAN";
}

}  // namespace hf::qemu
