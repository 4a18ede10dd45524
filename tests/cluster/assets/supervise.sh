# Runs "$@" and exits with its status; kills it at the end of file on standard input, which is a pipe whose other end only the
# owner holds: the owner's death, whatever its kind, is an end of file.
# $1: text on the command's own command line, by which it is known before it is killed; $2: where to write its pid, or nothing.
marker=$1 pid_file=$2
shift 2
# When the owner dies while the command is stopped (SIGSTOP), this orphaned process group gets a SIGHUP. It must not end us first.
trap '' HUP
# The owner's own may lack the programs below.
PATH=$PATH:/usr/bin:/bin
ulimit -n "$(ulimit -Hn)" 2>/dev/null
exec 3<&0 </dev/null
"$@" 3<&- &
pid=$!
[ -z "$pid_file" ] || { echo "$pid" >"$pid_file.part" && mv "$pid_file.part" "$pid_file"; }
(
    read -r _ <&3
    tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF -e "$marker" && kill -KILL "$pid"
) >/dev/null 2>&1 &
watch=$!
wait "$pid"
status=$?
kill -KILL "$watch"
[ -z "$pid_file" ] || rm -f "$pid_file"
exit "$status"
