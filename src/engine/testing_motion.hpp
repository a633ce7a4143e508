#pragma once
// Two sides of a motion in one process, for tests and the benchmark: guest memory in memfds, a writer that plays the
// guest through a mapping of its own, and the course of a motion.
#include <sys/mman.h>

#include <functional>
#include <future>
#include <utility>

#include "base/ensure.hpp"
#include "base/rng.hpp"
#include "engine/receiver.hpp"
#include "engine/sender.hpp"

namespace hf::engine::test {

// A VM's memory, and the guest's own view of it.
struct Guest {
  GuestMemory memory;
  GuestMemory view;
  std::byte* at(PageNumber page) const { return view.page(page); }
};

inline GuestMemory map_files(const std::vector<int>& files, const std::vector<std::uint64_t>& pages) {
  std::vector<GuestMemory::Part> parts;
  for (std::size_t i = 0; i < files.size(); ++i) {
    GuestMemory::Part part;
    part.block.bytes = pages[i] * kPageBytes;
    part.file.reset(::dup(files[i]));
    parts.push_back(std::move(part));
  }
  auto memory = GuestMemory::map(std::move(parts));
  ENSURE(memory.ok(), "a memfd can be mapped");
  return std::move(memory).value();
}

inline Guest make_guest(const std::vector<std::uint64_t>& block_pages) {
  std::vector<process::UniqueFd> files;
  std::vector<int> numbers;
  for (const std::uint64_t pages : block_pages) {
    files.emplace_back(::memfd_create("guest", MFD_CLOEXEC));
    numbers.push_back(files.back().get());
    ENSURE(::ftruncate(numbers.back(), static_cast<off_t>(pages * kPageBytes)) == 0,
           "a memfd can be made longer");
  }
  return {map_files(numbers, block_pages), map_files(numbers, block_pages)};
}

inline PageSet all_of(const GuestMemory& memory) { return {{0, memory.page_count()}}; }

// The first page in which they differ; page_count(): none.
inline PageNumber first_difference(const Guest& one, const Guest& other) {
  PageNumber page = 0;
  while (page < one.view.page_count() && std::memcmp(one.at(page), other.at(page), kPageBytes) == 0) ++page;
  return page;
}

inline ConnectionOptions plain_options() {
  ConnectionOptions options;
  options.motion = TaskId("task-1");
  options.vm = VmId("vm-1");
  options.token = "a secret";
  options.encryption = Encryption::off;
  options.data_streams = 2;
  return options;
}

inline constexpr std::uint64_t kCommitVersion = 4711;

struct Side {
  std::shared_ptr<Failure> failure = std::make_shared<Failure>();
  ConnectionOptions options = plain_options();
};

// Runs the destination's part on a thread of its own while `source` runs on this one; what came of them.
struct Outcome {
  Status source, destination;
};
inline Outcome run_both(const std::function<Status()>& source, const std::function<Status()>& destination) {
  auto other = std::async(std::launch::async, destination);
  Outcome outcome;
  outcome.source = source();
  outcome.destination = other.get();
  return outcome;
}

// The destination from the first connection to Committed. `state`: the device state that came.
inline Status receive_all(Listener& listener, const Side& side, GuestMemory& memory,
                          std::vector<std::byte>& state) {
  TRY_ASSIGN(Connections connections,
             listener.accept(side.options, memory.blocks(), std::chrono::seconds(5), side.failure));
  TRY_ASSIGN(const auto receiver, Receiver::start(memory, std::move(connections)));
  TRY_ASSIGN(const ReceiverEvent stopped, receiver->next());
  ENSURE(std::holds_alternative<GuestStopped>(stopped), "nothing else comes before it");
  TRY_ASSIGN(ReceiverEvent event, receiver->next());
  auto* device = std::get_if<DeviceState>(&event);
  ENSURE(device != nullptr, "nothing else comes before the device state");
  state = std::move(device->bytes);
  TRY(receiver->tell_loaded());
  TRY_ASSIGN(const ReceiverEvent last, receiver->next());
  const auto* committed = std::get_if<Committed>(&last);
  ENSURE(committed != nullptr && committed->version == kCommitVersion, "nothing else comes after it");
  return {};
}

}  // namespace hf::engine::test
