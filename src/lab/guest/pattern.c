/* A memory pattern that checks itself: pages whose content follows from their number and from how often they were
 * written, in an order that touches all of them. A page that a copy of the VM's memory missed or mixed up shows: its
 * count differs from the one kept beside it, or a word from what follows from them.
 *
 * Each page holds one word a cache line: mix(page, count, line). The first of them is the count itself. A line a
 * second on the console says how far it is; an error says which page is wrong, and is counted for ever. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "guest.h"

#define PAGE_WORDS 512
#define LINE_WORDS 8
#define ERRORS_SAID 20
#define BATCH 64
static const uint64_t kSecond = 1000000000;

struct pattern {
  uint64_t* memory;
  uint32_t* counts; /* by page: how often it was written */
  uint64_t pages;
  uint64_t written, swept, errors;
};

static uint64_t mix(uint64_t page, uint64_t count, uint64_t line) {
  uint64_t word = page * 0x9e3779b97f4a7c15u + count * 0xbf58476d1ce4e5b9u + line * 0x94d049bb133111ebu;
  return word ^ (word >> 29);
}

static void write_page_of(struct pattern* pattern, uint64_t page) {
  const uint64_t count = ++pattern->counts[page];
  uint64_t* words = pattern->memory + page * PAGE_WORDS;
  words[0] = count;
  for (uint64_t at = LINE_WORDS; at < PAGE_WORDS; at += LINE_WORDS) words[at] = mix(page, count, at);
}

static void check_page(struct pattern* pattern, uint64_t page) {
  const uint64_t count = pattern->counts[page];
  const uint64_t* words = pattern->memory + page * PAGE_WORDS;
  uint64_t wrong = words[0] == count ? PAGE_WORDS : 0;
  for (uint64_t at = LINE_WORDS; wrong == PAGE_WORDS && at < PAGE_WORDS; at += LINE_WORDS) {
    if (words[at] != mix(page, count, at)) wrong = at;
  }
  if (wrong == PAGE_WORDS) return;
  if (++pattern->errors <= ERRORS_SAID) {
    say("PATTERN BROKEN page=%llu word=%llu written=%llu times, holds=%llu", (unsigned long long)page,
        (unsigned long long)wrong, (unsigned long long)count, (unsigned long long)words[0]);
  }
  write_page_of(pattern, page); /* say it once */
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * kSecond + (uint64_t)time.tv_nsec;
}

void pattern_run(unsigned mebibytes, unsigned megabytes_a_second) {
  struct pattern pattern = {.pages = (uint64_t)mebibytes << 8};
  pattern.memory = mmap(NULL, (size_t)mebibytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pattern.counts = calloc(pattern.pages, sizeof(pattern.counts[0]));
  if (pattern.pages == 0 || pattern.memory == MAP_FAILED || pattern.counts == NULL) {
    say("guest: no memory for the pattern");
    return;
  }
  for (uint64_t page = 0; page < pattern.pages; ++page) write_page_of(&pattern, page);
  const uint64_t batch_time = megabytes_a_second == 0 ? kSecond : BATCH * 4096 * (uint64_t)1000 / megabytes_a_second;
  uint64_t random = 1, due = now(), report = due;
  for (;;) {
    for (int step = 0; step < BATCH; ++step) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const uint64_t page = (random >> 33) % pattern.pages;
      check_page(&pattern, page);
      if (megabytes_a_second > 0) write_page_of(&pattern, page);
      check_page(&pattern, pattern.swept++ % pattern.pages);
    }
    if (megabytes_a_second > 0) pattern.written += BATCH;
    const uint64_t time = now();
    if (time >= report) {
      say("pattern written=%lluMB sweeps=%llu errors=%llu", (unsigned long long)(pattern.written * 4096 / 1000000),
          (unsigned long long)(pattern.swept / pattern.pages), (unsigned long long)pattern.errors);
      report = time + kSecond / 2;
    }
    due += batch_time;
    if (due + kSecond / 10 < time) due = time; /* what it could not do in time is not made up for */
    if (due > time) {
      const struct timespec rest = {(time_t)((due - time) / kSecond), (long)((due - time) % kSecond)};
      nanosleep(&rest, NULL);
    }
  }
}
