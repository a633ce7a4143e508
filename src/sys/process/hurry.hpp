#pragma once
// Hurry: while a guest stands still for its move, the processes that it waits for come first on their host. On a busy
// one their threads would wait for a processor longer than they need it. Wishes: what the kernel refuses changes
// nothing but the time. Stateless.
namespace hf::process {

// Every thread of the process gets the nice value -20; one that it starts later gets 0.
void hurry(int pid);
// Every thread gets `nice`, and what it starts too.
void end_hurry(int pid, int nice);

}  // namespace hf::process
