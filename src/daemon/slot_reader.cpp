#include "daemon/slot_reader.hpp"

#include "core/ha/slot.hpp"
#include "sys/datastore/call_worker.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/process/clock.hpp"

namespace hf::daemon {

struct SlotReader::Reader {
  std::string datastore;
  Target target;  // under mutex_
  std::thread thread;
};

namespace {
ha::event::SlotRead read_one(const std::string& datastore, const std::string& path, const HostId& host) {
  ha::event::SlotRead read;
  read.host = host;
  read.datastore = datastore;
  read.began = sys::boot_now();
  auto bytes = datastore::read_slot(path, host);
  read.ended = sys::boot_now();
  read.ok = bytes.ok();
  read.absent = !bytes.ok() && bytes.code() == Code::not_found;
  if (read.ok) read.fingerprint = ha::slot_fingerprint(*bytes);
  return read;
}
}  // namespace

SlotReader::SlotReader(Mailbox& mailbox, Duration interval) : mailbox_(mailbox), interval_(interval) {}

SlotReader::~SlotReader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (auto& [id, reader] : readers_) reader->thread.join();
}

void SlotReader::set_targets(const std::map<std::string, Target>& targets) {
  std::lock_guard lock(mutex_);
  for (auto& [id, reader] : readers_) {
    auto found = targets.find(id);
    reader->target = found == targets.end() ? Target{} : found->second;
  }
  for (const auto& [id, target] : targets) {
    if (readers_.count(id) != 0) continue;
    auto reader = std::make_unique<Reader>();
    reader->datastore = id;
    reader->target = target;
    reader->thread = std::thread([this, raw = reader.get()] { run(*raw); });
    pthread_setname_np(reader->thread.native_handle(), "hf-slots");
    readers_.emplace(id, std::move(reader));
  }
}

void SlotReader::run(Reader& reader) {
  datastore::CallWorker worker;
  for (;;) {
    Target target;
    {
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, interval_, [this] { return stopping_; })) return;
      target = reader.target;
    }
    using Reads = std::vector<ha::event::SlotRead>;
    auto reads = worker.run<Reads>(4 * interval_, [datastore = reader.datastore, target]() -> Result<Reads> {
      Reads all;
      for (const auto& host : target.hosts) all.push_back(read_one(datastore, target.path, host));
      return all;
    });
    if (reads.ok()) {
      for (auto& read : *reads) mailbox_.post(std::move(read));
    } else {
      for (const auto& host : target.hosts)
        mailbox_.post(ha::event::SlotRead{host, reader.datastore, false, 0, {}, {}});
    }
  }
}

}  // namespace hf::daemon
