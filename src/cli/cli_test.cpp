// Goal: what people see of the program: tables, JSON, errors, exit codes, completion, init and join. Method:
// the real binary against a server in this process, over TLS; the daemons' part is done in the store by hand.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/testing_host.hpp"
#include "base/testing/temp_folder.hpp"
#include "cli/context.hpp"
#include "cli/init.hpp"
#include "cli/terminal.hpp"
#include "config/store/open_store.hpp"
#include "core/cpu/ladder.hpp"
#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"

namespace hf::cli {
namespace {
using api::TestingCluster;
using api::TestingHost;
using nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out, error;
};

class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(host_.start().ok());
    cluster_.store.put(record::key::kCaSecret, pki::encode_ca(ca_));
    const Context context{{host_.address()}, host_.credentials(pki::Role::admin, "tester")};
    ASSERT_TRUE(save_context(context, folder_ + "/context").ok());
  }
  void TearDown() override {
    stopping_ = true;
    if (worker_.joinable()) worker_.join();
  }
  Outcome holdfast(const std::string& arguments, const std::string& before = "") {
    const std::string command = before + " NO_COLOR=1 HOLDFAST_CONTEXT=" + folder_ +
                                "/context " HF_BIN_DIR "/holdfast " + arguments + " >" + folder_ + "/out 2>" +
                                folder_ + "/error";
    return {shell(command), *process::read_small_file(folder_ + "/out"), *process::read_small_file(folder_ + "/error")};
  }
  // The exit status of a command line.
  static int shell(const std::string& command) {
    const auto run = process::run_tool({"/bin/sh", "-c", command});
    return run.ok() ? run->exit_status : -1;
  }
  // Does what the hosts would: ends each task as `outcome` says.
  void carry_out_tasks(const Status& outcome) {
    worker_ = std::thread([this, outcome] {
      while (!stopping_) {
        const auto tasks = api::list_tasks(cluster_.store, 100);
        for (const auto& task : *tasks)
          (void)cluster_.operations.finish_task(task.id, outcome);  // it may be over
        std::this_thread::yield();
      }
    });
  }
  // What the hosts would do with a vm.migrate: its end first, then its report.
  void carry_out_move(const record::MotionReport& report) {
    worker_ = std::thread([this, report] {
      while (!stopping_) {
        const auto tasks = api::list_tasks(cluster_.store, 100);
        for (auto task : *tasks) {
          if (task.kind != record::TaskKind::vm_migrate || task.report.rounds != 0) continue;
          (void)cluster_.operations.finish_task(task.id, {});  // it may be over
          task = *api::show_task(cluster_.store, task.id.text);
          task.report = report;
          cluster_.store.put(record::key::kTasks + task.id.text, record::encode(task));
        }
        std::this_thread::yield();
      }
    });
  }
  TestingCluster cluster_;
  pki::KeyPair ca_ = *pki::make_ca("test");
  TestingHost host_{cluster_, ca_, "host1"};
  test::TempFolder temp_;
  const std::string folder_ = temp_.path();
  std::atomic<bool> stopping_{false};
  std::thread worker_;
};

TEST_F(Cli, vm_ls_is_a_table) {
  cluster_.run_vm("web", "host1", 512);
  const Outcome outcome = holdfast("vm ls");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.out,
            "NAME  STATE    HOST   VCPUS  MEMORY   PRIORITY  MESSAGE\n"
            "web   running  host1  1      512 MiB  medium    -\n");
}

TEST_F(Cli, json_is_what_the_api_gave) {
  cluster_.run_vm("web", "host1", 512);
  const json answer = json::parse(holdfast("vm ls -o json").out);
  EXPECT_EQ(answer["vms"][0]["name"], "web");
  EXPECT_EQ(json::parse(holdfast("-o json host ls").out)["hosts"].size(), 2U);
}

TEST_F(Cli, hosts_and_datastores_are_tables) {
  const Outcome hosts = holdfast("host ls");
  EXPECT_EQ(hosts.out,
            "NAME   STATE      LEADER  VMS  CPUS  MEMORY USED     ACCELERATOR  MESSAGE\n"
            "host1  connected  yes     0    2     0 MiB of 4 GiB  tcg          -\n"
            "host2  connected  -       0    2     0 MiB of 2 GiB  tcg          -\n");
  EXPECT_EQ(holdfast("datastore ls").out,
            "NAME    SHARED  ID    PATHS             MOUNTED       NOT HERE\n"
            "local2  no      ds-2  host2=/srv/local  host2         -\n"
            "shared  yes     ds-1  /srv/shared       host1, host2  -\n");
  EXPECT_EQ(holdfast("datastore add gold /missing").status, 3);
  EXPECT_EQ(holdfast("datastore add gold").status, 2);
  EXPECT_EQ(holdfast("datastore add gold --path host1").status, 2);
  EXPECT_EQ(holdfast("datastore add gold /srv/gold").out, "Datastore gold was added.\n");
  EXPECT_EQ(holdfast("datastore add shared /srv/other").status, 4);
  EXPECT_EQ(holdfast("network add dmz --bridge br0 --vlan 20").status, 0);
  EXPECT_EQ(holdfast("network ls").out, "NAME  BRIDGE  VLAN\ndmz   br0     20\nlan   br0     -\n");
}

TEST_F(Cli, every_look_succeeds) {
  cluster_.run_vm("web", "host1", 512);
  for (const auto* command :
       {"cluster show", "host show host1", "datastore show shared", "vm show web", "vm show web -o toml",
        "vm ls -o wide", "host ls -o wide", "task ls", "event ls", "ha show", "ha show --timing", "version",
        "help exit-codes", "help"}) {
    const Outcome outcome = holdfast(command);
    EXPECT_EQ(outcome.status, 0) << command << outcome.error;
    EXPECT_FALSE(outcome.out.empty()) << command;
  }
}

TEST_F(Cli, create_waits_and_says_what_was_done) {
  ASSERT_TRUE(
      process::replace_file(folder_ + "/web.toml", "version = 1\nname = \"web\"\nmemory = \"256 MiB\"\n", 0644)
          .ok());
  carry_out_tasks({});
  const Outcome outcome = holdfast("vm create " + folder_ + "/web.toml --start");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.out, "VM web was created.\nVM web was started.\n");
}

TEST_F(Cli, a_task_that_fails_gives_its_exit_code) {
  ASSERT_TRUE(process::replace_file(folder_ + "/web.toml", "version = 1\nname = \"web\"\n", 0644).ok());
  carry_out_tasks(Error{Code::no_room, "The datastore is full."});
  const Outcome outcome = holdfast("vm create " + folder_ + "/web.toml");
  EXPECT_EQ(outcome.status, 6);
  EXPECT_EQ(outcome.error, "holdfast: vm.create of VM web failed: The datastore is full.\n");
}

TEST_F(Cli, vm_show_names_the_accelerator) {
  cluster_.run_vm("web", "host1", 512);
  const std::string shown = holdfast("vm show web").out;
  const auto row = shown.find("Accelerator");
  ASSERT_NE(row, std::string::npos) << shown;
  EXPECT_NE(shown.substr(row, shown.find('\n', row) - row).find("tcg"), std::string::npos) << shown;
  EXPECT_EQ(json::parse(holdfast("vm show web -o json").out)["status"]["accelerator"], "tcg");
}

TEST_F(Cli, mistakes_in_a_spec_are_shown_by_line) {
  ASSERT_TRUE(process::replace_file(folder_ + "/web.toml", "version = 1\nname = \"web\"\nvcpu = 2\n", 0644).ok());
  const Outcome outcome = holdfast("vm create " + folder_ + "/web.toml");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.error.find("web.toml:3:"), std::string::npos) << outcome.error;
}

TEST_F(Cli, no_wait_prints_the_task) {
  cluster_.run_vm("web", "host1", 512);
  const Outcome outcome = holdfast("--no-wait vm stop web");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(outcome.out.starts_with("t-")) << outcome.out;
}

TEST_F(Cli, a_move_ends_with_its_report) {
  cluster_.run_vm("web", "host1", 512);
  record::MotionReport report;
  report.from = HostId("host1");
  report.to = HostId("host2");
  report.rounds = 4;
  report.zero_pages = 120000;
  report.delta_pages = 300;
  report.plain_pages = 10772;
  report.bytes_sent = 44040192;
  report.took_ms = 3240;
  report.stop_us = 12300;
  report.halt_us = 300;
  report.scan_us = 1100;
  report.save_us = 1900;
  report.copy_us = 3000;
  report.load_us = 4000;
  report.resume_us = 2000;
  report.tracker = "comparison (takes up to 512 MiB more, and longer stops): the kernel here is 6.1";
  carry_out_move(report);
  const Outcome outcome = holdfast("vm migrate web --to host2");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.out,
            "VM web was moved.\n"
            "From        host1\n"
            "To          host2\n"
            "Total time  3.2 s\n"
            "Rounds      4\n"
            "Pages       131072: 10772 whole, 300 changes, 120000 zero\n"
            "Sent        42.0 MiB\n"
            "Last stop   12.3 ms\n"
            "... of it   halt 0.3, scan 1.1, save 1.9, copy 3.0, load 4.0, resume 2.0\n"
            "Network     frames for it were lost for 3.3 ms, later ones waited\n"
            "Tracker     comparison (takes up to 512 MiB more, and longer stops): the\n"
            "            kernel here is 6.1\n");
  const std::string id = api::list_tasks(cluster_.store, 1)->at(0).id.text;
  EXPECT_NE(holdfast("task show " + id).out.find("Last stop"), std::string::npos);
  const Outcome late = holdfast("task cancel " + id);
  EXPECT_EQ(late.status, 5);
}

TEST_F(Cli, a_move_by_qemu_says_so_and_why) {
  cluster_.run_vm("web", "host1", 512);
  record::MotionReport report;
  report.rounds = 4;
  report.copy_us = 11000;
  report.engine = record::Engine::qemu;
  carry_out_move(report);
  const Outcome outcome = holdfast("vm migrate web --engine qemu");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("... of it   save and copy 11.0, load 0.0, resume 0.0"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("QEMU's own migration, as was asked for"), std::string::npos) << outcome.out;
  EXPECT_EQ(holdfast("vm migrate web --engine steam").status, 2);
}

TEST_F(Cli, a_move_that_cannot_be_says_every_reason) {
  cluster_.run_vm("web", "host1", 3000);
  const Outcome asked = holdfast("vm migrate web --dry-run");
  EXPECT_EQ(asked.status, 12);
  EXPECT_EQ(asked.out,
            "VM web cannot move now:\n"
            "  host2 has 2048 of 2048 MiB free.\n");
  const Outcome as_json = holdfast("vm migrate web --dry-run -o json");
  EXPECT_EQ(as_json.status, 12);
  EXPECT_EQ(json::parse(as_json.out)["reasons"].size(), 1U);
  EXPECT_EQ(holdfast("vm migrate web --to host1").status, 2);
  EXPECT_EQ(holdfast("vm migrate web --encryption none").status, 2);
  EXPECT_EQ(holdfast("vm migrate web --max-stop 10001").status, 2);
  EXPECT_EQ(holdfast("vm migrate none").status, 3);
  cluster_.run_vm("db", "host1", 512);
  EXPECT_EQ(holdfast("vm migrate db --dry-run").out, "VM db can move to host2.\n");
}

TEST_F(Cli, a_move_is_seen_and_can_be_cancelled) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  ASSERT_TRUE(cluster_.operations.report_progress(motion.id, 40, "").ok());
  EXPECT_NE(holdfast("vm ls").out.find("moving to host2, 40 %"), std::string::npos);
  EXPECT_NE(holdfast("vm show web").out.find("moving to host2, 40 %"), std::string::npos);
  EXPECT_EQ(holdfast("vm migrate web").status, 5);
  const Outcome outcome = holdfast("task cancel t-move");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.out, "Task t-move was cancelled; VM web runs on where it is.\n");
  const Outcome stop = holdfast("--no-wait vm stop web");
  EXPECT_EQ(stop.status, 0) << stop.error;
  EXPECT_EQ(holdfast("task cancel " + stop.out.substr(0, stop.out.find('\n'))).status, 12);
}

TEST_F(Cli, ctrl_c_leaves_the_move_and_says_how_to_cancel_it) {
  cluster_.run_vm("web", "host1", 512);
  const auto moves = [this]() -> std::optional<record::TaskRecord> {
    const auto tasks = api::list_tasks(cluster_.store, 100);
    for (const auto& task : *tasks) {
      if (task.kind == record::TaskKind::vm_migrate) return task;
    }
    return std::nullopt;
  };
  // The signal is sent once the program catches it: bit 1 of SigCgt, in the last hex digit. The shell before it does so
  // too, but asks for no move.
  const auto catches_it = [this, moves] {
    if (!moves()) return false;
    const auto pid = process::read_small_file(folder_ + "/pid");
    if (!pid.ok() || pid->empty()) return false;
    return shell("grep -q '^SigCgt:.*[2367abef]$' /proc/" + pid->substr(0, pid->find('\n')) + "/status") == 0;
  };
  worker_ = std::thread([this, catches_it] {
    while (!stopping_ && !catches_it()) std::this_thread::yield();
    if (!stopping_) (void)shell("kill -INT $(cat " + folder_ + "/pid)");  // the outcome tells
  });
  const Outcome outcome = holdfast("vm migrate web", "echo $$ > " + folder_ + "/pid; exec env");
  EXPECT_EQ(outcome.status, 130);
  const auto task = moves();
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(outcome.error, "\nTask " + task->id.text + " goes on. Watch it: holdfast task show " + task->id.text +
                               ".\nCancel it: holdfast task cancel " + task->id.text + ".\n");
  EXPECT_EQ(task->state, record::TaskState::queued);
}

TEST_F(Cli, maintenance_is_watched_until_the_host_is_empty) {
  cluster_.run_vm("web", "host1", 512);
  cluster_.run_vm("db", "host1", 512);
  // Does what the leader would: notes what it waits for, and once that was seen, that nothing is left.
  worker_ = std::thread([this] {
    const std::string key = record::key::kMaintenance + "host1";
    const auto told = [this] {
      const auto error = process::read_small_file(folder_ + "/error");
      return error.ok() && error->find("waits for web") != std::string::npos;
    };
    while (!stopping_ && !cluster_.store.get(key).ok()) std::this_thread::yield();
    auto record = api::read<record::MaintenanceRecord>(cluster_.store, key);
    if (!record.ok()) return;
    cluster_.set_owner("db", "host2", record::OwnerRecord::Phase::claimed);
    record->record.message = "It waits for web: the link broke.";
    cluster_.store.put(key, record::encode(record->record));
    while (!stopping_ && !told()) std::this_thread::yield();
    cluster_.set_owner("web", "host2", record::OwnerRecord::Phase::claimed);
    record->record.state = record::MaintenanceRecord::State::in;
    record->record.message = "";
    cluster_.store.put(key, record::encode(record->record));
  });
  const Outcome entered = holdfast("host maintenance host1");
  EXPECT_EQ(entered.status, 0) << entered.error;
  EXPECT_EQ(entered.out, "Host host1 is in maintenance. 2 VMs have left it.\n");
  EXPECT_NE(entered.error.find("1 of 2 VMs have moved. It waits for web: the link broke.\n"), std::string::npos)
      << entered.error;
  EXPECT_NE(holdfast("host ls").out.find("host1  maintenance"), std::string::npos);
  EXPECT_EQ(holdfast("host maintenance host1").out, "Host host1 is in maintenance already.\n");
  EXPECT_EQ(holdfast("host maintenance host2").status, 5);
  EXPECT_EQ(holdfast("host maintenance host9").status, 3);
  EXPECT_EQ(holdfast("host maintenance host1 --leave").out, "Host host1 has left maintenance and takes VMs again.\n");
  EXPECT_EQ(holdfast("host maintenance host1 --leave").out, "Host host1 is not in maintenance.\n");
}

TEST_F(Cli, maintenance_that_is_not_waited_for_can_be_called_off) {
  cluster_.run_vm("web", "host1", 512);
  EXPECT_EQ(holdfast("--no-wait host maintenance host1").out, "Host host1 is entering maintenance.\n");
  EXPECT_EQ(holdfast("--no-wait host maintenance host1").out, "Host host1 is entering maintenance already.\n");
  EXPECT_NE(holdfast("host show host1").out.find("entering maintenance"), std::string::npos);
  EXPECT_NE(holdfast("host maintenance host1 --leave").out.find("was called off"), std::string::npos);
  EXPECT_FALSE(show_host(cluster_.store, "host1")->maintenance);
}

TEST_F(Cli, errors_have_their_exit_codes_and_sentences) {
  EXPECT_EQ(holdfast("vm show none").status, 3);
  EXPECT_EQ(holdfast("vm show none").error,
            "holdfast: There is no VM named none: `holdfast vm ls` lists them.\n");
  EXPECT_EQ(json::parse(holdfast("vm show none -o json").error)["error"]["code"], "not_found");
  EXPECT_EQ(holdfast("--host 127.0.0.1:1 vm ls").status, 8);
  EXPECT_EQ(holdfast("--context /nowhere vm ls").status, 3);
  EXPECT_EQ(holdfast("vm sotp web").status, 2);
  EXPECT_EQ(holdfast("vm sotp web").error,
            "holdfast: \"sotp\" is no command of holdfast vm. Did you mean \"holdfast vm stop\"? holdfast vm "
            "--help lists them.\n");
  EXPECT_EQ(holdfast("vm stop").status, 2);
  EXPECT_EQ(holdfast("").status, 2);
}

TEST_F(Cli, a_host_that_is_down_is_passed_over) {
  EXPECT_EQ(holdfast("--host 127.0.0.1:1," + host_.address() + " vm ls").status, 0);
}

TEST_F(Cli, edit_takes_a_file_or_an_editor) {
  cluster_.run_vm("web", "host1", 512);
  ASSERT_TRUE(process::replace_file(folder_ + "/editor",
                              "#!/bin/sh\nsed -i '0,/^name/s/^name.*/&\\ndescription = \"shop\"/' \"$1\"\n",
                              0755)
                  .ok());
  const Outcome outcome = holdfast("vm edit web", "EDITOR=" + folder_ + "/editor");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(api::show_vm(cluster_.store, "web")->vm.spec.description, "shop");
  EXPECT_EQ(holdfast("vm edit web", "EDITOR=true").out, "Nothing was changed.\n");
}

TEST_F(Cli, the_console_passes_input_and_output) {
  cluster_.run_vm("web", "host1", 512);
  const std::string command = "echo ping | HOLDFAST_CONTEXT=" + folder_ +
                              "/context timeout 60 " HF_BIN_DIR "/holdfast vm console web";
  std::string seen;
  process::RunOptions options;
  options.on_output = [&](std::string_view part) {
    seen += part;
    if (seen.size() >= 11) host_.server.stop();  // ends the stream, and with it the program
  };
  ASSERT_TRUE(process::run_tool({"/bin/sh", "-c", command}, options).ok());
  EXPECT_EQ(seen, "hello\nping\n");
}

TEST_F(Cli, completion_scripts_are_valid) {
  EXPECT_EQ(holdfast("completion bash").status, 0);
  EXPECT_EQ(shell("bash -n " + folder_ + "/out"), 0);
  const std::string ask =
      "bash -c '. " + folder_ +
      "/out; COMP_WORDS=(holdfast vm st); COMP_CWORD=2; _holdfast; echo ${COMPREPLY[*]}' >" + folder_ +
      "/words";
  EXPECT_EQ(shell(ask), 0);
  EXPECT_EQ(*process::read_small_file(folder_ + "/words"), "start stop\n");
  EXPECT_NE(holdfast("completion zsh").out.find("#compdef holdfast"), std::string::npos);
  EXPECT_NE(holdfast("completion fish").out.find("complete -c holdfast"), std::string::npos);
  EXPECT_EQ(holdfast("completion tcsh").status, 2);
}

TEST_F(Cli, every_help_has_examples) {
  for (const auto* command : {"cluster init", "cluster join", "cluster invite", "vm create", "vm import",
                              "vm console", "vm migrate", "task cancel", "event ls"}) {
    const Outcome outcome = holdfast(std::string(command) + " --help");
    EXPECT_EQ(outcome.status, 0) << command;
    EXPECT_NE(outcome.out.find("Examples:"), std::string::npos) << command;
  }
}

class RecordedServices : public InitSystem {
 public:
  Status check_installed() override { return installed; }
  Status start_member(const etcd::MemberConfig& member) override {
    started.push_back("holdfast-etcd");
    members.push_back(member);
    return {};
  }
  std::chrono::seconds member_patience() const override { return std::chrono::seconds(0); }
  Status start_daemons(const std::string&) override {
    started.push_back("daemons");
    return {};
  }
  Result<bool> stop_daemon() override {
    started.push_back("stop");
    return true;
  }
  Status restart_daemons(const std::string&) override {
    started.push_back("restart");
    return {};
  }
  Status installed;
  std::vector<std::string> started;
  std::vector<etcd::MemberConfig> members;
};

// Hands out a store that the test keeps.
struct BorrowedStore : Store {
  explicit BorrowedStore(Store& a_store) : store(a_store) {}
  Result<Snapshot> list(const std::string& prefix) override { return store.list(prefix); }
  Result<Entry> get(const std::string& key) override { return store.get(key); }
  Result<Committed> commit(const Txn& txn) override { return store.commit(txn); }
  Result<LeaseId> grant(std::chrono::seconds ttl) override { return store.grant(ttl); }
  Status keep_alive(LeaseId lease) override { return store.keep_alive(lease); }
  Status revoke(LeaseId lease) override { return store.revoke(lease); }
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override {
    return store.watch(prefix, watcher);
  }
  Store& store;
};

std::function<Result<std::unique_ptr<Store>>(const config::StoreConfig&)> lend(Store& store) {
  return [&store](const config::StoreConfig&) -> Result<std::unique_ptr<Store>> {
    return std::unique_ptr<Store>(std::make_unique<BorrowedStore>(store));
  };
}
Result<std::vector<etcd::Member>> nobody(const config::StoreConfig&) { return std::vector<etcd::Member>(); }

TEST_F(Cli, init_makes_a_host_and_its_admin) {
  api::TestingStore store;
  RecordedServices services;
  const InitWorld world{lend(store), nobody, services};
  InitOptions options;
  options.host = "host1";
  options.address = "10.0.0.1";
  options.etc = folder_ + "/etc";
  options.state_dir = folder_ + "/state";
  options.store = "etcd";
  const auto context = init_cluster(options, world);
  ASSERT_TRUE(context.ok()) << context.error().what;
  EXPECT_EQ(services.started, (std::vector<std::string>{"holdfast-etcd", "daemons"}));
  EXPECT_EQ(services.members.at(0).initial_cluster.at("host1"), "https://10.0.0.1:2380");
  EXPECT_TRUE(services.members.at(0).client_tls.has_value());
  const auto loaded = config::load_config(options.etc + "/config.json");
  ASSERT_TRUE(loaded.ok()) << loaded.error().what;
  EXPECT_EQ(loaded->store.endpoints, std::vector<std::string>{"https://10.0.0.1:2379"});
  EXPECT_EQ(load_context({"", context->context})->endpoints, std::vector<std::string>{"10.0.0.1:7443"});
  EXPECT_EQ(pki::decode_ca(store.get(record::key::kCaSecret)->value)->certificate_pem,
            pki::load(options.etc + "/pki")->ca_pem);
  EXPECT_EQ(api::show_cluster(store)->cluster.id, loaded->cluster_id);
  EXPECT_EQ(init_cluster(options, world).code(), Code::exists);
}

TEST_F(Cli, init_and_join_without_the_units_change_nothing) {
  api::TestingStore store;
  RecordedServices services;
  services.installed = Error{Code::not_found, "The unit holdfastd.service is not installed."};
  const InitWorld world{lend(store), nobody, services};
  InitOptions options;
  options.host = "host1";
  options.address = "10.0.0.1";
  options.etc = folder_ + "/etc";
  options.store = "etcd";
  EXPECT_EQ(init_cluster(options, world).code(), Code::not_found);
  options.invite = holdfast("cluster invite host3 --address 10.0.0.3").out;
  EXPECT_EQ(join_cluster(options, world).code(), Code::not_found);
  EXPECT_FALSE(std::filesystem::exists(options.etc));
  EXPECT_TRUE(services.started.empty());
  EXPECT_TRUE(store.list("")->entries.empty());
}

TEST_F(Cli, init_makes_a_cluster_in_a_file) {
  const std::string folders = " --etc " + folder_ + "/etc --state-dir " + folder_ + "/state --no-start";
  const Outcome outcome = holdfast("cluster init --address 10.0.0.1 --host-name host1 --name shop" + folders);
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("Cluster shop was made."), std::string::npos);
  EXPECT_NE(outcome.out.find(HF_BIN_DIR "/holdfastd --config " + folder_ + "/etc/config.json"),
            std::string::npos);
  const auto loaded = config::load_config(folder_ + "/etc/config.json");
  ASSERT_TRUE(loaded.ok()) << loaded.error().what;
  const auto store = config::open_store(loaded->store);
  ASSERT_TRUE(store.ok()) << store.error().what;
  EXPECT_EQ(api::show_cluster(**store)->cluster.name, "shop");
  EXPECT_EQ(holdfast("cluster init --address 10.0.0.1" + folders).status, 4);
}

TEST_F(Cli, join_follows_an_invite) {
  const Outcome invited = holdfast("cluster invite host3 --address 10.0.0.3");
  ASSERT_EQ(invited.status, 0) << invited.error;
  RecordedServices services;
  InitOptions options;
  options.address = "10.0.0.3";
  options.etc = folder_ + "/etc3";
  options.invite = invited.out;
  // The host's clock in this test stands in 2023, so its invite has expired for the real clock.
  const InitWorld world{lend(cluster_.store), nobody, services};
  EXPECT_EQ(join_cluster(options, world).code(), Code::denied);
  auto invite = *pki::decode_invite(invited.out, 1700000000000);
  invite.expires = INT64_MAX;
  invite.endpoints = {host_.address()};
  options.invite = pki::encode(invite);
  const auto joined = join_cluster(options, world);
  ASSERT_TRUE(joined.ok()) << joined.error().what;
  EXPECT_EQ(services.started, (std::vector<std::string>{"daemons"}));
  EXPECT_EQ(config::load_config(options.etc + "/config.json")->heartbeat_ms, 1000);
  const auto own = pki::load(options.etc + "/pki");
  EXPECT_EQ(pki::verify(ca_.certificate_pem, own->own.certificate_pem)->name, "host3");
  EXPECT_NE(own->own.certificate_pem, invite.credentials.own.certificate_pem);
}

TEST_F(Cli, join_is_refused_to_a_machine_that_the_cluster_has_left_behind) {
  RecordedServices services;
  InitOptions options;
  options.address = "10.0.0.3";
  options.etc = folder_ + "/etc3";
  auto invite = *pki::decode_invite(holdfast("cluster invite host3 --address 10.0.0.3").out, 1700000000000);
  invite.expires = INT64_MAX;
  invite.endpoints = {host_.address()};
  options.invite = pki::encode(invite);
  InitWorld world{lend(cluster_.store), nobody, services};
  world.this_host = [](const config::HostConfig&) -> Result<record::HostRecord> {
    record::HostRecord here;
    here.accelerator = "tcg";
    here.cpu.runs = {"qemu64-v1"};
    here.cpu.features = cpu::features_of("Penryn-v1");
    here.cpu.rungs = {{"Penryn-v1", {}}, {"Nehalem-v1", {"sse4.2"}}};
    return here;
  };
  auto cluster = *record::decode<record::ClusterRecord>(cluster_.store.get(record::key::kCluster)->value);
  const auto refused = [&] {
    cluster_.store.put(record::key::kCluster, record::encode(cluster));
    const auto before = cluster_.store.list("")->version;
    const auto joined = join_cluster(options, world);
    EXPECT_EQ(joined.code(), Code::unsupported);
    EXPECT_EQ(cluster_.store.list("")->version, before);
    EXPECT_FALSE(std::filesystem::exists(options.etc));
    EXPECT_TRUE(services.started.empty());
    return joined.error().what;
  };
  cluster.evc = "Nehalem-v1";
  EXPECT_EQ(refused(), "This machine cannot join: it lacks sse4.2 of the cluster's CPU baseline Nehalem-v1. Lower the "
                       "baseline first (`holdfast cluster set --evc MODEL`; this machine can give Penryn-v1).");
  cluster.level = record::kLevel + 1;
  EXPECT_NE(refused().find("have a later version of Holdfast"), std::string::npos);
}

TEST_F(Cli, a_member_that_joins_waits_for_its_vote) {
  RecordedServices services;
  InitOptions options;
  options.address = "10.0.0.3";
  options.etc = folder_ + "/etc3";
  options.state_dir = folder_ + "/state3";
  options.store_member = true;
  auto invite = *pki::decode_invite(holdfast("cluster invite host3 --address 10.0.0.3").out, 1700000000000);
  invite.expires = INT64_MAX;
  invite.endpoints = {host_.address()};
  options.invite = pki::encode(invite);
  bool learner = true;
  const auto members = [&](const config::StoreConfig&) -> Result<std::vector<etcd::Member>> {
    return std::vector<etcd::Member>{{1, "host1", {}, {"https://10.77.0.1:2379"}, false},
                                     {2, "host2", {}, {"https://10.77.0.2:2379"}, false},
                                     {3, "host3", {}, {"https://10.0.0.3:2379"}, learner}};
  };
  const InitWorld world{lend(cluster_.store), members, services};
  EXPECT_EQ(join_cluster(options, world).code(), Code::timed_out);
  learner = false;  // and the same invite is good for another try
  ASSERT_TRUE(join_cluster(options, world).ok());
  EXPECT_EQ(config::load_config(options.etc + "/config.json")->store.endpoints,
            (std::vector<std::string>{"https://10.0.0.3:2379", "https://10.77.0.1:2379", "https://10.77.0.2:2379"}));
}

// The real file of a single host, and a store in memory in place of the new member.
TEST_F(Cli, grow_moves_everything_and_keeps_the_file) {
  const std::string folders = " --etc " + folder_ + "/etc --state-dir " + folder_ + "/state --no-start";
  const Outcome made = holdfast("cluster init --address 10.0.0.1 --host-name host1 --name shop" + folders);
  ASSERT_EQ(made.status, 0) << made.error;
  api::TestingStore etcd;
  etcd.put("left", "by an attempt that broke off");
  RecordedServices services;
  const InitWorld world{[&](const config::StoreConfig& store) {
                          const bool file = store.kind == config::StoreKind::sqlite;
                          return file ? config::open_store(store) : lend(etcd)(store);
                        },
                        nobody, services};
  InitOptions options;
  options.etc = folder_ + "/etc";
  const Status grown = grow_cluster(options, world);
  ASSERT_TRUE(grown.ok()) << grown.error().what;
  EXPECT_EQ(services.started, (std::vector<std::string>{"stop", "holdfast-etcd", "restart"}));
  EXPECT_EQ(api::show_cluster(etcd)->cluster.name, "shop");
  EXPECT_EQ(etcd.get("left").code(), Code::not_found);
  const auto loaded = config::load_config(options.etc + "/config.json");
  EXPECT_EQ(loaded->store.kind, config::StoreKind::etcd);
  EXPECT_EQ(loaded->store.endpoints, std::vector<std::string>{"https://10.0.0.1:2379"});
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/state/store.db"));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/state/store.db.before-grow"));
  EXPECT_EQ(grow_cluster(options, world).code(), Code::exists);
}

TEST_F(Cli, grow_that_fails_leaves_the_single_host_as_it_was) {
  const std::string folders = " --etc " + folder_ + "/etc --state-dir " + folder_ + "/state --no-start";
  ASSERT_EQ(holdfast("cluster init --address 10.0.0.1 --host-name host1" + folders).status, 0);
  RecordedServices services;
  const InitWorld world{[&](const config::StoreConfig& store) -> Result<std::unique_ptr<Store>> {
                          if (store.kind == config::StoreKind::sqlite) return config::open_store(store);
                          return Error{Code::unavailable, "No member answers."};
                        },
                        nobody, services};
  InitOptions options;
  options.etc = folder_ + "/etc";
  EXPECT_EQ(grow_cluster(options, world).code(), Code::unavailable);
  EXPECT_EQ(services.started, (std::vector<std::string>{"stop", "holdfast-etcd", "daemons"}));
  const auto loaded = config::load_config(options.etc + "/config.json");
  EXPECT_EQ(loaded->store.kind, config::StoreKind::sqlite);
  const auto store = config::open_store(loaded->store);
  EXPECT_TRUE(store.ok());
  // A daemon that still runs holds the file.
  EXPECT_EQ(grow_cluster(options, world).code(), Code::conflict);
}

TEST(Tables, the_widest_column_is_cut_to_the_terminal) {
  const Table table{
      {"A", "TEXT"}, {{"x", "a long sentence that does not fit"}, {"y", "häßlich\x1b[31m"}}, -1};
  EXPECT_EQ(render(table, {true, false, 20}), "A  TEXT\nx  a long sentence…\ny  häßlich?[31m\n");
  EXPECT_EQ(render(table, {}), "A  TEXT\nx  a long sentence that does not fit\ny  häßlich?[31m\n");
}

TEST(Tables, colours_only_where_wanted) {
  const Table table{{"STATE"}, {{"running"}}, 0};
  EXPECT_EQ(render(table, {true, true, 80}), "\x1b[2mSTATE\x1b[0m\n\x1b[32mrunning\x1b[0m\n");
}

}  // namespace
}  // namespace hf::cli
