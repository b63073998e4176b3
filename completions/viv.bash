# Completion of viv for bash.
_viv_models() {
  viv list --models 2>/dev/null | cut -d' ' -f1
}

_viv() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}
  local verbs="run chat list show why plugins tokenize session eval score embed fill classify encode decode quantize bench golden serve \
ps top load unload stop metrics logs replay doctor new-plugin version"
  local common="--help --json"
  local load="--plugin --dtype --context --load"
  local generate="--max-tokens --temp --top-k --top-p --min-p --seed --strategy --stop --schema --grammar --ignore-eos \
--param"
  local options
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "$verbs --help --version" -- "$cur"))
    return
  fi
  case $prev in
    --pooling) COMPREPLY=($(compgen -W "mean cls last" -- "$cur")); return ;;
    --dtype) COMPREPLY=($(compgen -W "as-stored f32 bf16 f16 int8 int4" -- "$cur")); return ;;
    --group) COMPREPLY=($(compgen -W "32 128 row" -- "$cur")); return ;;
    --file|--calibrate|--text) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --state) COMPREPLY=($(compgen -W "planned runs verified" -- "$cur")); return ;;
    --strategy) COMPREPLY=($(compgen -W "greedy sample prompt-lookup" -- "$cur")); return ;;
    --format) COMPREPLY=($(compgen -W "json coco png pfm npy ply" -- "$cur")); return ;;
    --preview-as) COMPREPLY=($(compgen -W "kitty sixel blocks" -- "$cur")); return ;;
    --detector) COMPREPLY=($(compgen -W "$(_viv_models)" -- "$cur") $(compgen -f -- "$cur")); return ;;
    --level|--log) COMPREPLY=($(compgen -W "error warn info debug" -- "$cur")); return ;;
    --kind) COMPREPLY=($(compgen -W "boxes keypoints" -- "$cur")); return ;;
    --config|--socket|--out|-o|--input|-i|--draw|--camera|--labels|--coco|--results) COMPREPLY=($(compgen -f -- "$cur")); return ;;
  esac
  case $verb in
    run) options="$common $load --local $generate --raw --task --input --out --verbose --draw --preview \
--preview-as --format --threshold --labels --frames --vocoder --pcm --rate --channels --point --box --detector --detect \
--detector-threshold --intrinsics --camera --polygons" ;;
    chat) options="$common $load --local $generate --system --verbose" ;;
    session) options="$common $load $generate --raw --update --verbose" ;;
    eval) options="$common $load --local $generate --limit --jobs --verbose --coco --results --kind --task \
--labels --out --detector --detect --detector-threshold" ;;
    score) options="$common $load --local --file --window --lines" ;;
    quantize) options="$common --plugin --dtype --group --calibrate --text --lines" ;;
    bench) options="$common $load --repetitions --prompt --generate" ;;
    golden) options="$common $load --taps-first --call --quiet --dry-run" ;;
    list) options="$common --models --state --markdown" ;;
    show) options="$common $load --local" ;;
    why | plugins) options="$common --local" ;;
    tokenize) options="$common --decode --no-special --bytes" ;;
    embed) options="$common $load --local --query --top --pooling --no-normalize --out" ;;
    fill) options="$common $load --local --top" ;;
    classify) options="$common $load --local --top --pair --labels" ;;
    serve) options="$common --config --socket --log" ;;
    load) options="$common $load --pin --keep-alive" ;;
    top) options="$common --interval --count" ;;
    replay) options="$common --show" ;;
    logs) options="$common --level" ;;
    encode) options="$common $load --local --out --codebooks --bitrate --pcm --rate --channels --chunk --wide" ;;
    decode) options="$common $load --local --out --format --chunk" ;;
    new-plugin) options="--help --dir" ;;
    *) options="$common" ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  elif [ "$verb" = session ] && [ "$COMP_CWORD" -eq 2 ]; then
    COMPREPLY=($(compgen -W "save resume" -- "$cur"))
  elif [ "$verb" = golden ]; then
    COMPREPLY=($(compgen -d -- "$cur"))
  else
    case $verb in
      run|chat|show|why|tokenize|session|eval|bench|embed|fill|classify|encode|decode)
        COMPREPLY=($(compgen -W "$(_viv_models)" -- "$cur") $(compgen -f -- "$cur")) ;;
      *) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
  fi
}
complete -o filenames -F _viv viv
