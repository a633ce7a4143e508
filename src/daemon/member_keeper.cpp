#include "daemon/member_keeper.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/log.hpp"
#include "config/store/open_store.hpp"
#include "sys/process/small_file.hpp"

namespace hf::daemon {
namespace {
constexpr Duration kLookEvery = 3s;

std::string address_of(const std::string& url) {
  const auto at = url.find("://");
  return at == std::string::npos ? url : url.substr(at + 3);
}

bool has(const std::vector<std::string>& endpoints, const std::string& url) {
  return std::any_of(endpoints.begin(), endpoints.end(),
                     [&](const auto& one) { return address_of(one) == address_of(url); });
}
}  // namespace

std::string endpoints_file(const config::HostConfig& config) { return config.state_dir + "/store-endpoints"; }

bool are_ours(const std::vector<etcd::Member>& members, const std::vector<std::string>& endpoints) {
  return std::any_of(members.begin(), members.end(), [&](const auto& member) {
    return std::any_of(member.client_urls.begin(), member.client_urls.end(),
                       [&](const auto& url) { return has(endpoints, url); });
  });
}

std::vector<std::string> missing_endpoints(const std::vector<etcd::Member>& members,
                                           const std::vector<std::string>& endpoints) {
  std::vector<std::string> missing;
  for (const auto& member : members) {
    if (member.learner) continue;
    for (const auto& url : member.client_urls) {
      if (!has(endpoints, url)) missing.push_back(url);
    }
  }
  return missing;
}

MemberWork work_on(const std::vector<etcd::Member>& members, const std::vector<std::string>& endpoints, bool leads) {
  MemberWork work;
  if (!are_ours(members, endpoints)) return work;
  if (!missing_endpoints(members, endpoints).empty()) work.to_remember = missing_endpoints(members, {});
  for (const auto& member : members) {
    if (leads && member.learner && !member.name.empty()) work.to_promote.push_back(member);
  }
  return work;
}

config::HostConfig with_known_endpoints(config::HostConfig config) {
  if (config.store.kind != config::StoreKind::etcd) return config;
  const auto known = process::read_small_file(endpoints_file(config));
  if (!known.ok()) return config;
  std::size_t from = 0;
  for (auto end = known->find('\n'); end != std::string::npos;
       from = end + 1, end = known->find('\n', from)) {
    const std::string line = known->substr(from, end - from);
    if (!line.empty() && !has(config.store.endpoints, line)) config.store.endpoints.push_back(line);
  }
  return config;
}

MemberKeeper::MemberKeeper(const config::HostConfig& config, const Control& control)
    : store_(config.store), file_(endpoints_file(config)), control_(control) {
  if (store_.kind != config::StoreKind::etcd) return;
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "hf-members");
}

MemberKeeper::~MemberKeeper() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MemberKeeper::run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kLookEvery, [this] { return stopping_; })) {
    lock.unlock();
    look();
    lock.lock();
  }
}

void MemberKeeper::look() {
  if (!members_) {
    auto opened = etcd::Members::open(config::etcd_options(store_));
    if (!opened.ok()) return;
    members_ = std::move(*opened);
  }
  const auto members = members_->list_members();
  if (!members.ok()) return;
  const MemberWork work = work_on(*members, store_.endpoints, control_.status().leader);
  remember(work.to_remember);
  for (const auto& member : work.to_promote) {
    // Refused until it has caught up; the next look tries again, here or at the next leader.
    const Status promoted = members_->promote_member(member.id);
    if (promoted.ok()) log(Level::info, "A new member of the store has its vote.", {{"member", member.name}});
  }
}

void MemberKeeper::remember(const std::vector<std::string>& urls) {
  if (asked_ || urls.empty()) return;
  std::string lines;
  for (const auto& url : urls) lines += url + "\n";
  if (const Status kept = process::replace_file(file_, lines, 0644); !kept.ok()) {
    log(Level::warn, "The members of the store cannot be remembered.", {{"why", kept.error().what}});
    return;
  }
  asked_ = true;
  log(Level::info, "The store has a new member; holdfastd starts anew to use it.");
  ::kill(::getpid(), SIGHUP);
}

}  // namespace hf::daemon
