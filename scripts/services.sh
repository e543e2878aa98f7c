#!/usr/bin/env bash
# Install the servers that tests need, by apt, when they are missing. Tests start their own
# instances on free loopback ports; nothing here stays running because of us.
set -euo pipefail

binary_of() { # a package's program, where it is named otherwise
  case "$1" in
    mosquitto) echo mosquitto_sub mosquitto ;;
    postgresql) echo initdb postgres ;;
    *) echo "$1" ;;
  esac
}

# Debian keeps PostgreSQL's programs out of everybody's PATH.
search="$PATH:/usr/sbin:/sbin"
for folder in /usr/lib/postgresql/*/bin; do
  search="$search:$folder"
done

missing=()
for package in "$@"; do
  for binary in $(binary_of "$package"); do
    if ! PATH="$search" command -v "$binary" >/dev/null; then
      missing+=("$package")
      [ "$package" = mosquitto ] && missing+=(mosquitto-clients)
      break
    fi
  done
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "these are missing and there is no apt here: ${missing[*]}; install them and try again" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi
# A policy of 101 keeps Debian from starting daemons on their default ports at installation.
policy=/usr/sbin/policy-rc.d
made_policy=no
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
  "${sudo[@]}" chmod +x "$policy"
  made_policy=yes
fi
trap '[ "$made_policy" = yes ] && "${sudo[@]}" rm -f "$policy" || true' EXIT
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
