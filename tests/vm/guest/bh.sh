# For the scripts that run in the guest (". /bh.sh"): how to answer, wait and measure.

# say KEY=VALUE - one answer to the test on the host
say() { echo "BH $*"; }

# hundredths of a second since the guest booted
now() {
    read -r up _ </proc/uptime
    echo "${up%.*}${up#*.}"
}

# timed KEY COMMAND... - runs the command and says KEY_cs=<hundredths of a second>
timed() {
    key=$1
    shift
    start=$(now)
    "$@" || { say "$key=failed"; return 1; }
    say "${key}_cs=$(($(now) - start))"
}

# there PATH - is it there? The kernel makes a disk's node a moment before it can be opened.
there() { [ -e "$1" ] && { [ ! -b "$1" ] || (exec <"$1") 2>/dev/null; }; }

# wait_for PATH [SECONDS] - until PATH is there; fails after SECONDS (60)
wait_for() {
    tries=$((${2:-60} * 20))
    until there "$1"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "missing=$1"; return 1; }
        usleep 50000
    done
}

# sum_of DEVICE MEGABYTES SKIP - SHA-256 of a part of a disk, read past every cache
sum_of() {
    dd if="$1" bs=1M count="$2" skip="$3" iflag=direct,fullblock status=none | sha256sum | cut -d ' ' -f 1
}
