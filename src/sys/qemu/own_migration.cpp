// EngineMonitor's part that drives QEMU's own migration.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "sys/qemu/migration_events.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;

constexpr int kKeepsWritesSince = 9;             // the major version
constexpr int kChannels = 2;                     // of multifd, besides the main one
constexpr std::uint64_t kNoLimit = 1ULL << 40U;  // bytes a second; QEMU's default is 128 MiB/s
constexpr Duration kEndNoticed = 20ms;           // that QEMU has ended is not signalled
constexpr Duration kMoment = 2ms;

std::uint64_t number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

json capabilities(std::initializer_list<std::pair<const char*, bool>> wanted) {
  json list = json::array();
  for (const auto& [name, state] : wanted) list.push_back({{"capability", name}, {"state", state}});
  return {{"capabilities", list}};
}

// Milliseconds, of which QEMU wants one at least.
std::int64_t downtime_limit(Duration stop_max) { return std::max<std::int64_t>(1, stop_max / 1ms); }

bool is_over(const std::string& status) {
  return status.empty() || status == "none" || status == "completed" || status == "failed" || status == "cancelled";
}

}  // namespace

// safety: see core/motion/checks.cpp. The leader has asked the hosts' records; here is asked who does it.
Status EngineMonitor::refuse_if_it_loses_writes(bool is_emulated, Duration limit) {
  if (!is_emulated) return {};
  TRY_ASSIGN(const std::string answer, monitor_->execute("query-version", {}, limit));
  const json object = json::parse(answer, nullptr, false);
  const json* version = object.is_object() && object.contains("qemu") ? &object["qemu"] : nullptr;
  const auto major = version != nullptr && version->is_object() ? number(*version, "major") : 0;
  if (major >= kKeepsWritesSince) return {};
  return Error{Code::unsupported, "The guest's QEMU is version " + std::to_string(major) +
                                      ": its own migration loses what an emulated guest writes before version 9."};
}

Status EngineMonitor::migrate_to(const std::string& socket, const OwnMigrationLimits& limits, bool is_emulated,
                                 Duration limit) {
  TRY(refuse_if_it_loses_writes(is_emulated, limit));
  TRY(command("migrate-set-capabilities",
              capabilities({{"events", true}, {"multifd", true}, {"auto-converge", true}}).dump(), limit));
  const json parameters = {
      {"multifd-channels", kChannels},
      {"downtime-limit", downtime_limit(limits.stop_max)},
      {"max-bandwidth", limits.bytes_per_second == 0 ? kNoLimit : limits.bytes_per_second},
      {"announce-rounds", 0}};
  TRY(command("migrate-set-parameters", parameters.dump(), limit));
  // safety: a description of the devices' state would follow it, for people. It would be made while the guest stands
  // still, and QEMU 10 ends itself over it (an assertion) where it runs with send-configuration=off, as it does here.
  TRY(command("qom-set", R"({"path":"/machine","property":"suppress-vmdesc","value":true})", limit));
  return command("migrate", json{{"uri", "unix:" + socket}}.dump(), limit);
}

Status EngineMonitor::prepare_to_receive(const std::string& socket, bool is_emulated, Duration limit) {
  TRY(refuse_if_it_loses_writes(is_emulated, limit));
  // safety: late-block-activate and no announcements: as in prepare_to_load.
  TRY(command("migrate-set-capabilities",
              capabilities({{"events", true}, {"multifd", true}, {"late-block-activate", true}}).dump(), limit));
  TRY(command("migrate-set-parameters", json{{"multifd-channels", kChannels}, {"announce-rounds", 0}}.dump(), limit));
  TRY(command("qom-set", R"({"path":"/machine","property":"suppress-vmdesc","value":true})", limit));
  return command("migrate-incoming", json{{"uri", "unix:" + socket}}.dump(), limit);
}

Result<bool> EngineMonitor::has_migrated(Duration limit) {
  const Instant deadline = sys::boot_now() + limit;
  std::unique_lock lock(migration_->mutex);
  const bool stood = migration_->stopped_at.has_value();
  for (;;) {
    if (migration_->status == "completed") return true;
    lock.unlock();
    const bool closed = monitor_->has_closed(0s);
    lock.lock();
    const std::string& status = migration_->status;
    if (closed) return Error{Code::failed, "QEMU ended while it migrated: its log (qemu.log) says why."};
    if (status == "failed" || status == "cancelled") {
      lock.unlock();
      return Error{Code::failed, "QEMU's own migration failed: " + why_failed(kEndNoticed)};
    }
    const Duration left = deadline - sys::boot_now();
    if (left <= 0s || (!stood && migration_->stopped_at)) return false;
    migration_->changed.wait_for(lock, std::min(left, kEndNoticed));
  }
}

std::optional<Instant> EngineMonitor::stopped_at() {
  const std::lock_guard lock(migration_->mutex);
  return migration_->stopped_at;
}

std::string EngineMonitor::why_failed(Duration limit) {
  const auto answer = monitor_->execute("query-migrate", {}, limit);
  const json object = answer ? json::parse(*answer, nullptr, false) : json();
  const auto why = object.is_object() ? object.find("error-desc") : object.end();
  return why != object.end() && why->is_string() ? why->get<std::string>() + "." : "its log (qemu.log) may say why.";
}

Result<OwnMigrationProgress> EngineMonitor::own_progress(Duration limit) {
  TRY_ASSIGN(const std::string answer, monitor_->execute("query-migrate", {}, limit));
  const json object = json::parse(answer, nullptr, false);
  OwnMigrationProgress progress;
  if (!object.is_object() || !object.contains("ram") || !object["ram"].is_object()) return progress;
  const json& ram = object["ram"];
  const std::uint64_t page = std::max<std::uint64_t>(1, number(ram, "page-size"));
  progress.rounds = number(ram, "dirty-sync-count");
  progress.zero_pages = number(ram, "duplicate");
  progress.plain_pages = number(ram, "normal");
  progress.pages_left = number(ram, "remaining") / page;
  progress.pages_all = number(ram, "total") / page;
  progress.pages_written_per_second = number(ram, "dirty-pages-rate");
  progress.stood = std::chrono::milliseconds(number(object, "downtime"));
  progress.throttle_percent = number(object, "cpu-throttle-percentage");
  return progress;
}

Status EngineMonitor::aim_at_stop(Duration stop_max, Duration limit) {
  return command("migrate-set-parameters", json{{"downtime-limit", downtime_limit(stop_max)}}.dump(), limit);
}

Status EngineMonitor::end_migration(Duration limit) {
  const Instant deadline = sys::boot_now() + limit;
  const auto over = [this] { return is_over(migration_->status) || monitor_->has_closed(0s); };
  std::unique_lock lock(migration_->mutex);
  if (!over()) {
    lock.unlock();
    // Refused where it has just ended.
    if (const Status asked = command("migrate_cancel", {}, limit); !asked.ok()) {
      log(Level::debug, "QEMU does not cancel its migration", {{"why", asked.error().what}});
    }
    lock.lock();
    while (!over()) {
      const Duration left = deadline - sys::boot_now();
      if (left <= 0s) return Error{Code::timed_out, "QEMU does not end its migration."};
      migration_->changed.wait_for(lock, std::min(left, kEndNoticed));
    }
  }
  lock.unlock();
  // It says that it is over before it is: the guest goes on, or stands still for good, a moment later.
  while (query_status(*monitor_, deadline - sys::boot_now()) == "finish-migrate") {
    if (monitor_->has_closed(kMoment)) return Error{Code::failed, "QEMU has ended."};
  }
  return command("migrate-set-capabilities", capabilities({{"multifd", false}, {"auto-converge", false}}).dump(),
                 deadline - sys::boot_now());
}

}  // namespace hf::qemu
