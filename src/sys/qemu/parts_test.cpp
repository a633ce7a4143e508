// Goal: the pure parts and the small clients of the QEMU runtime. Method: text in, value out; the two
// protocol clients against a scripted server on a real socket.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/kvm.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"
#include "sys/qemu/accelerator.hpp"
#include "sys/qemu/disk_copy.hpp"
#include "sys/qemu/exit_reason.hpp"
#include "sys/qemu/guest_agent.hpp"
#include "sys/qemu/pause_note.hpp"
#include "sys/qemu/qmp.hpp"
#include "sys/qemu/resolve.hpp"
#include "sys/qemu/run_dir.hpp"
#include "sys/qemu/tap.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using process::UniqueFd;
using test::TempFolder;

// Accepts one client and plays the script with it.
class ScriptedServer {
 public:
  using Script = std::function<void(int fd)>;
  explicit ScriptedServer(Script script) : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::thread([this, play = std::move(script)] {
      const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
      play(client.get());
    });
  }
  ~ScriptedServer() { thread_.join(); }
  std::string path() const { return folder_.path() + "/socket"; }

 private:
  TempFolder folder_;
  UniqueFd listener_;
  std::thread thread_;
};

void say(int fd, const std::string& text) {
  (void)send_all(fd, text, 5s);  // a broken pipe shows in the client's result
}

std::string hear_line(int fd) {
  std::string line;
  for (char letter = 0; letter != '\n' && ::recv(fd, &letter, 1, 0) == 1;) line += letter;
  return line;
}

void greet(int fd) {
  say(fd, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
  EXPECT_NE(hear_line(fd).find("qmp_capabilities"), std::string::npos);
  say(fd, "{\"return\": {}, \"id\": 1}\r\n");
}

TEST(QmpFraming, messages_come_whole_from_pieces_of_any_size) {
  const std::string stream =
      "{\"QMP\": {}}\r\n{\"return\": {\"a\": 1}, \"id\": 7}\r\n\r\n"
      "{\"error\": {\"class\": \"GenericError\", \"desc\": \"No\"}, \"id\": 8}\n"
      "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n{\"event\": \"STOP\"}\n";
  for (std::size_t step = 1; step < stream.size(); ++step) {
    QmpFraming framing;
    std::vector<QmpMessage> all;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      auto some = framing.feed(std::string_view(stream).substr(at, step));
      ASSERT_TRUE(some.ok());
      all.insert(all.end(), some->begin(), some->end());
    }
    ASSERT_EQ(all.size(), 5U);
    EXPECT_EQ(all[0].kind, QmpMessage::Kind::greeting);
    EXPECT_EQ(all[1].id, 7U);
    EXPECT_EQ(all[1].text, "{\"a\":1}");
    EXPECT_EQ(all[2].kind, QmpMessage::Kind::failure);
    EXPECT_EQ(all[2].text, "No");
    EXPECT_EQ(all[3].name, "SHUTDOWN");
    EXPECT_EQ(all[3].text, "{\"guest\":true}");
    EXPECT_EQ(all[4].text, "{}");
  }
}

TEST(QmpFraming, what_is_no_message_is_corrupt) {
  for (const char* line : {"hello\n", "[]\n", "{\n", "{}\n", "{\"x\":1}\n", "\xff\xfe\n"}) {
    EXPECT_EQ(QmpFraming().feed(line).code(), Code::corrupt) << line;
  }
  QmpFraming framing;
  EXPECT_TRUE(framing.feed(std::string(QmpFraming::kLineMax, ' ')).ok());
  EXPECT_EQ(framing.feed(" ").code(), Code::corrupt);
}

TEST(QmpFraming, a_message_that_would_overflow_the_stack_is_corrupt) {
  const std::size_t levels = QmpFraming::kLineMax / 4;
  const std::string deep = std::string(levels, '[') + std::string(levels, ']');
  for (const char* member : {"QMP", "return", "data"}) {
    const std::string line = "{\"event\":\"STOP\",\"" + std::string(member) + "\":" + deep + "}\n";
    EXPECT_EQ(QmpFraming().feed(line).code(), Code::corrupt) << member;
  }
}

TEST(QmpFraming, command_is_one_line_and_its_arguments_an_object) {
  EXPECT_EQ(*format_qmp_command("cont", "", 3), "{\"execute\":\"cont\",\"id\":3}\n");
  EXPECT_EQ(*format_qmp_command("x", "{\"a\":\n\"b\"}", 4),
            "{\"arguments\":{\"a\":\"b\"},\"execute\":\"x\",\"id\":4}\n");
  EXPECT_EQ(format_qmp_command("x", "[1]", 5).code(), Code::invalid);
  EXPECT_EQ(format_qmp_command("x", "{", 5).code(), Code::invalid);
}

TEST(QmpClient, passed_descriptor_reaches_the_other_side_with_its_command_alone) {
  int passed[2] = {-1, -1};
  ScriptedServer server([&](int fd) {
    greet(fd);
    for (int& got : passed) {
      char byte = 0;
      iovec part{&byte, 1};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      EXPECT_EQ(::recvmsg(fd, &message, MSG_CMSG_CLOEXEC), 1);
      if (const cmsghdr* header = CMSG_FIRSTHDR(&message)) std::memcpy(&got, CMSG_DATA(header), sizeof got);
      const std::string line = hear_line(fd);
      say(fd, "{\"return\": {}, \"id\": " + line.substr(line.find("\"id\":") + 5, 1) + "}\n");
    }
  });
  auto client = QmpClient::connect(server.path(), {});
  ASSERT_TRUE(client.ok());
  const UniqueFd ours(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE((*client)->execute("getfd", R"({"fdname":"x"})", 5s, ours.get()).ok());
  ASSERT_TRUE((*client)->execute("cont", {}, 5s).ok());
  const UniqueFd theirs(passed[0]);
  struct stat one{}, other{};
  ASSERT_EQ(::fstat(ours.get(), &one), 0);
  ASSERT_EQ(::fstat(theirs.get(), &other), 0);
  EXPECT_EQ(one.st_ino, other.st_ino);
  EXPECT_EQ(passed[1], -1);
}

TEST(QmpClient, answers_find_their_commands_in_any_order) {
  ScriptedServer server([](int fd) {
    greet(fd);
    const std::string one = hear_line(fd), two = hear_line(fd);
    const auto id_of = [](const std::string& line) { return line.substr(line.find("\"id\":") + 5, 1); };
    const auto name_of = [](const std::string& line) { return line.substr(line.find("ask-"), 5); };
    say(fd, "{\"return\": \"" + name_of(two) + "\", \"id\": " + id_of(two) + "}\n{\"event\": \"RESET\"}\n");
    say(fd, "{\"return\": \"" + name_of(one) + "\", \"id\": " + id_of(one) + "}\n");
    hear_line(fd);
  });
  std::string event;
  auto client =
      QmpClient::connect(server.path(), [&](const std::string& name, const std::string&) { event = name; });
  ASSERT_TRUE(client.ok());
  std::string answer;
  std::thread other([&] { answer = *(*client)->execute("ask-a", "", 10s); });
  EXPECT_EQ(*(*client)->execute("ask-b", "{}", 10s), "\"ask-b\"");
  other.join();
  EXPECT_EQ(answer, "\"ask-a\"");
  client->reset();
  EXPECT_EQ(event, "RESET");
}

TEST(QmpClient, several_commands_are_sent_before_any_is_answered_and_each_has_its_own_answer) {
  ScriptedServer server([](int fd) {
    greet(fd);
    hear_line(fd);
    hear_line(fd);
    say(fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Not now\"}, \"id\": 2}\n");
    say(fd, "{\"return\": {}, \"id\": 3}\n");
    hear_line(fd);
  });
  auto client = QmpClient::connect(server.path(), nullptr);
  ASSERT_TRUE(client.ok());
  const auto answers = (*client)->execute_all({{"job-complete", R"({"id":"a"})"}, {"job-complete", "{}"}}, 10s);
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].code(), Code::failed);
  EXPECT_TRUE(answers[1].ok());
}

TEST(JobNote, disks_are_held_once_the_last_of_their_jobs_is_pending_and_not_if_one_has_ended) {
  const auto becomes = [](JobNote& note, const std::string& job, const std::string& status) {
    note.take("JOB_STATUS_CHANGE", R"({"id":")" + job + R"(","status":")" + status + R"("})");
  };
  JobNote note;
  becomes(note, "a", "pending");
  EXPECT_FALSE(note.wait_pending({"a", "b"}, 0ms)) << "nothing was heard of b";
  note.take("BLOCK_JOB_READY", R"({"id":"b","status":"pending"})");
  becomes(note, "b", "ready");
  EXPECT_FALSE(note.wait_pending({"a", "b"}, 0ms));
  std::thread other([&] { becomes(note, "b", "pending"); });
  EXPECT_TRUE(note.wait_pending({"a", "b"}, 10s));
  other.join();
  becomes(note, "a", "aborting");
  EXPECT_FALSE(note.wait_pending({"a", "b"}, 10s));
}

TEST(QmpClient, end_of_stream_after_the_question_is_an_unknown_outcome) {
  ScriptedServer server([](int fd) {
    greet(fd);
    hear_line(fd);
  });
  auto client = QmpClient::connect(server.path(), nullptr);
  ASSERT_TRUE(client.ok());
  EXPECT_EQ((*client)->execute("cont", "", 10s).code(), Code::outcome_unknown);
  EXPECT_TRUE((*client)->has_closed(10s));
  EXPECT_EQ((*client)->execute("cont", "", 10s).code(), Code::unavailable);
}

TEST(QmpClient, silence_before_the_question_is_a_time_out_after_it_an_unknown_outcome) {
  ScriptedServer server([](int fd) {
    // The client gives up on the first command before this greeting.
    hear_line(fd);
  });
  {
    auto client = QmpClient::connect(server.path(), nullptr);
    ASSERT_TRUE(client.ok());
    EXPECT_EQ((*client)->execute("cont", "", 20ms).code(), Code::timed_out);
  }
  ScriptedServer mute([](int fd) {
    greet(fd);
    while (!hear_line(fd).empty()) continue;
  });
  auto client = QmpClient::connect(mute.path(), nullptr);
  ASSERT_TRUE(client.ok());
  EXPECT_EQ((*client)->execute("cont", "", 500ms).code(), Code::outcome_unknown);
}

TEST(QmpClient, refusal_comes_in_its_own_words_and_nonsense_ends_the_connection) {
  ScriptedServer server([](int fd) {
    greet(fd);
    hear_line(fd);
    say(fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Not now\"}, \"id\": 2}\n");
    hear_line(fd);
    say(fd, "nonsense\n");
    hear_line(fd);
  });
  auto client = QmpClient::connect(server.path(), nullptr);
  ASSERT_TRUE(client.ok());
  const auto refused = (*client)->execute("cont", "", 10s);
  EXPECT_EQ(refused.code(), Code::failed);
  EXPECT_EQ(refused.error().what, "QEMU refused cont: Not now");
  EXPECT_EQ((*client)->execute("cont", "", 10s).code(), Code::outcome_unknown);
}

TEST(QmpClient, nobody_listening_is_unavailable) {
  EXPECT_EQ(QmpClient::connect("/tmp/hf-no-such-socket", nullptr).code(), Code::unavailable);
  EXPECT_EQ(QmpClient::connect("/tmp/" + std::string(200, 'x'), nullptr).code(), Code::invalid);
}

TEST(GuestAgent, is_asked_after_synchronising_past_old_answers) {
  std::string asked;
  {
    ScriptedServer server([&](int fd) {
      const std::string sync = hear_line(fd);
      EXPECT_EQ(sync.front(), '\xff');
      const auto at = sync.find("\"id\":") + 5;
      const std::string id = sync.substr(at, sync.find('}', at) - at);
      say(fd, "{\"return\": {}}\n\xff{\"return\": 1}\n\xff{\"return\": " + id + "}\n");
      asked = hear_line(fd);
    });
    EXPECT_TRUE(ask_guest_to_shut_down(server.path(), 10s).ok());
  }
  EXPECT_NE(asked.find("guest-shutdown"), std::string::npos);
}

TEST(GuestAgent, that_is_silent_or_absent_is_not_asked) {
  {
    ScriptedServer server([](int fd) {
      while (!hear_line(fd).empty()) continue;
    });
    EXPECT_EQ(ask_guest_to_shut_down(server.path(), 50ms).code(), Code::timed_out);
  }
  ScriptedServer closing([](int fd) { hear_line(fd); });
  EXPECT_EQ(ask_guest_to_shut_down(closing.path(), 10s).code(), Code::unavailable);
  EXPECT_EQ(ask_guest_to_shut_down("/tmp/hf-no-such-socket", 1s).code(), Code::unavailable);
}

TEST(Accelerator, is_kvm_only_where_a_guest_ran) {
  const KvmFacts good{true, 0, KVM_API_VERSION, ""};
  EXPECT_EQ(choose_accelerator(good).accelerator, vm::Accelerator::kvm);
  const std::vector<std::pair<KvmFacts, std::string>> bad = {
      {{false, 0, KVM_API_VERSION, ""}, "no vmx or svm flag"},
      {{true, ENOENT, 0, {}}, "load the module"},
      {{true, EACCES, 0, {}}, "Permission denied"},
      {{true, 0, 11, {}}, "speaks version 11"},
      {{true, 0, KVM_API_VERSION, {}}, "no guest was tried"},
      {{true, 0, KVM_API_VERSION, "it did not come back within 2 s"}, "did not come back"},
  };
  for (const auto& [facts, reason] : bad) {
    const auto choice = choose_accelerator(facts);
    EXPECT_EQ(choice.accelerator, vm::Accelerator::tcg);
    EXPECT_NE(choice.reason.find(reason), std::string::npos) << choice.reason;
  }
}

TEST(Accelerator, of_this_machine_has_a_reason) {
  EXPECT_FALSE(choose_accelerator(read_kvm_facts()).reason.empty());
}

TEST(Tap, names_fit_and_differ) {
  std::set<std::string> names;
  for (int number = 0; number < 500; ++number) {
    for (const std::size_t index : {0U, 99U})
      names.insert(tap_name(VmId("vm-" + std::to_string(number)), index));
  }
  EXPECT_EQ(names.size(), 1000U);
  for (const auto& name : names) EXPECT_LE(name.size(), 15U);
  EXPECT_EQ(tap_name(VmId("vm-1"), 0), tap_name(VmId("vm-1"), 0));
}

TEST(Tap, vlan_plan_leaves_only_the_one_vlan) {
  EXPECT_TRUE(vlan_plan("tap", 0).empty());
  const auto plan = vlan_plan("tap", 12);
  ASSERT_EQ(plan.size(), 2U);
  EXPECT_EQ(plan[1], (std::vector<std::string>{"bridge", "vlan", "add", "dev", "tap", "vid", "12", "pvid",
                                               "untagged"}));
}

// How a TAP is opened for VLAN 12, in a network of its own, on a bridge made by `bridge`; none: that cannot be made.
std::optional<Status> opened_in_vlan(const std::vector<std::string>& bridge, std::string& vlans) {
  std::optional<Status> opened;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) != 0) return;
    const auto made = process::run_tool(bridge);
    if (!made.ok() || !made->ok()) return;
    const auto tap = open_tap({"hftest-0", "br0", 12, "52:54:00:00:00:01"});
    opened = tap.ok() ? Status() : Status(tap.error());
    const auto shown = process::run_tool({"bridge", "vlan", "show", "dev", "hftest-0"});
    if (shown.ok()) vlans = shown->out;
  }).join();
  return opened;
}

TEST(Tap, a_bridge_that_does_not_filter_vlans_is_refused_for_one) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root makes a network";
  std::string vlans;
  const auto opened = opened_in_vlan({"ip", "link", "add", "br0", "up", "type", "bridge"}, vlans);
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->code(), Code::unsupported);
}

TEST(Tap, on_a_bridge_that_filters_vlans_it_is_in_its_own_alone) {
  std::string vlans;
  const auto opened = opened_in_vlan({"ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"}, vlans);
  if (!opened) GTEST_SKIP() << "only root makes a network, and this kernel may filter no VLANs";
  EXPECT_TRUE(opened->ok()) << opened->error().what;
  EXPECT_NE(vlans.find("12 PVID Egress Untagged"), std::string::npos) << vlans;
}

// In a network of its own, a TAP on a bridge; what the bridge hears when somebody announces a guest through the TAP.
std::string heard_by_bridge(const std::string& mac) {
  std::string heard;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) != 0) return;
    if (!process::run_tool({"ip", "link", "add", "br0", "up", "type", "bridge"}).ok()) return;
    const auto tap = open_tap({"hftest-0", "br0", 0, mac});
    const UniqueFd listener(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_RARP)));
    if (!tap.ok() || !announce(::getpid(), "hftest-0", mac).ok()) return;
    pollfd waiting{listener.get(), POLLIN, 0};
    heard.resize(2048);
    const bool came = ::poll(&waiting, 1, 10'000) == 1;
    const ssize_t length = came ? ::recv(listener.get(), heard.data(), heard.size(), 0) : 0;
    heard.resize(static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
  }).join();
  return heard;
}

TEST(Tap, an_announcement_comes_from_the_guest_and_names_it) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root makes a network";
  const std::string frame = heard_by_bridge("52:54:00:ab:cd:ef");
  const std::string mac = "\x52\x54" + std::string(1, '\0') + "\xab\xcd\xef";
  ASSERT_EQ(frame.size(), 60U);
  EXPECT_EQ(frame.substr(0, 6), "\xff\xff\xff\xff\xff\xff");
  for (const std::size_t at : {6U, 22U, 32U}) EXPECT_EQ(frame.substr(at, 6), mac) << at;
}

TEST(Tap, a_tap_that_the_process_does_not_hold_is_not_announced_through) {
  EXPECT_EQ(announce(::getpid(), "hftest-none", "52:54:00:ab:cd:ef").code(), Code::not_found);
}

TEST(ExitReason, is_what_the_monitor_or_else_the_log_says) {
  const std::string trace = "qemu_system_shutdown_request reason=";
  EXPECT_EQ(explain_exit({true, "guest-shutdown", ""}).kind, ExitKind::killed);
  EXPECT_EQ(explain_exit({false, "guest-shutdown", ""}).kind, ExitKind::guest_shutdown);
  EXPECT_EQ(explain_exit({false, "guest-panic", ""}).kind, ExitKind::guest_panic);
  EXPECT_EQ(explain_exit({false, "host-signal", ""}).kind, ExitKind::qemu_crash);
  EXPECT_EQ(explain_exit({false, "", "a\n" + trace + "6\n"}).kind, ExitKind::guest_shutdown);
  EXPECT_EQ(explain_exit({false, "", trace + "8"}).kind, ExitKind::guest_panic);
  EXPECT_EQ(explain_exit({false, "", trace + "4\n"}).kind, ExitKind::qemu_crash);
  const auto crash = explain_exit({false, "", "0\n1\n2\n3\n4\n5\n6\n7\n8\n\nabort\n"});
  EXPECT_EQ(crash.kind, ExitKind::qemu_crash);
  EXPECT_EQ(crash.text, "2\n3\n4\n5\n6\n7\n8\nabort");
  EXPECT_FALSE(explain_exit({}).text.empty());
}

TEST(LaunchRecord, survives_its_file_and_nonsense_is_corrupt) {
  const LaunchRecord record{
      VmId("vm-1"), Epoch{7}, 4711, 123456789012ULL, "tcg", "none", {"qemu", "-S", "a \"b\""},
      TaskId("task-1")};
  EXPECT_EQ(*decode_launch_record(encode(record)), record);
  for (const char* text : {"", "{}", "[]", "{\"format\":2}", "null"}) {
    EXPECT_EQ(decode_launch_record(text).code(), Code::corrupt) << text;
  }
}

TEST(Logs, are_bounded_and_their_end_is_kept) {
  const TempFolder folder;
  const std::string log = folder.path() + "/console.log";
  const UniqueFd writer(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const auto append = [&](const std::string& text) {
    EXPECT_EQ(::write(writer.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  append("first");
  ASSERT_TRUE(trim_log(log, 5).ok());
  EXPECT_EQ(*log_tail(log, 100), "first");
  append("+");
  ASSERT_TRUE(trim_log(log, 5).ok());
  append("second");
  EXPECT_EQ(std::filesystem::file_size(log), 6U);
  EXPECT_EQ(*log_tail(log, 100), "first+second");
  EXPECT_EQ(*log_tail(log, 8), "t+second");
  EXPECT_EQ(*log_tail(log, 3), "ond");
  EXPECT_TRUE(trim_log(folder.path() + "/none", 5).ok());
}

TEST(HoldPage, is_one_page_that_holds_everything) {
  const TempFolder folder;
  const std::string path = folder.path() + "/hold.page";
  ASSERT_TRUE(create_hold_page(path, ::getegid()).ok());
  EXPECT_EQ(*process::read_small_file(path), std::string(4096, '\0'));
  EXPECT_EQ(create_hold_page(path, ::getegid()).code(), Code::exists);
}

class ResolveTest : public testing::Test {
 protected:
  void SetUp() override {
    request_.vm = VmId("vm-1");
    request_.spec.datastore = "main";
    request_.datastore_paths = {{"main", folder_.path() + "/main"}, {"iso", folder_.path() + "/iso"}};
    std::filesystem::create_directories(folder_.path() + "/main/vm-1");
    std::filesystem::create_directories(folder_.path() + "/iso/linux");
    touch("iso/linux/debian.iso");
    touch("main/vm-1/root.qcow2");
    touch("template.fd");
    firmware_ = {folder_.path() + "/template.fd", folder_.path() + "/template.fd"};
  }
  void touch(const std::string& name) { std::ofstream(folder_.path() + "/" + name) << "content of " << name; }

  TempFolder folder_;
  LaunchRequest request_;
  Firmware firmware_;
};

TEST_F(ResolveTest, everything_gets_its_path) {
  touch("main/vm-1/seed.iso");
  request_.spec.disks = {{"root", "", 1, vm::DiskFormat::qcow2, ""}};
  request_.spec.cdroms = {{"setup", "iso:linux/debian.iso"}};
  request_.spec.cloud_init.emplace();
  request_.spec.firmware = vm::Firmware::uefi;
  request_.spec.direct_kernel = vm::DirectKernel{"iso:linux/debian.iso", "", ""};
  request_.spec.nics = {{"lan", vm::NicModel::e1000, "52:54:00:00:00:01"}};
  const auto made = resolve(request_, firmware_);
  ASSERT_TRUE(made.ok()) << made.error().what;
  ASSERT_EQ(made->context.disks.size(), 3U);
  EXPECT_EQ(made->context.disks[0].path, folder_.path() + "/main/vm-1/root.qcow2");
  EXPECT_EQ(made->context.disks[1].path, folder_.path() + "/iso/linux/debian.iso");
  EXPECT_TRUE(made->context.disks[1].cdrom && made->context.disks[1].read_only);
  EXPECT_EQ(made->context.disks[1].format, vm::DiskFormat::raw);
  EXPECT_EQ(made->context.disks[2].path, folder_.path() + "/main/vm-1/seed.iso");
  EXPECT_EQ(made->context.disks[2].name, vm::kSeedName);
  EXPECT_TRUE(made->context.disks[2].read_only && !made->context.disks[2].cdrom);
  EXPECT_EQ(made->context.kernel, folder_.path() + "/iso/linux/debian.iso");
  EXPECT_EQ(made->context.initrd, "");
  EXPECT_EQ(*process::read_small_file(made->context.firmware_vars), "content of template.fd");
  EXPECT_EQ(made->owned_files.size(), 3U);
  EXPECT_EQ(made->context.nics[0].mac, "52:54:00:00:00:01");
}

TEST_F(ResolveTest, firmware_variables_of_an_earlier_start_are_kept) {
  touch("main/vm-1/uefi-vars.fd");
  request_.spec.firmware = vm::Firmware::uefi;
  const auto made = resolve(request_, firmware_);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(*process::read_small_file(made->context.firmware_vars), "content of main/vm-1/uefi-vars.fd");
}

TEST_F(ResolveTest, what_is_missing_is_named) {
  request_.spec.disks = {{"data", "", 1, vm::DiskFormat::raw, ""}};
  EXPECT_EQ(resolve(request_, firmware_).code(), Code::not_found);
  EXPECT_NE(resolve(request_, firmware_).error().what.find("/main/vm-1/data.raw"), std::string::npos);
  request_.spec.disks = {{"root", "other", 1, vm::DiskFormat::qcow2, ""}};
  EXPECT_NE(resolve(request_, firmware_).error().what.find("\"other\""), std::string::npos);
}

TEST_F(ResolveTest, reference_cannot_leave_its_datastore) {
  for (const char* image :
       {"iso:../main/vm-1/root.qcow2", "iso:linux/../../x", "iso:/etc/passwd", "iso:", "nowhere"}) {
    request_.spec.cdroms = {{"setup", image}};
    EXPECT_EQ(resolve(request_, firmware_).code(), Code::invalid) << image;
  }
}

// As QEMU 7.2 says it.
const std::string kNoSpace =
    R"({"device": "", "nospace": true, "node-name": "d-root", "reason": "No space left on device",)"
    R"( "operation": "write", "action": "stop"})";

TEST(PauseNote, failed_write_and_stop_are_a_pause_and_resume_ends_it) {
  PauseNote note(VmId("vm-1"), Epoch{3});
  EXPECT_FALSE(note.on_event("BLOCK_IO_ERROR", kNoSpace));
  const auto paused = note.on_event("STOP", "{}");
  ASSERT_TRUE(paused && paused->error);
  EXPECT_EQ(paused->vm, VmId("vm-1"));
  EXPECT_EQ(paused->epoch, Epoch{3});
  EXPECT_EQ(paused->error->disk, "root");
  EXPECT_TRUE(paused->error->no_room);
  EXPECT_EQ(paused->error->text, "No space left on device");
  const auto went_on = note.on_event("RESUME", "{}");
  ASSERT_TRUE(went_on);
  EXPECT_FALSE(went_on->error);
  EXPECT_FALSE(note.on_event("STOP", "{}"));
}

TEST(PauseNote, stop_and_resume_without_a_failed_disk_are_not_told) {
  PauseNote note(VmId("vm-1"), Epoch{3});
  EXPECT_FALSE(note.on_event("STOP", "{}"));
  EXPECT_FALSE(note.on_event("RESUME", "{}"));
  std::string reported = kNoSpace;
  reported.replace(reported.find("stop"), 4, "report");
  EXPECT_FALSE(note.on_event("BLOCK_IO_ERROR", reported));
  EXPECT_FALSE(note.on_event("STOP", "{}"));
  for (const char* nonsense : {"", "[]", "{", "7", R"({"action":5})"}) {
    EXPECT_FALSE(note.on_event("BLOCK_IO_ERROR", nonsense));
    EXPECT_FALSE(note.on_event("STOP", "{}"));
  }
}

TEST(PauseNote, answer_to_a_question_is_told_once) {
  PauseNote note(VmId("vm-1"), Epoch{3});
  EXPECT_FALSE(note.on_answer(std::nullopt));
  EXPECT_TRUE(note.on_answer(DiskError{}));
  EXPECT_TRUE(note.on_answer(std::nullopt));
  EXPECT_FALSE(note.on_answer(std::nullopt));
}

TEST(PauseNote, failed_disk_is_found_in_what_qemu_answers) {
  EXPECT_TRUE(is_paused_by_disk(R"({"status": "io-error", "singlestep": false, "running": false})"));
  for (const char* other :
       {R"({"status": "prelaunch"})", R"({"status": "paused"})", R"({"status": 1})", "", "[]"})
    EXPECT_FALSE(is_paused_by_disk(other)) << other;
  const auto found =
      disk_error_of_query(R"([{"io-status": "ok", "inserted": {"node-name": "d-root"}}, 5, {"inserted": 7},)"
                          R"( {"io-status": "nospace", "inserted": {"node-name": "d-data"}}])");
  EXPECT_EQ(found.disk, "data");
  EXPECT_TRUE(found.no_room);
  EXPECT_FALSE(disk_error_of_query(R"([{"io-status": "failed"}])").no_room);
  EXPECT_EQ(disk_error_of_query("{").disk, "");
}

}  // namespace
}  // namespace hf::qemu
