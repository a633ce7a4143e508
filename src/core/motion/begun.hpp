#pragma once
// Begun: a planner's swaps that are in flight, or whose effect its view does not show yet, one a VM, and what each
// stands for, so that nothing is planned twice. Pure.
#include <functional>
#include <map>
#include <utility>

#include "core/ha/events.hpp"

namespace hf::motion {

template <class What>
class Begun {
 public:
  explicit Begun(std::function<ha::OpId()> make_op) : make_op_(std::move(make_op)) {}

  void send(const VmId& vm, What what, ha::TypedTxn txn, Instant now, ha::Actions& out) {
    const ha::OpId op = make_op_();
    ops_[op] = vm;
    begun_.insert_or_assign(vm, Entry{std::move(what), now + kPatience});
    out.emplace_back(ha::action::Commit{op, std::move(txn)});
  }
  // Drops those that `shown` (of a VM) says the view shows, and what is too old to land.
  template <class Shown>
  void forget(Instant now, const Shown& shown) {
    for (auto it = begun_.begin(); it != begun_.end();) {
      it = shown(it->first) || now >= it->second.until ? begun_.erase(it) : std::next(it);
    }
  }
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done) {
    auto found = ops_.find(done.op);
    if (found == ops_.end()) return false;
    // Unknown: patience, then the same again.
    if (done.outcome != ha::Outcome::unknown) begun_.erase(found->second);
    ops_.erase(found);
    return true;
  }
  bool has(const VmId& vm) const { return begun_.count(vm) != 0; }
  template <class Use>
  void for_each(const Use& use) const {
    for (const auto& [vm, entry] : begun_) use(entry.what);
  }

 private:
  static constexpr Duration kPatience = 5s;  // of an unknown outcome: it counts as long as it may still land
  struct Entry {
    What what;
    Instant until{};
  };
  const std::function<ha::OpId()> make_op_;
  std::map<ha::OpId, VmId> ops_;
  std::map<VmId, Entry> begun_;
};

}  // namespace hf::motion
