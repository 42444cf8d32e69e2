#!/usr/bin/env bash
# Installs the client library into a fresh prefix and builds projects that know nothing of this one:
# in C++ and C, found by CMake and by pkg-config, linked with the archive and the shared library.
#   find_package_test.sh SOURCE_DIR BUILD_DIR      (the library must be built)
set -euo pipefail
source_dir=$1
build_dir=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/holdfast_find_package.XXXXXX")
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

quiet() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }
fail() { echo "$1" >&2; exit 1; }
# Without arguments the examples tell their usage and exit with 2: they link and start.
starts() {
  local status=0
  "$@" 2>"$work/usage" || status=$?
  [ "$status" = 2 ] && grep -q usage "$work/usage" || fail "$1 does not start: $(cat "$work/usage")"
}

quiet cmake --install "$build_dir" --component holdfast_client --prefix "$prefix"
libdir=$(dirname "$(find "$prefix" -name libholdfast.a)")
export PKG_CONFIG_PATH=$libdir/pkgconfig

# --- CMake, C++: the archive, and the test doubles ---
mkdir "$work/cpp"
cp "$source_dir/client/examples/config_service.cc" "$work/cpp/"
cat >"$work/cpp/service_test.cc" <<'TEST'
#include "holdfast/client.h"
#include "holdfast/testing/fake_store.h"

int main() {
  holdfast::testing::FakeStore store;
  store.Put("/a", "1");
  auto client = holdfast::Client::Open({.endpoints = store.endpoints()});
  const auto read = (*client)->Get("/a");
  return read.ok() && read->value && read->value->value == "1" ? 0 : 1;
}
TEST
cat >"$work/cpp/CMakeLists.txt" <<'PROJECT'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C CXX)
find_package(holdfast 0.5 REQUIRED)
add_executable(config_service config_service.cc)
target_link_libraries(config_service PRIVATE holdfast::holdfast)
add_executable(service_test service_test.cc)
target_link_libraries(service_test PRIVATE holdfast::testing)
PROJECT
quiet cmake -S "$work/cpp" -B "$work/cpp/build" -DCMAKE_PREFIX_PATH="$prefix"
quiet cmake --build "$work/cpp/build" --parallel 2
starts "$work/cpp/build/config_service"
"$work/cpp/build/service_test" || fail "a service's test with a FakeStore fails"

# --- CMake, C alone: the shared library, without anything else at hand ---
mkdir "$work/c"
cp "$source_dir/client/examples/config_service.c" "$work/c/"
cat >"$work/c/CMakeLists.txt" <<'PROJECT'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C)
find_package(holdfast 0.5 REQUIRED COMPONENTS c)
add_executable(config_service config_service.c)
target_link_libraries(config_service PRIVATE holdfast::c)
PROJECT
quiet cmake -S "$work/c" -B "$work/c/build" -DCMAKE_PREFIX_PATH="$prefix"
quiet cmake --build "$work/c/build"
starts "$work/c/build/config_service"
quiet readelf -d "$work/c/build/config_service"
grep -qE 'NEEDED.*libholdfast\.so\.[0-9.]+\]' "$work/log" || fail "not linked by the soname"
grep -qE 'NEEDED.*(grpc|protobuf|stdc)' "$work/log" && fail "a C program has to link more"

# --- pkg-config: the shared library, and the archive ---
[ "$(pkg-config --modversion holdfast)" = "$(pkg-config --modversion holdfast++)" ] ||
  fail "two versions"
pkg-config --static --libs holdfast >/dev/null || fail "holdfast.pc names what is not there"
# shellcheck disable=SC2046
quiet cc -std=c99 -pedantic -Wall -Wextra -Werror -c "$source_dir/client/examples/config_service.c" \
  $(pkg-config --cflags holdfast) -o "$work/service.o"
# shellcheck disable=SC2046
quiet cc "$work/service.o" $(pkg-config --libs holdfast) "-Wl,-rpath,$libdir" -o "$work/shared"
starts "$work/shared"
# shellcheck disable=SC2046
quiet c++ "$work/service.o" $(pkg-config --libs holdfast++) -o "$work/static"
starts "$work/static"

# --- what is installed ---
# No public header may lean on the project's own tree.
if grep -rhoE '#include "[^"]+"' "$prefix/include" | grep -vE '"(holdfast|absl)/'; then
  fail "a public header includes something that is not installed"
fi
# The shared library exports its C interface, all of it, and nothing else.
nm -D --defined-only "$libdir/libholdfast.so" | awk '{print $3}' | sort >"$work/exported"
grep -oE '\bhf_[a-z_]+\(' "$prefix/include/holdfast/holdfast.h" | tr -d '(' | sort -u |
  grep -v '^hf_str$' >"$work/declared"
diff "$work/declared" "$work/exported" >&2 || fail "declared (<) and exported (>) are not the same"
