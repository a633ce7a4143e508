// Goal: the shim's answer is read to the byte (doc/formats.md), and nothing else passes for one. Method: bytes made
// here, with real files; a server of our own for what a hostile QEMU could send.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>

#include "base/rng.hpp"
#include "base/testing/temp_folder.hpp"
#include "sys/qemu/shim_client.hpp"

namespace hf::qemu {
namespace {
using process::UniqueFd;

template <class Number>
void put(std::string& bytes, std::size_t at, Number number) {
  if (bytes.size() < at + sizeof number) bytes.resize(at + sizeof number);
  std::memcpy(bytes.data() + at, &number, sizeof number);
}

UniqueFd ram_file(off_t bytes = 1 << 20) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), bytes), 0);
  return file;
}

struct Answer {
  std::string bytes = std::string("HFMEMORY", 8);
  std::vector<UniqueFd> files;
};

// Two blocks, userfaultfd refused with EPERM.
Answer good() {
  Answer answer;
  const std::uint32_t words[] = {1, 2, 0, 1, 1, 0};
  for (std::size_t i = 0; i < 6; ++i) put(answer.bytes, 8 + 4 * i, words[i]);
  const std::uint64_t blocks[] = {0x7f0000000000, 1 << 20, 4096, 0, 0x7f0000200000, 8192, 4096, 0};
  for (std::size_t i = 0; i < 8; ++i) put(answer.bytes, 32 + 8 * i, blocks[i]);
  answer.files.push_back(ram_file());
  answer.files.push_back(ram_file());
  return answer;
}

Code code_of(Answer answer) { return decode_shim_answer(answer.bytes, std::move(answer.files)).code(); }

TEST(ShimAnswer, golden_bytes_are_two_blocks_and_a_reason) {
  Answer answer = good();
  ASSERT_EQ(answer.bytes.size(), 96U);
  const auto decoded = decode_shim_answer(answer.bytes, std::move(answer.files));
  ASSERT_TRUE(decoded.ok()) << decoded.error().what;
  ASSERT_EQ(decoded->ram.size(), 2U);
  EXPECT_EQ(decoded->ram[1].address, 0x7f0000200000U);
  EXPECT_EQ(decoded->ram[1].bytes, 8192U);
  EXPECT_EQ(decoded->ram[1].page_bytes, 4096U);
  EXPECT_EQ(describe_tracking(decoded),
            "comparison: userfaultfd is refused to QEMU (Operation not permitted)");
}

TEST(ShimAnswer, a_userfaultfd_comes_last_and_another_file_in_its_place_is_refused) {
  Answer answer = good();
  put<std::uint32_t>(answer.bytes, 20, 0);
  put<std::uint32_t>(answer.bytes, 24, 0);
  answer.files.push_back(ram_file());
  EXPECT_EQ(code_of(std::move(answer)), Code::corrupt);
  Answer other = good();
  put<std::uint32_t>(other.bytes, 20, 0);
  put<std::uint32_t>(other.bytes, 24, 0);
  other.files.emplace_back(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  if (!other.files.back()) GTEST_SKIP() << "userfaultfd is refused here";
  EXPECT_TRUE(decode_shim_answer(other.bytes, std::move(other.files)).ok());
}

TEST(ShimAnswer, what_does_not_fit_together_is_refused) {
  const std::vector<std::pair<const char*, std::function<void(Answer&)>>> cases = {
      {"magic", [](Answer& a) { a.bytes[0] = 'X'; }},
      {"empty", [](Answer& a) { a.bytes.clear(); }},
      {"cut", [](Answer& a) { a.bytes.pop_back(); }},
      {"more bytes", [](Answer& a) { a.bytes += '\0'; }},
      {"count", [](Answer& a) { put<std::uint32_t>(a.bytes, 12, 1); }},
      {"large count", [](Answer& a) { put<std::uint32_t>(a.bytes, 12, 0x80000002); }},
      {"problem", [](Answer& a) { put<std::uint32_t>(a.bytes, 16, 3); }},
      {"refused call", [](Answer& a) { put<std::uint32_t>(a.bytes, 20, 3); }},
      {"refusal without errno", [](Answer& a) { put<std::uint32_t>(a.bytes, 24, 0); }},
      {"zero", [](Answer& a) { put<std::uint32_t>(a.bytes, 28, 1); }},
      {"a file missing", [](Answer& a) { a.files.pop_back(); }},
      {"a file too many", [](Answer& a) { a.files.push_back(ram_file()); }},
      {"odd address", [](Answer& a) { put<std::uint64_t>(a.bytes, 32, 0x7f0000000001); }},
      {"address at the end", [](Answer& a) { put<std::uint64_t>(a.bytes, 32, UINT64_MAX - 4095); }},
      {"no bytes", [](Answer& a) { put<std::uint64_t>(a.bytes, 40, 0); }},
      {"bytes of no page", [](Answer& a) { put<std::uint64_t>(a.bytes, 40, 4097); }},
      {"all there are", [](Answer& a) { put<std::uint64_t>(a.bytes, 40, std::uint64_t{1} << 63); }},
      {"more than the file", [](Answer& a) { put<std::uint64_t>(a.bytes, 40, (1 << 20) + 4096); }},
      {"page size 0", [](Answer& a) { put<std::uint64_t>(a.bytes, 48, 0); }},
      {"page size 6000", [](Answer& a) { put<std::uint64_t>(a.bytes, 48, 6000); }},
      {"page size 512", [](Answer& a) { put<std::uint64_t>(a.bytes, 48, 512); }},
      {"overlap", [](Answer& a) { put<std::uint64_t>(a.bytes, 64, 0x7f00000ff000); }},
      {"no file", [](Answer& a) { a.files[0].reset(::socket(AF_UNIX, SOCK_STREAM, 0)); }},
  };
  for (const auto& [name, spoil] : cases) {
    Answer answer = good();
    spoil(answer);
    EXPECT_EQ(code_of(std::move(answer)), Code::corrupt) << name;
  }
}

TEST(ShimAnswer, memory_that_cannot_be_carried_whole_is_refused_with_the_reason) {
  const std::vector<std::pair<const char*, std::function<void(Answer&)>>> cases = {
      {"another version", [](Answer& a) { put<std::uint32_t>(a.bytes, 8, 2); }},
      {"more than 64 pieces", [](Answer& a) { put<std::uint32_t>(a.bytes, 16, 1); }},
      {"descriptors", [](Answer& a) { put<std::uint32_t>(a.bytes, 16, 2); }},
      {"offset", [](Answer& a) { put<std::uint64_t>(a.bytes, 56, 4096); }},
      {"not shared", [](Answer& a) {
         put<std::uint32_t>(a.bytes, 12, 0);
         a.bytes.resize(32);
         a.files.clear();
       }}};
  for (const auto& [reason, spoil] : cases) {
    Answer answer = good();
    spoil(answer);
    const auto decoded = decode_shim_answer(answer.bytes, std::move(answer.files));
    ASSERT_EQ(decoded.code(), Code::unsupported) << reason;
    EXPECT_NE(describe_tracking(decoded).find(reason), std::string::npos) << decoded.error().what;
  }
}

TEST(ShimAnswer, changed_bytes_never_pass_a_check_they_should_fail) {
  Rng rng(3);
  for (int round = 0; round < 3000; ++round) {
    Answer answer = good();
    for (std::uint64_t change = 0; change <= rng.below(3); ++change)
      answer.bytes[rng.below(answer.bytes.size())] = static_cast<char>(rng.below(256));
    const auto decoded = decode_shim_answer(answer.bytes, std::move(answer.files));
    if (!decoded) continue;
    for (const SharedRam& ram : decoded->ram) {
      EXPECT_LE(ram.bytes, std::uint64_t{1} << 20);
      EXPECT_EQ(ram.bytes % ram.page_bytes, 0U);
    }
  }
}

// Serves one connection on `path` with what `serve` does.
class Server {
 public:
  Server(const std::string& path, std::function<void(int)> serve) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_.get(), 1), 0);
    thread_ = std::thread([this, serve = std::move(serve)] {
      const UniqueFd peer(::accept(fd_.get(), nullptr, nullptr));
      serve(peer.get());
    });
  }
  ~Server() { thread_.join(); }

 private:
  UniqueFd fd_;
  std::thread thread_;
};

// Returns when the other side has gone.
void wait_for_end(int peer) {
  char byte = 0;
  EXPECT_EQ(::recv(peer, &byte, 1, 0), 0);
}

TEST(AskShim, one_that_says_nothing_is_given_up) {
  test::TempFolder folder;
  Server server(folder / "s", wait_for_end);
  const auto answer = ask_shim(folder / "s", 100ms);
  EXPECT_EQ(answer.code(), Code::timed_out);
  EXPECT_TRUE(describe_tracking(answer).starts_with("not known: ")) << describe_tracking(answer);
}

TEST(AskShim, one_that_never_ends_is_refused) {
  test::TempFolder folder;
  Server server(folder / "s", [](int peer) {
    const std::string flood(65536, 'x');
    while (::send(peer, flood.data(), flood.size(), MSG_NOSIGNAL) > 0) continue;
  });
  EXPECT_EQ(ask_shim(folder / "s", 10s).code(), Code::corrupt);
}

TEST(AskShim, a_wrong_answer_is_refused) {
  test::TempFolder folder;
  Server server(folder / "s", [](int peer) { EXPECT_EQ(::send(peer, "HFMEMORY", 8, MSG_NOSIGNAL), 8); });
  EXPECT_EQ(ask_shim(folder / "s", 10s).code(), Code::corrupt);
}

TEST(AskShim, without_a_shim_it_says_so) {
  const auto answer = ask_shim("/no/such/socket", 1s);
  EXPECT_EQ(answer.code(), Code::unavailable);
  EXPECT_TRUE(describe_tracking(answer).starts_with("none: ")) << describe_tracking(answer);
}

}  // namespace
}  // namespace hf::qemu
