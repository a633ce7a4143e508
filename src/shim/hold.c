// Preloaded into a stock QEMU: holds every change of a disk once the deadline in the hold page has passed.
//
// The second line behind the guard's freezer (ARCHITECTURE.md "Deadline, freeze, proof"): a host that was
// itself stopped must not write one stale block when it wakes, before its guard has run. The page
// (doc/formats.md "Hold page") is named by HOLDFAST_HOLD_PAGE; without that variable the library only passes
// calls on. With it, a page that cannot be mapped ends the process at load: a VM without the hold must not
// run.
//
// What is held: the calls below on regular files and block devices. They are what QEMU 7.2 to 10.x uses for
// disks with aio=threads (block/file-posix.c); QEMU must be started so, io_uring and native AIO do not come
// this way.
//   - pwrite, pwritev, pwritev2: always, QEMU uses them for disks alone;
//   - write, writev, ftruncate, fallocate, posix_fallocate, copy_file_range: if is_disk(fd). The same calls
//     serve sockets, taps, eventfds, the console's log, the pid file and guest RAM, which must not stall
//     QEMU's main loop;
//   - ioctl BLKDISCARD, BLKSECDISCARD, BLKZEROOUT, SG_IO: always.
// A held call waits in its thread (5 ms polls; no locks, no allocation, nothing that QEMU's seccomp sandbox
// refuses, safe in signal handlers and after fork) and is made once the deadline lies in the future again.
//
// safety: no change begins after the deadline. Between the look at the clock and the system call a thread can
// be stopped (SIGSTOP, cgroup freezer, preemption) for any time. A restartable sequence closes that gap, see
// commit_change below. Not closed: a system call that the kernel has begun (it ends as the storage decides),
// and a pause of the whole machine by a hypervisor beneath it, which the kernel does not see. On other
// processors, or where the C library has not registered rseq (glibc < 2.35, GLIBC_TUNABLES), it is a plain
// check followed by the call.
//
// Write tracking of guest RAM for vMotion and FT: track.c.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static const uint64_t* page;  // NULL: pass everything on
static char
    run_dir[PATH_MAX];  // the folder of the hold page, with a '/' at its end: this VM's own files, no disks
static size_t run_dir_length;

struct change {
  long number;
  long arguments[6];
};

// safety: the right to change a disk ends at the deadline; an unreadable clock gives no right.
static bool is_held(void) {
  uint64_t deadline = __atomic_load_n(page, __ATOMIC_ACQUIRE);
  if (deadline == UINT64_MAX) return false;
  struct timespec now;
  if (clock_gettime(CLOCK_BOOTTIME, &now)) return true;
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec >= deadline;
}

static void nap(void) {
  int saved = errno;
  struct timespec pause = {.tv_nsec = 5000000};
  syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &pause, NULL);
  errno = saved;
}

// System call that returns what the kernel returned: -errno on failure.
static long plain_change(const struct change* change) {
  const long* a = change->arguments;
  long result = syscall(change->number, a[0], a[1], a[2], a[3], a[4], a[5]);
  return result == -1 ? -errno : result;
}

#if defined(__x86_64__)
#include <linux/rseq.h>

#define RESTART LONG_MIN
// glibc >= 2.35; absent in older ones.
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

// commit_change(rseq_cs, change): the restartable sequence. Protocol:
//   1. the caller stores the address of commit_descriptor in this thread's rseq_cs, then reads the clock;
//   2. a thread that is interrupted outside [begin, done) finds rseq_cs cleared by the kernel, so the
//   comparison fails;
//   3. one that is interrupted inside continues at `abort`; so does one whose call the kernel rewinds to be
//   made again
//      after a signal (its address is the `syscall` instruction, inside);
//   4. `syscall` is the last instruction inside: during the call the thread's address is `done`, outside.
// In cases 2 and 3 RESTART is returned and nothing was done; the caller looks at the clock again.
// (Linux 6.19 and later do not look at rseq_cs when a system call returns: a rewound call is then not
// stopped. Disk writes are not rewound but on file systems that wait interruptibly. clock_gettime must not
// enter the kernel for 2 to hold there: it does not with the clock sources tsc and kvm-clock.)
__asm__(
    ".pushsection .data.rel.ro, \"aw\"\n"
    ".balign 32\n"
    "commit_descriptor:\n"
    ".long 0, 0\n"
    ".quad commit_begin, commit_done - commit_begin, commit_abort\n"
    ".popsection\n"
    ".pushsection .text\n"
    ".type commit_change, @function\n"
    "commit_change:\n"
    ".cfi_startproc\n"
    "pushq %rbx\n"
    ".cfi_adjust_cfa_offset 8\n"
    ".cfi_offset %rbx, -16\n"
    "movq %rdi, %rbx\n"
    "movq %rsi, %rcx\n"
    "movq 0(%rcx), %rax\n"
    "movq 8(%rcx), %rdi\n"
    "movq 16(%rcx), %rsi\n"
    "movq 24(%rcx), %rdx\n"
    "movq 32(%rcx), %r10\n"
    "movq 40(%rcx), %r8\n"
    "movq 48(%rcx), %r9\n"
    "leaq commit_descriptor(%rip), %r11\n"
    "commit_begin:\n"
#ifndef HOLDFAST_NAIVE
    "cmpq %r11, (%rbx)\n"
    "jne commit_abort\n"
#endif
    ".globl holdfast_shim_syscall\n"  // where the tests stop a thread
    "holdfast_shim_syscall:\n"
    "syscall\n"
    "commit_done:\n"
    "movq $0, (%rbx)\n"
    "popq %rbx\n"
    ".cfi_remember_state\n"
    ".cfi_adjust_cfa_offset -8\n"
    "ret\n"
    ".cfi_restore_state\n"
    ".byte 0x0f, 0xb9, 0x3d\n"  // ud1 with the signature as its operand, so that it disassembles
    ".long 0x53053053\n"        // RSEQ_SIG
    "commit_abort:\n"
    "movq $0, (%rbx)\n"
    "movabsq $0x8000000000000000, %rax\n"
    "popq %rbx\n"
    ".cfi_adjust_cfa_offset -8\n"
    "ret\n"
    ".cfi_endproc\n"
    ".size commit_change, . - commit_change\n"
    ".popsection\n");
long commit_change(volatile uint64_t* rseq_cs, const struct change* change);
extern const char commit_descriptor[];

static volatile struct rseq* registered_rseq(void) {
  if (!&__rseq_size || !&__rseq_offset || __rseq_size == 0) return NULL;
  volatile struct rseq* area = (volatile struct rseq*)((char*)__builtin_thread_pointer() + __rseq_offset);
  return (int)area->cpu_id >= 0 ? area : NULL;
}

// Makes the change if it is not held, in a way that cannot come too late. RESTART: look again.
static long try_change(const struct change* change) {
  volatile struct rseq* area = registered_rseq();
  if (!area) return is_held() ? RESTART : plain_change(change);
  volatile uint64_t* rseq_cs = (volatile uint64_t*)&area->rseq_cs;
#ifndef HOLDFAST_NAIVE
  *rseq_cs = (uint64_t)(uintptr_t)commit_descriptor;
#endif
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  if (is_held()) {
    *rseq_cs = 0;
    return RESTART;
  }
  return commit_change(rseq_cs, change);
}
#else
#define RESTART LONG_MIN
static long try_change(const struct change* change) { return is_held() ? RESTART : plain_change(change); }
#endif

// Waits while writes are held, then makes the change. Returns -errno on failure.
static long change_disk(const struct change* change) {
  if (!page) return plain_change(change);
  for (;;) {
    long result = try_change(change);
    if (result != RESTART) return result;
    if (is_held()) nap();
  }
}

static long with_errno(long result) {
  if (result < 0) {
    errno = (int)-result;
    return -1;
  }
  return result;
}

static bool in_run_dir(int fd) {
  char link[32], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path);
  return length > 0 && (size_t)length > run_dir_length && memcmp(path, run_dir, run_dir_length) == 0;
}

// Asked at each call, never remembered: a number can be closed and given out again. Not disks: what is no
// regular file and no block device; a file without a name (memfd of guest RAM), which no other host can have;
// a file opened for writing only (QEMU opens disks for reading and writing, its logs for writing); the VM's
// own files in its run directory.
static bool is_disk(int fd) {
  int saved = errno;
  struct stat info;
  bool disk = false;
  if (fstat(fd, &info) == 0) {
    if (S_ISBLK(info.st_mode)) disk = true;
    if (S_ISREG(info.st_mode) && info.st_nlink > 0) {
      int flags = fcntl(fd, F_GETFL);
      disk = flags < 0 || ((flags & O_ACCMODE) != O_WRONLY && !in_run_dir(fd));
    }
  }
  errno = saved;
  return disk;
}

static long change_if_disk(int fd, const struct change* change) {
  return page && is_disk(fd) ? change_disk(change) : plain_change(change);
}

#define CHANGE(...) (&(struct change){__VA_ARGS__})

EXPORT ssize_t pwrite64(int fd, const void* data, size_t length, off64_t offset) {
  return with_errno(change_disk(CHANGE(SYS_pwrite64, {fd, (long)data, (long)length, offset})));
}
EXPORT ssize_t pwrite(int fd, const void* data, size_t length, off_t offset) {
  return pwrite64(fd, data, length, offset);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return with_errno(change_disk(CHANGE(SYS_pwritev, {fd, (long)parts, count, offset, offset >> 32})));
}
EXPORT ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  return pwritev64(fd, parts, count, offset);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec* parts, int count, off64_t offset, int flags) {
  return with_errno(change_disk(CHANGE(SYS_pwritev2, {fd, (long)parts, count, offset, offset >> 32, flags})));
}
EXPORT ssize_t pwritev2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  return pwritev64v2(fd, parts, count, offset, flags);
}

EXPORT ssize_t write(int fd, const void* data, size_t length) {
  return with_errno(change_if_disk(fd, CHANGE(SYS_write, {fd, (long)data, (long)length})));
}

EXPORT ssize_t writev(int fd, const struct iovec* parts, int count) {
  return with_errno(change_if_disk(fd, CHANGE(SYS_writev, {fd, (long)parts, count})));
}

EXPORT int ftruncate64(int fd, off64_t length) {
  return (int)with_errno(change_if_disk(fd, CHANGE(SYS_ftruncate, {fd, length})));
}
EXPORT int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  return (int)with_errno(change_if_disk(fd, CHANGE(SYS_fallocate, {fd, mode, offset, length})));
}
EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
  return fallocate64(fd, mode, offset, length);
}

// Unlike the C library it does not make up for a file system that cannot: it returns EOPNOTSUPP.
EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  return (int)-change_if_disk(fd, CHANGE(SYS_fallocate, {fd, 0, offset, length}));
}
EXPORT int posix_fallocate(int fd, off_t offset, off_t length) {
  return posix_fallocate64(fd, offset, length);
}

EXPORT ssize_t copy_file_range(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t length,
                               unsigned flags) {
  return with_errno(change_if_disk(
      out,
      CHANGE(SYS_copy_file_range, {in, (long)in_offset, out, (long)out_offset, (long)length, (long)flags})));
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  long argument = (long)va_arg(list, void*);
  va_end(list);
  const struct change change = {SYS_ioctl, {fd, (long)request, argument}};
  switch (request) {
    case BLKDISCARD:
    case BLKSECDISCARD:
    case BLKZEROOUT:
    case SG_IO:  // SCSI pass-through: may write
      return (int)with_errno(change_disk(&change));
    default:
      return (int)with_errno(plain_change(&change));
  }
}

// The variables are for this process: its children shall neither preload the library nor know of the page.
static void clean_environment(void) {
  unsetenv("HOLDFAST_HOLD_PAGE");
  const char* preload = getenv("LD_PRELOAD");
  Dl_info self;
  if (!preload || !dladdr((const void*)&clean_environment, &self)) return;
  char *rest = strdup(preload), *kept = calloc(1, strlen(preload) + 1), *state = NULL;
  for (char* entry = rest ? strtok_r(rest, ": ", &state) : NULL; entry && kept;
       entry = strtok_r(NULL, ": ", &state)) {
    if (strcmp(entry, self.dli_fname) == 0) continue;
    if (*kept) strcat(kept, ":");
    strcat(kept, entry);
  }
  if (kept && *kept) {
    setenv("LD_PRELOAD", kept, 1);
  } else {
    unsetenv("LD_PRELOAD");
  }
  free(rest);
  free(kept);
}

// safety: a VM whose hold cannot be set up does not run.
static _Noreturn void refuse(const char* path, const char* what) {
  dprintf(STDERR_FILENO, "holdfast: The hold page %s cannot be used (%s): %s. The VM is not started.\n", path,
          what, strerror(errno));
  _exit(126);
}

__attribute__((constructor)) static void map_hold_page(void) {
  const char* path = getenv("HOLDFAST_HOLD_PAGE");
  if (!path) return;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) refuse(path, "open");
  struct stat info;
  if (fstat(fd, &info)) refuse(path, "fstat");
  errno = EINVAL;
  if (!S_ISREG(info.st_mode) || info.st_size < (off_t)sizeof *page) refuse(path, "size");
  void* mapped = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) refuse(path, "mmap");
  char resolved[PATH_MAX];
  if (!realpath(path, resolved)) refuse(path, "realpath");
  close(fd);
  run_dir_length = (size_t)(strrchr(resolved, '/') - resolved) + 1;
  memcpy(run_dir, resolved, run_dir_length);
  page = mapped;
  clean_environment();
}
