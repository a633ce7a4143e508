/* The test guest: one static program, its init. Configured by the kernel command line:
 *   hf.name=NAME          shown on the web page
 *   hf.ip=10.78.1.5/16    address of eth0; hf.gw=ADDRESS a default route
 *   hf.http=1             busybox httpd on port 80: / (name, incarnation), /ledger.txt (last acknowledged
 * sequence) hf.ledger=1           the ledger on /dev/vda; hf.rate=N records a second (20) hf.shell=1 a shell
 * on the serial console; hf.pattern=MIB a memory pattern that checks itself, hf.dirty=N MB of it are rewritten a
 * second (40). An echo service is on port 7 (TCP and UDP) whenever there is an address. */
#ifndef HOLDFAST_GUEST_H
#define HOLDFAST_GUEST_H
#include <stdint.h>

/* The value of a word of the kernel command line; `missing` if it is not there. */
const char* option(const char* name, const char* missing);
/* One line on the console. */
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));

/* Takes the disk for this boot: its incarnation. 0: no usable disk. */
uint64_t ledger_open(const char* device);
/* Writes records until the machine stops. */
void ledger_run(unsigned records_a_second);

/* Rewrites and checks its memory pattern until the machine stops (pattern.c). */
void pattern_run(unsigned mebibytes, unsigned megabytes_a_second);

/* Brings up lo and eth0. 0: done. */
int network_up(const char* address_and_bits, const char* gateway);
/* Answers on port 7 until the machine stops. */
void echo_run(void);
#endif
