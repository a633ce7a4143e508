#include "core/ha/observer.hpp"

#include <fmt/format.h>

namespace hf::ha {

std::string_view name_of(Health health) {
  switch (health) {
    case Health::alive: return "alive";
    case Health::agent_down: return "agent down";
    case Health::no_store: return "no store";
    case Health::suspect: return "suspect";
    case Health::dead: return "dead";
    case Health::unknown: return "unknown";
  }
  return "?";
}

void Observer::on(const event::SlotRead& read) {
  Slot& slot = slots_[{read.host, read.datastore}];
  if (!read.ok) {
    slot.readable = false;
    return;
  }
  const bool first = slot.changed_seen == Instant{};
  if (first || slot.fingerprint != read.fingerprint) slot.changed_seen = read.ended;
  slot.fingerprint = read.fingerprint;
  slot.same_began = std::max(slot.same_began, read.began);
  slot.readable = true;
}

void Observer::look_at(const View& view, Instant now) {
  for (const auto& [host, incarnation] : view.incarnations) {
    if (view.sessions.count(host) != 0) {
      absent_.erase(host);
      continue;
    }
    auto [found, added] = absent_.try_emplace(host, Absence{incarnation.version, now});
    if (!added && found->second.incarnation != incarnation.version) found->second = {incarnation.version, now};
  }
}

Observer::SlotSummary Observer::summarize(const record::HostRecord& host, Instant absent_since, Instant now) const {
  SlotSummary sum;
  for (const auto& datastore : host.slot_datastores) {
    auto found = slots_.find({host.host, datastore});
    if (found == slots_.end() || !found->second.readable) {
      ++sum.open;
      continue;
    }
    const Slot& slot = found->second;
    // safety: unchanged over takeover_after, by a read that began after the lease was seen to have ended: no renewal of
    // either witness can have begun within freeze_after + guard_latency before that read.
    const bool read_counts = slot.same_began >= absent_since || bug_ == KeptBug::takeover_on_old_slot_read;
    if (read_counts && slot.same_began - slot.changed_seen >= timing_.takeover_after) ++sum.still;
    else if (now - slot.changed_seen < timing_.takeover_after) ++sum.moving;
    else ++sum.open;
  }
  return sum;
}

Assessment Observer::assess(const HostId& host, const View& view, Instant now) const {
  if (view.sessions.count(host) != 0) return {Health::alive, "its store session is alive"};
  auto record = view.hosts.find(host);
  auto absence = absent_.find(host);
  if (record == view.hosts.end() || view.incarnations.count(host) == 0 || absence == absent_.end()) {
    return {Health::unknown, "it has never been seen"};
  }
  auto heard = heard_.find(host);
  if (heard != heard_.end() && now - heard->second < timing_.takeover_after) {
    return {Health::no_store, "no store session, but its network heartbeats arrive"};
  }
  const auto absent_for = std::chrono::duration<double>(now - absence->second.since).count();
  const SlotSummary sum = summarize(record->second.record, absence->second.since, now);
  const std::string evidence = fmt::format(
      "no store session for {:.1f} s, no network heartbeat, slots: {} still, {} moving, {} unread",
      absent_for, sum.still, sum.moving, sum.open);
  const bool slots_proven = sum.moving == 0 && sum.open == 0;
  if (slots_proven || bug_ == KeptBug::takeover_without_slot_proof) return {Health::dead, evidence};
  if (sum.moving > 0 && absent_for > std::chrono::duration<double>(timing_.takeover_after).count()) {
    return {Health::agent_down, evidence};
  }
  return {Health::suspect, evidence};
}

std::vector<TypedTxn::Condition> Observer::proof_conditions(const HostId& host, const View& view) const {
  if (bug_ == KeptBug::takeover_without_conditions) return {};
  std::vector<TypedTxn::Condition> conditions;
  conditions.push_back({record::key::kSessions + host.text, 0});
  // No session has come and gone since: then the lease ended before our slot reads began.
  conditions.push_back({record::key::kIncarnations + host.text, view.incarnations.at(host).version});
  // The list of slots that was judged is still the host's list.
  conditions.push_back({record::key::kHosts + host.text, view.hosts.at(host).version});
  return conditions;
}

}  // namespace hf::ha
