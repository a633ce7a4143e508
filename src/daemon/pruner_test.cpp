// Goal: only what is old and ended goes.
// Method: a store in memory with more events and tasks than the limits.
#include "daemon/pruner.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "sim/memory_store.hpp"

namespace hf::daemon {
namespace {

namespace key = record::key;

void put(Store& store, const std::string& at, const std::string& value) {
  Txn txn;
  txn.writes.push_back({at, value, LeaseId{}, false});
  ASSERT_TRUE(store.commit(txn).ok());
}

TEST(Pruner, the_oldest_events_and_ended_tasks_go_and_a_task_under_way_stays) {
  sim::MemoryStore store;
  for (int i = 0; i < 250; ++i) put(store, fmt::format("{}{:016x}-host1", key::kEvents, i), "{}");
  for (int i = 0; i < 6; ++i) {
    record::TaskRecord task;
    task.id = TaskId(fmt::format("t-{}", i));
    task.created = 100 - i;  // t-5 is the oldest
    task.state = i == 5 ? record::TaskState::running : record::TaskState::failed;
    put(store, key::kTasks + task.id.text, record::encode(task));
  }
  ASSERT_TRUE(prune(store, 100, 2).ok());
  const auto events = store.list(key::kEvents);
  ASSERT_EQ(events->entries.size(), 100u);
  EXPECT_EQ(events->entries.front().key, fmt::format("{}{:016x}-host1", key::kEvents, 150));
  std::vector<std::string> left;
  const auto tasks = store.list(key::kTasks);
  for (const auto& entry : tasks->entries) left.push_back(entry.key);
  EXPECT_EQ(left, (std::vector<std::string>{"tasks/t-0", "tasks/t-1", "tasks/t-5"}));
}

}  // namespace
}  // namespace hf::daemon
