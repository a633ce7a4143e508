#pragma once
// The hosts' storage: each host's mount namespace and, in it, a bindfs per shared datastore (the path to the
// array).
//
// bindfs, not a bind mount, because a FUSE server can fail as an array's path does: frozen, its I/O hangs
// (APD); killed, its I/O gets ENOTCONN (PDL). It works uncached: O_DIRECT and O_SYNC reach the folder,
// another host's write is seen by the next read. Its processes are outside the host's cgroup: an array does
// not hang with its client; a power cut ends them, as it ends the host's side of the path. Calls block.
#include <string>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab::storage {

enum class Path { healthy, apd, pdl };

// The tmpfs for sockets and mount points. Before any host.
Status build_run_dir(const Layout& layout, const LabConfig& config);
// The host's mount namespace with its local datastore; kept by its file until remove_run_dir.
Status build_host(const Layout& layout, const std::string& host);
// Succeeds if there is nothing. REQUIRES: no process of the lab is left.
Status remove_run_dir(const Layout& layout);

Path path_state(const Layout& layout, const std::string& host, const std::string& datastore);
// Makes it healthy, from whatever it is.
Status mount(const Layout& layout, const std::string& host, const std::string& datastore);
Status set_apd(const Layout& layout, const std::string& host, const std::string& datastore);
Status set_pdl(const Layout& layout, const std::string& host, const std::string& datastore);

}  // namespace hf::lab::storage
