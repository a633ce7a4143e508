#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"

namespace hf::cli {
namespace {

// Every command of the tree, with the words that may follow it.
struct Words {
  std::string path;                                           // "vm create"; empty: the program
  std::vector<std::pair<std::string, std::string>> commands;  // name, description
  std::vector<std::string> options;
};

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> out;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) out.push_back("--" + name);
    for (const auto& name : option->get_snames()) out.push_back("-" + name);
  }
  return out;
}

void collect(const CLI::App& app, const std::string& path, const std::vector<std::string>& global,
             std::vector<Words>& out) {
  Words words{path, {}, options_of(app)};
  for (const auto& option : global) {
    if (std::find(words.options.begin(), words.options.end(), option) == words.options.end())
      words.options.push_back(option);
  }
  const auto subcommands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const auto* sub : subcommands) words.commands.emplace_back(sub->get_name(), sub->get_description());
  out.push_back(std::move(words));
  const auto inherited = path.empty() ? options_of(app) : global;
  for (const auto* sub : subcommands)
    collect(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), inherited, out);
}

std::string names_of(const Words& words) {
  std::string out;
  for (const auto& [name, text] : words.commands) out += (out.empty() ? "" : " ") + name;
  for (const auto& option : words.options) out += (out.empty() ? "" : " ") + option;
  return out;
}

// The path is made of the words so far that are commands: options and their values between them do no harm.
constexpr const char* kBash = R"(_holdfast() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" word candidate
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    candidate="${path:+$path }$word"
    case "|$_holdfast_paths|" in *"|$candidate|"*) path="$candidate" ;; esac
  done
  local words=""
  case "$path" in
{cases}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ ${{#COMPREPLY[@]}} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$current")); fi
}
)";

std::string replace(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

std::string bash_script(const std::vector<Words>& all) {
  std::string paths;
  std::string cases;
  for (const auto& words : all) {
    paths += (paths.empty() ? "" : "|") + words.path;
    cases += fmt::format("    \"{}\") words=\"{}\" ;;\n", words.path, names_of(words));
  }
  const std::string body = replace(replace(kBash, "${{#", "${#"), "]}}", "]}");
  return "# bash completion of holdfast. Load it: source <(holdfast completion bash)\n_holdfast_paths=\"" +
         paths + "\"\n" + replace(body, "{cases}", cases) + "complete -F _holdfast holdfast\n";
}

std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string fish_script(const std::vector<Words>& all) {
  std::string out = "# fish completion of holdfast. Load it: holdfast completion fish | source\n";
  for (const auto& words : all) {
    std::string condition = "__fish_use_subcommand";
    if (!words.path.empty()) {
      condition.clear();
      std::string one;
      for (const char c : words.path + " ") {
        if (c != ' ')
          one += c;
        else
          condition +=
              (condition.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + std::exchange(one, ""));
      }
    }
    for (const auto& [name, text] : words.commands) {
      out += fmt::format("complete -c holdfast -f -n {} -a {} -d {}\n", shell_quoted(condition), name,
                         shell_quoted(text));
    }
    for (const auto& option : words.options) {
      if (option.starts_with("--"))
        out += fmt::format("complete -c holdfast -n {} -l {}\n", shell_quoted(condition), option.substr(2));
    }
  }
  return out;
}
}  // namespace

std::string examples(const std::vector<std::string>& lines) {
  std::string out = "Examples:";
  for (const auto& line : lines) out += "\n  " + line;
  return out;
}

std::string exit_code_text() {
  static const std::vector<std::pair<Code, const char*>> kMeanings = {
      {Code::failed, "anything else that failed"},
      {Code::invalid, "the request or the input is wrong; nothing was changed"},
      {Code::not_found, "the named thing does not exist"},
      {Code::exists, "the name is taken"},
      {Code::conflict, "another command is under way or somebody else changed it; try again"},
      {Code::no_room, "not enough memory or disk"},
      {Code::denied, "the certificate is not accepted, or may not do this"},
      {Code::unavailable, "no host or no store can be reached; nothing was done"},
      {Code::timed_out, "gave up waiting"},
      {Code::outcome_unknown, "it may or may not have been done: look before you repeat it"},
      {Code::corrupt, "data is damaged"},
      {Code::unsupported, "this machine or guest cannot do it"}};
  std::string out = "Exit codes:\n   0  done";
  for (const auto& [code, meaning] : kMeanings)
    out += fmt::format("\n  {:>2}  {}: {}", info(code).exit_status, info(code).name, meaning);
  return out + "\n 130  Ctrl-C while waiting: the task goes on";
}

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
  std::vector<Words> all;
  collect(app, "", {}, all);
  if (shell == "bash") return bash_script(all);
  if (shell == "zsh") {
    return "#compdef holdfast\n# zsh completion of holdfast. Load it: source <(holdfast completion zsh)\n"
           "autoload -U +X bashcompinit && bashcompinit\n" +
           bash_script(all);
  }
  if (shell == "fish") return fish_script(all);
  return Error{Code::invalid, "Completion is there for bash, zsh and fish."};
}

void add_other_commands(CLI::App& app, Session& session) {
  auto shell = std::make_shared<std::string>();
  auto* completion = app.add_subcommand("completion", "Print the completion script of a shell");
  completion->add_option("SHELL", *shell, "bash, zsh or fish")->required();
  completion->footer(examples({"source <(holdfast completion bash)", "holdfast completion fish | source"}));
  completion->callback([&app, &session, shell] {
    const auto script = completion_script(app, *shell);
    if (!script.ok()) return session.fail(script.error());
    std::fputs(script->c_str(), stdout);
  });
  auto* version = app.add_subcommand("version", "Print the version");
  version->footer(examples({"holdfast version"}));
  version->callback([&session] {
    if (session.json())
      fmt::print("{}\n", nlohmann::json{{"version", HF_VERSION}}.dump());
    else
      fmt::print("holdfast {}\n", HF_VERSION);
  });
  auto topic = std::make_shared<std::string>();
  auto* help = app.add_subcommand("help", "Print this help, or: help exit-codes");
  help->add_option("TOPIC", *topic, "exit-codes, or nothing");
  help->footer(examples({"holdfast help", "holdfast help exit-codes"}));
  help->callback([&app, topic] {
    if (*topic == "exit-codes")
      fmt::print("{}\n", exit_code_text());
    else
      std::fputs(app.help().c_str(), stdout);
  });
}

}  // namespace hf::cli
