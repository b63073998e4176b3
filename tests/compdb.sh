#!/bin/sh
# Prints compile_commands.json for the host's, plugins' and tests' C files.
flags="-std=c11 -D_GNU_SOURCE -Iabi -Ihost -Iplugins $(pkg-config --cflags libuv libcjson libmd)"
printf '[\n'
separator=
git ls-files '*.c' | while read -r file; do
  printf '%s{"directory":"%s","file":"%s","command":"cc %s -c %s"}' "$separator" "$PWD" "$file" "$flags" "$file"
  separator=',
'
done
printf '\n]\n'
