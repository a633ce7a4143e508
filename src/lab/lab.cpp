#include "lab/lab.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "lab/cgroup.hpp"
#include "lab/command.hpp"
#include "lab/files.hpp"
#include "lab/network.hpp"
#include "lab/relay.hpp"
#include "lab/services.hpp"
#include "lab/storage.hpp"

namespace hf::lab {
namespace {

Status require_root() {
  if (::geteuid() == 0) return {};
  return Error{Code::denied,
               "The lab makes network namespaces and mounts, which only root may do: use sudo."};
}

struct Need {
  const char* program;
  const char* package;
};

Status require_programs(const LabConfig& config, const std::string& program_dir) {
  std::vector<Need> needs = {
      {"ip", "iproute2"}, {"tc", "iproute2"}, {"bindfs", "bindfs"}, {"fusermount", "fuse3"}};
  if (config.services == ServiceSet::product) needs.push_back({"etcd", "etcd-server"});
  std::string packages;
  for (const auto& need : needs) {
    const bool there = has_program(need.program) || has_program(std::string(need.program) + "3");
    if (!there && packages.find(need.package) == std::string::npos)
      packages += std::string(" ") + need.package;
  }
  if (!packages.empty()) {
    return Error{Code::unsupported,
                 fmt::format("The lab needs programs that are not installed. Install them: "
                             "apt-get install{}",
                             packages)};
  }
  if (config.services != ServiceSet::product) return {};
  for (const char* program : {"holdfastd", "holdfast-guard"}) {
    if (!has_program(program_dir + "/" + program)) {
      return Error{Code::unsupported,
                   fmt::format("{} is not in {}: build it first, or name its folder with --programs.",
                               program, program_dir)};
    }
  }
  if (!exists("/dev/fuse"))
    return Error{Code::unsupported, "There is no /dev/fuse: load it with `modprobe fuse`."};
  return {};
}

// Held while a lab is made or removed.
Result<Fd> lock(const std::string& base) {
  TRY(process::make_folder(base));
  Fd folder(::open(base.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::flock(folder.get(), LOCK_EX) != 0) return from_errno("Cannot lock " + base, errno);
  return folder;
}

Status make_host_folders(const Layout& layout, const LabConfig& config, int index,
                         const std::string& program_dir) {
  const std::string host = host_name(index);
  const std::string dir = layout.host_dir(host);
  for (const char* part : {"/etc", "/var/log", "/datastores/local"}) TRY(process::make_folder(dir + part));
  TRY(process::make_folder(layout.host_run_dir(host)));
  std::error_code error;
  std::filesystem::create_symlink(layout.host_run_dir(host), dir + "/run", error);
  if (error) return from_errno("Cannot link " + dir + "/run", error.value());
  return process::replace_file(dir + "/etc/services.json",
                               to_json(services_of(layout, config, index, program_dir)), 0644);
}

Status start_relay(const Layout& layout, LabConfig& config) {
  TRY_ASSIGN(const std::vector<int> listeners, relay_listeners(config));
  TRY(cgroup::make(layout.relay_cgroup()));
  std::vector<std::string> argv = {own_path(), "lab", "relay", "--base", layout.base, "--name", layout.name};
  for (const int listener : listeners) argv.push_back(std::to_string(listener));
  const auto pid = start(argv, Place{.network = {}, .mounts = {}, .cgroup = layout.relay_cgroup()},
                         layout.dir() + "/relay.log", listeners);
  for (const int listener : listeners) ::close(listener);
  if (!pid) return pid.error();
  return {};
}

Status power_on(const Layout& layout, const LabConfig& config, const std::string& host) {
  for (const auto& datastore : config.datastores) TRY(storage::mount(layout, host, datastore));
  const std::string init = layout.init_cgroup(host);
  if (cgroup::is_populated(init)) return {};
  // What the last life left: the host itself is empty, or it would be on.
  TRY(cgroup::remove(layout.cgroup(host)));
  for (const char* part : {"/init", "/services", "/vms", "/exec"})
    TRY(cgroup::make(layout.cgroup(host) + part));
  const std::string run_dir = layout.host_run_dir(host);
  TRY(remove_folder(run_dir));
  TRY(process::make_folder(run_dir));
  const Place place{.network = Layout::net_file(layout.net_name(host)),
                    .mounts = layout.mount_namespace(host),
                    .cgroup = init};
  const auto pid =
      start({own_path(), "lab", "init", "--base", layout.base, "--name", layout.name, "--host", host}, place,
            layout.log_file(host, "init"));
  if (!pid) return pid.error();
  return {};
}

Status build(const Layout& layout, const LabOptions& options, LabConfig& config, const Progress& progress) {
  const auto go_on = [&options]() -> Status {
    if (options.interrupted == nullptr || !options.interrupted->load()) return {};
    return Error{Code::failed, "Interrupted: what was made of the lab is removed again."};
  };
  const std::string program_dir = options.program_dir.empty()
                                      ? std::filesystem::path(own_path()).parent_path().string()
                                      : options.program_dir;
  progress("folders");
  TRY(process::replace_file(layout.config_file(), to_json(config), 0644));
  for (const auto& datastore : config.datastores) TRY(process::make_folder(layout.datastore_source(datastore)));
  TRY(storage::build_run_dir(layout, config));
  for (int index = 1; index <= config.hosts; ++index)
    TRY(make_host_folders(layout, config, index, program_dir));
  TRY(go_on());
  progress("networks");
  TRY(network::build(layout, config));
  TRY(go_on());
  progress("API relay");
  TRY(start_relay(layout, config));
  TRY(process::replace_file(layout.config_file(), to_json(config), 0644));
  if (options.prepare) TRY(options.prepare(layout, config));
  for (int index = 1; index <= config.hosts; ++index) {
    TRY(go_on());
    progress(host_name(index));
    TRY(storage::build_host(layout, host_name(index)));
    TRY(power_on(layout, config, host_name(index)));
  }
  return go_on();
}

Status take_down(const Layout& layout) {
  TRY(cgroup::remove(layout.cgroup()));
  ::rmdir(layout.cgroup_root().c_str());  // stays while there is another lab
  TRY(storage::remove_run_dir(layout));
  TRY(network::remove(layout));
  return remove_folder(layout.dir());
}

Status cut_power(const LabState& lab, const std::string& host) {
  const Layout& layout = lab.layout;
  const std::string group = layout.cgroup(host);
  if (!exists(group)) return {};
  const int index = host_index(lab.config, host);
  // Frozen first: from here on nothing of the host acts, so its peers do not see the closing of its sockets.
  TRY(cgroup::set_frozen(group, true));
  for (const auto network : kNetworks) TRY(network::set_port(layout, index, network, false));
  // Before the host: a process that waits for a hung datastore can only die once bindfs is gone.
  for (const auto& datastore : lab.config.datastores) TRY(storage::set_pdl(layout, host, datastore));
  TRY(cgroup::kill(group));
  return cgroup::set_frozen(group, false);
}

Status fault_process(const LabState& lab, const std::string& host, const Fault& fault) {
  const std::string group = lab.layout.services_cgroup(host) + "/" + fault.target;
  if (fault.target.find('/') != std::string::npos || !exists(group)) {
    return Error{Code::not_found,
                 fmt::format("{} has no service \"{}\": `holdfast lab ls` shows them.", host, fault.target)};
  }
  return fault.mode == "stop" ? cgroup::set_frozen(group, true) : cgroup::kill(group);
}

Status fault_storage(const LabState& lab, const std::string& host, const Fault& fault) {
  bool found = false;
  for (const auto& datastore : lab.config.datastores) {
    if (!fault.target.empty() && fault.target != datastore) continue;
    found = true;
    TRY(fault.mode == "pdl" ? storage::set_pdl(lab.layout, host, datastore)
                            : storage::set_apd(lab.layout, host, datastore));
  }
  if (found) return {};
  return Error{Code::not_found, fmt::format("There is no shared datastore \"{}\" in the lab.", fault.target)};
}

std::vector<ServiceState> services_now(const Layout& layout, const std::string& host) {
  std::vector<ServiceState> found;
  const auto text = process::read_small_file(layout.host_dir(host) + "/etc/services.json");
  const auto services = text ? services_from_json(*text) : Result<std::vector<Service>>(text.error());
  if (!services) return found;
  for (const auto& service : *services) {
    const std::string group = layout.services_cgroup(host) + "/" + service.name;
    found.push_back({.name = service.name, .pids = cgroup::pids(group), .stopped = cgroup::is_frozen(group)});
  }
  return found;
}

HostState host_now(const LabState& lab, int index, const std::map<std::string, network::Port>& ports) {
  const std::string name = host_name(index);
  HostState host{.name = name,
                 .mgmt = mgmt_address(index),
                 .motion = motion_address(index),
                 .cut = {},
                 .slow = {},
                 .apd = {},
                 .pdl = {},
                 .services = services_now(lab.layout, name)};
  if (lab.config.api_ports.size() >= static_cast<std::size_t>(index)) {
    host.api_port = lab.config.api_ports[static_cast<std::size_t>(index - 1)];
  }
  if (cgroup::is_populated(lab.layout.init_cgroup(name))) {
    host.power = cgroup::is_frozen(lab.layout.cgroup(name)) ? HostState::Power::hung : HostState::Power::on;
  }
  for (const auto network : kNetworks) {
    const auto port = ports.find(port_name(index, network));
    if (port == ports.end() || !port->second.up) host.cut.emplace_back(network);
    if (port != ports.end() && port->second.slow) host.slow.emplace_back(network);
  }
  for (const auto& datastore : lab.config.datastores) {
    const auto state = storage::path_state(lab.layout, name, datastore);
    if (state == storage::Path::apd) host.apd.push_back(datastore);
    if (state == storage::Path::pdl) host.pdl.push_back(datastore);
  }
  return host;
}

}  // namespace

Result<LabState> list(const std::string& base, const std::string& name) {
  TRY(require_root());
  TRY_ASSIGN(Layout layout, layout_of(base, name));
  auto text = process::read_small_file(layout.config_file());
  if (!text)
    return Error{Code::not_found,
                 fmt::format("There is no lab \"{}\". Make one with `holdfast lab up`.", name)};
  TRY_ASSIGN(LabConfig config, config_from_json(*text));
  if (!network::exists(layout)) {
    return Error{Code::conflict,
                 fmt::format("The lab \"{}\" is left from before the machine's restart. Remove it with "
                             "`holdfast lab down`, then make it anew.",
                             name)};
  }
  LabState lab{.config = std::move(config), .layout = std::move(layout), .was_there = true, .hosts = {}};
  TRY_ASSIGN(const auto ports, network::ports(lab.layout));
  for (int index = 1; index <= lab.config.hosts; ++index) lab.hosts.push_back(host_now(lab, index, ports));
  return lab;
}

namespace {
// Nothing of it runs any more, not even what its own faults never end: somebody killed it all, from outside.
bool is_dead(const LabState& lab) {
  const auto off = [](const HostState& host) { return host.power == HostState::Power::off; };
  return std::all_of(lab.hosts.begin(), lab.hosts.end(), off) && !cgroup::is_populated(lab.layout.relay_cgroup());
}
}  // namespace

Result<LabState> up(const LabOptions& options, const Progress& progress) {
  TRY(require_root());
  TRY(check(options.config));
  const std::string& name = options.config.name;
  TRY_ASSIGN(const Fd held, lock(options.base));
  auto present = list(options.base, name);
  if (present && is_dead(*present)) {
    progress("remains of a lab whose processes are all gone");
    TRY(take_down(present->layout));
    present = Error{Code::not_found, ""};
  }
  if (present) {
    if (present->config.hosts == options.config.hosts) return present;
    return Error{Code::exists,
                 fmt::format("The lab \"{}\" is there with {} hosts. To have {}, remove it first: "
                             "`holdfast lab down`.",
                             name, present->config.hosts, options.config.hosts)};
  }
  if (present.code() != Code::not_found) return present.error();
  TRY(require_programs(options.config, options.program_dir.empty()
                                           ? std::filesystem::path(own_path()).parent_path().string()
                                           : options.program_dir));
  TRY_ASSIGN(const Layout layout, layout_of(options.base, name));
  TRY(process::make_folder(layout.dir()));
  LabConfig config = options.config;
  if (auto built = build(layout, options, config, progress); !built) {
    if (auto undone = take_down(layout); !undone) {
      return Error{built.code(), built.error().what + " Taking it back failed as well: " +
                                     undone.error().what + " Try `holdfast lab down`."};
    }
    return built.error();
  }
  TRY_ASSIGN(LabState lab, list(options.base, name));
  lab.was_there = false;
  return lab;
}

Status down(const std::string& base, const std::string& name) {
  TRY(require_root());
  TRY(check(LabConfig{.name = name, .api_ports = {}}));
  TRY_ASSIGN(const Layout layout, layout_of(base, name));
  {
    TRY_ASSIGN(const Fd held, lock(base));
    TRY(take_down(layout));
  }
  ::rmdir(base.c_str());  // stays while there is another lab or the guest image
  return {};
}

Result<std::vector<std::string>> hosts_named(const LabConfig& config, const std::string& names) {
  std::vector<std::string> hosts;
  for (std::size_t begin = 0; names != "all" && begin <= names.size();) {
    const auto comma = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, comma - begin);
    if (host_index(config, name) == 0) {
      return Error{Code::not_found,
                   fmt::format("The lab has no host \"{}\"; it has host1 to host{}.", name, config.hosts)};
    }
    hosts.push_back(name);
    begin = comma + 1;
  }
  for (int index = 1; names == "all" && index <= config.hosts; ++index) hosts.push_back(host_name(index));
  return hosts;
}

Status inflict(const LabState& lab, const std::string& host, const Fault& fault) {
  const int index = host_index(lab.config, host);
  switch (fault.kind) {
    case Fault::Kind::power:
      return cut_power(lab, host);
    case Fault::Kind::hang:
      return cgroup::set_frozen(lab.layout.cgroup(host), true);
    case Fault::Kind::net:
      for (const auto network : kNetworks) {
        if (fault.target.empty() || fault.target == network) {
          TRY(network::set_port(lab.layout, index, network, false));
        }
      }
      return {};
    case Fault::Kind::storage:
      return fault_storage(lab, host, fault);
    case Fault::Kind::link:
      return network::set_rate(lab.layout, index, fault.target, fault.mode);
    case Fault::Kind::process:
      return fault_process(lab, host, fault);
  }
  return Error{Code::invalid, "Unknown kind of fault."};
}

Status heal(const LabState& lab, const std::string& host) {
  const int index = host_index(lab.config, host);
  for (const auto network : kNetworks) {
    TRY(network::set_port(lab.layout, index, network, true));
    TRY(network::set_rate(lab.layout, index, network, ""));
  }
  TRY(power_on(lab.layout, lab.config, host));
  for (const auto& name : names_in(lab.layout.services_cgroup(host))) {
    const std::string group = lab.layout.services_cgroup(host) + "/" + name;
    if (cgroup::is_frozen(group)) TRY(cgroup::set_frozen(group, false));
  }
  return cgroup::set_frozen(lab.layout.cgroup(host), false);
}

Result<int> exec(const LabState& lab, const std::string& host, const std::vector<std::string>& argv) {
  if (host == "net") {
    return run_attached(
        argv, Place{.network = Layout::net_file(lab.layout.net_name()), .mounts = {}, .cgroup = {}});
  }
  TRY(hosts_named(lab.config, host));
  const std::string init = lab.layout.init_cgroup(host);
  const bool hangs = cgroup::is_frozen(lab.layout.cgroup(host));
  if (!cgroup::is_populated(init) || hangs) {
    return Error{Code::unavailable, fmt::format("{} {}: bring it back with `holdfast lab heal {}`.", host,
                                                hangs ? "hangs" : "is off", host)};
  }
  return run_attached(argv, Place{.network = Layout::net_file(lab.layout.net_name(host)),
                                  .mounts = lab.layout.mount_namespace(host),
                                  .cgroup = lab.layout.cgroup(host) + "/exec"});
}

}  // namespace hf::lab
