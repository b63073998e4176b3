/* The parts of `viv chat`. Internal to host/cli.
 *
 *   chat.c           the verb, turns
 *   chat_input.c     lines, edited on a terminal; messages of several lines
 *   chat_commands.c  what begins with a slash; conversations in files */
#ifndef VIV_HOST_CLI_CHAT_H
#define VIV_HOST_CLI_CHAT_H

#include "cli/cli.h"

enum { VIV__CHAT_TOKENS = 1024 };

typedef struct viv__chat_reader viv__chat_reader;

typedef struct viv__conversation {
  viv__loaded loaded;
  cJSON *params, *messages; /* messages: a list of {role, content} */
  const char *system;       /* of the command line */
  bool json, verbose, terminal;
  viv__buf answer;
} viv__conversation;

/* chat_input.c. With a terminal lines are edited and remembered. */
viv__chat_reader *viv__chat_reader_new(bool terminal);
void viv__chat_reader_free(viv__chat_reader *r);
enum viv__chat_read { VIV__CHAT_MESSAGE, VIV__CHAT_END, VIV__CHAT_INTERRUPTED };
/* One message: a line; lines that end in a backslash and the one after them; or what stands between
 * two """. text is terminated and lives until the next call. */
int viv__chat_read(viv__chat_reader *r, const char **text);

/* chat_commands.c */
void viv__chat_say(cJSON *messages, const char *role, const char *content);
void viv__chat_reset(viv__conversation *c, const char *system); /* NULL: no system message */
enum viv__chat_done { VIV__CHAT_NO_COMMAND, VIV__CHAT_DONE, VIV__CHAT_FAILED, VIV__CHAT_EXIT };
/* Carries out a line that begins with a slash and a known word. */
int viv__chat_command(viv__conversation *c, const char *line);

#endif
