#include "cli/app.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"

namespace hf::cli {
namespace {

std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row[b.size()];
}

// The sentence for a word that is no command, if that is what is wrong; else nothing.
std::string unknown_command(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* at = &app;
  std::string path = "holdfast";
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--host" || word == "--context" || word == "-o" || word == "--output") ++i;
    if (word.starts_with('-')) continue;
    const auto commands = at->get_subcommands([](const CLI::App*) { return true; });
    if (commands.empty()) return "";
    const CLI::App* best = nullptr;
    for (const auto* one : commands) {
      if (best == nullptr || distance(word, one->get_name()) < distance(word, best->get_name())) best = one;
    }
    if (best->get_name() != word) {
      std::string text = fmt::format("\"{}\" is no command of {}.", word, path);
      if (distance(word, best->get_name()) <= 2)
        text += fmt::format(" Did you mean \"{} {}\"?", path, best->get_name());
      return text + fmt::format(" {} --help lists them.", path);
    }
    at = best;
    path += " " + word;
  }
  return "";
}

void add_global_options(CLI::App& app, Session& session) {
  app.add_option("--host", session.where.host, "Addresses of hosts, separated by commas (also HOLDFAST_API)");
  app.add_option("--context", session.where.context, "Folder with ca.pem, cert.pem, key.pem and endpoints");
  app.add_option("-o,--output", session.output, "table, wide or json (vm show: toml as well)")
      ->check(CLI::IsMember({"table", "wide", "json", "toml"}));
  app.add_flag("--no-wait", session.no_wait, "Print the task's id and do not wait for it");
}

void build(CLI::App& app, Session& session, const std::vector<Mount>& mounts) {
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(examples({"holdfast vm ls", "holdfast vm create web.toml --start",
                       "holdfast --host 10.0.0.1:7443 host ls"}) +
             "\n\n" + exit_code_text());
  add_global_options(app, session);
  add_cluster_commands(app, session);
  add_inventory_commands(app, session);
  add_vm_commands(app, session);
  add_watch_commands(app, session);
  for (const auto& mount : mounts) mount.add(app, session.status);
  add_other_commands(app, session);
}
}  // namespace

int run(const std::vector<std::string>& arguments, const std::vector<Mount>& mounts) {
  std::signal(SIGPIPE, SIG_IGN);
  Session session;
  session.terminal = detect_terminal();
  CLI::App app("Keeps virtual machines running when hosts, networks and storage fail.", "holdfast");
  build(app, session, mounts);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app.parse(reversed);
  } catch (const CLI::Success& asked) {  // --help
    return app.exit(asked);
  } catch (const CLI::ParseError& mistake) {
    std::string what = unknown_command(app, arguments);
    if (what.empty()) what = std::string(mistake.what()) + ". --help says more.";
    session.fail({Code::invalid, what});
  } catch (const std::exception& problem) {  // an answer that is not shaped as it should be
    session.fail({Code::failed, std::string("The host's answer could not be read: ") + problem.what() + "."});
  }
  return session.status;
}

}  // namespace hf::cli
