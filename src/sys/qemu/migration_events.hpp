#pragma once
// How far a QEMU is with its migration or its load, as its events say. Written by the monitor's reader thread.
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "sys/process/clock.hpp"
#include "sys/qemu/engine_monitor.hpp"

namespace hf::qemu {

struct EngineMonitor::Migration {
  JobNote jobs;
  std::mutex mutex;  // of what follows
  std::condition_variable changed;
  std::string status;                 // "setup", "active", "completed", "failed", ...; empty: nothing was said
  std::optional<Instant> stopped_at;  // the latest stop of the guest

  void take(const std::string& event, const std::string& data) {
    const Instant now = sys::boot_now();
    jobs.take(event, data);
    const std::lock_guard lock(mutex);
    if (event == "STOP") {
      stopped_at = now;
    } else if (event == "RESUME") {
      stopped_at.reset();
    } else if (event == "MIGRATION") {
      const nlohmann::json object = nlohmann::json::parse(data, nullptr, false);
      if (!object.is_object() || !object.contains("status") || !object["status"].is_string()) return;
      status = object["status"].get<std::string>();
    }
    changed.notify_all();
  }
};

}  // namespace hf::qemu
