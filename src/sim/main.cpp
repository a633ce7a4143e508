// holdfast-sim: runs the whole cluster in simulation, from seeds or as a scenario. doc/simulator.md is the
// page for readers. Exit status: 0 clean, 1 an invariant is broken (or a scenario differs), 2 usage.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sim/run.hpp"
#include "sim/scenario.hpp"

namespace {
using namespace hf;

constexpr std::size_t kLinesShown = 60;

constexpr const char* kUsage =
    "Usage: holdfast-sim --seed N [--bug NAME] [--trace]\n"
    "       holdfast-sim --seeds N [--first N] [--jobs N] [--bug NAME]\n"
    "       holdfast-sim --scenario DIR [--rewrite]\n"
    "       holdfast-sim --list-bugs\n";

struct Options {
  std::uint64_t first = 1, seeds = 1;
  unsigned jobs = 1;
  ha::KeptBug bug = ha::KeptBug::none;
  std::string bug_name, scenario;
  bool trace = false, rewrite = false, list_bugs = false;
};

bool number(const std::string& text, std::uint64_t& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc{} && result.ptr == text.data() + text.size();
}

bool named_bug(const std::string& name, ha::KeptBug& bug) {
  for (const auto& [known, value] : sim::kept_bugs()) {
    if (known == name) {
      bug = value;
      return true;
    }
  }
  return false;
}

bool parse(const std::vector<std::string>& words, Options& options) {
  for (std::size_t at = 0; at < words.size(); ++at) {
    const std::string& word = words[at];
    if (word == "--trace")
      options.trace = true;
    else if (word == "--rewrite")
      options.rewrite = true;
    else if (word == "--list-bugs")
      options.list_bugs = true;
    else {
      if (at + 1 == words.size()) return false;
      const std::string& value = words[++at];
      std::uint64_t jobs = 0;
      bool good = true;
      if (word == "--seed" || word == "--first")
        good = number(value, options.first);
      else if (word == "--seeds")
        good = number(value, options.seeds) && options.seeds > 0;
      else if (word == "--jobs")
        good = number(value, jobs) && jobs > 0 && jobs <= 256;
      else if (word == "--bug")
        good = named_bug(options.bug_name = value, options.bug);
      else if (word == "--scenario")
        options.scenario = value;
      else
        good = false;
      if (!good) return false;
      if (jobs > 0) options.jobs = static_cast<unsigned>(jobs);
    }
  }
  return !words.empty();
}

void show_violation(std::uint64_t seed, const Options& options) {
  const auto result = sim::run_seed(seed, options.bug, true);
  const std::size_t from = result.lines.size() > kLinesShown ? result.lines.size() - kLinesShown : 0;
  for (std::size_t at = from; at < result.lines.size(); ++at) fmt::print("{}\n", result.lines[at]);
  if (!result.violation) {
    fmt::print("Seed {} does not do the same twice.\n", seed);
    return;
  }
  fmt::print("VIOLATION of {} at {:.3f} s: {}\nreproduce: holdfast-sim --seed {}{} --trace\n",
             result.violation->invariant, std::chrono::duration<double>(result.violation->at).count(),
             result.violation->what, seed, options.bug_name.empty() ? "" : " --bug " + options.bug_name);
}

int run_one(const Options& options) {
  const auto result = sim::run_seed(options.first, options.bug, options.trace);
  for (const auto& line : result.lines) fmt::print("{}\n", line);
  if (result.violation) {
    Options quiet = options;
    show_violation(options.first, quiet);
    return 1;
  }
  fmt::print("seed {}: clean, {} events, {:.0f} s of virtual time, hash {:016x}\n", options.first,
             result.events, std::chrono::duration<double>(result.lasted).count(), result.hash);
  return 0;
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

int run_scenario(const Options& options) {
  const auto cluster = read_file(options.scenario + "/cluster"),
             commands = read_file(options.scenario + "/commands");
  if (!cluster || !commands) {
    fmt::print(stderr, "{} has no readable files cluster and commands.\n", options.scenario);
    return 2;
  }
  const auto lines = sim::run_scenario(*cluster, *commands);
  if (!lines.ok()) {
    fmt::print(stderr, "{}\n", lines.error().what);
    return 2;
  }
  std::string log;
  for (const auto& line : *lines) log += line + "\n";
  const std::string path = options.scenario + "/expect";
  if (options.rewrite) std::ofstream(path) << log;
  const bool violated = lines->back().compare(0, 9, "VIOLATION") == 0;
  if (read_file(path) == log && !violated) return 0;
  fmt::print("{}The log of {} is not what {} says; read it, then accept it with --rewrite.\n", log,
             options.scenario, path);
  return 1;
}

struct Tally {
  std::atomic<std::uint64_t> next{0}, done{0}, events{0}, takeovers{0}, freezes{0}, moves{0}, virtual_seconds{0};
  std::atomic<std::uint64_t> violated{UINT64_MAX};  // the lowest seed
};

void work(const Options& options, Tally& tally) {
  for (;;) {
    const std::uint64_t seed = options.first + tally.next++;
    if (seed >= options.first + options.seeds || tally.violated < seed) return;
    const auto result = sim::run_seed(seed, options.bug, false);
    ++tally.done;
    tally.events += result.events;
    tally.takeovers += result.counts.takeovers;
    tally.freezes += result.counts.freezes;
    tally.moves += result.counts.moves;
    tally.virtual_seconds += static_cast<std::uint64_t>(result.lasted / std::chrono::seconds(1));
    std::uint64_t known = tally.violated;
    while (result.violation && seed < known && !tally.violated.compare_exchange_weak(known, seed)) {
    }
  }
}

int run_many(const Options& options) {
  Tally tally;
  const auto began = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  std::vector<std::thread> threads;
  for (unsigned job = 0; job < options.jobs; ++job) threads.emplace_back([&] { work(options, tally); });
  const bool terminal = isatty(STDERR_FILENO) != 0;
  while (terminal && tally.done < options.seeds && tally.violated == UINT64_MAX) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    fmt::print(stderr, "\r{} of {} seeds, {:.0f} per second ", tally.done.load(), options.seeds,
               static_cast<double>(tally.done) / seconds());
  }
  for (auto& thread : threads) thread.join();
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (tally.violated != UINT64_MAX) show_violation(tally.violated, options);
  fmt::print("{} seeds, {:.0f} per second, {} events, {} s of virtual time, {} takeovers, {} freezes, {} moves: {}\n",
             tally.done.load(), static_cast<double>(tally.done) / seconds(), tally.events.load(),
             tally.virtual_seconds.load(), tally.takeovers.load(), tally.freezes.load(), tally.moves.load(),
             tally.violated == UINT64_MAX ? "clean" : "violated");
  return tally.violated == UINT64_MAX ? 0 : 1;
}
}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(std::vector<std::string>(argv + 1, argv + argc), options)) {
    fmt::print(stderr, "{}", kUsage);
    return 2;
  }
  if (options.list_bugs) {
    for (const auto& [name, bug] : sim::kept_bugs()) fmt::print("{}\n", name);
    return 0;
  }
  if (!options.scenario.empty()) return run_scenario(options);
  return options.seeds == 1 ? run_one(options) : run_many(options);
}
