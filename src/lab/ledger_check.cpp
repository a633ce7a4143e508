#include "lab/ledger_check.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

#include "lab/command.hpp"
#include "lab/files.hpp"
#include "lab/guest/ledger_format.h"

namespace hf::lab {
namespace {

constexpr std::size_t kBytesMax = (1 + LEDGER_SLOTS_MAX) * std::size_t{LEDGER_BLOCK};

Result<std::string> read_front(const std::string& path, std::size_t bytes) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return from_errno("Cannot read " + path, errno);
  std::string text(bytes, '\0');
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t count = ::pread(file.get(), text.data() + have, bytes - have, static_cast<off_t>(have));
    if (count < 0) return from_errno("Cannot read " + path, errno);
    if (count == 0) break;
    have += static_cast<std::size_t>(count);
  }
  text.resize(have);
  return text;
}

// Records by sequence; what is neither a record nor empty is counted as torn.
struct Slots {
  std::map<std::uint64_t, ledger_record> records;
  std::vector<std::uint64_t> torn;
};

Slots read_slots(const std::string& disk, std::uint64_t slots, std::vector<std::string>& problems) {
  Slots found;
  const std::string empty(LEDGER_BLOCK, '\0');
  for (std::uint64_t slot = 0; slot < slots; ++slot) {
    const std::size_t at = (1 + slot) * std::size_t{LEDGER_BLOCK};
    if (at + LEDGER_BLOCK > disk.size()) break;
    ledger_record record;
    std::memcpy(&record, disk.data() + at, sizeof(record));
    if (ledger_record_ok(&record)) {
      if (record.seq % slots != slot)
        problems.push_back(fmt::format("Slot {} holds record {}, which is not its own.", slot, record.seq));
      found.records[record.seq] = record;
    } else if (disk.compare(at, LEDGER_BLOCK, empty) != 0) {
      found.torn.push_back(slot);
    }
  }
  return found;
}

// Rule (1) and (3) of the format, for neighbours in order of sequence; rule (2), no holes.
void check_order(const Slots& found, const ledger_head& head, std::vector<std::string>& problems) {
  std::map<std::uint64_t, std::uint64_t> first_seq_of = {{head.incarnation, head.first_seq}};
  std::map<std::uint64_t, std::uint64_t> nonce_of = {{head.incarnation, head.nonce}};
  for (const auto& [seq, record] : found.records) {
    first_seq_of.emplace(record.incarnation, record.first_seq);
    const auto nonce = nonce_of.emplace(record.incarnation, record.nonce).first;
    if (nonce->second != record.nonce) {
      problems.push_back(
          fmt::format("Record {}: two guests took incarnation {} at once.", seq, record.incarnation));
    }
  }
  for (const auto& [seq, record] : found.records) {
    const auto newer = first_seq_of.upper_bound(record.incarnation);
    if (newer != first_seq_of.end() && seq >= newer->second) {
      problems.push_back(
          fmt::format("Stale write: record {} is of incarnation {}, but incarnation {} had begun at {}.", seq,
                      record.incarnation, newer->first, newer->second));
    }
    if (record.incarnation > head.incarnation) {
      problems.push_back(
          fmt::format("Record {} is of incarnation {}, but the head says {}: the head was overwritten.", seq,
                      record.incarnation, head.incarnation));
    }
  }
}

void check_holes(const Slots& found, const ledger_head& head, std::vector<std::string>& problems) {
  const std::uint64_t last = found.records.empty() ? 0 : found.records.rbegin()->first;
  const std::uint64_t next_slot = (last + 1) % head.slots;
  for (std::uint64_t seq = last; seq > 0 && last - seq < head.slots; --seq) {
    if (seq % head.slots == next_slot || found.records.contains(seq)) continue;
    problems.push_back(fmt::format("Lost write: record {} was acknowledged and is not there.", seq));
  }
  for (const auto slot : found.torn) {
    if (slot != next_slot) problems.push_back(fmt::format("Slot {} is damaged.", slot));
  }
  if (last + 1 < head.first_seq) {
    problems.push_back(fmt::format("Lost write: the last boot saw record {}, the last one now is {}.",
                                   head.first_seq - 1, last));
  }
}

Result<std::string> raw_front(const std::string& image) {
  auto front = read_front(image, kBytesMax);
  if (!front || !front->starts_with("QFI\xfb")) return front;
  std::string folder = "/tmp/hf-ledger-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) return from_errno("Cannot make a temporary folder", errno);
  // -U: a frozen owner may still hold the image's lock.
  Result<std::string> raw = run({"qemu-img", "convert", "-U", "-O", "raw", image, folder + "/raw"});
  if (raw) raw = read_front(folder + "/raw", kBytesMax);
  TRY(remove_folder(folder));
  return raw;
}

}  // namespace

Result<LedgerReport> check_ledger_blocks(const std::string& disk) {
  ledger_head head{};
  if (disk.size() >= LEDGER_BLOCK) std::memcpy(&head, disk.data(), sizeof(head));
  if (!ledger_head_ok(&head))
    return Error{Code::corrupt, "There is no ledger on this disk: did its guest run with hf.ledger=1?"};
  LedgerReport report;
  const Slots found = read_slots(disk, head.slots, report.problems);
  report.incarnation = head.incarnation;
  report.records = found.records.size();
  report.last_sequence = found.records.empty() ? 0 : found.records.rbegin()->first;
  check_order(found, head, report.problems);
  check_holes(found, head, report.problems);
  if (head.violations > 0) {
    report.problems.push_back(
        fmt::format("The guest itself found {} stale or lost writes while it ran.", head.violations));
  }
  return report;
}

Result<LedgerReport> check_ledger(const std::string& image) {
  TRY_ASSIGN(const std::string disk, raw_front(image));
  return check_ledger_blocks(disk);
}

}  // namespace hf::lab
