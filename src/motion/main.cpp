// holdfast-motion send|receive DESCRIPTOR: one side of a vMotion. Started by holdfastd, which gives it its orders over
// the inherited socket (messages.hpp).
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/log.hpp"
#include "motion/destination.hpp"
#include "motion/source.hpp"

namespace {

int fail(const hf::Error& error) {
  hf::log(hf::Level::error, error.what);
  return hf::info(error.code).exit_status;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view side = count == 3 ? arguments[1] : "";
  int descriptor = -1;
  const std::string_view number = count == 3 ? arguments[2] : "";
  const auto [end, problem] = std::from_chars(number.data(), number.data() + number.size(), descriptor);
  const bool understood = (side == "send" || side == "receive") && problem == std::errc() &&
                          end == number.data() + number.size() && descriptor > 2;
  if (!understood) {
    std::fputs("usage: holdfast-motion send|receive DESCRIPTOR\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  hf::motion::Master master{hf::process::UniqueFd(descriptor)};
  auto order = master.first_order();
  if (!order.ok()) return fail(order.error());
  if (auto* send = std::get_if<hf::motion::Send>(&*order); send != nullptr && side == "send") {
    return hf::motion::Source(master, std::move(*send)).run();
  }
  if (auto* receive = std::get_if<hf::motion::Receive>(&*order); receive != nullptr && side == "receive") {
    return hf::motion::Destination(master, std::move(*receive)).run();
  }
  return fail({hf::Code::invalid, "holdfastd's first order is for the other side of a motion."});
}
