/* Chat templates: limits, refusals with their place, what stands around a conversation's template.
 * The language itself is held against tests/goldens/chat-template. */
#include <criterion/criterion.h>
#include <string.h>

#include "template/template.h"

#define MESSAGES                                                                                   \
  "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\" Yo \"}]"

static int32_t render(const char *text, const char *context, viv__rendered *out, viv_error *error) {
  viv__template *t = NULL;
  int32_t status = viv__template_open(viv__str(text), "t", &t, error);
  if (status >= 0) status = viv__template_render(t, viv__str(context), 0, out, error);
  viv__template_close(t);
  return status;
}

static void expect(const char *text, const char *context, const char *wanted) {
  viv__rendered r = {0};
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(render(text, context, &r, &error), VIV_OK, "%s: %s", text, error.message);
  cr_expect_str_eq(r.text, wanted, "%s gives %s", text, r.text);
  viv__rendered_free(&r);
}

static void refuse(const char *text, int32_t status, const char *where, const char *message) {
  viv__rendered r = {0};
  viv_error error = VIV_ERROR_INIT;
  int32_t got = render(text, "{\"x\":1}", &r, &error);
  cr_expect_eq(got, status, "%.60s: status %d", text, got);
  cr_expect(strstr(error.where, where), "%.60s: where is %s", text, error.where);
  cr_expect(strstr(error.message, message), "%.60s: message is %s", text, error.message);
  viv__rendered_free(&r);
}

Test(template, values_print_as_python_prints_them) {
  expect("{{ v }}", "{\"v\":[1, 1.0, 1e16, true, null, \"a'b\", {\"k\": []}]}",
         "[1, 1.0, 1e+16, True, None, \"a'b\", {'k': []}]");
  expect("{{ v }} {{ v + 1 }}", "{\"v\":12345678901234567890}",
         "12345678901234567890 12345678901234567891");
  expect("{{ v | tojson }}", "{\"v\":{\"b\":1.50,\"a\":\"\\u00e9<\"}}",
         "{\"b\": 1.5, \"a\": \"\xc3\xa9<\"}");
  expect("{{ 'stra\xc3\x9f"
         "e' | upper }}",
         "{}", "STRASSE");
}

Test(template, failures_say_where) {
  refuse("a\n  {{ x.y.z }}", VIV_BAD_INPUT, "line 2, column", "no attribute 'y'");
  refuse("{% include 'x' %}", VIV_NEVER, "line 1, column 4", "include");
  refuse("{% if false %}\n{{ x | random }}{% endif %}", VIV_NEVER, "line 2, column 8", "random");
  refuse("{{ x | nosuch }}", VIV_BAD_INPUT, "line 1, column 8", "No filter named 'nosuch'");
  refuse("{% for a in x %}", VIV_BAD_INPUT, "line 1", "endfor");
  refuse("{{ 2 ** 127 }}", VIV_BAD_INPUT, "line 1", "127 bits");
  refuse("{{ raise_exception('no ' ~ x) }}", VIV_BAD_INPUT, "line 1", "no 1");
}

Test(template, an_unknown_filter_matters_where_it_is_reached) {
  expect("{% if false %}{{ 1 | nosuch }}{% endif %}ok", "{}", "ok");
  expect("{{ 1 if true else 1 | nosuch }}", "{}", "1");
}

Test(template, hostile_programs_end, .timeout = 60) {
  refuse("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
         VIV_BAD_INPUT, "line 1", "the template "); /* takes too many steps, or too much memory */
  refuse("{{ range(100001) }}", VIV_BAD_INPUT, "line 1", "Range too big");
  refuse("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", VIV_BAD_INPUT, "line 1", "recursion");
  refuse("{{ 'x' * 999999999999 }}", VIV_BAD_INPUT, "line 1", "too long");
  refuse("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}"
         "{% set ns.s = ns.s + ns.s %}{% endfor %}",
         VIV_BAD_INPUT, "line 1", "MiB");
  refuse("{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
         "{% endfor %}{{ ns.l }}",
         VIV_BAD_INPUT, "line 1", "recursion");
  refuse("{{ x.__class__.__mro__ }}", VIV_BAD_INPUT, "line 1", "unsafe");
  char *deep = calloc(1, 20000);
  memset(deep, '(', 9000);
  memcpy(deep, "{{", 2);
  refuse(deep, VIV_BAD_INPUT, "line 1", "brackets");
  free(deep);
}

static void chat(const char *text, const viv__chat_input *in, int32_t status, const char *wanted) {
  viv__template *t = NULL;
  viv__rendered r = {0};
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__template_open(viv__str(text), "t", &t, &error), VIV_OK);
  int32_t got = viv__template_chat(t, in, &r, &error);
  cr_expect_eq(got, status, "status %d: %s", got, error.message);
  if (got >= 0)
    cr_expect_str_eq(r.text, wanted);
  else
    cr_expect(strstr(error.message, wanted), "message is %s", error.message);
  viv__rendered_free(&r);
  viv__template_close(t);
}

Test(template, a_message_is_continued) {
  static const char plain[] = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
  static const char trims[] = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
  viv__chat_input in = {.messages = viv__str(MESSAGES), .continue_field = "content"};
  chat(plain, &in, VIV_OK, "<Hi>< Yo ");
  chat(trims, &in, VIV_OK, "<Hi><Yo");
  chat("{{ messages[0].content }}", &in, VIV_BAD_INPUT, "does not appear");
  chat("{% if false %}{{ messages[0].content }}{% endif %}", &in, VIV_BAD_INPUT, "does not appear");
  in.continue_field = "thinking";
  chat(plain, &in, VIV_BAD_INPUT, "no \"thinking\"");
  in.messages = viv__str("[]");
  chat(plain, &in, VIV_BAD_INPUT, "empty");
}

Test(template, inputs_are_checked) {
  viv__chat_input in = {.messages = viv__str("{}")};
  chat("x", &in, VIV_BAD_INPUT, "list");
  in.messages = viv__str("[1]");
  chat("x", &in, VIV_BAD_INPUT, "messages[0]");
  in.messages = viv__str("[");
  chat("x", &in, VIV_BAD_INPUT, "not valid JSON");
  in.messages = viv__str("[]");
  in.tools = viv__str("[2]");
  chat("x", &in, VIV_BAD_INPUT, "tools[0]");
}

static void door(const char *config, const char *jinja, const char *tools, int32_t status,
                 const char *wanted) {
  viv__chat_input in = {.messages = viv__str(MESSAGES), .tools = viv__str(tools), .now = -1};
  viv_error error = VIV_ERROR_INIT;
  char *text = NULL;
  size_t len = 0;
  int32_t got = viv__chat_render(viv__str(config), viv__str(jinja), &in, &text, &len, &error);
  cr_expect_eq(got, status, "status %d: %s", got, error.message);
  if (got >= 0)
    cr_expect_str_eq(text, wanted);
  else
    cr_expect(strstr(error.message, wanted), "message is %s", error.message);
  viv__free(text);
}

Test(template, a_checkpoint_has_one_or_several) {
  static const char several[] = "{\"eos_token\":{\"content\":\"</s>\"},\"chat_template\":["
                                "{\"name\":\"default\",\"template\":\"D{{ eos_token }}\"},"
                                "{\"name\":\"tool_use\",\"template\":\"T{{ tools | length }}\"}]}";
  door("{\"chat_template\":\"{{ messages | length }}\"}", NULL, NULL, VIV_OK, "2");
  door(several, NULL, NULL, VIV_OK, "D</s>");
  door(several, NULL, "[{\"type\":\"function\"}]", VIV_OK, "T1");
  door(several, "J", NULL, VIV_OK, "J");
  door("{}", NULL, NULL, VIV_NEVER, "chat_template");
  door("{\"chat_template\":[{\"name\":\"x\",\"template\":\"y\"}]}", NULL, NULL, VIV_NEVER,
       "default");
  door("{\"chat_template\":[7]}", NULL, NULL, VIV_BAD_INPUT, "entry 0");
}

Test(template, every_allocation_fails_once) {
  for (long k = 1; k < 200; k++) {
    viv__rendered r = {0};
    viv_error error = VIV_ERROR_INIT;
    viv__fail_alloc(k);
    int32_t status = render("{% for m in [1, 2] %}{{ m }}{% endfor %}", "{}", &r, &error);
    viv__fail_alloc(0);
    if (status >= 0) {
      cr_expect_str_eq(r.text, "12");
      viv__rendered_free(&r);
      return;
    }
    cr_expect_eq(status, VIV_NOT_NOW, "allocation %ld: status %d", k, status);
  }
  cr_assert(false, "it never succeeded");
}
