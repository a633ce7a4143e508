#pragma once
// Test part: the program shim/testing/memory_user.c under the real shim. Killed at the end. One thread.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/ensure.hpp"
#include "base/testing/temp_folder.hpp"

namespace hf::engine {

class MemoryUser {
 public:
  explicit MemoryUser(std::vector<std::string> arguments) {
    int to[2], from[2];
    ENSURE(::pipe2(to, O_CLOEXEC) == 0 && ::pipe2(from, O_CLOEXEC) == 0, "No pipes.");
    std::vector<char*> argv = {const_cast<char*>(HF_MEMORY_USER)};
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    ENSURE(pid_ >= 0, "No process.");
    if (pid_ == 0) {
      ::dup2(to[0], 0);
      ::dup2(from[1], 1);
      ::setenv("LD_PRELOAD", HF_SHIM, 1);
      ::setenv("HOLDFAST_MEMORY_SOCKET", socket().c_str(), 1);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    commands_ = ::fdopen(to[1], "w");
    answers_ = ::fdopen(from[0], "r");
    started_ = read_line() == "ready";
  }
  ~MemoryUser() {
    std::fclose(commands_);
    std::fclose(answers_);
    end();
  }
  MemoryUser(const MemoryUser&) = delete;
  MemoryUser& operator=(const MemoryUser&) = delete;

  // It has mapped what its arguments say.
  bool started() const { return started_; }
  std::string socket() const { return folder_ / "memory.sock"; }
  // True if it could do so.
  bool tell(const std::string& command) {
    std::fprintf(commands_, "%s\n", command.c_str());
    std::fflush(commands_);
    return read_line() == "ok";
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  std::string read_line() {
    char line[64] = "";
    if (!std::fgets(line, sizeof line, answers_)) return "";
    std::string text = line;
    if (!text.empty()) text.pop_back();
    return text;
  }

  test::TempFolder folder_;
  pid_t pid_ = 0;
  std::FILE* commands_ = nullptr;
  std::FILE* answers_ = nullptr;
  bool started_ = false;
};

}  // namespace hf::engine
