#!/usr/bin/env bash
# Checks deploy/Containerfile where no registry can be reached. Needs root, mmdebstrap and buildah.
#
#   deploy/check-container.sh [--with-build] [BINARY]    (default: target/debug/meeting-server)
#
# The final stage: buildah builds it on a Debian with a C library alone, of this machine's version,
# and starts it. The health check of the image must succeed, and SIGTERM must end the server in
# order.
# The build stage, with --with-build (some minutes): its base image is Debian with a C compiler and
# the Rust toolchain. A clean Debian with the same packages, and those that the file installs,
# builds the dependencies in C. Nothing else of the build depends on the system's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
with_build=
if [ "${1:-}" = --with-build ]; then
    with_build=yes
    shift
fi
binary=$(realpath "${1:-target/debug/meeting-server}")
# The Debian of the container file.
suite=bookworm
work=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

fail() {
    echo "check-container: $*" >&2
    exit 1
}

if ! unshare --mount true; then
    [ "${CI:-}" != true ] || fail "this machine allows no mounts"
    echo "check-container: SKIPPED, this machine allows no mounts" >&2
    exit 0
fi

# ---------------------------------------------------------------------------------- the build stage

check_build() {
    # What rust:1-slim-bookworm has beside Debian's minimum.
    local packages=(ca-certificates gcc libc6-dev) added
    read -ra added < <(sed -n \
        's/.*apt-get install -y --no-install-recommends \([a-z0-9 .+-]*\).*/\1/p' \
        deploy/Containerfile)
    packages+=("${added[@]}")
    mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
        "$suite" "$work/build"
    cargo fetch --locked --quiet
    mkdir -p "$work"/build/{src,rust,cargo,target}
    # In a mount namespace of its own, which leaves no mount behind.
    SOURCE=$PWD RUST=$(rustc --print sysroot) CARGO=${CARGO_HOME:-$HOME/.cargo} ROOT=$work/build \
        unshare --mount bash -euo pipefail -c '
            mount --bind "$SOURCE" "$ROOT/src"
            mount --bind "$RUST" "$ROOT/rust"
            mount --bind "$CARGO" "$ROOT/cargo"
            mount -t proc proc "$ROOT/proc"
            chroot "$ROOT" env -i PATH=/rust/bin:/usr/bin:/bin HOME=/root CARGO_HOME=/cargo \
                CARGO_TARGET_DIR=/target cargo build --manifest-path /src/Cargo.toml --locked \
                --offline --quiet -p tikv-jemalloc-sys -p aws-lc-sys
        ' || fail "the dependencies in C cannot be built with what the build stage installs"
    echo "check-container: the build stage passed"
}

if [ -n "$with_build" ]; then check_build; fi

# ---------------------------------------------------------------------------------- the final stage

context=$work/context
mkdir "$context"
cp "$binary" "$context/meeting-server"
# The binary was built on this machine, and a C library that is older than this machine's may not
# run it. So where this is another Debian than that of the container file, the base is this one.
base=$(. /etc/os-release && echo "${VERSION_CODENAME:-$suite}")
[ "$base" = "$suite" ] || echo "check-container: the base is $base, as this machine, not $suite" >&2
# As distroless/cc: no shell, no package manager.
mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,libstdc++6 "$base" \
    "$context/base.tar"
sed -n '/^FROM gcr\.io/,$p' deploy/Containerfile |
    sed -e 's|^FROM .*|FROM scratch\nADD base.tar /|' \
        -e 's|^COPY --from=build /meeting-server|COPY meeting-server|' >"$context/Containerfile"

image=meeting-server-check
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
buildah "${storage[@]}" bud --quiet --isolation chroot --format docker -t "$image" \
    -f "$context/Containerfile" "$context" >/dev/null
config() {
    buildah "${storage[@]}" inspect --type image --format "$1" "$image"
}
[ "$(config '{{.Docker.Config.User}}')" = 65532:65532 ] || fail "the user is not 65532"
start=$(config '{{index .Docker.Config.Entrypoint 0}}')
read -ra health <<<"$(config '{{range slice .Docker.Config.Healthcheck.Test 1}}{{.}} {{end}}')"

container=$(buildah "${storage[@]}" from "$image")
# With chroot isolation the network is the machine's, so the system chooses a free port.
run() {
    local bind=$1
    shift
    buildah "${storage[@]}" run --isolation chroot \
        --env "MEETING_SERVER__SERVER__BIND=$bind" "$container" -- "$@"
}
run 127.0.0.1:0 "$start" >"$work/log" 2>&1 &
running=$!
for attempt in $(seq 100); do
    bind=$(sed -n 's/.* start .*bind=\([0-9.:]*\).*/\1/p' "$work/log")
    if [ -n "$bind" ]; then break; fi
    [ "$attempt" -lt 100 ] || fail "the server does not start: $(cat "$work/log")"
    sleep 0.1
done
run "$bind" "${health[@]}" || fail "the server is not healthy: $(cat "$work/log")"
# The server is the last of buildah's children.
server=$running
while children=$(cat "/proc/$server/task/"*/children) && [ -n "$children" ]; do
    server=${children%% *}
done
[ "$(stat -c %u "/proc/$server")" = 65532 ] || fail "the server does not run as 65532"
kill -TERM "$server"
wait "$running" || fail "the server does not end in order: $(cat "$work/log")"
server=
grep -q 'gone down' "$work/log" || fail "no goodbye in the log: $(cat "$work/log")"
echo "check-container: the final stage passed"
