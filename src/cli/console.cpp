#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "cli/commands.hpp"
#include "sys/process/small_file.hpp"

namespace hf::cli {
namespace {
constexpr char kEscape = 0x1d;  // Ctrl-]

// The terminal hands every byte through while this lives.
class RawTerminal {
 public:
  RawTerminal() {
    active_ = ::isatty(STDIN_FILENO) == 1 && ::tcgetattr(STDIN_FILENO, &old_) == 0;
    if (!active_) return;
    termios raw = old_;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~RawTerminal() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSANOW, &old_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  bool active() const { return active_; }

 private:
  termios old_{};
  bool active_ = false;
};

void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

// How far the output is; the input follows it.
struct Progress {
  std::atomic<bool> opened{false}, ended{false};
};

// Reads what is typed and sends it, until Ctrl-] or the console ends. At the end of a piped input the output
// goes on.
Status send_input(api::Client& client, const std::string& path, const Progress& output, bool raw) {
  bool open = true;
  while (!output.ended) {
    // Input before the console is open would be lost, or hold a connection of its own.
    const bool ready = open && output.opened;
    pollfd waiting{ready ? STDIN_FILENO : -1, POLLIN, 0};
    if (::poll(&waiting, 1, output.opened ? 200 : 20) <= 0) continue;
    char buffer[1024];
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n <= 0) {
      open = false;
      continue;
    }
    std::string text(buffer, static_cast<std::size_t>(n));
    const auto escape = raw ? text.find(kEscape) : std::string::npos;
    if (!text.substr(0, escape).empty()) {
      const auto sent = client.call("POST", path, text.substr(0, escape));
      if (!sent.ok()) return sent.error();
    }
    if (escape != std::string::npos) return {};
  }
  return {};
}
}  // namespace

void run_console(Session& session, const std::string& vm) {
  auto input = session.connect();
  auto output = session.connect();
  if (!input.ok()) return session.fail(input.error());
  if (!output.ok()) return session.fail(output.error());
  api::Request request;
  request.method = "GET";
  request.path = "/v1/vms/" + api::escape(vm) + "/console";
  Progress progress;
  Status outcome;
  Status typed;
  {
    const RawTerminal raw;
    std::thread reader([&] {
      const auto take = [](std::string_view text) {
        write_out(text);
        return true;
      };
      const auto opened = [&] {
        progress.opened = true;
        if (raw.active()) fmt::print(stderr, "Console of VM {}. Ctrl-] leaves it.\r\n", vm);
      };
      outcome = output->stream(request, take, opened);
      progress.ended = true;
    });
    typed = send_input(*input, request.path, progress, raw.active());
    output->cancel();
    reader.join();
  }
  if (!outcome.ok()) return session.fail(outcome.error());
  if (!typed.ok()) return session.fail(typed.error());
  if (session.terminal.is_terminal) fmt::print(stderr, "\nThe console of VM {} is closed.\n", vm);
}

Result<std::string> edit_text(const std::string& text, const std::string& name) {
  char folder[] = "/tmp/holdfast-edit-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return from_errno("Cannot make a folder in /tmp", errno);
  const std::string path = std::string(folder) + "/" + name;
  TRY(process::replace_file(path, text, 0600));
  const char* visual = std::getenv("VISUAL");
  const char* editor = std::getenv("EDITOR");
  const std::string program = visual != nullptr && *visual != '\0'   ? visual
                              : editor != nullptr && *editor != '\0' ? editor
                                                                     : "vi";
  const std::string command = program + " \"$1\"";
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), "sh", path.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  int state = 0;
  if (child < 0 || ::waitpid(child, &state, 0) != child) return from_errno("Cannot start the editor", errno);
  auto edited = process::read_small_file(path);
  ::unlink(path.c_str());
  ::rmdir(folder);
  if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
    return Error{Code::failed, "The editor (" + program + ") ended with an error: nothing was changed."};
  }
  return edited;
}

}  // namespace hf::cli
