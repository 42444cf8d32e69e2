#!/usr/bin/env bash
# Installs the client library into a fresh prefix and builds the example in a project of its own
# that knows nothing but find_package(holdfast).
#   find_package_test.sh SOURCE_DIR BUILD_DIR      (the library must be built)
set -euo pipefail
source_dir=$1
build_dir=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/holdfast_find_package.XXXXXX")
trap 'rm -rf "$work"' EXIT

cmake --install "$build_dir" --component holdfast_client --prefix "$work/prefix" >"$work/install.log"

mkdir "$work/project"
cp "$source_dir/client/examples/config_service.cc" "$work/project/"
cat >"$work/project/CMakeLists.txt" <<'PROJECT'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C CXX)
find_package(holdfast 0.1 REQUIRED)
add_executable(config_service config_service.cc)
target_link_libraries(config_service PRIVATE holdfast::holdfast)
PROJECT
cmake -S "$work/project" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/cmake.log" 2>&1 ||
  { cat "$work/cmake.log"; exit 1; }
cmake --build "$work/build" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

# No public header may lean on the project's own tree.
if grep -rhoE '#include "[^"]+"' "$work/prefix/include" | grep -vE '"(holdfast|absl)/'; then
  echo "a public header includes something that is not installed" >&2
  exit 1
fi

# Without arguments it tells its usage and exits with 2: it links and starts.
status=0
"$work/build/config_service" 2>"$work/usage" || status=$?
[ "$status" = 2 ] && grep -q usage "$work/usage"
