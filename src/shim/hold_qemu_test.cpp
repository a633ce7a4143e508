// Goal: a stock QEMU with -sandbox on starts while its page holds everything, holds the guest's disk writes,
// stays answerable, and goes on when the deadline is moved. Method: a boot sector that writes a counter to
// sector 1 for ever through the BIOS; the test reads that sector from the image.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>

#include "shim/testing/harness.hpp"

namespace hf::shim_test {
namespace {

constexpr std::array<unsigned char, 37> kBootSector = {
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,  // segments = 0
    0xbc, 0x00, 0x7c,                                // sp = 0x7c00
    0xc7, 0x06, 0x00, 0x80, 0x00, 0x00,              // counter at 0x8000 = 0
    0xff, 0x06, 0x00, 0x80,                          // again: counter += 1
    0xb8, 0x01, 0x03, 0xbb, 0x00, 0x80,              // write one sector from 0x8000
    0xb9, 0x02, 0x00, 0xba, 0x80, 0x00,              // cylinder 0, sector 2, first disk
    0xcd, 0x13, 0xeb, 0xec};                         // int 13h, jmp again

unsigned counter_of(const std::string& image) {
  const std::string bytes = slurp(image);
  return static_cast<unsigned char>(bytes[512]) + 256U * static_cast<unsigned char>(bytes[513]);
}

// Sends one QMP command after the greeting and returns whether an answer came.
bool qmp_answers(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  bool answered = false;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string command = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}";
    std::array<char, 4096> buffer{};
    std::string text;
    ENSURE(send(fd, command.data(), command.size(), 0) > 0, "send");
    for (ssize_t n = 1; n > 0 && text.find("\"status\"") == std::string::npos;) {
      n = recv(fd, buffer.data(), buffer.size(), 0);
      if (n > 0) text.append(buffer.data(), static_cast<std::size_t>(n));
    }
    answered = text.find("\"running\"") != std::string::npos;
  }
  close(fd);
  return answered;
}

TEST(ShimQemu, writes_of_a_sandboxed_guest_are_held_and_go_on) {
  TempFolder run;
  TempFolder datastore;
  const std::string image = datastore / "disk.raw";
  std::string content(1 << 20, '\0');
  std::memcpy(content.data(), kBootSector.data(), kBootSector.size());
  content[510] = '\x55', content[511] = '\xaa';
  std::ofstream(image, std::ios::binary) << content;
  HoldPage page(run / "hold");
  Child qemu(
      HF_SHIM, page.path(),
      {"qemu-system-x86_64",
       "-accel",
       "tcg",
       "-display",
       "none",
       "-nodefaults",
       "-machine",
       "q35,memory-backend=ram",
       "-sandbox",
       "on,spawn=deny,obsolete=deny,resourcecontrol=deny",
       "-m",
       "32",
       "-object",
       "memory-backend-memfd,id=ram,size=32M,share=on",
       "-pidfile",
       run / "qemu.pid",
       "-chardev",
       "socket,id=c,path=" + (run / "console.sock") + ",server=on,wait=off,logfile=" + (run / "console.log"),
       "-serial",
       "chardev:c",
       "-qmp",
       "unix:" + (run / "qmp.sock") + ",server=on,wait=off",
       "-blockdev",
       "driver=file,filename=" + image + ",node-name=f,aio=threads,cache.direct=on",
       "-blockdev",
       "driver=raw,node-name=d,file=f",
       "-device",
       "virtio-blk-pci,drive=d,bootindex=0"});
  // It comes up and boots while everything is held, and a thread of it waits in the shim with the first
  // write.
  ASSERT_TRUE(eventually([&] {
    for (pid_t thread : threads_of(qemu.pid())) {
      if (naps(qemu.pid(), thread)) return true;
    }
    return false;
  }));
  EXPECT_EQ(counter_of(image), 0U);
  EXPECT_TRUE(qmp_answers(run / "qmp.sock"));
  page.set(kNever);
  ASSERT_TRUE(eventually([&] { return counter_of(image) > 5; }));
  page.set(kHeld);
  ASSERT_TRUE(eventually([&] {
    for (pid_t thread : threads_of(qemu.pid())) {
      if (naps(qemu.pid(), thread)) return true;
    }
    return false;
  }));
  const unsigned held_at = counter_of(image);
  EXPECT_TRUE(qmp_answers(run / "qmp.sock"));
  EXPECT_EQ(counter_of(image), held_at);
  page.set(kNever);
  EXPECT_TRUE(eventually([&] { return counter_of(image) != held_at; }));
}

}  // namespace
}  // namespace hf::shim_test
