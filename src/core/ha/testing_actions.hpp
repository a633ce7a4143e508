#pragma once
// Words for stories about a HostCore (tests): what it wants done, looked up by type and by key.
#include <string>

#include "core/ha/events.hpp"

namespace hf::ha {

template <class T>
const T* find(const Actions& actions) {
  for (const auto& action : actions) {
    if (const auto* wanted = std::get_if<T>(&action)) return wanted;
  }
  return nullptr;
}

// The swap that writes that key.
inline const action::Commit* swap_of(const Actions& actions, const std::string& key) {
  for (const auto& action : actions) {
    const auto* commit = std::get_if<action::Commit>(&action);
    if (commit == nullptr) continue;
    for (const auto& write : commit->txn.writes) {
      if (write.key == key) return commit;
    }
  }
  return nullptr;
}

template <class Record>
const Record* written(const action::Commit& commit, const std::string& key) {
  for (const auto& write : commit.txn.writes) {
    if (write.key == key) return std::get_if<Record>(&write.value);
  }
  return nullptr;
}

}  // namespace hf::ha
