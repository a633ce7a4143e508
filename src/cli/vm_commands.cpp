#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "api/operations.hpp"
#include "cli/commands.hpp"
#include "sys/process/small_file.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

std::string vm_path(const std::string& name) { return "/v1/vms/" + api::escape(name); }

std::string state_of(const json& vm) {
  const std::string state = field(vm, "status.state");
  return state.empty() ? "stopped" : state;
}

std::string host_of(const json& vm) {
  return field(vm, "owner.phase") == "released" ? "" : field(vm, "owner.host");
}

// A move that is under way says more than what was last observed.
std::string message_of(const json& vm) {
  const std::string to = field(vm, "motion.to");
  return to.empty() ? field(vm, "status.message") : fmt::format("moving to {}, {} %", to, field(vm, "motion.progress"));
}

std::uint64_t number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

Table vm_table(const json& answer, bool wide) {
  Table table{{"NAME", "STATE", "HOST", "VCPUS", "MEMORY", "PRIORITY"}, {}, 1};
  if (wide) table.head.insert(table.head.end(), {"ID", "DESIRED", "EPOCH", "ACCELERATOR", "TASK"});
  table.head.push_back("MESSAGE");
  for (const auto& vm : answer.at("vms")) {
    std::vector<std::string> row = {field(vm, "name"),
                                    state_of(vm),
                                    host_of(vm),
                                    field(vm, "spec.vcpus"),
                                    size_text(number(vm.at("spec"), "memory_mib")),
                                    field(vm, "spec.ha.priority")};
    if (wide) {
      for (const char* name : {"id", "desired", "owner.epoch", "status.accelerator", "active_task"}) {
        row.push_back(field(vm, name));
      }
    }
    row.push_back(message_of(vm));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> vm_pairs(const json& vm) {
  std::vector<std::pair<std::string, std::string>> out = {
      {"Name", field(vm, "name")},
      {"Id", field(vm, "id")},
      {"Description", field(vm, "spec.description")},
      {"State", state_of(vm)},
      {"Message", message_of(vm)},
      {"Desired", field(vm, "desired")},
      {"Host", host_of(vm)},
      {"Owner", fmt::format("{} (epoch {}; {})",
                            field(vm, "owner.phase").empty() ? "nobody" : field(vm, "owner.phase"),
                            field(vm, "owner.epoch").empty() ? "0" : field(vm, "owner.epoch"),
                            field(vm, "owner.reason"))},
      {"Task", field(vm, "active_task")},
      {"VCPUs", field(vm, "spec.vcpus")},
      {"Memory", size_text(number(vm.at("spec"), "memory_mib"))},
      {"HA priority", field(vm, "spec.ha.priority")},
      {"Accelerator", field(vm, "status.accelerator")},
      {"Memory tracker", field(vm, "status.memory_tracker")}};
  for (const auto& disk : vm.at("spec").value("disks", json::array())) {
    const std::string datastore = field(disk, "datastore");
    out.emplace_back(
        "Disk " + field(disk, "name"),
        fmt::format("{} {} on {}", size_text(number(disk, "size_bytes") >> 20U), field(disk, "format"),
                    datastore.empty() ? field(vm, "spec.datastore") : datastore));
  }
  for (const auto& nic : vm.at("spec").value("nics", json::array())) {
    out.emplace_back("NIC " + field(nic, "network"),
                     fmt::format("{} {}", field(nic, "mac"), field(nic, "model")));
  }
  return out;
}

Result<std::string> read_input(const std::string& file) {
  if (file == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  return process::read_small_file(file);
}

// A spec file as a request body: TOML, or JSON if it is named so.
Result<json> spec_body(const std::string& file) {
  TRY_ASSIGN(const std::string text, read_input(file));
  if (!file.ends_with(".json"))
    return json{{"toml", text}, {"source", file == "-" ? "standard input" : file}};
  json spec = json::parse(text, nullptr, false);
  if (!spec.is_object()) return Error{Code::invalid, file + " is not a JSON object."};
  return json{{"spec", spec}};
}

void create(Session& session, const std::string& file, const std::string& on, bool start) {
  auto body = spec_body(file);
  if (!body.ok()) return session.fail(body.error());
  if (!on.empty()) (*body)["host"] = on;
  const auto accepted = session.send("POST", "/v1/vms", *body);
  session.follow(accepted);
  if (!start || session.status != 0) return;
  if (session.no_wait)
    return session.fail({Code::invalid, "The VM is created; it cannot be started with --no-wait yet."});
  session.follow(session.send("POST", vm_path(field(*accepted, "vm_name")) + "/start", json::object()));
}

void edit(Session& session, const std::string& name, const std::string& file) {
  json body;
  if (file.empty()) {
    const auto present = session.get(vm_path(name) + "/spec");
    if (!present.ok()) return session.fail(present.error());
    const std::string before = field(*present, "toml");
    const auto after = edit_text(before, name + ".toml");
    if (!after.ok()) return session.fail(after.error());
    if (*after == before) return fmt::print("Nothing was changed.\n");
    body = {{"toml", *after}, {"source", name + ".toml"}, {"generation", present->at("generation")}};
  } else {
    const auto read = spec_body(file);
    if (!read.ok()) return session.fail(read.error());
    body = *read;
  }
  const auto changed = session.send("PUT", vm_path(name), body);
  if (!changed.ok() && file.empty()) {
    // Nobody's typing is lost to a mistake in it.
    const std::string kept =
        fmt::format("{}/{}-{}.toml", std::filesystem::temp_directory_path().string(), name, ::getpid());
    if (process::replace_file(kept, field(body, "toml"), 0600).ok()) {
      fmt::print(stderr, "Your text is in {}: correct it there, then: holdfast vm edit {} --file {}\n", kept,
                 name, kept);
    }
  }
  if (!changed.ok()) return session.fail(changed.error());
  if (session.json())
    fmt::print("{}\n", changed->dump(2));
  else
    fmt::print("VM {} was changed; what needs a start takes effect at the next one.\n",
               field(*changed, "name"));
}

struct ImportOptions {
  std::string image, name, memory = "1 GiB", size, datastore, network, on, description;
  int vcpus = 1;
};

void import(Session& session, const ImportOptions& options) {
  std::error_code problem;  // the image may be on another host: then the path is taken as it is
  const auto absolute = std::filesystem::absolute(options.image, problem);
  const auto quoted = [](const std::string& text) {
    return json(text).dump();
  };  // TOML's basic strings are JSON's
  std::string toml =
      fmt::format("version = 1\nname = {}\nvcpus = {}\nmemory = {}\ndatastore = {}\n", quoted(options.name),
                  options.vcpus, quoted(options.memory), quoted(options.datastore));
  if (!options.description.empty()) toml += "description = " + quoted(options.description) + "\n";
  toml += fmt::format("[[disks]]\nname = \"root\"\nimport_from = {}\n",
                      quoted(problem ? options.image : absolute.string()));
  if (!options.size.empty()) toml += "size = " + quoted(options.size) + "\n";
  if (!options.network.empty()) toml += "[[nics]]\nnetwork = " + quoted(options.network) + "\n";
  json body{{"toml", toml}, {"source", "the options"}};
  if (!options.on.empty()) body["host"] = options.on;
  session.follow(session.send("POST", "/v1/vms", body));
}

void add_create(CLI::App& vm, Session& session) {
  auto* command = vm.add_subcommand("create", "Make a VM from a spec file (doc/vm-spec.md)");
  auto file = std::make_shared<std::string>();
  auto on = std::make_shared<std::string>();
  auto start = std::make_shared<bool>(false);
  command->add_option("FILE", *file, "Spec file in TOML, or JSON if named .json; - reads standard input")
      ->required();
  command->add_option("--on", *on, "Host that makes the disks");
  command->add_flag("--start", *start, "Start it when it is made");
  command->footer(examples({"holdfast vm create web.toml", "holdfast vm create web.toml --start"}));
  command->callback([&session, file, on, start] { create(session, *file, *on, *start); });
}

void add_life(CLI::App& vm, Session& session) {
  auto name = std::make_shared<std::string>();
  auto on = std::make_shared<std::string>();
  auto timeout = std::make_shared<int>(0);
  auto add = [&](const char* verb, const char* text, const std::vector<std::string>& lines, auto action) {
    auto* command = vm.add_subcommand(verb, text);
    command->add_option("VM", *name, "Name or id")->required();
    command->footer(examples(lines));
    command->callback([&session, name, action] { action(session, *name); });
    return command;
  };
  auto* start = add("start", "Start a VM; the leader chooses the host",
                    {"holdfast vm start web", "holdfast vm start web --on host2"},
                    [on](Session& s, const std::string& vm_name) {
                      s.follow(s.send("POST", vm_path(vm_name) + "/start",
                                      on->empty() ? json::object() : json{{"host", *on}}));
                    });
  start->add_option("--on", *on, "Run it on this host");
  auto* stop = add("stop", "Shut the guest down; end it by force after a time",
                   {"holdfast vm stop web", "holdfast vm stop web --timeout 10"},
                   [timeout](Session& s, const std::string& vm_name) {
                     s.follow(s.send("POST", vm_path(vm_name) + "/stop", {{"timeout_seconds", *timeout}}));
                   });
  stop->add_option("--timeout", *timeout, "Seconds until force (default: as the spec says)")
      ->check(CLI::Range(0, 86400));
  for (const auto& [verb, text] :
       {std::pair<const char*, const char*>{"kill", "End a VM at once, as if its power were cut"},
        {"reset", "Reset a running VM, as its reset button would"}}) {
    add(verb, text, {fmt::format("holdfast vm {} web", verb)},
        [path = fmt::format("/{}", verb)](Session& s, const std::string& n) {
          s.follow(s.send("POST", vm_path(n) + path, json::object()));
        });
  }
  add("delete", "Delete a stopped VM and its disks", {"holdfast vm delete web"},
      [](Session& s, const std::string& vm_name) {
        s.follow(s.send("DELETE", vm_path(vm_name), json::object()));
      });
  add("console", "Open the serial console; Ctrl-] leaves it", {"holdfast vm console web"},
      [](Session& s, const std::string& vm_name) { run_console(s, vm_name); });
}

struct MigrateOptions {
  std::string name, to, datastore, format, disk, encryption = "required", engine = "auto";
  std::uint64_t bandwidth_mbit = 0;
  int max_stop_ms = 0;
  bool dry_run = false;
};

void migrate(Session& session, const MigrateOptions& options) {
  json body{{"to", options.to},
            {"bandwidth_mbit", options.bandwidth_mbit},
            {"max_stop_ms", options.max_stop_ms},
            {"encryption", options.encryption}};
  if (options.engine != "auto") body["engine"] = options.engine;  // a daemon of the version before knows no other
  if (!options.datastore.empty()) body["datastore"] = options.datastore;
  if (!options.format.empty()) body["disk_format"] = options.format;
  if (!options.disk.empty()) body["disk"] = options.disk;
  const std::string path = vm_path(options.name) + "/migrate";
  if (!options.dry_run) return session.follow(session.send("POST", path, body));
  body["dry_run"] = true;
  const auto answer = session.send("POST", path, body);
  if (!answer.ok()) return session.fail(answer.error());
  const json& reasons = answer->at("reasons");
  if (!reasons.empty()) session.status = info(Code::unsupported).exit_status;
  if (session.json()) return fmt::print("{}\n", answer->dump(2));
  if (reasons.empty() && !options.datastore.empty() && options.to.empty()) {
    return fmt::print("The disks of VM {} can move to {}; host {} would copy them.\n", options.name, options.datastore,
                      field(*answer, "to"));
  }
  const char* how = field(*answer, "engine") == "qemu" ? " by QEMU's own migration" : "";
  const std::string with = options.datastore.empty() ? "" : ", its disks to " + options.datastore;
  if (reasons.empty()) {
    return fmt::print("VM {} can move to {}{}{}.\n", options.name, field(*answer, "to"), with, how);
  }
  fmt::print("VM {} cannot move now:\n", options.name);
  for (const auto& reason : reasons) fmt::print("  {}\n", printable(reason.get<std::string>()));
}

void add_migrate(CLI::App& vm, Session& session) {
  auto options = std::make_shared<MigrateOptions>();
  auto* move = vm.add_subcommand("migrate", "Move a running VM to another host (vMotion), a VM's disks to another "
                                             "datastore, or both at once; the guest goes on");
  move->add_option("VM", options->name, "Name or id")->required();
  move->add_option("--to", options->to, "The host (default: the leader chooses)");
  move->add_option("--datastore", options->datastore,
                   "Move the disks there. Without --to the VM stays on its host, or off");
  move->add_option("--format", options->format, "raw or qcow2, with --datastore (default: as it is)")
      ->check(CLI::IsMember({"raw", "qcow2"}));
  move->add_option("--disk", options->disk, "Only this disk, with --datastore");
  move->add_flag("--dry-run", options->dry_run, "Only say where it would go, or every reason why not");
  move->add_option("--limit-bandwidth", options->bandwidth_mbit, "Mbit/s of the link, at most (default: no limit)")
      ->check(CLI::Range(std::uint64_t{0}, api::kBandwidthMbitMax));
  move->add_option("--max-stop", options->max_stop_ms,
                   "Milliseconds that the guest stands still at the end, at most (default: 20; QEMU's own migration "
                   "goes up to 1000 where it must)")
      ->check(CLI::Range(0, api::kMaxStopMsMax));
  move->add_option("--encryption", options->encryption, "required, opportunistic or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"required", "opportunistic", "off"}));
  move->add_option("--engine", options->engine,
                   "What copies the memory: holdfast, qemu (QEMU's own migration), or auto: the first where it can")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "holdfast", "qemu"}));
  move->footer(examples({"holdfast vm migrate web", "holdfast vm migrate web --to host2 --dry-run",
                         "holdfast vm migrate web --to host2 --limit-bandwidth 500 --max-stop 50",
                         "holdfast vm migrate web --engine qemu",
                         "holdfast vm migrate web --datastore fast",
                         "holdfast vm migrate web --to host2 --datastore local2",
                         "holdfast vm migrate web --datastore fast --format raw --disk data",
                         "holdfast --no-wait vm migrate web"}));
  move->callback([&session, options] { migrate(session, *options); });
}

void add_look(CLI::App& vm, Session& session) {
  auto name = std::make_shared<std::string>();
  auto* list = vm.add_subcommand("ls", "List the VMs");
  list->footer(examples({"holdfast vm ls", "holdfast vm ls -o wide", "holdfast vm ls -o json"}));
  list->callback([&session] {
    session.show(session.get("/v1/vms"),
                 [&session](const json& answer) { return vm_table(answer, session.wide()); });
  });
  auto* show = vm.add_subcommand("show", "Show a VM");
  show->add_option("VM", *name, "Name or id")->required();
  show->footer(examples({"holdfast vm show web", "holdfast vm show web -o toml > web.toml"}));
  show->callback([&session, name] {
    if (session.output != "toml") return session.show_pairs(session.get(vm_path(*name)), vm_pairs);
    const auto spec = session.get(vm_path(*name) + "/spec");
    if (!spec.ok()) return session.fail(spec.error());
    std::fputs(field(*spec, "toml").c_str(), stdout);
  });
}

void add_change(CLI::App& vm, Session& session) {
  auto name = std::make_shared<std::string>();
  auto file = std::make_shared<std::string>();
  auto* change = vm.add_subcommand("edit", "Change a VM's spec in $EDITOR, or from a file");
  change->add_option("VM", *name, "Name or id")->required();
  change->add_option("--file", *file, "The new spec");
  change->footer(examples({"holdfast vm edit web", "holdfast vm edit web --file web.toml"}));
  change->callback([&session, name, file] { edit(session, *name, *file); });

  auto disk = std::make_shared<std::string>();
  auto size = std::make_shared<std::string>();
  auto* grow = vm.add_subcommand("resize", "Grow a disk of a stopped VM");
  grow->add_option("VM", *name, "Name or id")->required();
  grow->add_option("DISK", *disk, "Name of the disk, as in the spec")->required();
  grow->add_option("SIZE", *size, "The new size: \"20 GiB\"")->required();
  grow->footer(examples({"holdfast vm resize web root \"20 GiB\""}));
  grow->callback([&session, name, disk, size] {
    const auto mib = vm::parse_mib(*size);
    if (!mib.ok()) return session.fail(mib.error());
    session.follow(session.send("POST", vm_path(*name) + "/resize", {{"disk", *disk}, {"size_mib", *mib}}));
  });

  auto options = std::make_shared<ImportOptions>();
  auto* bring = vm.add_subcommand("import", "Make a VM whose disk is a copy of an image");
  bring->add_option("IMAGE", options->image, "qcow2 or raw image on the host that makes the VM")->required();
  bring->add_option("--name", options->name, "Name of the VM")->required();
  bring->add_option("--datastore", options->datastore, "Datastore of the disk")->required();
  bring->add_option("--network", options->network, "Network of its one NIC");
  bring->add_option("--memory", options->memory, "\"512 MiB\", \"2 GiB\"")->capture_default_str();
  bring->add_option("--vcpus", options->vcpus, "Virtual CPUs")->capture_default_str();
  bring->add_option("--size", options->size, "Grow the disk to this: \"20 GiB\"");
  bring->add_option("--description", options->description, "For people");
  bring->add_option("--on", options->on, "Host that has the image (default: the one asked)");
  bring->footer(examples(
      {"holdfast vm import debian.qcow2 --name web --datastore shared --network lan --memory \"2 GiB\""}));
  bring->callback([&session, options] { import(session, *options); });
}
}  // namespace

void add_vm_commands(CLI::App& app, Session& session) {
  auto* vm = app.add_subcommand("vm", "Virtual machines");
  vm->require_subcommand(1);
  add_create(*vm, session);
  add_change(*vm, session);
  add_life(*vm, session);
  add_migrate(*vm, session);
  add_look(*vm, session);
}

}  // namespace hf::cli
