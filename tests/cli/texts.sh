#!/bin/sh
# The manual and the completions know every verb and every option that --help knows.
. tests/cli/lib.inc

verbs=$("$viv" --help | sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
check "there are verbs" test -n "$verbs"
sed 's/\\-/-/g' man/viv.1 >"$tmp/man"
for verb in $verbs; do
  check "manual: $verb" grep -q "^.SS $verb\$" "$tmp/man"
  for file in viv.bash _viv viv.fish; do
    check "$file: $verb" grep -q -w -e "$verb" completions/$file
  done
  for option in $("$viv" $verb --help | sed -n 's/^  \(-., \|    \)--\([a-z-]*\).*/\2/p'); do
    case $option in help) continue ;; esac
    check "viv.bash: $verb --$option" grep -q -w -e "--$option" completions/viv.bash
    check "_viv: $verb --$option" grep -q -w -e "--$option" completions/_viv
    check "viv.fish: $verb --$option" grep -q -w -e "-l $option" completions/viv.fish
    check "manual: $verb --$option" grep -q -w -e "--$option" "$tmp/man"
  done
done
for shell in bash zsh fish; do
  command -v $shell >/dev/null || continue
  case $shell in bash) file=viv.bash ;; zsh) file=_viv ;; fish) file=viv.fish ;; esac
  check "$shell reads its completions" $shell -n completions/$file
done
if command -v man >/dev/null; then
  for page in man/*.1; do
    check "$page formats without complaint" sh -c \
      "LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z $page 2>&1 >/dev/null | \
       { ! grep . ; }"
  done
fi
finish
