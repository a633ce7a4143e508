#pragma once
// Operations: everything the product can be asked to do, over the Store alone; the REST server, the daemon
// and the tests call it. Each write is one Txn conditional on what was read. A command to a VM makes a task
// and sets the VM's active_task in the same Txn: two commands to one VM cannot both be under way. The hosts
// carry the tasks out.
//
// Lost replies: a commit whose outcome is unknown is read back (is the task there?) and, if it is not, sent
// once more: its conditions let it happen at most once. Code::outcome_unknown comes only if the store stays
// unreachable meanwhile. Thread-safe if the Store is. Never decides where a VM runs (that is the leader's),
// never touches owners/.
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "api/inventory.hpp"
#include "core/motion/checks.hpp"
#include "core/record/records.hpp"
#include "core/vm/lifecycle.hpp"
#include "port/store.hpp"

namespace hf::api {

// It has ended, well or not, and never changes again.
inline bool is_final(const record::TaskRecord& task) {
  return task.state == record::TaskState::succeeded || task.state == record::TaskState::failed;
}

// Who asks. `task`: the id the task shall have (Idempotency-Key), so that asking again does nothing twice;
// empty: made here.
struct Actor {
  std::string who;
  TaskId task;
};

// What is asked of a vMotion. `to` empty: the leader chooses.
// With a datastore: the VM stays where it is, or is off, and its disks go there. disk_format: "raw", "qcow2", or empty:
// each keeps its own. disk: this one only.
struct Migration {
  HostId to;
  record::MotionLimits limits;
  std::string datastore = {}, disk_format = {}, disk = {};
};
inline constexpr std::uint64_t kBandwidthMbitMax = 1'000'000;
inline constexpr int kMaxStopMsMax = 10'000;

class Operations {
 public:
  struct World {
    HostId here;  // the host that serves this request
    std::function<WallMs()> now;
    std::function<std::string()> random_hex;  // 12 digits or more
  };
  // The world of the running machine.
  static World real_world(HostId here);

  // The store must outlive this.
  Operations(Store& store, World world) : store_(store), world_(std::move(world)) {}

  // Makes the VM and the task (vm.create; vm.import if a disk is imported) that a host with its datastores
  // carries out. `import_host`: the host that has the image; empty: this one. The VM is stopped afterwards.
  // exists: name or MAC taken. invalid/not_found: something it names does not exist. no_room: larger than any
  // host.
  Result<record::TaskRecord> create_vm(const vm::VmSpec& spec, const std::string& import_host,
                                       const Actor& by);
  // `host`: run it there; empty: the leader chooses. no_room with the host that has most.
  Result<record::TaskRecord> start_vm(const std::string& name, const std::string& host, const Actor& by);
  // Graceful for `timeout_seconds` (0: as the spec says), then forced.
  Result<record::TaskRecord> stop_vm(const std::string& name, int timeout_seconds, const Actor& by);
  // At once. Overrides a vm.start, stop, reset or migrate that is under way: that task fails with Code::conflict; a
  // motion ends with it, on whichever host the VM is by then.
  Result<record::TaskRecord> kill_vm(const std::string& name, const Actor& by);
  Result<record::TaskRecord> reset_vm(const std::string& name, const Actor& by);
  // Moves a running VM to another host, or a VM's disks to another datastore. Code::invalid: no such host, it is there
  // already, a limit out of range. What
  // else is against it, the leader finds, and it ends the task with every reason.
  Result<record::TaskRecord> migrate_vm(const std::string& name, const Migration& wanted, const Actor& by);
  // The same, only asked: where it would go, or every reason why not. Changes nothing.
  Result<motion::Answer> check_migration(const std::string& name, const Migration& wanted);
  // Ends a vm.migrate that is queued or copies; the VM runs on where it is. Asking again changes nothing and succeeds.
  // Code::conflict: it has ended otherwise, or the VM has arrived; unsupported: a task of another kind.
  Result<record::TaskRecord> cancel_task(const std::string& id);
  // Grows a disk of a stopped VM. Code::invalid if it would shrink; the spec says the new size once the image has it.
  Result<record::TaskRecord> resize_vm(const std::string& name, const std::string& disk, std::uint64_t size_bytes,
                                       const Actor& by);
  // The VM must be stopped. Its images are deleted with it.
  Result<record::TaskRecord> delete_vm(const std::string& name, const Actor& by);
  // Takes effect at the next start; `generation` as last read, 0: whatever it is. While the VM runs only
  // description, ha and stop_timeout_seconds may change. Disks cannot change yet: Code::unsupported.
  Result<record::VmRecord> edit_vm(const std::string& name, const vm::VmSpec& spec, std::uint64_t generation);

  // Name and paths, as far as text alone tells. Code::invalid.
  static Status check_datastore(const record::DatastoreRecord& wanted);
  // Adding the same again changes nothing and succeeds; another under the same name is Code::exists.
  Result<record::DatastoreRecord> add_datastore(record::DatastoreRecord wanted);
  Result<record::NetworkRecord> add_network(const record::NetworkRecord& wanted);

  // The CPU baseline: "off", "auto" (the best one that every host can give) or a rung of the ladder. Code::invalid: no
  // such rung; unsupported: a host cannot give it (every reason), or is of a version that knows no baselines.
  // VMs that run keep what they see until their next start.
  Result<EvcView> set_evc(const std::string& wanted);

  // From now on the host is given no VM, and the leader has its VMs moved away; `show_host` says how far it is. Asking
  // again changes nothing and succeeds. Code::conflict: no other host could take a VM.
  Result<HostView> enter_maintenance(const std::string& name, const Actor& by);
  // Also while it enters: what is not on its way yet stays. Succeeds where the host is in none.
  Result<HostView> leave_maintenance(const std::string& name);
  // Code::conflict: it is connected, or VMs are its. Removing it again changes nothing and succeeds.
  Status remove_host(const std::string& name);
  // An invite was made with this certificate: if the host was removed, this one's key is accepted all the same.
  Status readmit_host(const std::string& name, const std::string& certificate_pem);

  // For the hosts that carry tasks out. begin: Code::conflict if it is final already.
  Status begin_task(const TaskId& task);
  Status report_progress(const TaskId& task, int percent, const std::string& message);
  // Ends the task and frees the VM. A failed vm.create or vm.import and a successful vm.delete also remove
  // the VM's records (conflict if an owner has it). A task that is final already is left as it is.
  // `sizes`: of disks whose specs left them to what was imported.
  Status finish_task(const TaskId& task, const Status& outcome, const std::map<std::string, std::uint64_t>& sizes = {});

 private:
  // What one attempt wants to write; `task` is empty for writes without one.
  struct Plan {
    Txn txn;
    record::TaskRecord task;
  };
  struct Target;
  Result<Target> load(const std::string& name);
  static Status require_legal(vm::Command command, const Target& target);
  record::TaskRecord new_task(record::TaskKind kind, const record::VmRecord& vm, const Actor& by) const;
  Plan command(const Target& target, record::VmRecord changed, record::TaskRecord task) const;
  Result<record::TaskRecord> run_task(const std::string& subject, record::TaskKind kind, const Actor& by,
                                      const std::function<Result<Plan>()>& attempt);
  Result<bool> settle(const Txn& txn, const std::function<Result<bool>()>& landed);
  Status run_write(const std::string& subject, const std::function<Result<Txn>()>& attempt);

  Status end_motion(const record::VmRecord& vm, Txn& txn);
  Result<Txn> plan_cancel(const std::string& id);
  Status require_level(const record::ClusterRecord& cluster, int level);
  Result<Txn> plan_evc(const std::string& wanted);
  Result<Txn> plan_maintenance(const std::string& name, const std::string& by);
  Result<Plan> plan_create(vm::VmSpec spec, const std::string& import_host, const Actor& by);
  Status check_new(const vm::VmSpec& spec, const VmId& self, Txn& txn);
  Status fill_macs(vm::VmSpec& spec, const VmId& self);
  Status check_start_room(const record::VmRecord& vm, const std::string& host);
  Status check_fits_some_host(const vm::VmSpec& spec);
  Result<HostId> host_with_datastores(const vm::VmSpec& spec, const std::string& wanted);

  Store& store_;
  World world_;
};

// Writes an event; best effort: an event that cannot be written is logged. Fills id and time.
void emit(Store& store, record::EventRecord event, WallMs now);

// A name that people give: a-z, 0-9 and -, 1 to 63 characters, begins with a letter or a digit.
Status check_name(const std::string& what, const std::string& name);

}  // namespace hf::api
