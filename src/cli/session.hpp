#pragma once
// One run of the program: the connection, the form of the output, and how results, errors and tasks are
// shown. Every command gets it and leaves its exit status in `status`. One thread.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "api/client.hpp"
#include "cli/context.hpp"
#include "cli/terminal.hpp"

namespace hf::cli {

struct Session {
  ContextOptions where;
  std::string output = "table";  // table, wide, json (vm show and edit: toml as well)
  bool no_wait = false;
  Terminal terminal;
  int status = 0;

  bool json() const { return output == "json"; }
  bool wide() const { return output == "wide"; }

  // A client of its own; the context is read once.
  Result<api::Client> connect();
  Result<nlohmann::json> get(const std::string& path);
  // With an Idempotency-Key made here, so that the next host can be asked when a reply is lost.
  Result<nlohmann::json> send(const std::string& method, const std::string& path, const nlohmann::json& body);

  // Shows the error on standard error and takes its exit status.
  void fail(const Error& error);
  // JSON as it came, or `table` of it.
  void show(const Result<nlohmann::json>& answer, const std::function<Table(const nlohmann::json&)>& table);
  // JSON as it came, or "name: value" lines.
  void show_pairs(
      const Result<nlohmann::json>& answer,
      const std::function<std::vector<std::pair<std::string, std::string>>(const nlohmann::json&)>& pairs);
  // Waits for the accepted task (unless no_wait) and says how it ended.
  void follow(const Result<nlohmann::json>& accepted);
  struct Sight {
    bool over = false;
    std::string line;  // of progress
  };
  // Asks for `path` until `look` says that it is over, with a line of progress on a terminal; gives the last answer.
  // nullopt: Ctrl-C, then `leaving` is shown; or it cannot be asked any more. `first`: what is known of it.
  std::optional<nlohmann::json> watch(const nlohmann::json& first, const std::string& path,
                                      const std::function<Sight(const nlohmann::json&)>& look,
                                      const std::string& leaving);

 private:
  void print_pairs(const std::vector<std::pair<std::string, std::string>>& lines) const;
  // The task of a vMotion that has succeeded, with its report if that comes soon.
  nlohmann::json with_report(nlohmann::json task);
  void say_end(const nlohmann::json& task);
  std::unique_ptr<api::Client> client_;
};

// Of a JSON object: the text of a field, numbers as text, "" for what is missing. A dotted path goes into
// objects.
std::string field(const nlohmann::json& object, const std::string& path);

}  // namespace hf::cli
