# Reads preprocessed headers (cc -E -P -DVIV_NO_INCLUDES) and prints what they declare, one fact per
# line, in the order of the headers:
#   struct NAME          a struct with a definition
#   field NAME FIELD     one of its fields
#   enum NAME
#   function NAME
# The headers keep to a small part of C (no nested structs, unions or bit-fields), so joining the
# text and cutting it at braces and semicolons is enough.
{ text = text " " $0 }

function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }

# The last identifier of a declarator, without its array bounds.
function last_name(s) {
  gsub(/\[[^]]*\]/, "", s)
  s = trim(s)
  return match(s, /[A-Za-z_][A-Za-z0-9_]*$/) ? substr(s, RSTART) : ""
}

function fields(owner, body,   n, i, k, parts, names, m) {
  n = split(body, parts, ";")
  for (i = 1; i <= n; i++) {
    if (trim(parts[i]) == "") continue
    if (match(parts[i], /\(\*[A-Za-z_][A-Za-z0-9_]*\)/)) {
      print "field", owner, substr(parts[i], RSTART + 2, RLENGTH - 3)
      continue
    }
    m = split(parts[i], names, ",")
    for (k = 1; k <= m; k++) print "field", owner, last_name(names[k])
  }
}

END {
  while (text != "") {
    brace = index(text, "{")
    semi = index(text, ";")
    if (!semi) break
    if (brace && brace < semi) { # a struct or an enum with a body
      head = substr(text, 1, brace - 1)
      close_at = index(text, "}")
      body = substr(text, brace + 1, close_at - brace - 1)
      text = substr(text, close_at + 1)
      text = substr(text, index(text, ";") + 1)
      name = last_name(head)
      if (head ~ /enum/) print "enum", name
      else { print "struct", name; fields(name, body) }
      continue
    }
    head = trim(substr(text, 1, semi - 1))
    text = substr(text, semi + 1)
    if (head ~ /^typedef/ || head !~ /\(/) continue
    sub(/\(.*/, "", head)
    print "function", last_name(head)
  }
}
