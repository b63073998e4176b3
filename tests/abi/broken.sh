#!/bin/sh
# The ABI gate must fail when it should: each forbidden edit of a copy of the headers is rejected, and
# each edit that the ABI allows passes. A gate that nobody has seen fail proves nothing.
#   usage: broken.sh WORK_FOLDER
set -eu
work=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
failed=0

# edit NAME reject|accept FILE SED_SCRIPT
edit() {
  name=$1 want=$2 file=$3 script=$4
  rm -rf "$work/$name"
  mkdir -p "$work/$name"
  cp -r "$root/abi/vivarium" "$work/$name/vivarium"
  rm -f "$work/$name/vivarium/layout.h"
  sed -i "$script" "$work/$name/vivarium/$file"
  if cmp -s "$root/abi/vivarium/$file" "$work/$name/vivarium/$file"; then
    echo "broken.sh: $name: the edit changed nothing; the header moved on" >&2
    failed=1
    return
  fi
  if sh "$root/abi/check_baseline.sh" "$work/$name" "$work/$name/out" > "$work/$name/log" 2>&1; then
    got=accept
  else
    got=reject
  fi
  if [ $got != "$want" ]; then
    echo "broken.sh: $name: $got, expected $want" >&2
    cat "$work/$name/log" >&2
    failed=1
  fi
}

edit field_type reject core.h 's/^  double progress;  /  float progress;  /'
edit field_narrower reject core.h 's/^  uint64_t bytes; /  uint32_t bytes; /'
edit field_inserted reject core.h 's/^  int32_t ndim; /  int32_t extra;\n  int32_t ndim; /'
edit field_removed reject model.h '/^  uint64_t step_row_bytes;/d'
edit fields_swapped reject model.h 's/^  int32_t (\*job_step)(.*/  void (*job_end2)(viv_plugin_job *job);\n&/'
edit field_renamed reject model.h 's/^  uint64_t step_bytes; /  uint64_t scratch_bytes; /'
edit enum_value reject core.h 's/VIV_BF16 = 4/VIV_BF16 = 40/'
edit enum_removed reject core.h '/VIV_KIND_AUDIO = 5/d'
edit argument_added reject vivarium.h 's/void viv_close(viv_runtime \*runtime)/void viv_close(viv_runtime *runtime, int32_t how)/'
edit result_changed reject vivarium.h 's/^VIV_API int viv_job_fd/VIV_API int64_t viv_job_fd/'
edit function_removed reject vivarium.h '/viv_ids_free(/d'
edit callback_changed reject core.h 's/(\*job_poll)(viv_job \*job)/(*job_poll)(const viv_job *job, int32_t n)/'
edit constant_changed reject core.h 's/VIV_MAX_DIMS 8/VIV_MAX_DIMS 9/'
edit id_changed reject model.h 's:viv.model/1":viv.model/2":'
edit struct_removed reject vivarium.h 's/\bviv_text\b/viv_string/g'

edit field_appended accept model.h 's/^} viv_memory_plan;/  uint64_t more_bytes;\n} viv_memory_plan;/'
edit callback_appended accept core.h 's/^} viv_host;/  int32_t (*more)(viv_job *job);\n} viv_host;/'
edit grown_and_changed reject model.h 's/^  uint64_t step_row_bytes; /  double step_row_bytes; /; s/^} viv_memory_plan;/  uint64_t more_bytes;\n} viv_memory_plan;/'

edit enumerator_added accept core.h 's/^  VIV_U8 = 9,/  VIV_U8 = 9,\n  VIV_F8 = 11,/'
edit function_added accept vivarium.h 's/^VIV_API void viv_ids_free/VIV_API void viv_more(viv_model *model);\n&/'
edit struct_added accept core.h 's/^typedef struct viv_plugin {/typedef struct viv_more {\n  int32_t a;\n} viv_more;\n&/'
edit minor_raised accept core.h 's/VIV_ABI_MINOR 0/VIV_ABI_MINOR 1/'
edit comment_changed accept core.h 's/^ \* A plugin is one shared object/ * A plugin is a shared object/'

# Headers that one of the languages can't read, or whose layout is not the committed one.
parse() { # parse NAME FILE SED_SCRIPT WORDS
  mkdir -p "$work/$1"
  rm -rf "$work/$1/vivarium"
  cp -r "$root/abi/vivarium" "$work/$1/vivarium"
  rm -f "$work/$1/vivarium/layout.h"
  sed -i "$3" "$work/$1/vivarium/$2"
  if sh "$root/abi/check_headers.sh" "$work/$1" "$work/$1/out" > "$work/$1/log" 2>&1 ||
     ! grep -q "$4" "$work/$1/log"; then
    echo "broken.sh: $1: the headers are taken, or refused for another reason" >&2
    cat "$work/$1/log" >&2
    failed=1
  fi
}
parse not_cpp core.h 's/^  int32_t ndim; /  int32_t class; /' class
parse not_lua core.h 's/^  int32_t ndim; /  __typeof__((int32_t)0) ndim; /' 'luajit\|cdef'
parse not_c11 core.h 's/^  int32_t ndim; /  int32_t ndim : 31; int : 0; \/\/ /' padding
sh "$root/abi/gen_layout.sh" "$work/field_inserted" "$work/layout" > "$work/layout.h"
if cmp -s "$root/abi/vivarium/layout.h" "$work/layout.h"; then
  echo "broken.sh: a field was inserted, and layout.h is the same" >&2
  failed=1
fi

# An absent tool is a failure that names the package, never a silent pass.
mkdir -p "$work/bin"
ln -sf "$(command -v dirname)" "$work/bin/dirname"
for script in check_baseline:abigail-tools check_headers:gcc; do
  if PATH="$work/bin" /bin/sh "$root/abi/${script%:*}.sh" "$root/abi" "$work/none" > "$work/none.log" 2>&1 ||
     ! grep -q "apt-get install ${script#*:}" "$work/none.log"; then
    echo "broken.sh: ${script%:*}.sh does not name the package of an absent tool" >&2
    cat "$work/none.log" >&2
    failed=1
  fi
done

[ $failed = 0 ] && echo "abi-check: forbidden edits are rejected, allowed ones pass: ok"
exit $failed
