#pragma once
// LocalServices: what the API needs of this host: consoles, guard, timing, folders, its store member. Thread-safe.
#include "api/handler.hpp"
#include "core/ha/timing.hpp"
#include "config/config.hpp"
#include "daemon/control.hpp"
#include "guard/client.hpp"
#include "port/hypervisor.hpp"

namespace hf::daemon {

class LocalServices final : public api::HostServices {
 public:
  // All must outlive this.
  LocalServices(const config::HostConfig& config, ha::Timing timing, Hypervisor& hypervisor, guard::GuardClient& guard,
                const Control& control)
      : config_(config), timing_(timing), hypervisor_(hypervisor), guard_(guard), control_(control) {}

  HostId here() override { return HostId(config_.host); }
  Result<int> open_console(const VmId& vm) override { return hypervisor_.open_console(vm); }
  api::LocalStatus local_status() override;
  std::vector<api::TimingRow> timing() override;
  api::StoreInfo store_info() override;
  Result<api::MarkedDatastore> mark_datastore(const std::string& name, const std::string& path, bool shared) override;
  Result<api::StoreMember> add_store_member(const std::string& host, const std::string& peer_url) override;
  Status remove_store_member(const std::string& host) override;

 private:
  const config::HostConfig config_;
  const ha::Timing timing_;
  Hypervisor& hypervisor_;
  guard::GuardClient& guard_;
  const Control& control_;
};

}  // namespace hf::daemon
