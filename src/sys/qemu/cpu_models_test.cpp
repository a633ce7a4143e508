// Goal: the installed QEMU says what CPUs it can give, and an exchanged program is noticed. Method: the real one, asked
// without a machine; a file of the test's own.
#include "sys/qemu/cpu_models.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/testing/temp_folder.hpp"
#include "core/cpu/evc.hpp"

namespace hf::qemu {
namespace {

TEST(CpuModels, installed_qemu_can_give_the_lowest_baselines_under_tcg) {
  if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "needs qemu-system-x86";
  record::HostRecord host;
  host.host = HostId("here");
  host.accelerator = "tcg";
  const auto cpu = host_cpu("qemu-system-x86_64", "tcg");
  ASSERT_TRUE(cpu.ok()) << cpu.error().what;
  host.cpu = *cpu;
  EXPECT_EQ(cpu::why_below(host, "Westmere-v2"), "");
  EXPECT_FALSE(host.cpu.name.empty());
}

TEST(CpuModels, program_that_is_no_qemu_is_an_error) {
  EXPECT_EQ(host_cpu("/bin/true", "tcg").code(), Code::failed);
  EXPECT_EQ(host_cpu("/no/such/program", "tcg").code(), Code::not_found);
}

TEST(BinaryWatch, tells_once_of_another_file_and_not_of_one_that_is_gone) {
  const test::TempFolder folder;
  const std::string path = folder / "qemu";
  std::ofstream(path) << "one";
  BinaryWatch watch(path);
  EXPECT_FALSE(watch.changed());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_FALSE(watch.changed());
  std::ofstream(path) << "another";
  EXPECT_TRUE(watch.changed());
  EXPECT_FALSE(watch.changed());
}

}  // namespace
}  // namespace hf::qemu
