#pragma once
// Master: holdfastd, as its motion process sees it: orders come, reports go. Its reader thread ("hf-orders") takes the
// word that ends the work at any time; the rest is for the thread that drives the motion.
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "motion/line_socket.hpp"
#include "motion/messages.hpp"

namespace hf::motion {

// What ends the work of a motion process.
struct Word {
  enum class Kind { committed, abort, gone };
  Kind kind = Kind::gone;
  std::string why;            // abort, gone
  std::uint64_t version = 0;  // committed
};
// REQUIRES: abort or gone
Error as_error(const Word& word);

class Master {
 public:
  explicit Master(process::UniqueFd socket);
  ~Master();

  // The first order. Code::unavailable: none came.
  Result<Order> first_order();
  // From now on `on_stop` is called, once, when abort or gone has come (also before). From the reader thread or in
  // here; it must be safe to call until this object ends.
  void watch(std::function<void(const Error&)> on_stop);
  // An error: holdfastd has not got the report, and never will.
  Status report(const Report& report);
  // The word, if it has come.
  std::optional<Word> word();
  Word wait_for_word();

 private:
  void read_all();
  void take(Word word);

  LineSocket socket_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Order> first_;
  std::optional<Word> word_;
  std::function<void(const Error&)> on_stop_;
  std::thread reader_;
};

}  // namespace hf::motion
