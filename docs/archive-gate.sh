#!/bin/sh
# The restore_command of a standby on which log from an archive is decoded:
#
#     restore_command = 'sh /path/to/archive-gate.sh /path/to/archive %f %p'
#
# It gives out segments of the log up to the one that the file "gate" in the archive
# names, and all of them without that file. Write a later name into it to open it
# further. Whatever is no segment passes.
archive=$1 name=$2 target=$3
case $name in
*.history | *.backup) ;;
*)
    if [ -f "$archive/gate" ]; then
        first=$(printf '%s\n%s\n' "$name" "$(cat "$archive/gate")" | LC_ALL=C sort | head -n 1)
        [ "$first" = "$name" ] || exit 1
    fi
    ;;
esac
exec cp "$archive/$name" "$target"
