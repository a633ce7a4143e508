/* The guest's side of the ledger (ledger_format.h): one record at a time, each read back before it is
 * written, each on the disk before the next. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#include "guest.h"
#include "ledger_format.h"

#define SCAN_BLOCKS 64u
static _Alignas(4096) unsigned char g_block[LEDGER_BLOCK];
static _Alignas(4096) unsigned char g_scan[SCAN_BLOCKS * LEDGER_BLOCK];
static struct ledger_head g_head;
static int g_disk = -1;
static uint64_t g_last_seq;

static void pause_ms(long ms) {
  const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

/* A path to storage may be gone for a while: the same block again is safe, whether or not the first one
 * arrived. */
static void write_block(uint64_t block) {
  while (pwrite(g_disk, g_block, LEDGER_BLOCK, (off_t)(block * LEDGER_BLOCK)) != (ssize_t)LEDGER_BLOCK) {
    say("ledger: write failed: %s", strerror(errno));
    pause_ms(1000);
  }
}

static void read_blocks(void* into, uint64_t block, uint64_t count) {
  const size_t bytes = count * LEDGER_BLOCK;
  while (pread(g_disk, into, bytes, (off_t)(block * LEDGER_BLOCK)) != (ssize_t)bytes) {
    say("ledger: read failed: %s", strerror(errno));
    pause_ms(1000);
  }
}

static void write_head(void) {
  g_head.checksum = ledger_head_sum(&g_head);
  memset(g_block, 0, sizeof(g_block));
  memcpy(g_block, &g_head, sizeof(g_head));
  write_block(0);
}

static void violation(const char* what, uint64_t incarnation, uint64_t seq) {
  say("%s: incarnation %llu sequence %llu on the disk, mine is %llu", what, (unsigned long long)incarnation,
      (unsigned long long)seq, (unsigned long long)g_head.incarnation);
}

/* Takes part in (2) of the format: the window below the largest sequence has no holes. */
static uint64_t scan(void) {
  static uint64_t seqs[LEDGER_SLOTS_MAX];
  uint64_t largest = 0;
  for (uint64_t slot = 0; slot < g_head.slots; slot += SCAN_BLOCKS) {
    const uint64_t count = g_head.slots - slot < SCAN_BLOCKS ? g_head.slots - slot : SCAN_BLOCKS;
    read_blocks(g_scan, 1 + slot, count);
    for (uint64_t i = 0; i < count; ++i) {
      struct ledger_record record;
      memcpy(&record, g_scan + i * LEDGER_BLOCK, sizeof(record));
      seqs[slot + i] = ledger_record_ok(&record) ? record.seq : 0;
      if (seqs[slot + i] > largest) largest = seqs[slot + i];
    }
  }
  const uint64_t torn = (largest + 1) % g_head.slots;
  for (uint64_t seq = largest; seq > 0 && largest - seq < g_head.slots; --seq) {
    if (seq % g_head.slots == torn || seqs[seq % g_head.slots] == seq) continue;
    violation("LOST WRITE", 0, seq);
    ++g_head.violations;
  }
  return largest;
}

uint64_t ledger_open(const char* device) {
  for (int tries = 0; tries < 500 && (g_disk = open(device, O_RDWR | O_DIRECT | O_SYNC | O_CLOEXEC)) < 0;
       ++tries) {
    pause_ms(10); /* until the disk is found */
  }
  uint64_t bytes = 0;
  if (g_disk < 0 || ioctl(g_disk, BLKGETSIZE64, &bytes) != 0 || bytes / LEDGER_BLOCK < 3) return 0;
  read_blocks(g_block, 0, 1);
  memcpy(&g_head, g_block, sizeof(g_head));
  if (!ledger_head_ok(&g_head)) {
    memset(&g_head, 0, sizeof(g_head));
    g_head.magic = LEDGER_HEAD_MAGIC;
    const uint64_t slots = bytes / LEDGER_BLOCK - 1;
    g_head.slots = slots < LEDGER_SLOTS_MAX ? slots : LEDGER_SLOTS_MAX;
  }
  g_last_seq = scan();
  g_head.first_seq = g_last_seq + 1;
  ++g_head.incarnation;
  while (getrandom(&g_head.nonce, sizeof(g_head.nonce), GRND_INSECURE) != (ssize_t)sizeof(g_head.nonce)) {
  }
  /* safety: of the test: from this write on, a record of an older incarnation is a stale one. */
  write_head();
  return g_head.incarnation;
}

/* What stands where the next record goes: nothing, or the record one round earlier; or the torn end of an
 * earlier boot. */
static void look_before_writing(uint64_t seq) {
  struct ledger_record found;
  read_blocks(g_block, 1 + seq % g_head.slots, 1);
  memcpy(&found, g_block, sizeof(found));
  if (!ledger_record_ok(&found)) return;
  const int is_mine = found.incarnation == g_head.incarnation && found.nonce == g_head.nonce;
  if (found.incarnation > g_head.incarnation || (found.incarnation == g_head.incarnation && !is_mine)) {
    violation("DOUBLE RUN", found.incarnation, found.seq); /* not counted: the head is the newer one's */
    return;
  }
  if (found.seq + g_head.slots == seq) return;
  violation("STALE WRITE", found.incarnation, found.seq);
  ++g_head.violations;
  write_head();
}

/* The newer one may write far from here: its head is the first thing it changes. */
static void look_at_head(void) {
  struct ledger_head found;
  read_blocks(g_block, 0, 1);
  memcpy(&found, g_block, sizeof(found));
  if (!ledger_head_ok(&found) || found.nonce == g_head.nonce) return;
  violation(found.incarnation < g_head.incarnation ? "STALE WRITE" : "DOUBLE RUN", found.incarnation, 0);
}

static void publish(uint64_t seq) {
  FILE* page = fopen("/www/ledger.new", "w");
  if (page == NULL) return;
  fprintf(page, "incarnation=%llu sequence=%llu\n", (unsigned long long)g_head.incarnation,
          (unsigned long long)seq);
  fclose(page);
  rename("/www/ledger.new", "/www/ledger.txt");
}

void ledger_run(unsigned records_a_second) {
  const long pause = records_a_second == 0 ? 1000 : 1000 / (long)records_a_second;
  for (uint64_t seq = g_last_seq + 1;; ++seq) {
    look_at_head();
    look_before_writing(seq);
    struct ledger_record record = {.magic = LEDGER_RECORD_MAGIC,
                                   .incarnation = g_head.incarnation,
                                   .nonce = g_head.nonce,
                                   .first_seq = g_head.first_seq,
                                   .seq = seq};
    record.checksum = ledger_record_sum(&record);
    memset(g_block, 0, sizeof(g_block));
    memcpy(g_block, &record, sizeof(record));
    write_block(1 + seq % g_head.slots);
    publish(seq);
    pause_ms(pause);
  }
}
