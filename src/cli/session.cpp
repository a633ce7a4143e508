#include "cli/session.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/motion_report.hpp"
#include "sys/pki/random.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);  // how long a task may be out of sight
constexpr auto kReportPatience = std::chrono::seconds(3);  // the source writes it after the destination's end
constexpr int kInterruptedStatus = 130;

volatile std::sig_atomic_t interrupted = 0;

// While it lives, Ctrl-C only sets the flag.
class InterruptFlag {
 public:
  InterruptFlag() {
    struct sigaction action{};
    action.sa_handler = [](int) { interrupted = 1; };
    ::sigaction(SIGINT, &action, &old_);
  }
  ~InterruptFlag() { ::sigaction(SIGINT, &old_, nullptr); }
  InterruptFlag(const InterruptFlag&) = delete;
  InterruptFlag& operator=(const InterruptFlag&) = delete;

 private:
  struct sigaction old_{};
};

Result<json> parsed(const Result<std::string>& text) {
  if (!text.ok()) return text.error();
  json j = json::parse(*text, nullptr, false);
  if (j.is_discarded()) return Error{Code::corrupt, "The host's answer is not JSON."};
  return j;
}

// One line that is written over; only on a terminal and only for what lasts.
class ProgressLine {
 public:
  explicit ProgressLine(const Terminal& terminal) : terminal_(terminal), begun_(SteadyClock::now()) {}
  ~ProgressLine() {
    if (shown_) std::fprintf(stderr, "\r\x1b[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void show(const std::string& text) {
    if (!terminal_.is_terminal || SteadyClock::now() - begun_ < std::chrono::seconds(1)) return;
    static constexpr const char* kWheel[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    std::string line = fmt::format("{} {}", kWheel[turn_++ % 10], printable(text));
    while (terminal_.width > 1 && columns_of(line) >= static_cast<std::size_t>(terminal_.width))
      line.pop_back();
    std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
    std::fflush(stderr);
    shown_ = true;
  }

 private:
  const Terminal& terminal_;
  const SteadyClock::time_point begun_;
  unsigned turn_ = 0;
  bool shown_ = false;
};

Session::Sight sight_of_task(const json& task) {
  const std::string state = field(task, "state");
  std::string line = field(task, "kind") + " " + field(task, "vm_name");
  if (const auto percent = task.value("progress", 0); percent > 0) line += fmt::format(" {} %", percent);
  if (!field(task, "message").empty()) line += ": " + field(task, "message");
  return {state == "succeeded" || state == "failed", line};
}
}  // namespace

std::string field(const json& object, const std::string& path) {
  const auto dot = path.find('.');
  const auto found = object.is_object() ? object.find(path.substr(0, dot)) : object.end();
  if (!object.is_object() || found == object.end() || found->is_null()) return "";
  if (dot != std::string::npos) return field(*found, path.substr(dot + 1));
  return found->is_string() ? found->get<std::string>() : found->dump();
}

Result<api::Client> Session::connect() {
  TRY_ASSIGN(Context context, load_context(where));
  return api::Client({std::move(context.endpoints), std::move(context.credentials), "", 15s});
}

Result<nlohmann::json> Session::get(const std::string& path) {
  if (!client_) {
    TRY_ASSIGN(api::Client made, connect());
    client_ = std::make_unique<api::Client>(std::move(made));
  }
  return parsed(client_->call("GET", path));
}

Result<nlohmann::json> Session::send(const std::string& method, const std::string& path,
                                     const nlohmann::json& body) {
  if (!client_) {
    TRY_ASSIGN(api::Client made, connect());
    client_ = std::make_unique<api::Client>(std::move(made));
  }
  const std::string text = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return parsed(client_->call(method, path, text, "t-" + pki::random_hex(6)));
}

void Session::fail(const Error& error) {
  status = info(error.code).exit_status;
  if (json()) {
    const nlohmann::json j{{"error", {{"code", info(error.code).name}, {"message", error.what}}}};
    std::fprintf(stderr, "%s\n", j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  Terminal errors = terminal;
  std::fprintf(stderr, "%s %s\n", paint(errors, Colour::red, "holdfast:").c_str(), error.what.c_str());
}

void Session::show(const Result<nlohmann::json>& answer,
                   const std::function<Table(const nlohmann::json&)>& table) {
  if (!answer.ok()) return fail(answer.error());
  const std::string text = json() ? answer->dump(2) + "\n" : render(table(*answer), terminal);
  std::fputs(text.c_str(), stdout);
}

void Session::show_pairs(
    const Result<nlohmann::json>& answer,
    const std::function<std::vector<std::pair<std::string, std::string>>(const nlohmann::json&)>& pairs) {
  if (!answer.ok()) return fail(answer.error());
  if (json()) {
    std::fputs((answer->dump(2) + "\n").c_str(), stdout);
    return;
  }
  print_pairs(pairs(*answer));
}

void Session::print_pairs(const std::vector<std::pair<std::string, std::string>>& lines) const {
  std::size_t width = 0;
  for (const auto& [name, value] : lines) width = std::max(width, columns_of(name));
  for (const auto& [name, value] : lines) {
    const std::string shown = value.empty() ? "-" : printable(value);
    const Colour colour = name == "State" ? colour_of_state(shown) : Colour::none;
    fmt::print("{}{}  {}\n", name, std::string(width - columns_of(name), ' '),
               paint(terminal, colour, shown));
  }
}

void Session::say_end(const nlohmann::json& task) {
  if (json()) fmt::print("{}\n", task.dump(2));
  const std::string kind = field(task, "kind");
  if (field(task, "state") == "failed") {
    const Error error{code_named(field(task, "error_code")), field(task, "message")};
    status = info(error.code).exit_status;
    if (!json())
      fmt::print(stderr, "holdfast: {} of VM {} failed: {}\n", kind, field(task, "vm_name"), error.what);
    return;
  }
  static const std::vector<std::pair<std::string, std::string>> kDone = {
      {"vm.create", "created"},       {"vm.start", "started"}, {"vm.stop", "stopped"},
      {"vm.kill", "stopped at once"}, {"vm.reset", "reset"},   {"vm.delete", "deleted"},
      {"vm.import", "imported"},      {"vm.resize", "resized"}, {"vm.migrate", "moved"}};
  for (const auto& [name, done] : kDone) {
    if (name == kind && !json()) fmt::print("VM {} was {}.\n", field(task, "vm_name"), done);
  }
  if (kind != "vm.migrate" || json()) return;
  if (has_motion_report(task)) return print_pairs(motion_report(task));
  fmt::print("What it took is not known yet: holdfast task show {}.\n", field(task, "id"));
}

nlohmann::json Session::with_report(nlohmann::json task) {
  const auto until = SteadyClock::now() + kReportPatience;
  while (!has_motion_report(task) && SteadyClock::now() < until && interrupted == 0) {
    ::poll(nullptr, 0, 100);
    auto next = get("/v1/tasks/" + field(task, "id"));
    if (next.ok()) task = std::move(*next);
  }
  return task;
}

std::optional<nlohmann::json> Session::watch(const nlohmann::json& first, const std::string& path,
                                             const std::function<Sight(const nlohmann::json&)>& look,
                                             const std::string& leaving) {
  const InterruptFlag flag;
  ProgressLine line(terminal);
  auto seen = SteadyClock::now();
  nlohmann::json present = first;
  int pause_ms = 20;
  for (Sight sight = look(present); !sight.over; sight = look(present)) {
    line.show(sight.line);
    if (interrupted == 0) ::poll(nullptr, 0, pause_ms);
    if (interrupted != 0) {
      fmt::print(stderr, "\n{}\n", leaving);
      status = kInterruptedStatus;
      return std::nullopt;
    }
    pause_ms = std::min(pause_ms * 2, 250);
    auto next = get(path);
    const bool patient =
        !next.ok() && next.code() == Code::unavailable && SteadyClock::now() - seen < kPatience;
    if (patient) continue;
    if (!next.ok()) {
      fail({Code::outcome_unknown, "It was accepted, but cannot be followed: " + next.error().what + " " + leaving});
      return std::nullopt;
    }
    seen = SteadyClock::now();
    present = std::move(*next);
  }
  return present;
}

void Session::follow(const Result<nlohmann::json>& accepted) {
  if (!accepted.ok()) return fail(accepted.error());
  const std::string id = field(*accepted, "id");
  if (no_wait) {
    fmt::print("{}\n", json() ? accepted->dump(2) : id);
    return;
  }
  const InterruptFlag flag;
  std::string leaving = fmt::format("Task {} goes on. Watch it: holdfast task show {}.", id, id);
  if (field(*accepted, "kind") == "vm.migrate") leaving += fmt::format("\nCancel it: holdfast task cancel {}.", id);
  auto ended = watch(*accepted, "/v1/tasks/" + id, sight_of_task, leaving);
  if (!ended) return;
  nlohmann::json task = std::move(*ended);
  const bool moved = field(task, "kind") == "vm.migrate" && field(task, "state") == "succeeded";
  if (moved) task = with_report(std::move(task));
  say_end(task);
}

}  // namespace hf::cli
