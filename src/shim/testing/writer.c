// Test program: `writer FILE THREADS` writes sequence numbers into FILE with pwrite, as fast as it can, for
// ever: thread n into the 512-byte block n. `writer FILE once` writes the number 1 into block 0, once, and
// ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int file;

static void* write_for_ever(void* argument) {
  const off_t offset = (off_t)(intptr_t)argument * 512;
  for (uint64_t number = 1;; number++) {
    if (pwrite(file, &number, sizeof number, offset) != sizeof number) _exit(1);
  }
  return NULL;
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  file = open(arguments[1], O_RDWR | O_CREAT, 0600);
  if (file < 0) return 3;
  if (strcmp(arguments[2], "once") == 0) {
    const uint64_t number = 1;
    return pwrite(file, &number, sizeof number, 0) == sizeof number ? 0 : 1;
  }
  pthread_t thread;
  for (int i = 1; i < atoi(arguments[2]); i++)
    pthread_create(&thread, NULL, write_for_ever, (void*)(intptr_t)i);
  write_for_ever(NULL);
}
