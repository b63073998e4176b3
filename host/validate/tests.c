/* The list of the tests, in the order of their levels. */
#include "validate/tests.h"

uint64_t viv__v_next_random(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

const struct test viv__tests[] = {
    {"manifest", 1, NULL, 5, viv__v_test_manifest,
     "the manifest is there, well formed and complete"},
    {"exports", 1, NULL, 5, viv__v_test_exports, "viv_plugin_entry is the only visible symbol"},
    {"links", 1, NULL, 5, viv__v_test_links, "nothing but libc and libm is linked"},
    {"imports", 1, NULL, 5, viv__v_test_imports, "no call that would touch the process"},
    {"loads", 2, "exports", 5, viv__v_test_loads, "loads and enters, within 5 s (100 ms warn)"},
    {"table", 3, "loads", 10, viv__v_test_table, "the table agrees with the manifest and the ABI"},
    {"interfaces", 3, "loads", 10, viv__v_test_interfaces,
     "every listed interface is there and whole"},
    {"unknown-interface", 3, "loads", 10, viv__v_test_unknown_interface, "other ids answer NULL"},
    {"init-twice", 3, "loads", 10, viv__v_test_init_twice, "init and deinit are counted"},
    {"host-newer", 3, "loads", 10, viv__v_test_host_newer, "a host of a later minor is served"},
    {"host-other-major", 3, "loads", 10, viv__v_test_host_other_major,
     "a host of another major is refused"},
    {"no-extensions", 4, "table", 10, viv__v_test_no_extensions,
     "a host without extensions is survived"},
    {"open-bad-config", 5, "table", 10, viv__v_test_open_bad_config,
     "bad configurations are explained"},
    {"opens", 5, "table", 30, viv__v_test_opens, "a model opens, describes itself and closes"},
    {"job-runs", 6, "opens", 15, viv__v_test_job_runs, "a job runs; its events are well formed"},
    {"job-wait", 6, "job-runs", 15, viv__v_test_job_wait, "WAIT is honoured"},
    {"job-bad-input", 6, "job-runs", 15, viv__v_test_job_bad_input, "bad requests are answered"},
    {"token-info", 6, "opens", 15, viv__v_test_token_info, "the token model's facts are sane"},
    {"strategy", 6, "table", 15, viv__v_test_strategy, "strategies start and want something sane"},
    {"cancel-latency", 7, "job-runs", 15, viv__v_test_cancel,
     "a cancel takes no longer than declared"},
    {"cancelled-job", 7, "job-runs", 15, viv__v_test_cancelled_before, "a cancelled job stops"},
    {"token-poll", 7, "token-info", 15, viv__v_test_token_poll,
     "a cancelled eval stops between layers"},
    {"leaks", 8, "opens", 30, viv__v_test_leaks, "open and close leave nothing behind"},
    {"open-no-memory", 8, "opens", 30, viv__v_test_no_memory, "each allocation of open may fail"},
    {"job-no-memory", 8, "job-runs", 30, viv__v_test_job_no_memory,
     "each allocation of a job may fail"},
    {"token-batches", 8, "token-info", 30, viv__v_test_token_batches,
     "bad batches are refused unharmed"},
    {"fuzz-config", 9, "table", 40, viv__v_test_fuzz_config, "mutated configurations never crash"},
    {"fuzz-job", 9, "job-runs", 20, viv__v_test_fuzz_job, "mutated inputs never crash"},
    {"token-snapshot", 9, "token-info", 30, viv__v_test_token_snapshot,
     "snapshots restore; damaged ones are refused"},
    {"token-fuzz", 10, "token-info", 40, viv__v_test_token_fuzz, "random operations never crash"},
};
const size_t viv__n_tests = sizeof viv__tests / sizeof *viv__tests;
