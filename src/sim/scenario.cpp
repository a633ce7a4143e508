#include "sim/scenario.hpp"

#include <charconv>
#include <functional>
#include <map>
#include <sstream>

#include "sim/nemesis.hpp"
#include "sim/user.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {

using Words = std::vector<std::string>;

struct VmLine {
  std::string name;
  std::uint64_t memory_mib = 0;
  vm::RestartPriority priority = vm::RestartPriority::medium;
};

struct Cluster {
  Params params;
  std::vector<VmLine> vms;
};

struct Command {
  Time at{};
  Words words;
};

Words split(const std::string& line) {
  std::istringstream stream(line.substr(0, line.find('#')));
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

template <class Number>
bool parse_number(const std::string& text, Number& value) {
  const auto end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc{} && result.ptr == end;
}

// "12s", "12.5s"
bool parse_time(const std::string& text, Time& time) {
  double seconds = 0;
  if (text.size() < 2 || text.back() != 's' || !parse_number(text.substr(0, text.size() - 1), seconds))
    return false;
  time = Duration(static_cast<std::int64_t>(seconds * 1e9));
  return true;
}

bool parse_priority(const std::string& text, vm::RestartPriority& priority) {
  static const std::map<std::string, vm::RestartPriority> kNames = {
      {"highest", vm::RestartPriority::highest}, {"high", vm::RestartPriority::high},
      {"medium", vm::RestartPriority::medium},   {"low", vm::RestartPriority::low},
      {"lowest", vm::RestartPriority::lowest},   {"disabled", vm::RestartPriority::disabled}};
  auto found = kNames.find(text);
  if (found == kNames.end()) return false;
  priority = found->second;
  return true;
}

bool parse_cluster_line(const Words& words, Cluster& cluster) {
  Params& p = cluster.params;
  if (words.at(0) == "vm") {
    VmLine vm;
    if (words.size() != 4) return false;
    vm.name = words[1];
    cluster.vms.push_back(vm);
    return parse_number(words[2], cluster.vms.back().memory_mib) &&
           parse_priority(words[3], cluster.vms.back().priority);
  }
  if (words.size() != 2) return false;
  if (words[0] == "hosts") return parse_number(words[1], p.hosts) && p.hosts > 0;
  if (words[0] == "slots") return parse_number(words[1], p.slots) && p.slots >= 0;
  if (words[0] == "memory") return parse_number(words[1], p.host_memory_mib);
  if (words[0] == "store") {
    p.store_external = words[1] == "external";
    return p.store_external || words[1] == "inner";
  }
  return false;
}

Error wrong(const std::string& file, int line, const std::string& text) {
  return Error{Code::invalid,
               fmt::format("{}:{}: \"{}\" is not understood; see doc/simulator.md.", file, line, text)};
}

Result<Cluster> parse_cluster(const std::string& text) {
  Cluster cluster;
  cluster.params.seed = 1;
  cluster.params.store_external = true;
  std::istringstream stream(text);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    const Words words = split(line);
    if (!words.empty() && !parse_cluster_line(words, cluster)) return wrong("cluster", number, line);
  }
  return cluster;
}

// Carries out one command of a scenario. False: not understood.
class Director {
 public:
  explicit Director(World& world) : w_(world), nemesis_(world), user_(world) {}
  User& user() { return user_; }

  bool carry_out(const Words& words) {
    if (words == Words{"heal", "all"}) return back_to_normal();
    if (words.size() != 3) return false;
    const std::string &subject = words[0], &name = words[1], &verb = words[2];
    if (subject == "migrate") return migrate(VmId(name), verb);
    if (subject == "store" && name == "replies") return replies(verb);
    if (subject == "vm") return vm(VmId(name), verb);
    if (subject == "store" && name == "quorum") return toggled(verb, "lost", "back", w_.service.minority);
    if (subject == "store" && name == "leader" && verb == "lost") return w_.service.elect_again(), true;
    if (subject == "contact" && name == "all") {
      for (int index = 0; index < w_.params.hosts; ++index) {
        if (!contact(index, verb)) return false;
      }
      return true;
    }
    const int index = w_.host_index(HostId(name));
    if (subject == "maintenance" && index >= 0) return maintenance(HostId(name), verb);
    return index >= 0 && host(subject, index, verb);
  }

 private:
  bool host(const std::string& subject, int index, const std::string& verb) {
    Host& host = w_.host(index);
    const bool on = verb == "on";
    if (subject == "power" && (on || verb == "off")) return on ? host.power_on() : host.power_off(), true;
    if (subject == "machine" && verb == "hang") return host.hang(), true;
    if (subject == "machine" && verb == "wake") return host.wake(), true;
    if (subject == "daemon" && verb == "kill") return host.crash_daemon(), true;
    if (subject == "daemon" && verb == "start") return host.start_daemon(), true;
    if (subject == "guard" && verb == "kill") return host.crash_guard(), true;
    if (subject == "guard" && verb == "start") return host.start_guard(), true;
    if (subject == "store") return toggled(verb, "cut", "back", host.store_cut);
    if (subject == "slots") return slots(index, verb);
    if (subject == "network") return network(index, verb);
    return subject == "contact" && contact(index, verb);
  }

  static bool toggled(const std::string& verb, const std::string& more, const std::string& less, int& count) {
    if (verb == more)
      ++count;
    else if (verb == less)
      --count;
    else
      return false;
    return true;
  }

  bool slots(int index, const std::string& verb) {
    int by = 0;
    if (!toggled(verb, "cut", "back", by)) return false;
    for (int disk = 0; disk < w_.disks.count(); ++disk) w_.disks.stall(index, disk, by);
    return true;
  }

  bool network(int index, const std::string& verb) {
    int by = 0;
    if (!toggled(verb, "cut", "back", by)) return false;
    for (int other = 0; other < w_.params.hosts; ++other) {
      if (other == index) continue;
      w_.network.cut(index, other, by);
      w_.network.cut(other, index, by);
    }
    return true;
  }

  bool contact(int index, const std::string& verb) {
    return toggled(verb, "cut", "back", w_.host(index).store_cut) && slots(index, verb) &&
           network(index, verb);
  }

  bool vm(const VmId& vm, const std::string& verb) {
    static const std::map<std::string, record::TaskKind> kTasks = {{"start", record::TaskKind::vm_start},
                                                                   {"stop", record::TaskKind::vm_stop},
                                                                   {"kill", record::TaskKind::vm_kill},
                                                                   {"reset", record::TaskKind::vm_reset}};
    if (auto task = kTasks.find(verb); task != kTasks.end()) return user_.command(vm, task->second), true;
    if (verb != "crashes" && verb != "shuts-down") return false;
    for (int index = 0; index < w_.params.hosts; ++index) {
      if (w_.host(index).processes().count(vm) == 0) continue;
      const bool crash = verb == "crashes";
      w_.host(index).end_process(vm, crash ? ha::ExitKind::qemu_crash : ha::ExitKind::guest_shutdown,
                                 crash ? "segmentation fault" : "shut down by its guest");
    }
    return true;
  }

  bool migrate(const VmId& vm, const std::string& where) {
    if (where == "cancel") return user_.cancel(vm), true;
    if (where != "anywhere" && w_.host_index(HostId(where)) < 0) return false;
    return user_.migrate(vm, where == "anywhere" ? HostId() : HostId(where)), true;
  }

  bool maintenance(const HostId& host, const std::string& verb) {
    if (verb == "enter") return user_.enter_maintenance(host), true;
    return verb == "leave" && (user_.leave_maintenance(host), true);
  }

  bool replies(const std::string& verb) {
    int lost = 0;
    if (!toggled(verb, "lost", "back", lost)) return false;
    w_.faulty.reply_loss = lost > 0 ? 100 : 0;
    return true;
  }

  bool back_to_normal() {
    nemesis_.heal();
    return true;
  }

  World& w_;
  Nemesis nemesis_;
  User user_;
};

Result<std::vector<Command>> parse_commands(const std::string& text) {
  std::vector<Command> commands;
  std::istringstream stream(text);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    Words words = split(line);
    if (words.empty()) continue;
    Command command;
    if (words.size() < 2 || !parse_time(words[0], command.at)) return wrong("commands", number, line);
    if (!commands.empty() && command.at < commands.back().at) return wrong("commands", number, line);
    command.words.assign(words.begin() + 1, words.end());
    commands.push_back(std::move(command));
  }
  if (commands.empty() || commands.back().words != Words{"end"}) {
    return Error{Code::invalid, "The last line of commands must be \"<time>s end\"."};
  }
  return commands;
}

std::string joined(const Words& words) {
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

}  // namespace

Result<std::vector<std::string>> run_scenario(const std::string& cluster_text,
                                              const std::string& commands_text) {
  TRY_ASSIGN(const auto cluster, parse_cluster(cluster_text));
  TRY_ASSIGN(const auto commands, parse_commands(commands_text));
  World w(cluster.params, ha::KeptBug::none, true);
  Director director(w);
  w.start();
  for (const auto& vm : cluster.vms) {
    director.user().create(vm.name, vm.memory_mib, vm.priority);
  }
  for (const auto& command : commands) {
    w.run_until(command.at);
    if (w.checker.violation() || command.words == Words{"end"}) break;
    w.trace([&] { return ">>> " + joined(command.words); });
    if (!director.carry_out(command.words)) {
      return Error{Code::invalid, fmt::format("commands: \"{}\" is not understood; see doc/simulator.md.",
                                              joined(command.words))};
    }
  }
  auto lines = w.lines();
  if (const auto& violation = w.checker.violation()) {
    lines.push_back(fmt::format("VIOLATION of {}: {}", violation->invariant, violation->what));
  } else {
    const std::string why = w.checker.unsettled();
    lines.push_back(why.empty() ? "end: everything is as it is wanted" : "end: " + why);
  }
  return lines;
}

}  // namespace hf::sim
