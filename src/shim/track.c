// Preloaded into a stock QEMU, beside hold.c: lets the memory engine (src/engine), another process, map the
// guest's RAM and see which pages are written. HOLDFAST_MEMORY_SOCKET names the socket to serve; without it, or
// where any call here is refused, the library only passes calls on: the VM runs, it just cannot be moved by the
// engine.
//
// Guest RAM is what QEMU maps shared and writable from a memory-backend-memfd or from a memory-backend-file's
// file. mmap and munmap are watched for that; the order of the mappings is the order of the backends on the
// command line. What is sent, and to whom: doc/formats.md "Memory socket".
//
// A VM that does not move pays nothing: the userfaultfd is made when somebody connects, goes to him together with
// the files, and is kept by nobody else. He registers RAM with it; when he ends, however he ends, the kernel
// undoes that.
//
// One thread of our own, with all signals blocked, serves the socket; it makes no call that QEMU's `-sandbox on`
// with all its switches refuses (softmmu/qemu-seccomp.c): it starts no process and asks for no privilege or
// priority.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define BLOCKS_MAX 64
#define DESCRIPTORS 512  // more than a QEMU of ours opens
#define STACK_BYTES (256 * 1024)  // below our frames lies the static TLS of all libraries

// Newer than Debian 12's headers: linux/userfaultfd.h of Linux 6.7.
#define FEATURE_WP_HUGETLBFS_SHMEM (1ULL << 12)
#define FEATURE_WP_UNPOPULATED (1ULL << 13)
#define FEATURE_WP_ASYNC (1ULL << 15)

_Static_assert(sizeof(long) == 8, "SYS_mmap takes its offset in bytes");

// doc/formats.md "Memory socket"
struct block {
  uint64_t address, bytes, page_bytes, file_offset;
};
enum problem { NO_PROBLEM, TOO_MANY_BLOCKS, NO_DESCRIPTOR };
enum refused_call { NONE_REFUSED, USERFAULTFD_REFUSED, FEATURES_REFUSED };
struct answer {
  char magic[8];
  uint32_t version, block_count, problem, refused_call, refused_errno, zero;
  struct block blocks[BLOCKS_MAX];
};

static int listener = -1;  // written once, before there is a second thread

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;  // what follows
static struct block blocks[BLOCKS_MAX];
static int files[BLOCKS_MAX];  // our own duplicates
static uint32_t block_count;
static enum problem problem;

static bool is_guest_ram(int file) {
  struct stat info;
  if (fstat(file, &info) || !S_ISREG(info.st_mode)) return false;
  char link[32], path[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return true;  // better one too many than one forgotten
  path[length] = 0;
  // Any other memfd is QEMU's own: vhost-log, tcg-jit, ...
  return strncmp(path, "/memfd:", 7) != 0 || strcmp(path, "/memfd:memory-backend-memfd (deleted)") == 0;
}

static uint64_t page_bytes_of(int file) {
  struct statfs info;
  const bool huge = fstatfs(file, &info) == 0 && info.f_type == HUGETLBFS_MAGIC;
  return huge ? (uint64_t)info.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool is_inside(const struct block* inner, const struct block* outer) {
  return inner->address >= outer->address && inner->address + inner->bytes <= outer->address + outer->bytes;
}

static void remember(const struct block* block, int file) {
  pthread_mutex_lock(&lock);
  bool is_known = false;  // QEMU maps a piece anew where a memory cell failed
  for (uint32_t i = 0; i < block_count; i++) is_known |= is_inside(block, &blocks[i]);
  if (!is_known && block_count == BLOCKS_MAX) problem = TOO_MANY_BLOCKS;
  if (!is_known && block_count < BLOCKS_MAX) {
    int own = fcntl(file, F_DUPFD_CLOEXEC, 3);
    if (own < 0) problem = NO_DESCRIPTOR;
    if (own >= 0) {
      blocks[block_count] = *block;
      files[block_count++] = own;
    }
  }
  pthread_mutex_unlock(&lock);
}

// REQUIRES: lock
static void forget(const struct block* range) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < block_count; i++) {
    if (is_inside(&blocks[i], range)) {
      close(files[i]);
    } else {
      blocks[kept] = blocks[i];
      files[kept++] = files[i];
    }
  }
  block_count = kept;
}

EXPORT void* mmap64(void* hint, size_t length, int protection, int flags, int file, off64_t offset) {
  const long result = syscall(SYS_mmap, hint, length, protection, flags, file, offset);
  if (result == -1) return MAP_FAILED;
  const int type = flags & MAP_TYPE;
  const bool is_shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
  if (listener >= 0 && file >= 0 && is_shared && (protection & PROT_WRITE)) {
    int saved = errno;
    if (is_guest_ram(file)) {
      const uint64_t page = page_bytes_of(file);
      const struct block block = {(uint64_t)result, (length + page - 1) / page * page, page,
                                  (uint64_t)offset};
      remember(&block, file);
    }
    errno = saved;
  }
  return (void*)result;
}
EXPORT void* mmap(void* hint, size_t length, int protection, int flags, int file, off_t offset) {
  return mmap64(hint, length, protection, flags, file, offset);
}

EXPORT int munmap(void* address, size_t length) {
  if (listener < 0) return (int)syscall(SYS_munmap, address, length);
  const struct block range = {(uint64_t)(uintptr_t)address, length, 0, 0};
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_munmap, address, length);
  if (result == 0) forget(&range);
  pthread_mutex_unlock(&lock);
  return result;
}

// A userfaultfd that only tracks writes: nobody has to answer faults. -1: the answer says what was refused.
static int open_userfaultfd(struct answer* answer) {
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) {
    answer->refused_call = USERFAULTFD_REFUSED;
    answer->refused_errno = (uint32_t)errno;
    return -1;
  }
  struct uffdio_api api = {
      .api = UFFD_API,
      .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED | FEATURE_WP_HUGETLBFS_SHMEM,
  };
  if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  answer->refused_call = FEATURES_REFUSED;
  answer->refused_errno = (uint32_t)errno;
  close(fd);
  return -1;
}

static void send_answer(int peer) {
  static struct answer answer;  // one thread, and its stack is small
  memset(&answer, 0, sizeof answer);
  memcpy(answer.magic, "HFMEMORY", sizeof answer.magic);
  answer.version = 1;
  int fault = open_userfaultfd(&answer);
  int passed[BLOCKS_MAX + 1];
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof passed)];
  } control;
  memset(&control, 0, sizeof control);
  pthread_mutex_lock(&lock);
  answer.problem = (uint32_t)problem;
  answer.block_count = block_count;
  memcpy(answer.blocks, blocks, block_count * sizeof *blocks);
  memcpy(passed, files, block_count * sizeof *files);
  uint32_t passed_count = block_count;
  if (fault >= 0) passed[passed_count++] = fault;
  struct iovec part = {&answer, offsetof(struct answer, blocks) + block_count * sizeof *blocks};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (passed_count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(passed_count * sizeof *passed);
    struct cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(passed_count * sizeof *passed);
    memcpy(CMSG_DATA(rights), passed, passed_count * sizeof *passed);
  }
  // A new connection's buffer holds it whole. Where not, the peer sees a short answer.
  sendmsg(peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  pthread_mutex_unlock(&lock);
  if (fault >= 0) close(fault);
}

// safety: the answer is the right to read and write all of the guest's memory: for root and QEMU's own user alone.
static bool may_have_memory(int peer) {
  struct ucred who;
  socklen_t size = sizeof who;
  if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size)) return false;
  return who.uid == 0 || who.uid == geteuid();
}

static void* serve(void* unused) {
  prctl(PR_SET_NAME, "hf-memory");
  for (;;) {
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (peer >= 0) {
      if (may_have_memory(peer)) send_answer(peer);
      close(peer);
    } else if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK) {
      return unused;  // QEMU closed what it does not know
    } else {
      const struct timespec pause = {.tv_nsec = 100000000};  // no descriptors or no memory just now
      nanosleep(&pause, NULL);
    }
  }
}

static bool start_thread(void) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes)) return false;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits it
  pthread_t thread;
  int result = pthread_create(&thread, &attributes, serve, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  errno = result;
  return result == 0;
}

static void complain(const char* path) {
  dprintf(
      STDERR_FILENO,
      "holdfast: The memory socket %s cannot be used: %s. The VM runs, but its memory cannot be tracked.\n",
      path, strerror(errno));
}

// QEMU opens event descriptors as a guest begins to run. To make room for them the kernel waits until every processor
// has rested (expand_files, synchronize_rcu), if the process has threads: 10 ms of a moved guest's stop. So room is
// made now, before the first thread; it stays.
static void make_room_for_descriptors(void) {
  int highest = fcntl(listener, F_DUPFD_CLOEXEC, DESCRIPTORS - 1);
  if (highest >= 0) close(highest);
}

__attribute__((constructor)) static void open_memory_socket(void) {
  const char* path = getenv("HOLDFAST_MEMORY_SOCKET");
  if (!path) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  errno = ENAMETOOLONG;
  if (strlen(path) >= sizeof address.sun_path) return complain(path);
  memcpy(address.sun_path, path, strlen(path) + 1);
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  make_room_for_descriptors();
  if (listener < 0 || bind(listener, (const struct sockaddr*)&address, sizeof address) ||
      chmod(path, S_IRUSR | S_IWUSR) || listen(listener, 8) || !start_thread()) {
    complain(path);
    if (listener >= 0) close(listener);
    listener = -1;
  }
  unsetenv("HOLDFAST_MEMORY_SOCKET");  // for this process, not for its children
}
