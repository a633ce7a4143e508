#pragma once
// A cluster on paper for tests: two connected hosts, datastores and a network in a TestingStore, and
// shortcuts that do in the store what the daemons would.
#include <atomic>

#include "api/operations.hpp"
#include "api/testing_store.hpp"
#include "base/ensure.hpp"
#include "core/cpu/ladder.hpp"
#include "core/motion/motion.hpp"

namespace hf::api {

struct TestingCluster {
  TestingStore store;
  std::atomic<int> ids{0};
  Operations::World world(const std::string& host) {
    const auto random = [this] {
      char text[17];
      std::snprintf(text, sizeof text, "%08x00000000", static_cast<unsigned>(++ids) << 8U);
      return std::string(text);
    };
    return {HostId(host), [] { return WallMs{1700000000000}; }, random};
  }
  Operations operations{store, world("host1")};

  TestingCluster() {
    namespace key = record::key;
    store.put(key::kCluster, record::encode(record::ClusterRecord{"c-1", "test", 1700000000000, 1000, record::kLevel}));
    for (const auto& [name, memory] :
         {std::pair<std::string, std::uint64_t>{"host1", 4096}, {"host2", 2048}}) {
      record::HostRecord host;
      host.host = HostId(name);
      host.version = "0.1.0";
      host.api_address = name == "host1" ? "10.77.0.1:7443" : "10.77.0.2:7443";
      host.heartbeat_address = name == "host1" ? "10.77.0.1:7444" : "10.77.0.2:7444";
      host.cpus = 2;
      host.memory_mib = memory;
      host.accelerator = "tcg";
      host.qemu_version = "7.2.0";
      host.level = record::kLevel;
      host.cpu.runs = {"qemu64-v1"};
      host.cpu.features = cpu::features_of(name == "host1" ? "Haswell-v4" : "Westmere-v2");
      host.cpu.rungs = {{"Penryn-v1", {}}, {"Nehalem-v1", {}}, {"Westmere-v1", {}}, {"Westmere-v2", {}}};
      host.cpu.rungs["SandyBridge-v2"] = name == "host1" ? std::vector<std::string>{} : std::vector<std::string>{"avx"};
      host.datastores = {{"ds-1", "/srv/shared"}};
      if (name == "host2") host.datastores["ds-2"] = "/srv/local";
      host.slot_datastores = {"ds-1"};
      host.networks = {"lan"};
      store.put(key::kHosts + name, record::encode(host));
      store.put(key::kSessions + name, record::encode(record::SessionRecord{SessionId("s-" + name)}));
    }
    store.put(key::kLeader, record::encode(record::LeaderRecord{HostId("host1"), SessionId("s-host1")}));
    store.put(key::kDatastores + "ds-1", record::encode(record::DatastoreRecord{
                                             DatastoreId("ds-1"), "shared", true, {{"*", "/srv/shared"}}}));
    store.put(key::kDatastores + "ds-2",
              record::encode(
                  record::DatastoreRecord{DatastoreId("ds-2"), "local2", false, {{"host2", "/srv/local"}}}));
    store.put(key::kNetworks + "lan", record::encode(record::NetworkRecord{"lan", "br0", 0}));
  }

  vm::VmSpec spec(const std::string& name, std::uint64_t memory_mib) const {
    vm::VmSpec out;
    out.name = name;
    out.memory_mib = memory_mib;
    out.datastore = "shared";
    out.disks = {{"root", "", 1U << 30U, vm::DiskFormat::qcow2, ""}};
    out.nics = {{"lan", vm::NicModel::virtio, ""}};
    return out;
  }
  void set_owner(const std::string& name, const std::string& host, record::OwnerRecord::Phase phase) {
    const auto view = show_vm(store, name);
    record::OwnerRecord owner{phase, HostId(host), Epoch{1}, SessionId("s-" + host), true, "start", {}};
    store.put(record::key::kOwners + view->vm.id.text, record::encode(owner));
    record::VmStatus status;
    status.state =
        phase == record::OwnerRecord::Phase::claimed ? record::VmState::running : record::VmState::stopped;
    status.host = HostId(host);
    status.epoch = Epoch{1};
    status.since = 1700000000000;
    status.accelerator = "tcg";
    store.put(record::key::kStatus + view->vm.id.text, record::encode(status));
  }
  // Does what the hosts would.
  void finish(const Result<record::TaskRecord>& task) {
    ENSURE(task.ok() && operations.finish_task(task->id, {}).ok(), "a command of the test's own is carried out");
  }
  // Made, started and running.
  void run_vm(const std::string& name, const std::string& host, std::uint64_t memory_mib) {
    finish(operations.create_vm(spec(name, memory_mib), "", {"tester", {}}));
    finish(operations.start_vm(name, host, {"tester", {}}));
    set_owner(name, host, record::OwnerRecord::Phase::claimed);
  }
  // Asked for, and at once as the leader plans it and the destination answers it: from its host to host2.
  record::MotionRecord begin_motion(const std::string& name, const TaskId& task) {
    const auto asked = operations.migrate_vm(name, {HostId("host2"), {}}, {"tester", task});
    ENSURE(asked.ok(), "a command of the test's own is accepted");
    record::MotionRecord motion;
    motion.id = task;
    motion.vm = asked->vm;
    motion.from = show_vm(store, name)->owner->host;
    motion.to = HostId("host2");
    motion.epoch = Epoch{1};
    motion.phase = record::MotionRecord::Phase::ready;
    motion.endpoint = "10.77.1.2:49152";
    motion.token = "secret";
    motion.session_to = SessionId("s-host2");
    store.put(record::key::kMotions + motion.vm.text, record::encode(motion));
    return motion;
  }
  // The source's commit.
  void commit_motion(record::MotionRecord motion) {
    const auto owner = read<record::OwnerRecord>(store, record::key::kOwners + motion.vm.text);
    store.put(owner->key, record::encode(motion::committed_owner(motion, owner->record)));
    motion.phase = record::MotionRecord::Phase::committed;
    store.put(record::key::kMotions + motion.vm.text, record::encode(motion));
  }
  void stop_vm(const std::string& name) {
    finish(operations.stop_vm(name, 0, {"tester", {}}));
    set_owner(name, "host1", record::OwnerRecord::Phase::released);
  }
};

}  // namespace hf::api
