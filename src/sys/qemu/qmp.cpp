#include "sys/qemu/qmp.hpp"

#include <sys/socket.h>

#include "base/log.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
constexpr Duration kForever = 24h;

Error no_answer(std::string_view command, std::string_view why) {
  return Error{Code::outcome_unknown,
               "QEMU was asked to " + std::string(command) + " and " + std::string(why) + "."};
}

}  // namespace

Result<std::unique_ptr<QmpClient>> QmpClient::connect(const std::string& path, OnEvent on_event) {
  TRY_ASSIGN(process::UniqueFd fd, connect_unix(path));
  return std::unique_ptr<QmpClient>(new QmpClient(std::move(fd), std::move(on_event)));
}

QmpClient::QmpClient(process::UniqueFd fd, OnEvent on_event)
    : fd_(std::move(fd)), on_event_(std::move(on_event)) {
  reader_ = std::thread([this] { read_until_closed(); });
}

QmpClient::~QmpClient() {
  ::shutdown(fd_.get(), SHUT_RDWR);
  reader_.join();
}

void QmpClient::read_until_closed() {
  QmpFraming framing;
  for (bool go_on = true; go_on;) {
    auto bytes = receive_some(fd_.get(), kForever);
    if (!bytes && bytes.code() == Code::timed_out) continue;
    if (!bytes || bytes->empty()) break;
    auto messages = framing.feed(*bytes);
    if (!messages) {
      log(Level::warn, "the connection to a QEMU monitor is given up", {{"why", messages.error().what}});
      break;
    }
    for (const auto& message : *messages) go_on = go_on && take(message);
  }
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

// False: the connection is of no use.
bool QmpClient::take(const QmpMessage& message) {
  if (message.kind == QmpMessage::Kind::event) {
    if (on_event_) on_event_(message.name, message.text);
    return true;
  }
  if (message.kind == QmpMessage::Kind::greeting) {
    const auto line = format_qmp_command("qmp_capabilities", {}, kCapabilitiesId);
    const std::lock_guard lock(send_mutex_);
    return line && send_all(fd_.get(), *line, 1s).ok();
  }
  const std::lock_guard lock(mutex_);
  if (message.id == kCapabilitiesId) {
    ready_ = message.kind == QmpMessage::Kind::reply;
  } else if (const auto asked = pending_.find(message.id); asked != pending_.end()) {
    asked->second = message;
  }
  changed_.notify_all();
  return message.id != kCapabilitiesId || ready_;
}

Result<std::string> QmpClient::execute(std::string_view command, std::string_view arguments, Duration limit,
                                       int passed_fd) {
  const auto deadline = Clock::now() + limit;
  TRY_ASSIGN(const std::uint64_t id, send(command, arguments, deadline, passed_fd));
  return answer_to(id, command, deadline);
}

std::vector<Result<std::string>> QmpClient::execute_all(const std::vector<Command>& commands, Duration limit) {
  const auto deadline = Clock::now() + limit;
  std::vector<Result<std::uint64_t>> sent;
  for (const auto& command : commands) sent.push_back(send(command.name, command.arguments, deadline, -1));
  std::vector<Result<std::string>> answers;
  for (std::size_t i = 0; i < commands.size(); ++i) {
    if (sent[i]) answers.push_back(answer_to(*sent[i], commands[i].name, deadline));
    else answers.emplace_back(sent[i].error());
  }
  return answers;
}

Result<std::uint64_t> QmpClient::send(std::string_view command, std::string_view arguments, Deadline deadline,
                                      int passed_fd) {
  std::uint64_t id = 0;
  {
    std::unique_lock lock(mutex_);
    const bool settled = changed_.wait_until(lock, deadline, [this] { return ready_ || closed_; });
    if (closed_) return Error{Code::unavailable, "The connection to QEMU's monitor has ended."};
    if (!settled) return Error{Code::timed_out, "QEMU's monitor does not answer: the VM may be frozen."};
    id = next_id_++;
    pending_[id] = std::nullopt;
  }
  Status sent;
  if (auto line = format_qmp_command(command, arguments, id); !line) {
    sent = line.error();
  } else {
    const std::lock_guard lock(send_mutex_);
    sent = send_all(fd_.get(), *line, deadline - Clock::now(), passed_fd);
    // Half a line would spoil the next command.
    if (!sent.ok() && sent.code() == Code::outcome_unknown) ::shutdown(fd_.get(), SHUT_RDWR);
  }
  if (sent.ok()) return id;
  const std::lock_guard lock(mutex_);
  pending_.erase(id);
  return sent.error();
}

Result<std::string> QmpClient::answer_to(std::uint64_t id, std::string_view command, Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return pending_[id].has_value() || closed_; });
  const std::optional<QmpMessage> answer = std::move(pending_[id]);
  pending_.erase(id);
  if (!answer) return no_answer(command, closed_ ? "ended before it answered" : "did not answer in time");
  if (answer->kind == QmpMessage::Kind::reply) return answer->text;
  return Error{Code::failed, "QEMU refused " + std::string(command) + ": " + answer->text};
}

bool QmpClient::is_ready() {
  const std::lock_guard lock(mutex_);
  return ready_;
}

bool QmpClient::has_closed(Duration limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [this] { return closed_; });
}

}  // namespace hf::qemu
