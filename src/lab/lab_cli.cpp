#include "lab/lab_cli.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <thread>

#include "lab/cluster_setup.hpp"
#include "lab/files.hpp"
#include "lab/guest_image.hpp"
#include "lab/host_init.hpp"
#include "lab/lab.hpp"
#include "lab/ledger_check.hpp"
#include "lab/relay.hpp"

namespace hf::lab {
namespace {

std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

void catch_interrupts() {
  struct sigaction action{};
  action.sa_handler = [](int) { g_interrupted = true; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

// All that the commands' options are parsed into; lives as long as the app's callbacks.
struct Words {
  std::string base{kDefaultBase};
  std::string name = "lab";
  int hosts = 3;
  int datastores = 2;
  bool stand_in = false;
  std::string programs;
  std::vector<std::string> qemus;  // "host2=/path"
  std::uint64_t memory_mib = 2048;
  std::string output = "table";
  std::string host = "all";
  std::string fault;
  double seconds = 0;
  std::vector<std::string> rest;
  std::vector<int> listeners;
  std::string image;
};

int say(const Status& status) {
  if (status) return 0;
  fmt::print(stderr, "{}\n", status.error().what);
  return info(status.code()).exit_status;
}

void show(const LabState& lab, const std::string& output) {
  const std::string text = output == "json" ? to_json(lab) : to_table(lab);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string own_folder() { return std::filesystem::canonical("/proc/self/exe").parent_path().string(); }

// Runs this program's hidden `lab seed` on the first host: only there can the store be reached.
Status seed(const LabState& lab, const Progress& progress) {
  progress("cluster");
  auto status = exec(lab, host_name(1),
                     {std::filesystem::canonical("/proc/self/exe").string(), "lab", "seed", "--base", lab.layout.base,
                      "--name", lab.layout.name, "--host", host_name(1)});
  if (status.ok() && *status == 0) return {};
  const Status removed = down(lab.layout.base, lab.layout.name);
  if (!removed.ok()) fmt::print(stderr, "{}\n", removed.error().what);
  return status.ok() ? Error{Code::failed, "The lab's cluster could not be made; the lab is removed again."}
                     : status.error();
}

// "host2=/path" of each.
Result<std::map<std::string, std::string>> qemus_by_host(const std::vector<std::string>& words, int hosts) {
  LabConfig lab;
  lab.hosts = hosts;
  std::map<std::string, std::string> found;
  for (const auto& word : words) {
    const auto equals = word.find('=');
    const std::string host = word.substr(0, equals);
    if (equals == std::string::npos || host_index(lab, host) == 0) {
      return Error{Code::invalid, "Say whose QEMU it is: --qemu host2=/path/of/qemu-system-x86_64."};
    }
    found[host] = word.substr(equals + 1);
  }
  return found;
}

Status do_up(const Words& words) {
  LabOptions options;
  options.base = words.base;
  options.config.name = words.name;
  options.config.hosts = words.hosts;
  options.config.services = words.stand_in ? ServiceSet::stand_in : ServiceSet::product;
  options.config.datastores.clear();
  for (int number = 1; number <= words.datastores; ++number) {
    options.config.datastores.push_back(fmt::format("shared{}", number));
  }
  options.program_dir = words.programs.empty() ? own_folder() : words.programs;
  if (!words.stand_in) {
    HostFileOptions files;
    files.program_dir = options.program_dir;
    if (const char* qemu = std::getenv("HOLDFAST_QEMU"); qemu != nullptr && *qemu != 0) files.qemu = qemu;
    TRY_ASSIGN(files.qemu_of, qemus_by_host(words.qemus, words.hosts));
    files.memory_mib = words.memory_mib;
    options.prepare = [files](const Layout& layout, const LabConfig& config) {
      return write_host_files(layout, config, files);
    };
  }
  options.interrupted = &g_interrupted;
  catch_interrupts();
  const auto begin = std::chrono::steady_clock::now();
  const Progress progress = [&words](const std::string& what) {
    if (words.output != "json") fmt::print(stderr, "lab: {}\n", what);
  };
  TRY_ASSIGN(LabState lab, up(options, progress));
  const bool was_there = lab.was_there;
  if (!was_there && !words.stand_in) {
    TRY(seed(lab, progress));
    TRY_ASSIGN(lab, list(words.base, words.name));  // as it is now that the hosts run
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (words.output != "json") {
    fmt::print(stderr, "{}",
               was_there
                   ? fmt::format("The lab \"{}\" is there already.\n", words.name)
                   : fmt::format("The lab \"{}\" is up after {:.1f} s.\n", words.name, took.count()));
  }
  show(lab, words.output);
  return {};
}

// True when the time has passed, false when the user wants to go.
bool count_down(double seconds) {
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    const std::chrono::duration<double> left = end - std::chrono::steady_clock::now();
    if (g_interrupted.load()) return false;
    if (left.count() <= 0) break;
    if (terminal) fmt::print(stderr, "\rhealing in {:.0f} s ", left.count() + 0.5);
    std::this_thread::sleep_for(std::min(left, std::chrono::duration<double>(0.2)));
  }
  if (terminal) fmt::print(stderr, "\r                      \r");
  return true;
}

Status do_fault(const Words& words) {
  TRY_ASSIGN(const Fault fault, parse_fault(words.fault));
  TRY_ASSIGN(const LabState lab, list(words.base, words.name));
  TRY_ASSIGN(const std::vector<std::string> hosts, hosts_named(lab.config, words.host));
  catch_interrupts();
  for (const auto& host : hosts) TRY(inflict(lab, host, fault));
  fmt::print("{}: {}\n", words.host, words.fault);
  std::fflush(stdout);
  if (words.seconds <= 0) return {};
  if (!count_down(words.seconds)) {
    fmt::print(stderr, "\nThe fault stays. Heal it with `holdfast lab heal {}`.\n", words.host);
    return {};
  }
  for (const auto& host : hosts) TRY(heal(lab, host));
  fmt::print("{}: healed\n", words.host);
  return {};
}

Status do_heal(const Words& words) {
  TRY_ASSIGN(const LabState lab, list(words.base, words.name));
  TRY_ASSIGN(const std::vector<std::string> hosts, hosts_named(lab.config, words.host));
  for (const auto& host : hosts) TRY(heal(lab, host));
  fmt::print("{}: healed\n", words.host);
  return {};
}

Status do_ls(const Words& words) {
  TRY_ASSIGN(const LabState lab, list(words.base, words.name));
  show(lab, words.output);
  return {};
}

Status do_exec(const Words& words, int& exit_status) {
  TRY_ASSIGN(const LabState lab, list(words.base, words.name));
  if (words.rest.empty())
    return Error{Code::invalid, "Say what to run: `holdfast lab exec host1 -- ip addr`."};
  TRY_ASSIGN(exit_status, exec(lab, words.host, words.rest));
  return {};
}

Status do_guest(const Words& words) {
  TRY_ASSIGN(const GuestImage image, guest_image(words.base + "/guest", [](const std::string& what) {
               fmt::print(stderr, "guest image: {}\n", what);
             }));
  if (words.output == "json") {
    fmt::print("{{\"kernel\": \"{}\", \"initrd\": \"{}\", \"cmdline\": \"{}\"}}\n", image.kernel,
               image.initrd, image.cmdline);
  } else {
    fmt::print("{}\n{}\n{}\n", image.kernel, image.initrd, image.cmdline);
  }
  return {};
}

Status do_ledger_check(const Words& words) {
  TRY_ASSIGN(const LedgerReport report, check_ledger(words.image));
  for (const auto& problem : report.problems) fmt::print("{}\n", problem);
  fmt::print("incarnation={} records={} last_sequence={} problems={}\n", report.incarnation, report.records,
             report.last_sequence, report.problems.size());
  if (report.problems.empty()) return {};
  return Error{Code::corrupt, "The ledger is broken: somebody wrote to the disk who had lost the right to."};
}

using Work = std::function<Status(const Words&)>;

CLI::App* add(CLI::App& lab, const std::shared_ptr<Words>& words, int& exit_status, const std::string& name,
              const std::string& help, const Work& work) {
  CLI::App* command = lab.add_subcommand(name, help);
  command->add_option("--name", words->name, "The lab, where there is more than one")->capture_default_str();
  command->add_option("--base", words->base, "Folder of the labs")->capture_default_str();
  command->callback([words, work, &exit_status] {
    const int said = say(work(*words));
    if (said != 0) exit_status = said;
  });
  return command;
}

void add_output(CLI::App* command, const std::shared_ptr<Words>& words) {
  command->add_option("-o,--output", words->output, "table or json")->check(CLI::IsMember({"table", "json"}));
}

void add_hidden(CLI::App& lab, const std::shared_ptr<Words>& words, int& exit_status) {
  auto* init = add(lab, words, exit_status, "init", "", [](const Words& w) -> Status {
    TRY_ASSIGN(const Layout layout, layout_of(w.base, w.name));
    return run_host_init(layout, w.host);
  });
  init->add_option("--host", words->host)->required();
  init->group("");
  auto* seed_command = add(lab, words, exit_status, "seed", "", [](const Words& w) -> Status {
    TRY_ASSIGN(const Layout layout, layout_of(w.base, w.name));
    TRY_ASSIGN(const std::string text, process::read_small_file(layout.config_file()));
    TRY_ASSIGN(const LabConfig config, config_from_json(text));
    return seed_cluster(layout, config, w.host);
  });
  seed_command->add_option("--host", words->host)->required();
  seed_command->group("");
  auto* relay = add(lab, words, exit_status, "relay", "", [](const Words& w) -> Status {
    TRY_ASSIGN(const Layout layout, layout_of(w.base, w.name));
    return run_relay(layout, w.listeners);
  });
  relay->add_option("listeners", words->listeners)->required();
  relay->group("");
}

}  // namespace

void add_lab_commands(CLI::App& app, int& exit_status) {
  auto words = std::make_shared<Words>();
  CLI::App* lab = app.add_subcommand("lab", "A cluster on this machine, to try and to break");
  lab->require_subcommand(1);

  auto* up_command = add(*lab, words, exit_status, "up", "Make the lab; if it is there, show it", do_up);
  up_command->add_option("--hosts", words->hosts, "How many")
      ->check(CLI::Range(1, kHostsMax))
      ->capture_default_str();
  up_command->add_option("--datastores", words->datastores, "Shared ones")
      ->check(CLI::Range(0, 8))
      ->capture_default_str();
  up_command->add_option("--memory", words->memory_mib, "MiB of each host, for VMs")->capture_default_str();
  up_command->add_option("--programs", words->programs, "Folder of holdfastd and holdfast-guard");
  up_command->add_option("--qemu", words->qemus,
                         "HOST=PATH: this host's QEMU (else $HOLDFAST_QEMU, or the installed one)");
  up_command->add_flag("--stand-in", words->stand_in)->group("");
  add_output(up_command, words);
  add(*lab, words, exit_status, "down", "Remove the lab with all its VMs and data",
      [](const Words& w) { return down(w.base, w.name); });
  add_output(add(*lab, words, exit_status, "ls", "Hosts, their state and services", do_ls), words);

  auto* fault = add(*lab, words, exit_status, "fault", "Do to hosts what the world does", do_fault);
  fault->add_option("HOST", words->host, "host2, or host1,host3, or all")->required();
  fault
      ->add_option("FAULT", words->fault,
                   "power, hang, net[=NETWORK], storage[=DATASTORE[:apd|pdl]], link=NETWORK:rate=10mbit, "
                   "process=NAME[:stop]")
      ->required();
  fault->add_option("--for", words->seconds, "Heal after this time")
      ->transform(CLI::AsNumberWithUnit(
          std::map<std::string, double>{{"ms", 0.001}, {"s", 1}, {"m", 60}, {"min", 60}}));
  auto* heal_command =
      add(*lab, words, exit_status, "heal", "Undo every fault; switch on what is off", do_heal);
  heal_command->add_option("HOST", words->host, "host2, or host1,host3, or all")->capture_default_str();

  auto* exec_command = add(*lab, words, exit_status, "exec", "Run a command on a host",
                           [&exit_status](const Words& w) { return do_exec(w, exit_status); });
  exec_command->add_option("HOST", words->host, "A host, or net: the lab's own network")->required();
  exec_command->add_option("COMMAND", words->rest, "After --");
  add_output(add(*lab, words, exit_status, "guest", "The test guest's kernel and initrd; builds them first",
                 do_guest),
             words);
  auto* ledger = add(*lab, words, exit_status, "ledger-check", "Check a test guest's disk for stale writes",
                     do_ledger_check);
  ledger->add_option("IMAGE", words->image, "raw or qcow2, of a guest that is off")->required();
  add_hidden(*lab, words, exit_status);
}

}  // namespace hf::lab
