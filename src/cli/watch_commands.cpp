#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/motion_report.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

WallMs ms(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<WallMs>() : 0;
}

std::vector<std::string> event_row(const json& event) {
  return {time_text(ms(event, "time")), field(event, "severity"), field(event, "host"),
          field(event, "subject"), field(event, "text")};
}

Table event_table(const json& answer) {
  Table table{{"TIME (UTC)", "SEVERITY", "REPORTED BY", "ABOUT", "TEXT"}, {}, 1};
  for (const auto& event : answer.at("events")) table.rows.push_back(event_row(event));
  return table;
}

Table task_table(const json& answer) {
  Table table{{"ID", "KIND", "VM", "STATE", "PROGRESS", "HOST", "CREATED (UTC)", "BY", "MESSAGE"}, {}, 3};
  for (const auto& task : answer.at("tasks")) {
    table.rows.push_back({field(task, "id"), field(task, "kind"), field(task, "vm_name"),
                          field(task, "state"), field(task, "progress") + " %", field(task, "host"),
                          time_text(ms(task, "created")), field(task, "requested_by"),
                          field(task, "message")});
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> task_pairs(const json& task) {
  std::vector<std::pair<std::string, std::string>> out = {
      {"Id", field(task, "id")},
      {"Kind", field(task, "kind")},
      {"VM", field(task, "vm_name")},
      {"State", field(task, "state")},
      {"Progress", field(task, "progress") + " %"},
      {"Host", field(task, "host")},
      {"Requested by", field(task, "requested_by")},
      {"Created (UTC)", time_text(ms(task, "created"))},
      {"Finished (UTC)", time_text(ms(task, "finished"))},
      {"Error", field(task, "error_code")},
      {"Message", field(task, "message")}};
  if (!has_motion_report(task)) return out;
  const auto report = motion_report(task);
  out.insert(out.end(), report.begin(), report.end());
  return out;
}

// One line an event, as it comes; with -o json the event's JSON.
void print_event(const Session& session, const std::string& data) {
  const json event = json::parse(data, nullptr, false);
  if (event.is_discarded()) return;
  const auto row = event_row(event);
  if (session.json()) {
    fmt::print("{}\n", event.dump());
  } else {
    const std::string severity =
        paint(session.terminal, colour_of_state(row[1]), fmt::format("{:<8}", row[1]));
    fmt::print("{}  {}  {}  {}: {}\n", row[0], severity, printable(row[2]), printable(row[3]),
               printable(row[4]));
  }
  std::fflush(stdout);
}

void follow_events(Session& session, int limit) {
  const auto present = session.get(fmt::format("/v1/events?limit={}", limit));
  if (!present.ok()) return session.fail(present.error());
  std::string last;
  for (const auto& event : present->at("events")) {
    print_event(session, event.dump());
    last = field(event, "id");
  }
  for (;;) {
    auto client = session.connect();
    if (!client.ok()) return session.fail(client.error());
    api::Request request;
    request.method = "GET";
    request.path = "/v1/events";
    request.query = {{"follow", "1"}, {"after", last.empty() ? "0" : last}};
    std::string pending;
    const Status ended = client->stream(request, [&](std::string_view text) {
      pending += text;
      for (auto end = pending.find("\n\n"); end != std::string::npos; end = pending.find("\n\n")) {
        const std::string frame = pending.substr(0, end);
        pending.erase(0, end + 2);
        const auto data = frame.find("\ndata: ");
        if (!frame.starts_with("id: ") || data == std::string::npos) continue;
        last = frame.substr(4, frame.find('\n') - 4);
        print_event(session, frame.substr(data + 7));
      }
      return true;
    });
    // A host that went away is not the end: the next one goes on from the last event.
    if (!ended.ok() && ended.code() != Code::failed) return session.fail(ended.error());
  }
}

void add_events(CLI::App& app, Session& session) {
  auto* event = app.add_subcommand("event", "What happened");
  event->require_subcommand(1);
  auto follow = std::make_shared<bool>(false);
  auto limit = std::make_shared<int>(50);
  auto* list = event->add_subcommand("ls", "List the events, newest last");
  list->add_flag("-f,--follow", *follow, "Go on with each new one until Ctrl-C");
  list->add_option("--limit", *limit, "At most so many of the newest")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  list->footer(
      examples({"holdfast event ls", "holdfast event ls -f", "holdfast event ls --limit 500 -o json"}));
  list->callback([&session, follow, limit] {
    if (*follow) return follow_events(session, *limit);
    session.show(session.get(fmt::format("/v1/events?limit={}", *limit)), event_table);
  });
}

void add_tasks(CLI::App& app, Session& session) {
  auto* task = app.add_subcommand("task", "Commands that were given");
  task->require_subcommand(1);
  auto limit = std::make_shared<int>(50);
  auto id = std::make_shared<std::string>();
  auto* list = task->add_subcommand("ls", "List the tasks, newest last");
  list->add_option("--limit", *limit, "At most so many of the newest")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  list->footer(examples({"holdfast task ls", "holdfast task ls --limit 5"}));
  list->callback([&session, limit] {
    session.show(session.get(fmt::format("/v1/tasks?limit={}", *limit)), task_table);
  });
  auto* show = task->add_subcommand("show", "Show a task");
  show->add_option("TASK", *id, "Id")->required();
  show->footer(examples({"holdfast task show t-3f9a1c0d22e1"}));
  show->callback(
      [&session, id] { session.show_pairs(session.get("/v1/tasks/" + api::escape(*id)), task_pairs); });
  auto* cancel = task->add_subcommand("cancel", "Cancel a vm.migrate; the VM runs on where it is");
  cancel->add_option("TASK", *id, "Id")->required();
  cancel->footer(examples({"holdfast task cancel t-3f9a1c0d22e1"}));
  cancel->callback([&session, id] {
    const auto ended = session.send("POST", "/v1/tasks/" + api::escape(*id) + "/cancel", json::object());
    if (!ended.ok()) return session.fail(ended.error());
    if (session.json())
      fmt::print("{}\n", ended->dump(2));
    else
      fmt::print("Task {} was cancelled; VM {} runs on where it is.\n", field(*ended, "id"), field(*ended, "vm_name"));
  });
}

void show_ha(Session& session) {
  const auto answer = session.get("/v1/ha");
  if (!answer.ok()) return session.fail(answer.error());
  if (!session.json()) {
    const std::string leader = field(*answer, "leader");
    fmt::print("Leader: {}. Hosts connected: {} of {}. Heartbeat: {} ms.\n\n",
               leader.empty() ? "none now" : leader, field(*answer, "hosts_connected"),
               field(*answer, "hosts"), field(*answer, "heartbeat_ms"));
  }
  session.show(answer, [](const json& ha) {
    Table table{{"VM", "PROTECTED", "PRIORITY", "STATE", "HOST", "MESSAGE"}, {}, 3};
    for (const auto& vm : ha.at("vms")) {
      table.rows.push_back({field(vm, "vm"), vm.value("protected", false) ? "yes" : "no",
                            field(vm, "priority"), field(vm, "state"), field(vm, "host"),
                            field(vm, "message")});
    }
    return table;
  });
}

void add_ha(CLI::App& app, Session& session) {
  auto* ha = app.add_subcommand("ha", "High availability");
  ha->require_subcommand(1);
  auto timing = std::make_shared<bool>(false);
  auto* show = ha->add_subcommand("show", "Leader, hosts, and which VMs are protected");
  show->add_flag("--timing", *timing, "The times that a failure takes, derived from the heartbeat");
  show->footer(examples({"holdfast ha show", "holdfast ha show --timing"}));
  show->callback([&session, timing] {
    if (!*timing) return show_ha(session);
    session.show(session.get("/v1/ha/timing"), [](const json& answer) {
      Table table{{"NAME", "TIME", "MEANING"}, {}, -1};
      for (const auto& row : answer.at("timing")) {
        table.rows.push_back({field(row, "name"), field(row, "milliseconds") + " ms", field(row, "meaning")});
      }
      return table;
    });
  });
}
}  // namespace

void add_watch_commands(CLI::App& app, Session& session) {
  add_events(app, session);
  add_tasks(app, session);
  add_ha(app, session);
}

}  // namespace hf::cli
