/* The ledger: what the test guest writes on its disk, so that a write by somebody who had lost the right to
 * it shows. Read by the guest (C) and by the checker (C++). Little endian; every block is LEDGER_BLOCK bytes.
 *
 *   block 0            ledger_head: the present incarnation (one boot of one guest), its nonce, its first
 * sequence number block 1 + seq % n  ledger_record number seq; n = slots of the head
 *
 * A boot reads all slots, takes first_seq = largest sequence + 1, and writes the head with incarnation + 1
 * before its first record. Sequence numbers go on over incarnations, so that for any two records: larger
 * sequence <=> written later, and (1) a record of incarnation i has a sequence below the first_seq of every
 * incarnation > i. A stale writer (an older incarnation that still runs) continues with a sequence that it
 * thinks is next: it is at least the newer one's first_seq, because the newer one saw everything written
 * before. So a stale record breaks (1), as long as it stands. It may be overwritten in turn, so each writer
 * reads a slot back before it writes it: it must hold what this incarnation has to expect there (sequence -
 * n), else the writer says so on the console and counts it in the head. (2) sequences have no holes: a hole
 * is an acknowledged write that was lost (or a stale one over a good one). The slot after the last record may
 * be torn: that write was never acknowledged. (3) one incarnation has one nonce: two guests that both took
 * the same number show. Out of reach: a stale write that lands before the newer boot has read that slot is an
 * ordinary record of the past. */
#ifndef HOLDFAST_LEDGER_FORMAT_H
#define HOLDFAST_LEDGER_FORMAT_H
#include <stddef.h>
#include <stdint.h>

#define LEDGER_BLOCK 4096u
#define LEDGER_SLOTS_MAX 1024u
#define LEDGER_HEAD_MAGIC 0x3144414548474c48ull   /* "HLGHEAD1" */
#define LEDGER_RECORD_MAGIC 0x3143455247474c48ull /* "HLGGREC1" */

struct ledger_head {
  uint64_t magic;
  uint64_t incarnation; /* 1 is the first */
  uint64_t nonce;       /* random, of this boot */
  uint64_t first_seq;   /* of this incarnation; the first record of all is 1 */
  uint64_t slots;
  uint64_t violations; /* counted by the guests, never reset */
  uint64_t checksum;   /* of what stands before it; last */
};

struct ledger_record {
  uint64_t magic;
  uint64_t incarnation;
  uint64_t nonce;
  uint64_t first_seq;
  uint64_t seq;
  uint64_t checksum;
};

/* FNV-1a, 64 bits, as published by Fowler, Noll and Vo. */
static inline uint64_t ledger_checksum(const void* data, size_t bytes) {
  const unsigned char* at = (const unsigned char*)data;
  uint64_t sum = 0xcbf29ce484222325ull;
  for (size_t i = 0; i < bytes; ++i) sum = (sum ^ at[i]) * 0x100000001b3ull;
  return sum;
}
static inline uint64_t ledger_head_sum(const struct ledger_head* head) {
  return ledger_checksum(head, offsetof(struct ledger_head, checksum));
}
static inline uint64_t ledger_record_sum(const struct ledger_record* record) {
  return ledger_checksum(record, offsetof(struct ledger_record, checksum));
}
static inline int ledger_head_ok(const struct ledger_head* head) {
  return head->magic == LEDGER_HEAD_MAGIC && head->slots >= 2 && head->slots <= LEDGER_SLOTS_MAX &&
         head->checksum == ledger_head_sum(head);
}
static inline int ledger_record_ok(const struct ledger_record* record) {
  return record->magic == LEDGER_RECORD_MAGIC && record->checksum == ledger_record_sum(record);
}
#endif
