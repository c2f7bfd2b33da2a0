#!/usr/bin/env bash
# Makes a Debian package of the command: tools/ship/deb.sh [FOLDER]; FOLDER (target/ship unless said) has it then.
#
# The command, its manual pages and completions, the units of docs/systemd (not enabled), the book's text, the licences, and a
# user `courser` for the host stack. Needs cargo-deb (`cargo install cargo-deb`).
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
out=${1:-$target/ship}
cargo build --release -p courser-cli --bin courser
extras=$target/release/deb
rm -rf "$extras"
mkdir -p "$extras/man" "$out"
"$target/release/courser" man "$extras/man" >/dev/null
gzip -9n "$extras"/man/*
"$target/release/courser" completions bash >"$extras/courser.bash"
"$target/release/courser" completions zsh >"$extras/_courser"
"$target/release/courser" completions fish >"$extras/courser.fish"
"$target/release/courser" config default >"$extras/courser.toml"
# What Cargo.toml names under target/release is where this build put it.
CARGO_TARGET_DIR=$target cargo deb -p courser-cli --no-build --strip --output "$out"
