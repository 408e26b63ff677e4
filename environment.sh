# Sourced by start.sh and test.sh: makes the virtual environment once and keeps it as long as the requirements are the same.
# Needs nothing but Python 3.11 or newer; as root on Debian or Ubuntu it installs what else is missing.

VENV="${OMNI_VENV:-.venv}"
# mysqlclient is built from source: compiler and headers (docs/operations.md). Without them PyMySQL stands in.
MYSQL_PACKAGES="gcc libc6-dev python3-dev pkg-config libmariadb-dev"

# Where it is set (images and CI often do), each of our processes would compile all of our modules at each start.
unset PYTHONDONTWRITEBYTECODE

say() { printf '  %s\n' "$*"; }

may_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${OMNI_NO_APT:-}" ]; }

# apt_install PACKAGE...: without questions, and without starting the services that a package brings.
apt_install() {
  local policy=/usr/sbin/policy-rc.d made=""
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
  fi
  [ -n "${APT_UPDATED:-}" ] || { apt-get update -qq >/dev/null 2>&1 || true; APT_UPDATED=1; }
  local result=0
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 </dev/null || result=$?
  if [ -n "$made" ]; then rm -f "$policy"; fi
  return "$result"
}

find_python() {
  local name
  for name in ${OMNI_PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "Python 3.11 or newer is needed and was not found. Install it, or name it by OMNI_PYTHON." >&2
  return 1
}

make_venv() {
  "$1" -m venv "$VENV" >/dev/null 2>&1 && return
  rm -rf "$VENV"
  if may_apt && apt_install python3-venv && "$1" -m venv "$VENV" >/dev/null 2>&1; then return; fi
  echo "$1 cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2
  return 1
}

pip_install() { "$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-compile "$@" </dev/null; }

install_mysqlclient() {
  local wanted
  wanted=$(sed -n 's/^\(mysqlclient==[^ #;]*\).*/\1/p' requirements.txt)
  [ -n "$wanted" ] || return 0
  if pip_install "$wanted" >/dev/null 2>&1 && "$VENV/bin/python" -c 'import MySQLdb' 2>/dev/null; then return; fi
  if may_apt; then
    say "installing the compiler and headers for mysqlclient"
    # shellcheck disable=SC2086 # a list of words
    if apt_install $MYSQL_PACKAGES && pip_install "$wanted" >/dev/null 2>&1; then return; fi
  fi
  if [ "${NEED_MYSQLCLIENT:-}" = 1 ]; then
    echo "mysqlclient cannot be built here; it needs: $MYSQL_PACKAGES" >&2
    return 1
  fi
  say "mysqlclient cannot be built here, PyMySQL stands in (it needs: $MYSQL_PACKAGES)"
}

# prepare_environment FILE...: the virtual environment with what the requirement files list.
prepare_environment() {
  local stamp="$VENV/.omni-requirements" python wanted begun
  # The stamp holds the checksum of the files and the place: a moved environment does not work.
  wanted="$(cat "$@" | cksum) $(pwd -P) $*"
  if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  if command -v flock >/dev/null; then
    exec 9>"${TMPDIR:-/tmp}/omni-environment-$(id -u).lock"
    flock 9 # two first starts at once
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
      exec 9>&-
      return
    fi
  fi
  begun=$SECONDS
  python="$(find_python)"
  if ! "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making the virtual environment $VENV"
    rm -rf "$VENV"
    make_venv "$python"
  fi
  say "installing the requirements (only when they have changed; about a minute)"
  local file arguments=()
  for file in "$@"; do
    grep -v '^mysqlclient' "$file" >"$VENV/.$(basename "$file")"
    arguments+=(-r "$VENV/.$(basename "$file")")
  done
  pip_install "${arguments[@]}"
  install_mysqlclient
  "$VENV/bin/python" -m compileall -q -j 0 "$VENV/lib" >/dev/null 2>&1 || true # pip would use one core for it
  printf '%s' "$wanted" >"$stamp"
  say "environment ready after $((SECONDS - begun)) s"
  if command -v flock >/dev/null; then exec 9>&-; fi
}
