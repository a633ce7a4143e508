/* init of the test guest: mounts, modules, services, power button. Everything in one process start, because
 * under emulation each exec costs. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define BUTTONS_MAX 4
static char g_cmdline[4096];

const char* option(const char* name, const char* missing) {
  static char values[8][256];
  static unsigned next;
  const size_t length = strlen(name);
  for (const char* at = g_cmdline; (at = strstr(at, name)) != NULL; at += length) {
    const int starts = at == g_cmdline || at[-1] == ' ';
    if (!starts || at[length] != '=') continue;
    char* value = values[next++ % 8];
    snprintf(value, sizeof(values[0]), "%.*s", (int)strcspn(at + length + 1, " \n"), at + length + 1);
    return value;
  }
  return missing;
}

void say(const char* format, ...) {
  char line[256];
  va_list words;
  va_start(words, format);
  int length = vsnprintf(line, sizeof(line) - 2, format, words);
  va_end(words);
  if (length < 0) return;
  if ((size_t)length > sizeof(line) - 3) length = (int)sizeof(line) - 3;
  line[length++] = '\n';
  if (write(1, line, (size_t)length) < 0) return;
}

static void mount_all(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mkdir("/www", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  const int file = open("/proc/cmdline", O_RDONLY);
  if (file >= 0 && read(file, g_cmdline, sizeof(g_cmdline) - 1) < 0) g_cmdline[0] = 0;
  close(file);
  const int console = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  if (console < 0) return;
  for (int number = 0; number < 3; ++number) dup2(console, number);
  if (console > 2) close(console);
}

/* /modules/order: one file name a line, dependencies first. */
static void load_modules(void) {
  FILE* order = fopen("/modules/order", "r");
  if (order == NULL) return;
  char name[128];
  while (fscanf(order, "%127s", name) == 1) {
    char path[160];
    snprintf(path, sizeof(path), "/modules/%s", name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST)) {
      say("guest: module %s not loaded: %s", name, strerror(errno));
    }
    close(file);
  }
  fclose(order);
}

static pid_t start(void (*work)(void)) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  work();
  _exit(1);
}

static void httpd(void) {
  execl("/busybox", "busybox", "httpd", "-f", "-p", "80", "-h", "/www", (char*)NULL);
}
static void ledger(void) { ledger_run((unsigned)atoi(option("hf.rate", "20"))); }
static void pattern(void) {
  pattern_run((unsigned)atoi(option("hf.pattern", "0")), (unsigned)atoi(option("hf.dirty", "40")));
}
static void shell(void) {
  setsid();
  setenv("PATH", "/bin", 1);
  execl("/busybox", "busybox", "cttyhack", "/busybox", "sh", (char*)NULL);
}

static void write_page(uint64_t incarnation) {
  FILE* page = fopen("/www/index.html", "w");
  if (page == NULL) return;
  fprintf(page, "name=%s\nincarnation=%llu\n", option("hf.name", "guest"), (unsigned long long)incarnation);
  fclose(page);
}

static int open_buttons(struct pollfd* buttons) {
  int count = 0;
  DIR* folder = opendir("/dev/input");
  if (folder == NULL) return 0;
  for (struct dirent* entry; count < BUTTONS_MAX && (entry = readdir(folder)) != NULL;) {
    if (strncmp(entry->d_name, "event", 5) != 0) continue;
    char path[300];
    snprintf(path, sizeof(path), "/dev/input/%s", entry->d_name);
    const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0) buttons[count++] = (struct pollfd){.fd = file, .events = POLLIN};
  }
  closedir(folder);
  return count;
}

static int is_pressed(int file) {
  struct input_event event;
  while (read(file, &event, sizeof(event)) == (ssize_t)sizeof(event)) {
    if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) return 1;
  }
  return 0;
}

static void power_off(void) {
  say("guest powering off");
  kill(-1, SIGKILL);
  sync();
  reboot(RB_POWER_OFF);
}

static void wait_for_button(void) {
  struct pollfd buttons[BUTTONS_MAX];
  const int count = open_buttons(buttons);
  for (;;) {
    poll(buttons, (nfds_t)count, 1000);
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    for (int i = 0; i < count; ++i) {
      if (buttons[i].revents != 0 && is_pressed(buttons[i].fd)) power_off();
    }
  }
}

int main(void) {
  mount_all();
  load_modules();
  uint64_t incarnation = 0;
  const int has_ledger = strcmp(option("hf.ledger", "0"), "1") == 0;
  if (has_ledger) {
    incarnation = ledger_open("/dev/vda");
    if (incarnation == 0) say("guest: no usable disk for the ledger");
  }
  const char* address = option("hf.ip", "");
  if (address[0] != 0 && network_up(address, option("hf.gw", "")) != 0) say("guest: no network");
  write_page(incarnation);
  if (address[0] != 0) start(echo_run);
  if (strcmp(option("hf.http", "0"), "1") == 0) start(httpd);
  if (strcmp(option("hf.shell", "0"), "1") == 0) start(shell);
  say("guest up incarnation=%llu", (unsigned long long)incarnation);
  if (incarnation > 0) start(ledger);
  if (atoi(option("hf.pattern", "0")) > 0) start(pattern);
  wait_for_button();
  return 0;
}
