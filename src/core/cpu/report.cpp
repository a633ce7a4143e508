#include "core/cpu/report.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/cpu/ladder.hpp"

namespace hf::cpu {
namespace {
using nlohmann::json;

bool is_named(const std::string& model) { return model != "max" && model != "host" && model != "base"; }

std::set<std::string> features_named() {
  std::set<std::string> all;
  for (const auto& one : ladder()) all.insert(one.adds.begin(), one.adds.end());
  return all;
}

void take_definition(const json& definition, bool tcg, record::HostCpu& cpu) {
  const auto name = definition.at("name").get<std::string>();
  // QEMU names the version that a model without one stands for.
  if (definition.contains("alias-of") || !is_named(name)) return;
  auto lacks = definition.at("unavailable-features").get<std::vector<std::string>>();
  const Rung* known = rung(name);
  if (known == nullptr) {
    if (lacks.empty()) cpu.runs.push_back(name);
    return;
  }
  if (!tcg && known->vendor != cpu.vendor) return;
  if (tcg) std::erase_if(lacks, is_not_emulated);
  std::sort(lacks.begin(), lacks.end());
  lacks.erase(std::unique(lacks.begin(), lacks.end()), lacks.end());
  cpu.rungs[name] = std::move(lacks);
}
}  // namespace

Processor processor_in(const std::string& cpuinfo) {
  Processor found;
  std::istringstream lines(cpuinfo);
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("vendor_id")) found.vendor = value;
    if (line.starts_with("model name")) found.name = value;
  }
  return found;
}

Result<record::HostCpu> read_answers(const Answers& answers, const std::string& accelerator,
                                     const Processor& processor) {
  try {
    const bool tcg = accelerator == "tcg";
    record::HostCpu cpu;
    cpu.vendor = tcg ? "" : processor.vendor;
    cpu.name = processor.name;
    for (const auto& definition : json::parse(answers.definitions)) take_definition(definition, tcg, cpu);
    std::sort(cpu.runs.begin(), cpu.runs.end());
    const json everything = json::parse(answers.everything).at("model").at("props");
    for (const auto& feature : features_named()) {
      const auto found = everything.find(feature);
      if (found != everything.end() && found->is_boolean() && found->get<bool>()) cpu.features.push_back(feature);
    }
    return cpu;
  } catch (const json::exception& problem) {
    return Error{Code::corrupt, std::string("QEMU's answer about its CPU models cannot be read: ") + problem.what()};
  }
}

}  // namespace hf::cpu
