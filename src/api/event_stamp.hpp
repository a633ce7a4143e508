#pragma once
// How an event gets its id and time; the one place that does it, for the API and for the daemon.
#include "base/ids.hpp"
#include "base/time.hpp"
#include "core/record/records.hpp"

namespace hf::api {

// Fills id, time and host. The id sorts by time and is unique in the cluster: one counter serves the whole process.
// Thread-safe.
void stamp(record::EventRecord& event, const HostId& host, WallMs now);

}  // namespace hf::api
