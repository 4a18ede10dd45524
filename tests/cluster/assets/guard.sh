# Removes a cluster's state directory $1 (unless $2 says "keep") once its owner is gone and so are its nodes. Standard input is
# the owner's pipe, as for supervise.sh; standard output is the lock on the cluster's addresses, held as long as this runs.
trap '' HUP
# The owner's own may lack the programs below.
PATH=$PATH:/usr/bin:/bin
read -r _
running() {
    for file in "$1"/node*/pid; do
        [ -f "$file" ] && read -r pid <"$file" && grep -qF -e "$1" "/proc/$pid/cmdline" && return 0
    done
    return 1
}
while running "$1" 2>/dev/null; do sleep 0.05; done
[ "$2" = keep ] || rm -rf "$1"
