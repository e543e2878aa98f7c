#!/usr/bin/env bash
# Make what deploy/compose.yml mounts as secrets. Nothing that exists is ever overwritten.
#
#   secrets.sh init HOST      a CA, certificates for HOST, passwords (run with sudo: each file
#                             goes to the user of the container that reads it, mode 0600)
#   secrets.sh device NAME    a login at the broker for a device, printed once
#   secrets.sh token          a bearer token for an API client, printed once, and its hash
#
# SECRETS names another folder than secrets/ beside this script.
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
secrets=${SECRETS:-$here/secrets}
gateway=10001 broker=1883 redis=999 postgres=70

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

random() { openssl rand -hex 32; }

own() { # own USER FILE: only root can give files away
  chmod 600 "$secrets/$2"
  if [ "$(id -u)" -eq 0 ]; then chown "$1" "$secrets/$2"; else unowned=yes; fi
}

keep() { # keep FILE: a new file from standard input, an existing one stays as it is
  if [ -e "$secrets/$1" ]; then cat >/dev/null; else cat >"$secrets/$1"; fi
}

certificate() { # certificate NAME HOSTS: signed by our CA
  [ -e "$secrets/$1.pem" ] && return
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$secrets/$1.key" -out "$secrets/$1.csr" 2>/dev/null
  openssl x509 -req -in "$secrets/$1.csr" -CA "$secrets/ca.pem" -CAkey "$secrets/ca.key" \
    -CAcreateserial -days 397 -sha256 -out "$secrets/$1.pem" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$2") 2>/dev/null
  rm "$secrets/$1.csr"
}

hash_passwords() { # hash plain lines of a password file in place
  if command -v mosquitto_passwd >/dev/null; then
    mosquitto_passwd -U "$1"
  else
    docker run --rm --user "$(id -u)" -v "$1:/passwords" eclipse-mosquitto:2.0.20 \
      mosquitto_passwd -U /passwords
  fi
}

init() {
  local host=$1
  mkdir -p "$secrets"
  if [ ! -e "$secrets/ca.pem" ]; then
    openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
      -subj "/CN=Flexway CA of $host" -addext basicConstraints=critical,CA:TRUE \
      -addext keyUsage=critical,keyCertSign,cRLSign \
      -keyout "$secrets/ca.key" -out "$secrets/ca.pem" 2>/dev/null
  fi
  certificate api "DNS:$host,DNS:flexway,DNS:localhost,IP:127.0.0.1"
  certificate mqtt "DNS:$host,DNS:mosquitto,DNS:localhost,IP:127.0.0.1"
  random | keep postgres_password
  printf 'postgres:5432:flexway:flexway:%s\n' "$(cat "$secrets/postgres_password")" | keep pgpass
  certificate postgres DNS:postgres
  certificate redis "DNS:redis,DNS:localhost,IP:127.0.0.1"
  random | keep redis_password
  redis_conf | keep redis.conf
  random | keep mqtt_password
  if [ ! -e "$secrets/mqtt_passwords" ]; then
    printf 'flexway-gateway:%s\n' "$(cat "$secrets/mqtt_password")" >"$secrets/mqtt_passwords"
    hash_passwords "$secrets/mqtt_passwords"
  fi
  hand_out
}

redis_conf() { # TLS only, with a password, on disk
  cat <<END
port 0
tls-port 6379
tls-cert-file /run/secrets/redis.pem
tls-key-file /run/secrets/redis.key
tls-ca-cert-file /run/secrets/ca.pem
tls-auth-clients no
requirepass $(cat "$secrets/redis_password")
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
dir /data
END
}

hand_out() {
  unowned=no
  chmod 711 "$secrets"
  for file in api.pem api.key mqtt_password pgpass redis_password; do own $gateway $file; done
  for file in mqtt.pem mqtt.key mqtt_passwords; do own $broker $file; done
  for file in redis.pem redis.key redis.conf; do own $redis $file; done
  for file in postgres.pem postgres.key postgres_password; do own $postgres $file; done
  chmod 644 "$secrets/ca.pem" # public: devices and browsers need it too
  if [ $unowned = yes ]; then
    echo "files belong to $(id -un): run with sudo, or the containers cannot read them" >&2
  fi
}

device() {
  case $1 in *[!A-Za-z0-9_.-]* | '') echo "a name has letters, digits, _ . - only" >&2; exit 2 ;; esac
  if grep -q "^$1:" "$secrets/mqtt_passwords"; then
    echo "$1 has a login already; take its line out of mqtt_passwords first" >&2
    exit 1
  fi
  local password added
  password=$(random)
  added=$(mktemp "$secrets/added.XXXXXX")
  printf '%s:%s\n' "$1" "$password" >"$added"
  hash_passwords "$added"
  cat "$added" >>"$secrets/mqtt_passwords"
  rm "$added"
  echo "username $1"
  echo "password $password"
  echo "the broker reads it after: docker compose kill -s HUP mosquitto" >&2
}

token() {
  local token
  token=$(random)
  echo "token        $token"
  echo "token_sha256 = \"$(printf %s "$token" | sha256sum | cut -d' ' -f1)\""
}

case ${1:-} in
  init) [ $# -eq 2 ] || usage; init "$2" ;;
  device) [ $# -eq 2 ] || usage; device "$2" ;;
  token) token ;;
  *) usage ;;
esac
