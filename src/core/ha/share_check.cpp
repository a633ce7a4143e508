#include "core/ha/share_check.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace hf::ha {
namespace {

bool lists(const std::vector<std::string>& ids, const std::string& id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::string joined(const std::vector<HostId>& hosts) {
  std::string out;
  for (const auto& host : hosts) out += (out.empty() ? "" : ", ") + host.text;
  return out;
}

}  // namespace

void ShareCheck::on(const event::SlotRead& read) {
  const auto found = seen_.find({read.datastore, read.host});
  if (found == seen_.end()) return;
  Seen& seen = found->second;
  if (!read.ok && !read.absent) {
    seen.since = std::max(seen.since, read.ended);
    return;
  }
  seen.read_began = std::max(seen.read_began, read.began);
  if (seen.known && seen.absent == read.absent && (read.absent || seen.fingerprint == read.fingerprint))
    return;
  // The first content is no movement, only what later ones are compared with.
  if (seen.known) seen.moved = read.ended;
  if (seen.known) seen.still = false;
  seen.since = std::max(seen.since, read.ended);
  seen.known = true;
  seen.absent = read.absent;
  seen.fingerprint = read.fingerprint;
}

void ShareCheck::look_at(const View& view, const HostId& self, Instant now) {
  std::map<std::pair<std::string, HostId>, Seen> present;
  for (const auto& [host, stored] : view.hosts) {
    if (host == self) continue;
    for (const auto& id : stored.record.slot_datastores) {
      auto kept = seen_.extract({id, host});
      Seen seen = kept.empty() ? Seen{} : kept.mapped();
      const bool promised = view.sessions.count(host) != 0 && lists(stored.record.slots_renewed, id);
      if (kept.empty() || !promised) seen.since = std::max(seen.since, now);
      seen.still = seen.still || (seen.known && seen.read_began - seen.since > 3 * timing_.takeover_after);
      present.emplace(std::pair(id, host), seen);
    }
  }
  seen_ = std::move(present);
  judge(view, self, now);
}

void ShareCheck::judge(const View& view, const HostId& self, Instant now) {
  verdicts_.clear();
  std::map<std::string, std::size_t> moving;
  for (const auto& [key, seen] : seen_) {
    if (seen.still)
      verdicts_[key.first].elsewhere.push_back(key.second);
    else if (seen.moved != Instant{} && now - seen.moved < timing_.takeover_after)
      ++moving[key.first];
  }
  for (auto& [id, verdict] : verdicts_) {
    verdict.usable = verdict.elsewhere.size() <= moving[id];
    const auto named = view.datastores.find(id);
    verdict.text = fmt::format(
        "Datastore {} is not one storage: {} renews its heartbeat slot there, but {} sees it stand still. "
        "Was its marker "
        "copied? {}",
        named == view.datastores.end() ? id : named->second.record.name, joined(verdict.elsewhere), self.text,
        verdict.usable ? "Most hosts agree with this one."
                       : "This host does not use it until that is mended.");
  }
}

}  // namespace hf::ha
