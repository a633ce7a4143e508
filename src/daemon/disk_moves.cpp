#include "daemon/disk_moves.hpp"

#include <pthread.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>

#include "base/log.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/image/image.hpp"
#include "sys/image/partial.hpp"
#include "sys/image/seed.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/small_file.hpp"

namespace hf::daemon {
namespace {
namespace fs = std::filesystem;
using ha::action::Keep;
using Phase = CopyState::Phase;

constexpr Duration kLook = 500ms;
constexpr Duration kLookBeforeHeld = 20ms;
constexpr Duration kHoldLimit = 30s;  // QEMU drains and flushes
constexpr std::uint64_t kBytesPerMbit = 125'000;
constexpr std::size_t kVariablesMax = 64 << 20;

// Returns true if the stop was asked for.
bool wait(Duration duration, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, duration, [] { return false; });
  return stop.stop_requested();
}

// The disks that get other images: before and after.
std::vector<std::pair<vm::Disk, vm::Disk>> moved_disks(const vm::VmSpec& before, const vm::VmSpec& after) {
  std::vector<std::pair<vm::Disk, vm::Disk>> moved;
  for (std::size_t i = 0; i < before.disks.size() && i < after.disks.size(); ++i) {
    if (before.disks[i].tag != after.disks[i].tag) moved.emplace_back(before.disks[i], after.disks[i]);
  }
  return moved;
}

bool home_moves(const vm::VmSpec& before, const vm::VmSpec& after) { return before.datastore != after.datastore; }

std::uint64_t us(Duration time) { return static_cast<std::uint64_t>(time / std::chrono::microseconds(1)); }
std::string mib(std::uint64_t bytes) { return std::to_string((bytes + (1U << 20U) - 1) >> 20U) + " MiB"; }

bool goes_on(const Error& error) {
  return error.code == Code::timed_out || error.code == Code::outcome_unknown || error.code == Code::unavailable;
}

Status erase_file(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return from_errno("Cannot delete " + path, errno);
}
}  // namespace

Result<std::string> DiskMoves::mount_of(const std::string& datastore) const {
  const auto surroundings = surroundings_.get();
  auto found = surroundings->datastores.find(datastore);
  if (found == surroundings->datastores.end()) {
    return Error{Code::unavailable, "Datastore " + datastore + " is not usable on host " + self_.text + " now."};
  }
  return found->second.path;
}

Result<std::string> DiskMoves::folder_of(const std::string& datastore, const VmId& vm) const {
  TRY_ASSIGN(const std::string mount, mount_of(datastore));
  return mount + "/" + vm.text;
}

// --- copying
// ---------------------------------------------------------------------------------------------------------

void DiskMoves::carry_out(const ha::action::Copy& copy) {
  auto copying = std::make_shared<Copying>();
  {
    const std::lock_guard lock(mutex_);
    copyings_[copy.relocation.id] = copying;
  }
  log(Level::info, "Disks are copied.",
      {{"vm", copy.vm.id.text}, {"task", copy.relocation.id.text}, {"to", copy.relocation.what.datastore}});
  copying->thread = std::jthread([this, copy, raw = copying.get()](const std::stop_token& stop) {
    pthread_setname_np(pthread_self(), "hf-copy");
    run(copy, *raw, stop);
  });
}

void DiskMoves::run(const ha::action::Copy& copy, Copying& copying, const std::stop_token& stop) {
  const auto after = vm::relocated(copy.vm.spec, copy.relocation.what);
  Status done = after.ok() ? check_room(copy, *after) : Status(after.error());
  const Instant began = sys::boot_now();
  if (done.ok()) done = make_images(copy, *after, stop);
  if (done.ok()) done = copy_home(copy, *after);
  if (done.ok() && copy.relocation.live) done = copy_live(copy, *after, copying, stop);
  if (stop.stop_requested()) return;
  if (done.ok() && !copy.relocation.live) {
    std::uint64_t bytes = 0;
    for (const auto& [before, moved] : moved_disks(copy.vm.spec, *after)) {
      const auto folder = folder_of(vm::datastore_of(moved, *after), copy.vm.id);
      const auto info = folder.ok() ? image::info(*folder + "/" + vm::image_file(moved), moved.format) : folder.error();
      if (info.ok()) bytes += info->allocated_bytes;
    }
    tell_held(copy, bytes, began);
  }
  if (done.ok()) return;
  log(Level::warn, "Disks are not moved.", {{"vm", copy.vm.id.text}, {"why", done.error().what}});
  mailbox_.post(ha::event::CopyFailed{copy.vm.id, copy.relocation.id, done.error()});
}

// By what is allocated, not by the disks' sizes: what is sparse stays sparse. A datastore that fills up meanwhile ends
// the copy, and the guest has lost nothing by it.
Status DiskMoves::check_room(const ha::action::Copy& copy, const vm::VmSpec& after) const {
  std::uint64_t needed = 0;
  for (const auto& [before, moved] : moved_disks(copy.vm.spec, after)) {
    TRY_ASSIGN(const std::string folder, folder_of(vm::datastore_of(before, copy.vm.spec), copy.vm.id));
    TRY_ASSIGN(const image::Info info, image::info(folder + "/" + vm::image_file(before), before.format));
    needed += info.allocated_bytes;
  }
  TRY_ASSIGN(const std::string mount, mount_of(copy.relocation.what.datastore));
  struct statvfs found{};
  if (::statvfs(mount.c_str(), &found) < 0) return from_errno("Cannot look at " + mount, errno);
  const std::uint64_t free = std::uint64_t{found.f_bavail} * found.f_frsize;
  if (free >= needed) return {};
  return Error{Code::no_room, "Datastore " + copy.relocation.what.datastore + " has " + mib(free) +
                                  " free, and the disks of VM " + copy.vm.spec.name + " take " + mib(needed) + "."};
}

// Empty ones where QEMU copies, whole ones where it does not run.
Status DiskMoves::make_images(const ha::action::Copy& copy, const vm::VmSpec& after, const std::stop_token& stop) {
  TRY_ASSIGN(const std::string target, folder_of(copy.relocation.what.datastore, copy.vm.id));
  std::error_code problem;
  fs::create_directories(target, problem);
  if (problem) return from_errno("Cannot make the VM's folder " + target, problem.value());
  const auto moved = moved_disks(copy.vm.spec, after);
  int done = 0;
  for (const auto& [before, now] : moved) {
    TRY_ASSIGN(const std::string folder, folder_of(vm::datastore_of(before, copy.vm.spec), copy.vm.id));
    const std::string source = folder + "/" + vm::image_file(before), path = target + "/" + vm::image_file(now);
    TRY_ASSIGN(const image::Info info, image::info(source, before.format));
    image::NewImage wanted;
    wanted.format = now.format;
    wanted.size_bytes = info.size_bytes;
    wanted.source_format = before.format;
    image::Job job;
    job.stop = stop;
    job.bytes_per_second = copy.relocation.bandwidth_mbit * kBytesPerMbit;
    job.on_progress = [&](int percent) {
      const int all = (done * 100 + percent) / static_cast<int>(moved.size());
      mailbox_.post(ha::event::CopyProgress{copy.vm.id, copy.relocation.id, all});
    };
    if (copy.relocation.live) TRY(image::create(path, wanted));
    else TRY(image::import(source, path, wanted, job));
    ++done;
  }
  return {};
}

// What the VM has besides disks, and the word on the datastore of who owns it.
Status DiskMoves::copy_home(const ha::action::Copy& copy, const vm::VmSpec& after) {
  const vm::VmSpec& before = copy.vm.spec;
  if (!home_moves(before, after)) return {};
  TRY_ASSIGN(const std::string from, mount_of(before.datastore));
  TRY_ASSIGN(const std::string to, mount_of(after.datastore));
  const std::string source = from + "/" + copy.vm.id.text + "/", target = to + "/" + copy.vm.id.text + "/";
  if (before.cloud_init && copy.relocation.live) {
    // QEMU copies it as it does a disk.
    std::error_code problem;
    const auto size = fs::file_size(source + vm::seed_file(before), problem);
    if (problem) return from_errno("Cannot look at the cloud-init seed", problem.value());
    image::NewImage seed;
    seed.format = vm::DiskFormat::raw;
    seed.size_bytes = size;
    TRY(image::create(target + vm::seed_file(after), seed));
  } else if (before.cloud_init) {
    TRY(image::make_seed(*before.cloud_init, before.name, copy.vm.id.text, target + vm::seed_file(after)));
  }
  if (before.firmware == vm::Firmware::uefi) {
    const auto variables = process::read_small_file(source + vm::variables_file(before), kVariablesMax);
    // A VM that never ran has none yet.
    if (!variables.ok() && variables.code() != Code::not_found) return variables.error();
    if (variables.ok()) TRY(process::replace_file(target + vm::variables_file(after), *variables, 0600));
  }
  const auto owner = datastore::read_owner(from, copy.vm.id);
  if (!owner.ok()) return owner.code() == Code::not_found ? Status() : Status(owner.error());
  // safety: before the commit: whoever starts the VM from there finds it.
  return datastore::confirm_owner(to, *owner);
}

Status DiskMoves::copy_live(const ha::action::Copy& copy, const vm::VmSpec& after, Copying& copying,
                            const std::stop_token& stop) {
  CopyRequest request;
  request.vm = copy.vm.id;
  request.id = copy.relocation.id;
  request.bytes_per_second = copy.relocation.bandwidth_mbit * kBytesPerMbit;
  for (const auto& [before, now] : moved_disks(copy.vm.spec, after)) {
    TRY_ASSIGN(const std::string folder, folder_of(vm::datastore_of(now, after), copy.vm.id));
    request.disks.push_back({now.name, folder + "/" + vm::image_file(now), now.format});
  }
  if (after.cloud_init && home_moves(copy.vm.spec, after)) {
    TRY_ASSIGN(const std::string folder, folder_of(after.datastore, copy.vm.id));
    request.disks.push_back({std::string(vm::kSeedName), folder + "/" + vm::seed_file(after), vm::DiskFormat::raw});
  }
  TRY(hypervisor_.begin_copy(request));
  return follow(copy, copying, stop);
}

Status DiskMoves::follow(const ha::action::Copy& copy, Copying& copying, const std::stop_token& stop) {
  const auto& [vm, id] = std::tie(copy.vm.id, copy.relocation.id);
  const Instant began = sys::boot_now();
  std::optional<Instant> asked;
  std::uint64_t bytes = 0;
  while (!wait(asked ? kLookBeforeHeld : kLook, stop)) {
    const auto state = hypervisor_.copy_state(vm, id);
    // One that does not answer may be frozen: the deciding code loses its patience, not we.
    if (!state.ok() && goes_on(state.error())) continue;
    if (!state.ok()) return state.error();
    bytes = std::max(bytes, state->done_bytes);
    if (state->phase == Phase::none) return Error{Code::failed, "QEMU knows nothing of the copy any more."};
    if (state->phase == Phase::failed) {
      const bool full = state->error.find("No space left") != std::string::npos;
      return Error{full ? Code::no_room : Code::failed, "The copy of the disks failed: " + state->error + "."};
    }
    if (state->phase == Phase::held) {
      tell_held(copy, bytes, began);
      return {};
    }
    if (asked && sys::boot_now() - *asked > kHoldLimit) {
      return Error{Code::timed_out, "QEMU did not bring the copy to its end in time."};
    }
    if (asked) continue;
    const int percent = state->all_bytes == 0 ? 0 : static_cast<int>(state->done_bytes * 100 / state->all_bytes);
    mailbox_.post(ha::event::CopyProgress{vm, id, std::min(percent, 99)});
    if (state->phase != Phase::ready) continue;
    asked = sys::boot_now();
    {
      const std::lock_guard lock(copying.mutex);
      copying.hold_asked_at = asked;
    }
    const Status held = hypervisor_.hold_copy(vm, id);
    if (held.ok()) {
      tell_held(copy, bytes, began);
      return {};
    }
    if (!goes_on(held.error())) return held;
  }
  return {};
}

void DiskMoves::tell_held(const ha::action::Copy& copy, std::uint64_t bytes, Instant began) {
  record::RelocationReport report;
  const auto after = vm::relocated(copy.vm.spec, copy.relocation.what);
  report.disks = after.ok() ? moved_disks(copy.vm.spec, *after).size() : 0;
  report.bytes = bytes;
  report.took_ms = static_cast<std::uint64_t>((sys::boot_now() - began) / std::chrono::milliseconds(1));
  mailbox_.post(ha::event::CopyHeld{copy.vm.id, copy.relocation.id, report});
}

// --- settling
// --------------------------------------------------------------------------------------------------------

std::optional<Instant> DiskMoves::stop_copying(const TaskId& id) {
  CopyingPtr copying;
  {
    const std::lock_guard lock(mutex_);
    const auto found = copyings_.find(id);
    if (found == copyings_.end()) return std::nullopt;
    copying = found->second;
    copyings_.erase(found);
  }
  copying->thread.request_stop();
  if (copying->thread.joinable()) copying->thread.join();
  const std::lock_guard lock(copying->mutex);
  return copying->hold_asked_at;
}

Result<Instant> DiskMoves::settle_images(const ha::action::SettleCopy& settle) {
  if (!settle.relocation.live) return sys::boot_now();
  const VmId& vm = settle.relocation.vm;
  const auto ended = hypervisor_.end_copy(vm, settle.relocation.id, settle.keep == Keep::new_images);
  if (ended.ok() || ended.code() != Code::failed) return ended;
  // safety: a guest that writes where the record does not say so is ended at once; it boots from what the record names.
  log(Level::error, "A guest uses the wrong images and is killed.", {{"vm", vm.text}, {"why", ended.error().what}});
  TRY(hypervisor_.kill(vm));
  return sys::boot_now();
}

Status DiskMoves::delete_files(const ha::action::SettleCopy& settle) {
  const auto& relocation = settle.relocation;
  const bool keep_new = settle.keep == Keep::new_images;
  const auto& files = keep_new ? relocation.old_files : relocation.new_files;
  for (const auto& file : files) {
    TRY_ASSIGN(const std::string folder, folder_of(file.datastore, relocation.vm));
    TRY(erase_file(folder + "/" + file.name));
    TRY(erase_file(folder + "/" + file.name + image::kPartialSuffix));
  }
  for (const auto& file : files) {
    TRY_ASSIGN(const std::string folder, folder_of(file.datastore, relocation.vm));
    // Only where nothing else is in it.
    if (::rmdir(folder.c_str()) < 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) {
      return from_errno("Cannot remove the folder " + folder, errno);
    }
  }
  const std::string& home = keep_new ? relocation.old_home : relocation.new_home;
  if (home.empty()) return {};
  TRY_ASSIGN(const std::string mount, mount_of(home));
  const Status erased = datastore::erase_owner(mount, relocation.vm, relocation.epoch);
  return !erased.ok() && erased.code() == Code::conflict ? Status() : erased;
}

void DiskMoves::carry_out(const ha::action::SettleCopy& settle) {
  images_.submit([this, settle] {
    const auto held_since = stop_copying(settle.relocation.id);
    if (settle.keep == Keep::none) return;
    ha::event::CopySettled settled;
    settled.vm = settle.relocation.vm;
    settled.id = settle.relocation.id;
    const auto went_on = settle_images(settle);
    if (!went_on.ok()) {
      log(Level::warn, "A VM's images are not settled yet.",
          {{"vm", settled.vm.text}, {"why", went_on.error().what}});
      return mailbox_.post(settled);
    }
    if (held_since) settled.held_us = us(*went_on - *held_since);
    deletions_.submit([this, settle, settled]() mutable {
      const Status deleted = delete_files(settle);
      if (!deleted.ok()) {
        log(Level::warn, "What a move of disks has left is not deleted yet.",
            {{"vm", settled.vm.text}, {"why", deleted.error().what}});
      }
      settled.ok = deleted.ok();
      mailbox_.post(settled);
    });
  });
}

}  // namespace hf::daemon
