#pragma once
// MemberKeeper: looks after the members of the store where they are the cluster's own: the leader's gives every learner
// its vote once it has caught up, whoever added it; every host's remembers where the members are, in
// <state>/store-endpoints, and asks the process to start anew (SIGHUP) when there is one that it does not use yet.
// Owns one thread; does nothing with an etcd that others run, or without one.
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config/config.hpp"
#include "daemon/control.hpp"
#include "sys/etcd/member.hpp"

namespace hf::daemon {

class MemberKeeper {
 public:
  // `control` must outlive this.
  MemberKeeper(const config::HostConfig& config, const Control& control);
  ~MemberKeeper();

 private:
  void run();
  void look();
  void remember(const std::vector<std::string>& urls);

  const config::StoreConfig store_;
  const std::string file_;
  const Control& control_;
  std::unique_ptr<etcd::Members> members_;  // keeper thread only
  bool asked_ = false;                      // for a new start; keeper thread only
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

// What one look at the members leads to.
struct MemberWork {
  std::vector<etcd::Member> to_promote;  // learners that have started; refused until they have caught up
  std::vector<std::string> to_remember;  // all voting members' client URLs, if there is one that we do not use
};
// Nothing at all for members that are not ours. `leads`: this host is the leader; only then are votes given.
MemberWork work_on(const std::vector<etcd::Member>& members, const std::vector<std::string>& endpoints, bool leads);

// The configuration with the endpoints that were remembered; those it has already keep their place.
config::HostConfig with_known_endpoints(config::HostConfig config);
// Are these members the ones that we use?
bool are_ours(const std::vector<etcd::Member>& members, const std::vector<std::string>& endpoints);
// Client URLs of voting members that `endpoints` lacks; the scheme does not count.
std::vector<std::string> missing_endpoints(const std::vector<etcd::Member>& members,
                                           const std::vector<std::string>& endpoints);
// Where they are remembered: one URL a line.
std::string endpoints_file(const config::HostConfig& config);

}  // namespace hf::daemon
