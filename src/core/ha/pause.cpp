#include "core/ha/pause.hpp"

#include <algorithm>

namespace hf::ha {
namespace {

constexpr Duration kContinueRetry = 10s;
// A failed request comes back at once, or after the time limit of a slow storage's file system call.
constexpr Duration kGoneOn = 3s;

std::string datastore_of(const std::string& disk, const vm::VmSpec& spec) {
  auto found =
      std::find_if(spec.disks.begin(), spec.disks.end(), [&](const auto& d) { return d.name == disk; });
  return found == spec.disks.end() || found->datastore.empty() ? spec.datastore : found->datastore;
}

record::EventRecord event_about(const record::VmRecord& vm) {
  record::EventRecord event;
  event.vm = vm.id;
  event.subject = vm.spec.name;
  return event;
}

}  // namespace

Pause::Pause(event::Paused paused, Instant now) : paused_(std::move(paused)), try_at_(now + kContinueRetry) {}

void Pause::again(const event::Paused& paused) {
  went_on_at_ = Instant{};
  // The first reason stands: of several disks that fail alike, now one and now the other is named.
  if (paused.no_room != paused_.no_room) paused_ = paused;
}

void Pause::go_on(Instant now) {
  if (went_on_at_ == Instant{}) went_on_at_ = now;
}

bool Pause::is_over(Instant now) const { return went_on_at_ != Instant{} && now - went_on_at_ >= kGoneOn; }

bool Pause::take_turn(Instant now) {
  if (went_on_at_ != Instant{} || now < try_at_) return false;
  try_at_ = now + kContinueRetry;
  return true;
}

std::string Pause::why(const vm::VmSpec& spec) const {
  const std::string home = datastore_of(paused_.disk, spec);
  const std::string goes_on = "it is tried again every 10 s, and the VM goes on by itself.";
  if (paused_.no_room) return "The datastore " + home + " is full. Make room on it: " + goes_on;
  return "Disk error on " + paused_.disk + " (datastore " + home + "): " + paused_.text +
         ". Mend the storage: " + goes_on;
}

record::EventRecord paused_event(const record::VmRecord& vm, const record::VmStatus& status) {
  auto event = event_about(vm);
  event.severity = "error";
  event.kind = "vm.paused";
  event.text = "VM " + vm.spec.name + " is paused on " + status.host.text + ". " + status.message;
  return event;
}

record::EventRecord continued_event(const record::VmRecord& vm) {
  auto event = event_about(vm);
  event.severity = "info";
  event.kind = "vm.continued";
  event.text = "VM " + vm.spec.name + " goes on: its disks work again.";
  return event;
}

}  // namespace hf::ha
