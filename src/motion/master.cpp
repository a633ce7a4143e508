#include "motion/master.hpp"

#include <pthread.h>

#include "base/log.hpp"

namespace hf::motion {
namespace {
constexpr Duration kReportLimit = 2s;
}  // namespace

Error as_error(const Word& word) {
  if (word.kind == Word::Kind::abort) return {Code::failed, word.why};
  return {Code::unavailable, "holdfastd is gone: " + word.why};
}

Master::Master(process::UniqueFd socket) : socket_(std::move(socket)) {
  reader_ = std::thread([this] { read_all(); });
}

Master::~Master() {
  socket_.shut_down();
  reader_.join();
}

void Master::read_all() {
  ::pthread_setname_np(::pthread_self(), "hf-orders");
  for (;;) {
    const auto line = socket_.read(kLineMax);
    if (!line) return take({Word::Kind::gone, line.error().what, 0});
    if (!*line) return take({Word::Kind::gone, "it closed the connection.", 0});
    auto order = decode_order(**line);
    if (!order) {
      // Not one of ours: as if nobody spoke.
      log(Level::error, "an order cannot be read", {{"why", order.error().what}});
      return take({Word::Kind::gone, order.error().what, 0});
    }
    if (const auto* committed = std::get_if<Committed>(&*order)) {
      take({Word::Kind::committed, {}, committed->version});
    } else if (const auto* abort = std::get_if<Abort>(&*order)) {
      take({Word::Kind::abort, abort->why, 0});
    } else {
      const std::scoped_lock lock(mutex_);
      if (first_) log(Level::error, "a second first order is not obeyed");
      if (!first_) first_ = std::move(*order);
      changed_.notify_all();
    }
  }
}

// safety: the first word counts; what comes later, the end of the connection above all, changes nothing.
void Master::take(Word word) {
  std::function<void(const Error&)> on_stop;
  {
    const std::scoped_lock lock(mutex_);
    if (word_) return;
    word_ = word;
    if (word.kind != Word::Kind::committed) on_stop = on_stop_;
    changed_.notify_all();
  }
  if (on_stop) on_stop(as_error(word));
}

Result<Order> Master::first_order() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return first_ || word_; });
  if (!first_) return Error{Code::unavailable, "holdfastd said nothing."};
  return *first_;
}

void Master::watch(std::function<void(const Error&)> on_stop) {
  std::optional<Word> word;
  {
    const std::scoped_lock lock(mutex_);
    on_stop_ = on_stop;
    word = word_;
  }
  if (word && word->kind != Word::Kind::committed) on_stop(as_error(*word));
}

Status Master::report(const Report& report) { return socket_.write(encode(report), kReportLimit); }

std::optional<Word> Master::word() {
  const std::scoped_lock lock(mutex_);
  return word_;
}

Word Master::wait_for_word() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return word_.has_value(); });
  return *word_;
}

}  // namespace hf::motion
