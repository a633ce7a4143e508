// Test program: maps memory as QEMU maps guest RAM, and writes to it on command.
// usage: memory_user [deny-userfaultfd] KIND:MIB...   KIND: memfd, hugetlb, other (a memfd of QEMU's own), file=PATH
// Prints "ready", then reads commands, one a line, and answers each with "ok" or "failed ERRNO":
//   w BLOCK PAGE COUNT VALUE   writes VALUE at the begin of each page
//   d BLOCK PAGE PATH          reads 4096 bytes of a file into the page, O_DIRECT
//   z BLOCK PAGE               drops the page's mapping, as reclaim does
//   r BLOCK PAGE               maps the page anew, as QEMU does after a memory failure
//   u BLOCK                    unmaps the block
//   m KIND:MIB                 maps another one
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCKS_MAX 100
#define HUGE_BYTES (2UL << 20)

static struct {
  char* memory;
  size_t bytes;
  int file;
} blocks[BLOCKS_MAX];
static unsigned block_count;

static int deny_userfaultfd(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static int open_file(const char* kind) {
  if (strncmp(kind, "file=", 5) == 0) return open(kind + 5, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (strcmp(kind, "memfd") == 0) return memfd_create("memory-backend-memfd", MFD_CLOEXEC);
  if (strcmp(kind, "hugetlb") == 0) return memfd_create("memory-backend-memfd", MFD_CLOEXEC | MFD_HUGETLB);
  return memfd_create("vhost-log", MFD_CLOEXEC);
}

// An address range first, then the memory over its aligned part: QEMU's util/mmap-alloc.c.
static int map_block(char* words) {
  char* colon = strrchr(words, ':');
  if (!colon || block_count == BLOCKS_MAX) return -1;
  *colon = 0;
  const size_t bytes = strtoul(colon + 1, NULL, 10) << 20;
  const int file = open_file(words);
  if (file < 0 || ftruncate(file, (off_t)bytes)) return -1;
  char* range = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (range == MAP_FAILED) return -1;
  char* aligned = (char*)(((uintptr_t)range + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
  if (mmap(aligned, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) return -1;
  if (aligned > range) munmap(range, (size_t)(aligned - range));
  munmap(aligned + bytes, (size_t)(range + HUGE_BYTES - aligned));
  blocks[block_count].memory = aligned;
  blocks[block_count].bytes = bytes;
  blocks[block_count++].file = file;
  return 0;
}

static int read_direct(char* page, const char* path) {
  const int file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file < 0) return -1;
  const ssize_t count = pread(file, page, 4096, 0);
  close(file);
  return count == 4096 ? 0 : -1;
}

static int obey(char* line) {
  char words[256] = "";
  unsigned long block = 0, first = 0, count = 0, value = 0;
  if (sscanf(line, "m %255s", words) == 1) return map_block(words);
  const char what = line[0];
  if (what == 'd' && sscanf(line, "d %lu %lu %255s", &block, &first, words) != 3) return -1;
  if (what != 'd' && sscanf(line + 1, "%lu %lu %lu %lu", &block, &first, &count, &value) < 1) return -1;
  if (block >= block_count) return -1;
  char* page = blocks[block].memory + first * 4096;
  switch (what) {
    case 'w':
      for (unsigned long i = 0; i < count; i++) memcpy(page + i * 4096, &value, sizeof value);
      return 0;
    case 'd':
      return read_direct(page, words);
    case 'z':
      return madvise(page, 4096, MADV_DONTNEED);
    case 'r':
      return mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, blocks[block].file,
                  (off_t)first * 4096) == MAP_FAILED;
    case 'u':
      return munmap(blocks[block].memory, blocks[block].bytes);
    default:
      return -1;
  }
}

int main(int count, char** arguments) {
  for (int i = 1; i < count; i++) {
    const int is_deny = strcmp(arguments[i], "deny-userfaultfd") == 0;
    if (is_deny ? deny_userfaultfd() : map_block(arguments[i])) {
      printf("failed %d\n", errno);
      return 1;
    }
  }
  printf("ready\n");
  fflush(stdout);
  char line[512];
  while (fgets(line, sizeof line, stdin)) {
    if (obey(line)) {
      printf("failed %d\n", errno);
    } else {
      printf("ok\n");
    }
    fflush(stdout);
  }
  return 0;
}
