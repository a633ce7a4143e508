// The disks that a guest has on its datastore, and the deeds of the daemon's shell when they move: QEMU's mirror, which
// outlives the daemon, and the thread that follows it, which does not. An image holds the number of the last write that
// the guest was told of.
#include <algorithm>

#include "sim/host.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kLook = 200ms;

const std::string& only(const std::vector<vm::PlacedFile>& files) {
  static const std::string kNone;
  return files.empty() ? kNone : files.front().name;
}
}  // namespace

std::string image_of(const vm::VmSpec& spec) { return spec.disks.empty() ? "" : vm::image_file(spec.disks.front()); }

void Host::write_image(Process& writer) {
  if (writer.mirror && writer.mirror->state == Mirror::State::held) return;  // its request waits
  auto& images = w_.images[writer.vm];
  const std::uint64_t write = w_.checker.next_write(writer.vm);
  images[writer.image] = write;
  if (writer.mirror && writer.mirror->to >= 0 && !w_.network.both(index_, writer.mirror->to)) writer.mirror.reset();
  if (writer.mirror && writer.mirror->state == Mirror::State::ready) images[writer.mirror->image] = write;
  w_.checker.acknowledged(*this, writer, write);
}

void Host::copy(const ha::action::Copy& copy) {
  const auto& relocation = copy.relocation;
  const std::string from = only(relocation.old_files), to = only(relocation.new_files);
  w_.trace([&] { return fmt::format("{}: {} is copied to {}", id_.text, from, to); });
  const int life = daemon.life();
  copying_.insert(relocation.id);
  w_.disks.access(index_, 0, [this, relocation, from, to, life](bool ok) {
    if (ok && copying_.count(relocation.id) != 0) w_.images[relocation.vm].try_emplace(to, 0);
    daemon.post(life, [this, relocation, from, to, ok] {
      if (copying_.count(relocation.id) == 0) return;
      auto found = processes_.find(relocation.vm);
      const bool lacks_qemu = relocation.live && found == processes_.end();
      if (!ok || lacks_qemu || w_.rng.chance(w_.faulty.launch_failure)) {
        const Error full{Code::failed, "The datastore is full."};
        return deliver(ha::event::CopyFailed{relocation.vm, relocation.id, full});
      }
      if (!relocation.live) return copy_cold(relocation, from, to);
      found->second.mirror = Mirror{relocation.id, to};
      mirror_on(relocation.vm, found->second.number, relocation.id);
      follow_mirror(relocation.vm, found->second.number, relocation.id, 0);
    });
  });
}

// qemu-img, a child of the daemon.
void Host::copy_cold(const record::RelocationRecord& relocation, const std::string& from, const std::string& to) {
  w_.queue.after(w_.between(10ms, w_.params.motion_round_max), [this, relocation, from, to, life = daemon.life()] {
    daemon.post(life, [this, relocation, from, to] {
      auto& images = w_.images[relocation.vm];
      // Stopped, or deleted meanwhile by another, because it was abandoned.
      if (copying_.count(relocation.id) == 0 || images.count(to) == 0) return;
      images[to] = images[from];
      deliver(ha::event::CopyHeld{relocation.vm, relocation.id, {}});
    });
  });
}

Process* Host::mirroring(const VmId& vm, std::uint64_t number, const TaskId& id) {
  Process* found = process(vm, number);
  return found != nullptr && found->mirror && found->mirror->id == id ? found : nullptr;
}

// QEMU's part.
void Host::mirror_on(const VmId& vm, std::uint64_t number, const TaskId& id) {
  w_.queue.after(w_.between(10ms, 2 * w_.params.motion_round_max), [this, vm, number, id] {
    Process* found = mirroring(vm, number, id);
    if (found == nullptr) return;
    if (hung() || found->frozen) return mirror_on(vm, number, id);
    auto& images = w_.images[vm];
    // What another host makes is there, unless it was deleted, because that one has given up.
    const bool reachable = found->mirror->to < 0 || (w_.network.both(index_, found->mirror->to) &&
                                                     images.count(found->mirror->image) != 0);
    if (!reachable) return found->mirror.reset();
    images[found->mirror->image] = images[found->image];
    found->mirror->state = Mirror::State::ready;
  });
}

// The daemon's.
void Host::follow_mirror(const VmId& vm, std::uint64_t number, const TaskId& id, int looks) {
  w_.queue.after(kLook, [this, vm, number, id, looks, life = daemon.life()] {
    daemon.post(life, [this, vm, number, id, looks] {
      if (copying_.count(id) == 0) return;
      Process* found = mirroring(vm, number, id);
      if (found == nullptr) {
        return deliver(ha::event::CopyFailed{vm, id, Error{Code::failed, "QEMU knows nothing of the copy any more."}});
      }
      if (!found->frozen && found->mirror->state == Mirror::State::ready) {
        found->mirror->state = Mirror::State::held;
        w_.trace([&] { return fmt::format("{}: both images of {} are equal", id_.text, vm.text); });
        return deliver(ha::event::CopyHeld{vm, id, {}});
      }
      if (!found->frozen) deliver(ha::event::CopyProgress{vm, id, std::min(99, 20 * (looks + 1))});
      follow_mirror(vm, number, id, looks + 1);
    });
  });
}

void Host::settle_copy(const ha::action::SettleCopy& settle) {
  copying_.erase(settle.relocation.id);
  if (settle.keep == ha::action::Keep::none) return;
  w_.queue.after(w_.between(1ms, 30ms), [this, settle, life = daemon.life()] {
    daemon.post(life, [this, settle] {
      if (!settle_image(settle)) {
        return deliver(ha::event::CopySettled{settle.relocation.vm, settle.relocation.id, false, 0});
      }
      const bool keeps_new = settle.keep == ha::action::Keep::new_images;
      const std::string gone = only(keeps_new ? settle.relocation.old_files : settle.relocation.new_files);
      // It may land when this daemon is long gone.
      w_.disks.access(index_, 0, [this, settle, gone, after = daemon.life()](bool ok) {
        if (ok && w_.images[settle.relocation.vm].erase(gone) > 0) w_.checker.deleted(settle.relocation.vm, gone);
        daemon.post(after, [this, settle, ok] {
          deliver(ha::event::CopySettled{settle.relocation.vm, settle.relocation.id, ok, 0});
        });
      });
    });
  });
}

// False: to be tried again.
bool Host::settle_image(const ha::action::SettleCopy& settle) {
  auto found = processes_.find(settle.relocation.vm);
  if (!settle.relocation.live || found == processes_.end()) return true;
  Process& guest = found->second;
  if (!guest.mirror || guest.mirror->id != settle.relocation.id) return true;
  if (guest.frozen) return false;  // its monitor does not answer
  const Mirror mirror = *guest.mirror;
  guest.mirror.reset();
  if (settle.keep == ha::action::Keep::old_images) return true;
  if (mirror.state == Mirror::State::held) {
    guest.image = mirror.image;
    return true;
  }
  w_.trace([&] { return fmt::format("{}: {} has the wrong image", id_.text, guest.vm.text); });
  w_.checker.memory_lost(guest);
  end_process(settle.relocation.vm, ha::ExitKind::killed, "");
  return true;
}

}  // namespace hf::sim
