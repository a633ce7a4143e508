#include <sys/eventfd.h>

#include "base/ensure.hpp"
#include "engine/connection.hpp"

namespace hf::engine {

Failure::Failure() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ENSURE(static_cast<bool>(event_), "a motion needs one descriptor for its end");
}

void Failure::set(Error error) {
  const std::scoped_lock lock(mutex_);
  if (first_) return;
  first_ = std::move(error);
  ENSURE(::eventfd_write(event_.get(), 1) == 0, "an eventfd takes its first write");
}

bool Failure::is_set() const {
  const std::scoped_lock lock(mutex_);
  return first_.has_value();
}

Status Failure::status() const {
  const std::scoped_lock lock(mutex_);
  return first_ ? Status(*first_) : Status();
}

}  // namespace hf::engine
