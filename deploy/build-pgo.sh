#!/usr/bin/env bash
# A faster server, by profile-guided optimisation: built, watched under load, and built once more by
# what was seen. Needs `rustup component add llvm-tools` and some ten minutes; the machine should
# have nothing else to do. The result is told at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if [ ! -x "$profdata" ]; then
    echo "llvm-profdata is missing; try: rustup component add llvm-tools" >&2
    exit 1
fi

export CARGO_TARGET_DIR=$PWD/target/pgo
profiles=$CARGO_TARGET_DIR/profiles
rm -rf "$profiles"
# As a server spends its life, and as busy as it gets.
for load in "meeting --rate 20000" "fanout-small --rate 20000" \
    meeting fanout-small fanout-large storm; do
    # shellcheck disable=SC2086 # a workload and its flags
    RUSTFLAGS="-Cprofile-generate=$profiles" \
        cargo bench --locked --target "$host" --bench load -- --workload $load
done
"$profdata" merge -o "$profiles/merged.profdata" "$profiles"/*.profraw
RUSTFLAGS="-Cprofile-use=$profiles/merged.profdata" \
    cargo build --release --locked --target "$host"
echo "$CARGO_TARGET_DIR/$host/release/meeting-server"
