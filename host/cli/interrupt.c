/* Ctrl-C: the running job is cancelled and its END event is awaited, so that the model and its
 * plugin leave in order. Whoever presses it twice gets out at once. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  (void)number;
  if (interrupted) _exit(VIV__EXIT_CANCELLED);
  interrupted = 1;
}

void viv__interrupt_catch(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal; /* without SA_RESTART: a read of a prompt ends too */
  struct sigaction before;
  sigaction(SIGINT, NULL, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL); /* a shell's background job */
  sigaction(SIGTERM, &action, NULL);
}

bool viv__interrupted(void) {
  return interrupted != 0;
}

void viv__interrupt_forget(void) {
  if (interrupted) clearerr(stdout); /* a write that it cut short is no failed output */
  interrupted = 0;
}
