/* The guest's network: lo, eth0 and an echo service, without ip(8). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#define CLIENTS_MAX 64
#define ECHO_PORT 7

static void set_address(struct sockaddr* where, in_addr_t address) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
  memcpy(where, &in, sizeof(*where));
}

static int interface_up(int control, const char* name) {
  struct ifreq request = {0};
  snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return ioctl(control, SIOCSIFFLAGS, &request);
}

/* A guest that was restarted elsewhere says where it is now. */
static void announce_on_up(void) {
  const int file = open("/proc/sys/net/ipv4/conf/all/arp_notify", O_WRONLY);
  if (file >= 0 && write(file, "1", 1) < 0) say("guest: no announcement");
  close(file);
}

int network_up(const char* address_and_bits, const char* gateway) {
  char address[64];
  snprintf(address, sizeof(address), "%s", address_and_bits);
  char* slash = strchr(address, '/');
  const int bits = slash != NULL ? atoi(slash + 1) : 24;
  if (slash != NULL) *slash = 0;
  if (bits < 1 || bits > 32) return -1;
  announce_on_up();
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  interface_up(control, "lo");
  struct ifreq request = {0};
  snprintf(request.ifr_name, sizeof(request.ifr_name), "eth0");
  set_address(&request.ifr_addr, inet_addr(address));
  int failed = ioctl(control, SIOCSIFADDR, &request);
  set_address(&request.ifr_netmask, htonl(~0u << (32 - bits)));
  failed |= ioctl(control, SIOCSIFNETMASK, &request);
  failed |= interface_up(control, "eth0");
  if (gateway[0] != 0) {
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    set_address(&route.rt_dst, INADDR_ANY);
    set_address(&route.rt_genmask, INADDR_ANY);
    set_address(&route.rt_gateway, inet_addr(gateway));
    failed |= ioctl(control, SIOCADDRT, &route);
  }
  close(control);
  return failed;
}

static int bound_socket(int type) {
  const int file = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
  if (bind(file, (const struct sockaddr*)&any, sizeof(any)) != 0) say("guest: port 7 is taken");
  return file;
}

static void echo_datagram(int file) {
  static char part[65536];
  struct sockaddr_in from;
  socklen_t length = sizeof(from);
  const ssize_t count = recvfrom(file, part, sizeof(part), 0, (struct sockaddr*)&from, &length);
  if (count >= 0 && sendto(file, part, (size_t)count, 0, (struct sockaddr*)&from, length) < 0) return;
}

/* 0: the client is gone. */
static int echo_stream(int file) {
  static char part[65536];
  const ssize_t count = recv(file, part, sizeof(part), 0);
  if (count <= 0) return 0;
  for (ssize_t sent = 0; sent < count;) {
    const ssize_t more = send(file, part + sent, (size_t)(count - sent), MSG_NOSIGNAL);
    if (more <= 0) return 0;
    sent += more;
  }
  return 1;
}

void echo_run(void) {
  struct pollfd all[2 + CLIENTS_MAX];
  nfds_t count = 2;
  all[0] = (struct pollfd){.fd = bound_socket(SOCK_DGRAM), .events = POLLIN};
  all[1] = (struct pollfd){.fd = bound_socket(SOCK_STREAM), .events = POLLIN};
  listen(all[1].fd, CLIENTS_MAX);
  for (;;) {
    if (poll(all, count, -1) < 0) continue;
    if (all[0].revents != 0) echo_datagram(all[0].fd);
    for (nfds_t i = 2; i < count;) {
      if (all[i].revents == 0 || echo_stream(all[i].fd)) {
        ++i;
        continue;
      }
      close(all[i].fd);
      all[i] = all[--count];
    }
    if (all[1].revents == 0) continue;
    const int client = accept4(all[1].fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    if (count == 2 + CLIENTS_MAX) {
      close(client); /* full: the newest is refused */
      continue;
    }
    all[count++] = (struct pollfd){.fd = client, .events = POLLIN};
  }
}
