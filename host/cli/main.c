/* viv: models on the command line. This file only finds the verb. */
#include <string.h>

#include "cli/cli.h"

static const struct verb {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *about;
} verbs[] = {
    {"run", viv__cmd_run, "run a model once: a prompt, a picture, tensors"},
    {"chat", viv__cmd_chat, "talk with a model, line by line"},
    {"list", viv__cmd_list, "the catalogue of systems; --models: the zoo's models"},
    {"show", viv__cmd_show, "a model's configuration, size and memory plan, before loading"},
    {"why", viv__cmd_why, "which plugin takes a model, and why the others do not"},
    {"plugins", viv__cmd_plugins, "the plugins that were found, and those refused"},
    {"tokenize", viv__cmd_tokenize, "a text as token ids, or ids as a text"},
    {"session", viv__cmd_session, "save a conversation's state to a file, resume it later"},
    {"eval", viv__cmd_eval, "ask the questions of a file, or judge what is found in pictures"},
    {"score", viv__cmd_score, "how likely a text is: its perplexity"},
    {"embed", viv__cmd_embed, "texts as vectors, and the texts nearest to a query"},
    {"fill", viv__cmd_fill, "the likeliest words at the masks of a text"},
    {"classify", viv__cmd_classify, "the likeliest classes of texts"},
    {"encode", viv__cmd_encode, "sound into codes of an audio codec"},
    {"decode", viv__cmd_decode, "codes of an audio codec into sound"},
    {"quantize", viv__cmd_quantize, "write a checkpoint with its matrices in fewer bits"},
    {"bench", viv__cmd_bench, "tokens per second of prompts and of generation"},
    {"golden", viv__cmd_golden, "run golden cases through the ordinary door"},
    {"serve", viv__cmd_serve, "run the daemon, which other programs share"},
    {"ps", viv__cmd_ps, "the daemon's models: state, memory, jobs"},
    {"top", viv__cmd_top, "the daemon's models as they work"},
    {"load", viv__cmd_load, "load a model in the daemon"},
    {"unload", viv__cmd_unload, "take a model out of the daemon"},
    {"stop", viv__cmd_stop, "end the daemon when its jobs have ended"},
    {"metrics", viv__cmd_metrics, "the daemon's figures for Prometheus"},
    {"logs", viv__cmd_logs, "the daemon's last log lines, and their level"},
    {"replay", viv__cmd_replay, "run a job again that a worker of the daemon died of"},
    {"doctor", viv__cmd_doctor, "what this machine offers and what is missing"},
    {"new-plugin", viv__cmd_new_plugin, "start a plugin from a template"},
    {"version", viv__cmd_version, "the version"},
};

enum { N_VERBS = sizeof verbs / sizeof *verbs };

static void help(FILE *to) {
  fprintf(to, "Examples:\n"
              "  viv run sambay-reasoner \"What is 12 + 30?\"\n"
              "  viv list\n"
              "  viv doctor\n\n"
              "Usage: viv VERB [options] [arguments]\n\nVerbs:\n");
  for (int i = 0; i < N_VERBS; i++) fprintf(to, "  %-12s %s\n", verbs[i].name, verbs[i].about);
  fprintf(to,
          "\nviv VERB --help shows an example and the options of a verb. MODEL is a directory, a "
          "checkpoint\nfile, or a name in the zoo (viv list --models). --json works with every "
          "verb.\n");
}

/* Edit distance, to tell what an unknown verb may have been; names are short. */
static size_t distance(const char *a, const char *b) {
  size_t row[32], n = strlen(b);
  if (n >= 32) return 99;
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 1; a[i - 1]; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t best = diagonal + (a[i - 1] != b[j - 1]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = best;
    }
  }
  return row[n];
}

static int unknown(const char *name) {
  const char *near = NULL;
  size_t best = 3;
  for (int i = 0; i < N_VERBS; i++) {
    size_t d = distance(name, verbs[i].name);
    if (d < best) {
      best = d;
      near = verbs[i].name;
    }
  }
  fprintf(stderr, "viv: there is no verb \"%s\"", name);
  if (near) fprintf(stderr, "; did you mean \"%s\"?", near);
  fprintf(stderr, "\nviv --help lists all verbs.\n");
  return VIV__EXIT_USAGE;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    help(stderr);
    return VIV__EXIT_USAGE;
  }
  const char *name = argv[1];
  if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
    help(stdout);
    return viv__finish_output(VIV__EXIT_OK);
  }
  if (!strcmp(name, "--version") || !strcmp(name, "-V")) name = "version";
  for (int i = 0; i < N_VERBS; i++)
    if (!strcmp(name, verbs[i].name)) return viv__finish_output(verbs[i].run(argc - 1, argv + 1));
  return unknown(name);
}
