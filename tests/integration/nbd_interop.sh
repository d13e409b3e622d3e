#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Goal: the local NBD endpoint understands the NBD clients of this world, and what they write arrives.
# qemu-img, qemu-io, nbdinfo and nbdcopy talk to nbd_pair (endpoint, mirror log, delayed pipe, target engine,
# libnbd writer), behind which a real server, nbdkit or qemu-nbd, holds the target's disk. At the end the
# target's image must equal what was written, byte by byte, holes must have stayed holes, and a failing or
# dying target disk must end the mirror with its reason.
#
# usage: nbd_interop.sh PATH-OF-nbd_pair

set -euo pipefail

pair=${1:?usage: nbd_interop.sh PATH-OF-nbd_pair}
dir=$(mktemp -d)
pids=()

cleanup() {
    local status=$?
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait || true
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT

say() { echo "--- $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

wait_for_socket() {
    for _ in $(seq 200); do
        [ -S "$1" ] && return
        sleep 0.05
    done
    fail "$1 did not appear"
}

size=$((64 * 1024 * 1024))
uri="nbd+unix:///disk0?socket=$dir/source.sock"

# start_target nbdkit|qemu-nbd [nbdkit filter options...]: an empty disk of $size in $dir/target.img
start_target() {
    rm -f "$dir/target.sock" "$dir/target.img"
    truncate -s "$size" "$dir/target.img"
    if [ "$1" = nbdkit ]; then
        shift
        nbdkit -f -U "$dir/target.sock" "$@" &
    else
        qemu-nbd --socket="$dir/target.sock" --export-name=target --format=raw --persistent --shared=2 \
            --discard=unmap --detect-zeroes=unmap "$dir/target.img" &
    fi
    target_pid=$!
    pids+=("$target_pid")
    wait_for_socket "$dir/target.sock"
}

# start_pair [DELAY-MS [BUDGET]]
start_pair() {
    rm -f "$dir/source.sock"
    "$pair" "$dir/source.sock" disk0 "$size" "$dir/target.sock" target "$@" &
    pair_pid=$!
    pids+=("$pair_pid")
    wait_for_socket "$dir/source.sock"
}

finish() {
    kill -TERM "$pair_pid"
    wait "$pair_pid" || fail "nbd_pair ended with status $?"
    kill "$target_pid"
    wait "$target_pid" || true
}

# 24 MiB of data in pieces, the rest holes
make_image() {
    truncate -s "$size" "$dir/image"
    for at in 0 7 20 33 50 63; do
        dd if=/dev/urandom of="$dir/image" bs=1M count=1 seek="$at" conv=notrunc status=none
    done
    dd if=/dev/urandom of="$dir/image" bs=1M count=18 seek=34 conv=notrunc status=none
}

make_image

for server in nbdkit qemu-nbd; do
    say "qemu-img convert, over 50 ms, into $server"
    if [ "$server" = nbdkit ]; then start_target nbdkit file "$dir/target.img"; else start_target qemu-nbd; fi
    start_pair 50
    qemu-img convert -n -f raw -O raw "$dir/image" "$uri"
    finish
    cmp "$dir/image" "$dir/target.img"
    used=$(du --block-size=1 "$dir/target.img" | cut -f1)
    [ "$used" -le $((28 * 1024 * 1024)) ] || fail "holes were filled: $used bytes used"

    say "nbdinfo, nbdcopy both ways, with a budget of 1 MiB, into $server"
    if [ "$server" = nbdkit ]; then start_target nbdkit file "$dir/target.img"; else start_target qemu-nbd; fi
    start_pair 5 1048576
    nbdinfo --size "$uri" | grep -qx "$size"
    nbdinfo --list "nbd+unix://?socket=$dir/source.sock" | grep -q 'export="disk0"'
    nbdinfo --map "$uri" >/dev/null
    nbdinfo "nbd+unix:///nothing?socket=$dir/source.sock" 2>/dev/null && fail "an unknown export was served"
    nbdcopy --flush "$dir/image" "$uri"
    nbdcopy "$uri" "$dir/back"
    cmp "$dir/image" "$dir/back"
    finish
    cmp "$dir/image" "$dir/target.img"

    say "qemu-io: overlapping writes, zeroes, discards, FUA, reads, into $server"
    if [ "$server" = nbdkit ]; then start_target nbdkit file "$dir/target.img"; else start_target qemu-nbd; fi
    start_pair 20
    qemu-io -f raw -d unmap "$uri" \
        -c "aio_write -P 1 0 1M" -c "aio_write -P 2 512k 1M" -c "aio_write -P 3 700001 99999" \
        -c "aio_flush" -c "write -P 4 -f 1300000 4096" -c "write -z -u 900k 64k" -c "write -z 2M 16M" \
        -c "discard 4M 1M" -c "write -P 5 $((size - 512)) 512" -c "flush" \
        -c "read -P 1 0 512k" -c "read -P 3 700001 99999" -c "read -P 0 900k 64k" -c "read -P 4 1300000 4096" \
        -c "read -P 5 $((size - 512)) 512" >"$dir/qemu-io.log"
    grep -qi "verification failed\|error" "$dir/qemu-io.log" && { cat "$dir/qemu-io.log"; fail "qemu-io read something else"; }
    finish
    python3 - "$dir/target.img" "$size" <<'PYTHON'
import sys
size = int(sys.argv[2])
want = bytearray(size)
def put(value, at, length):
    want[at:at + length] = bytes([value]) * length
put(1, 0, 1 << 20)
put(2, 512 << 10, 1 << 20)
put(3, 700001, 99999)
put(4, 1300000, 4096)
put(0, 900 << 10, 64 << 10)
put(5, size - 512, 512)
if open(sys.argv[1], "rb").read() != want:
    sys.exit("FAILED: the target's disk is not what qemu-io wrote")
PYTHON
done

say "a target disk that is full ends the mirror with its reason"
start_target nbdkit --filter=error file "$dir/target.img" error-pwrite=ENOSPC error-pwrite-rate=100%
start_pair 5 2>"$dir/err"
qemu-img convert -n -f raw -O raw "$dir/image" "$uri" 2>/dev/null || true
kill -TERM "$pair_pid" 2>/dev/null || true
wait "$pair_pid" && fail "a full disk was not noticed"
grep -q "No space left on device" "$dir/err" || { cat "$dir/err"; fail "the reason was lost"; }

say "a target server that dies ends the mirror"
start_target nbdkit --filter=delay file "$dir/target.img" delay-write=50ms
start_pair 5 2>"$dir/err"
qemu-img convert -n -f raw -O raw "$dir/image" "$uri" 2>/dev/null &
client=$!
sleep 0.5
kill -KILL "$target_pid"
wait "$client" && client_status=0 || client_status=$?
kill -TERM "$pair_pid" 2>/dev/null || true
wait "$pair_pid" && fail "a dead server was not noticed (client status $client_status)"

say "a target disk of another size is refused"
whole=$size
size=$((size / 2))
start_target nbdkit file "$dir/target.img"
size=$whole
start_pair 0 2>"$dir/err"
wait "$pair_pid" && fail "a smaller disk was accepted"
grep -q "source's size" "$dir/err" || { cat "$dir/err"; fail "the reason was lost"; }

say "all clients were understood, all disks are equal"
