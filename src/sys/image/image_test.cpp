// Goal: an image is made whole or not at all, whatever goes wrong. Method: real qemu-img and xorriso; a full
// disk is a tmpfs of 1 MiB in a mount namespace of a child process.
#include "sys/image/image.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>

#include "base/testing/temp_folder.hpp"
#include "base/rng.hpp"
#include "sys/image/seed.hpp"
#include "sys/process/run.hpp"

namespace hf::image {
namespace {
namespace fs = std::filesystem;
using process::run_tool;
using vm::DiskFormat;

constexpr std::uint64_t kMiB = 1 << 20;

int files_in(const std::string& directory) {
  return static_cast<int>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

// Bytes that no image format compresses away.
void write_noise(const std::string& path, std::uint64_t bytes) {
  std::ofstream file(path, std::ios::binary);
  Rng rng(1);
  std::vector<std::uint64_t> block(8192);
  for (std::uint64_t written = 0; written < bytes; written += sizeof(std::uint64_t) * block.size()) {
    for (auto& word : block) word = rng.next();
    file.write(reinterpret_cast<const char*>(block.data()),
               static_cast<std::streamsize>(sizeof(std::uint64_t) * block.size()));
  }
}

bool same_content(const std::string& a, const std::string& b) {
  return run_tool({"qemu-img", "compare", "-q", a, b})->ok();
}

TEST(Image, created_image_has_format_size_and_mode) {
  test::TempFolder scratch;
  for (auto format : {DiskFormat::raw, DiskFormat::qcow2}) {
    const std::string path = scratch / (format == DiskFormat::raw ? "a,b.raw" : "a,b.qcow2");
    ASSERT_TRUE(create(path, {format, 10 * kMiB, true}).ok());
    auto found = info(path);
    ASSERT_TRUE(found.ok()) << found.error().what;
    EXPECT_EQ(found->format, format == DiskFormat::raw ? "raw" : "qcow2");
    EXPECT_EQ(found->size_bytes, 10 * kMiB);
    EXPECT_TRUE(found->is_self_contained);
    struct stat status{};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    EXPECT_EQ(create(path, {format, 10 * kMiB, false}).code(), Code::exists);
  }
  EXPECT_EQ(files_in(scratch.path()), 2);
}

TEST(Image, image_that_is_not_there_is_not_found) { EXPECT_EQ(info("/nowhere/x").code(), Code::not_found); }

TEST(Image, image_grows_and_never_shrinks) {
  test::TempFolder scratch;
  const std::string path = scratch / "a.qcow2";
  ASSERT_TRUE(create(path, {DiskFormat::qcow2, 10 * kMiB, false}).ok());
  ASSERT_TRUE(grow(path, DiskFormat::qcow2, 20 * kMiB).ok());
  ASSERT_TRUE(grow(path, DiskFormat::qcow2, 20 * kMiB).ok());
  EXPECT_EQ(info(path)->size_bytes, 20 * kMiB);
  auto shrunk = grow(path, DiskFormat::qcow2, 15 * kMiB);
  EXPECT_EQ(shrunk.code(), Code::invalid);
  EXPECT_EQ(shrunk.error().what,
            "The disk " + path +
                " has 20 MiB and cannot be shrunk to 15 MiB: what stands at its end would "
                "be lost.");
  EXPECT_EQ(info(path)->size_bytes, 20 * kMiB);
}

TEST(Image, import_copies_converts_grows_and_reports_progress) {
  test::TempFolder scratch;
  write_noise(scratch / "source", 8 * kMiB);
  std::vector<int> progress;
  Job job;
  job.on_progress = [&](int percent) { progress.push_back(percent); };
  auto imported = import(scratch / "source", scratch / "a.qcow2", {DiskFormat::qcow2, 0, false}, job);
  ASSERT_TRUE(imported.ok()) << imported.error().what;
  EXPECT_TRUE(same_content(scratch / "source", scratch / "a.qcow2"));
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back(), 100);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  ASSERT_TRUE(import(scratch / "a.qcow2", scratch / "b.raw", {DiskFormat::raw, 16 * kMiB, false}).ok());
  EXPECT_EQ(info(scratch / "b.raw")->size_bytes, 16 * kMiB);
  EXPECT_EQ(files_in(scratch.path()), 3);
}

TEST(Image, import_refuses_what_does_not_fit_or_is_not_whole) {
  test::TempFolder scratch;
  ASSERT_TRUE(create(scratch / "base.qcow2", {DiskFormat::qcow2, 10 * kMiB, false}).ok());
  EXPECT_EQ(import(scratch / "base.qcow2", scratch / "x", {DiskFormat::raw, 5 * kMiB, false}).code(),
            Code::invalid);
  ASSERT_TRUE(run_tool({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                        scratch / "base.qcow2", scratch / "top"})
                  ->ok());
  auto refused = import(scratch / "top", scratch / "x", {DiskFormat::raw, 0, false});
  EXPECT_EQ(refused.code(), Code::invalid);
  EXPECT_NE(refused.error().what.find("backing"), std::string::npos);
  EXPECT_EQ(import(scratch / "none", scratch / "x", {}).code(), Code::not_found);
  EXPECT_EQ(import("none", scratch / "x", {}).code(), Code::invalid);
  EXPECT_EQ(files_in(scratch.path()), 2);
}

TEST(Image, stopped_import_leaves_nothing) {
  test::TempFolder scratch;
  write_noise(scratch / "source", 64 * kMiB);
  std::stop_source source;
  Job job;
  job.stop = source.get_token();
  job.on_progress = [&](int) { source.request_stop(); };
  EXPECT_EQ(import(scratch / "source", scratch / "a.qcow2", {DiskFormat::qcow2, 0, false}, job).code(),
            Code::failed);
  EXPECT_EQ(files_in(scratch.path()), 1);
}

TEST(Image, partials_of_a_crash_are_removed_and_nothing_else) {
  test::TempFolder scratch;
  std::ofstream(scratch / "a.qcow2.partial") << "half";
  std::ofstream(scratch / "a.qcow2") << "whole";
  fs::create_directory(scratch / "seed.iso.sources.partial");
  std::ofstream(scratch / "seed.iso.sources.partial/user-data") << "secret";
  EXPECT_EQ(*remove_partials(scratch.path()), 2);
  EXPECT_EQ(*remove_partials(scratch.path()), 0);
  EXPECT_TRUE(fs::exists(scratch / "a.qcow2"));
  EXPECT_EQ(remove_partials(scratch / "none").code(), Code::not_found);
}

TEST(Image, partial_of_a_crash_does_not_hinder_the_next_try) {
  test::TempFolder scratch;
  std::ofstream(scratch / "a.qcow2.partial") << "half";
  auto created = create(scratch / "a.qcow2", {DiskFormat::qcow2, kMiB, false});
  ASSERT_TRUE(created.ok()) << created.error().what;
  EXPECT_EQ(files_in(scratch.path()), 1);
}

// Runs the check in a child with an empty tmpfs of 1 MiB on `directory`. -1: this machine does not allow
// that.
int on_full_disk(const std::string& directory, const std::function<bool()>& check) {
  constexpr int kNotAllowed = 77;
  const pid_t child = ::fork();
  if (child == 0) {
    const int flags = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
    if (::unshare(flags) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", directory.c_str(), "tmpfs", 0, "size=1m") != 0) {
      ::_exit(kNotAllowed);
    }
    ::_exit(check() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status) == kNotAllowed ? -1 : status;
}

TEST(Image, full_datastore_is_no_room_and_leaves_nothing) {
  test::TempFolder scratch;
  write_noise(scratch / "source", 4 * kMiB);
  fs::create_directory(scratch / "full");
  const std::string full = scratch / "full";
  const int status = on_full_disk(full, [&] {
    auto imported = import(scratch / "source", full + "/a.qcow2", {DiskFormat::qcow2, 0, false});
    auto created = create(full + "/b.qcow2", {DiskFormat::qcow2, std::uint64_t{64} << 30, true});
    vm::CloudInit seed;
    seed.user_data = std::string(2 * kMiB, 'x');
    auto seeded = make_seed(seed, "web", "vm-1", full + "/seed.iso");
    return imported.code() == Code::no_room && created.code() == Code::no_room &&
           seeded.code() == Code::no_room && files_in(full) == 0;
  });
  if (status == -1) GTEST_SKIP() << "no mount namespaces here";
  EXPECT_EQ(status, 0);
}

TEST(Image, disk_that_cannot_grow_for_want_of_room_stays_as_it_was) {
  test::TempFolder scratch;
  fs::create_directory(scratch / "full");
  const std::string path = scratch / "full" + "/a.qcow2";
  const int status = on_full_disk(scratch / "full", [&] {
    if (!create(path, {DiskFormat::qcow2, kMiB, false}).ok()) return false;
    // Its table of the mapping alone has 1 MiB then.
    auto grown = grow(path, DiskFormat::qcow2, std::uint64_t{64} << 40);
    const bool is_told = grown.code() == Code::no_room && grown.error().what.find("is full") != std::string::npos;
    return is_told && info(path)->size_bytes == kMiB && run_tool({"qemu-img", "check", "-q", path})->ok();
  });
  if (status == -1) GTEST_SKIP() << "no mount namespaces here";
  EXPECT_EQ(status, 0);
}

TEST(Image, direct_io_is_probed_without_a_trace) {
  test::TempFolder scratch;
  const int fd = ::open((scratch / "x").c_str(), O_CREAT | O_RDWR | O_DIRECT, 0600);
  EXPECT_EQ(supports_direct_io(scratch.path()), fd >= 0);
  ::close(fd);
  EXPECT_EQ(files_in(scratch.path()), 1);
  EXPECT_FALSE(supports_direct_io("/proc"));
}

// What stands in this file of the ISO.
std::string from_iso(const std::string& iso, const std::string& name, const test::TempFolder& scratch) {
  auto output =
      run_tool({"xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/" + name, scratch / name});
  if (!output.ok() || !output->ok()) return "?";
  std::ifstream file(scratch / name, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TEST(Seed, holds_the_documents_and_the_label) {
  test::TempFolder scratch, out;
  vm::CloudInit seed{"#cloud-config\nx: \xc3\xa4\n", "", "version: 2\n"};
  for (int i = 0; i < 2; ++i) {  // the second replaces the first
    auto made = make_seed(seed, "web", "vm-1", scratch / "seed.iso");
    ASSERT_TRUE(made.ok()) << made.error().what;
  }
  EXPECT_EQ(from_iso(scratch / "seed.iso", "user-data", out), seed.user_data);
  EXPECT_EQ(from_iso(scratch / "seed.iso", "meta-data", out), "instance-id: vm-1\nlocal-hostname: web\n");
  EXPECT_EQ(from_iso(scratch / "seed.iso", "network-config", out), seed.network_config);
  std::ifstream iso(scratch / "seed.iso", std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(iso), {});
  EXPECT_EQ(text.substr(32768 + 40, 8),
            "cidata  ");  // ISO 9660: the volume identifier of the first descriptor
  EXPECT_EQ(files_in(scratch.path()), 1);
  struct stat status{};
  ASSERT_EQ(::stat((scratch / "seed.iso").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

}  // namespace
}  // namespace hf::image
