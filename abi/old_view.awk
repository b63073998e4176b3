# Prints preprocessed headers as ABI 1.0 knew them: fields that were appended to a struct of 1.0 since
# are left out. Fields added elsewhere stay, so that abidiff sees them and complains.
#   usage: awk -f old_view.awk 1.0.fields preprocessed.h
NR == FNR { known[$1, $2] = 1; old[$1] = 1; next }
{ text = text $0 "\n" }

function last_name(s) {
  gsub(/\[[^]]*\]/, "", s)
  gsub(/^[ \t\n]+|[ \t\n]+$/, "", s)
  return match(s, /[A-Za-z_][A-Za-z0-9_]*$/) ? substr(s, RSTART) : ""
}

function is_old(owner, part,   n, i, names) {
  if (match(part, /\(\*[A-Za-z_][A-Za-z0-9_]*\)/))
    return (owner, substr(part, RSTART + 2, RLENGTH - 3)) in known
  n = split(part, names, ",")
  for (i = 1; i <= n; i++) if ((owner, last_name(names[i])) in known) return 1
  return part ~ /^[ \t\n]*$/
}

END {
  while ((brace = index(text, "{")) > 0) {
    head = substr(text, 1, brace)
    rest = substr(text, brace + 1)
    close_at = index(rest, "}")
    body = substr(rest, 1, close_at - 1)
    text = substr(rest, close_at)
    cut = head
    sub(/.*[;}]/, "", cut)
    sub(/\{/, "", cut)
    owner = last_name(cut)
    printf "%s", head
    if (cut ~ /enum/ || !(owner in old)) {
      printf "%s", body
      continue
    }
    n = split(body, parts, ";")
    while (n > 1 && (parts[n] ~ /^[ \t\n]*$/ || !is_old(owner, parts[n]))) n--
    for (i = 1; i <= n; i++) printf "%s;", parts[i]
    printf "\n"
  }
  printf "%s", text
}
