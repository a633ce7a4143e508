#pragma once
// Actor: a process of a simulated host (daemon or guard): it lives, stands still or is dead. What is posted
// to it while it stands still is handled, in order, when it moves again; what was posted to an earlier life
// is lost.
#include <deque>
#include <utility>

#include "sim/queue.hpp"

namespace hf::sim {

class Actor {
 public:
  bool alive() const { return alive_; }
  int life() const { return life_; }
  // Gets CPU time; it may still be busy with a deed of its own.
  bool moves() const { return alive_ && !paused_ && !hung_; }

  void start() {
    ++life_;
    alive_ = true;
    paused_ = busy_ = false;
  }
  void die() {
    ++life_;
    alive_ = false;
    inbox_.clear();
  }
  void set_paused(bool paused) { set(paused_, paused); }
  void set_hung(bool hung) { set(hung_, hung); }
  void set_busy(bool busy) { set(busy_, busy); }

  void post(int life, Deed deed) {
    if (!alive_ || life != life_) return;
    if (ready() && inbox_.empty())
      deed();
    else
      inbox_.push_back(std::move(deed));
  }

 private:
  bool ready() const { return moves() && !busy_; }
  void set(bool& flag, bool value) {
    flag = value;
    while (ready() && !inbox_.empty()) {
      const Deed deed = std::move(inbox_.front());
      inbox_.pop_front();
      deed();
    }
  }

  bool alive_ = false, paused_ = false, hung_ = false, busy_ = false;
  int life_ = 0;
  std::deque<Deed> inbox_;
};

}  // namespace hf::sim
