#!/usr/bin/env bash
# Every test, from a fresh clone to a verdict.
#
#   ./test.sh        everything: lint, types, imports, migrations, tests on SQLite and on MariaDB, stories
#   ./test.sh fast   about a minute; installs no packages of the system
#   ./test.sh long   everything, with the tests marked long (Galera among them), 30 times the examples in property
#                    tests, and the launcher's tests ten times
#
# Needs Python 3.11 and, for what is missing, root on Debian. OMNI_TEST_DATABASE_URL names an existing MySQL or MariaDB.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
MODE="${1:-all}"
case "$MODE" in all | fast | long) ;; *) sed -n '2,9p' "$0" >&2; exit 2 ;; esac

. ./environment.sh
export OMNI_ENV=development
unset OMNI_DATABASE_URL OMNI_TELEMETRY_DATABASE_URL OMNI_BROKER_URL OMNI_CONFIG OMNI_STATE OMNI_NODE OMNI_ROLE OMNI_TEST_PREPARED
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/ot.XXXXXX") # short: socket paths have 108 bytes
chmod 711 "$SCRATCH"                             # apps and builds run under users of their own
# Everything of this run is known by one of these two; see omni/testing/leftovers.py.
export OMNI_TEST_RUN="${SCRATCH##*/}" TMPDIR="$SCRATCH"
FAILED=() TIMES=() SUMMARIES=()

finish() {
  [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m omni.testing.leftovers "$OMNI_TEST_RUN" "$SCRATCH" >/dev/null 2>&1
  rm -rf "$SCRATCH"
}
trap finish EXIT
trap 'exit 130' INT TERM

# part NAME COMMAND...: runs it, shows its output, keeps its time.
part() {
  local name="$1" begun=$SECONDS result=0
  shift
  printf '\n--- %s\n' "$name"
  "$@" || result=$?
  TIMES+=("$(printf '%-28s %4d s  %s' "$name" $((SECONDS - begun)) "$([ $result = 0 ] && echo ok || echo FAILED)")")
  if [ $result != 0 ]; then FAILED+=("$name"); fi
  return 0
}

# tests NAME ARGUMENTS...: a part that is a run of pytest; its last line is kept for the end.
tests() {
  local name="$1"
  shift
  part "$name" run_pytest "$name" "$@"
}

run_pytest() {
  local name="$1" result log="$SCRATCH/pytest.log"
  shift
  "$VENV/bin/python" -m pytest -p omni.testing.database -p omni.testing.profiles \
    --basetemp "$SCRATCH/pytest-t" -q --durations=5 "$@" 2>&1 | tee "$log"
  result=${PIPESTATUS[0]}
  if [ "$result" = 5 ]; then
    echo "no test was chosen: that is a failure here"
  fi
  SUMMARIES+=("$(printf '%-28s %s' "$name" "$(grep -E '(passed|failed|error|no tests ran)' "$log" | tail -1)")")
  return "$result"
}

install_servers() {
  local missing=()
  if [ -z "${OMNI_TEST_DATABASE_URL:-}" ] && ! PATH="$PATH:/usr/sbin" command -v mariadbd >/dev/null; then
    missing+=(mariadb-server mariadb-client)
  fi
  command -v nft >/dev/null || missing+=(nftables)
  PATH="$PATH:/usr/sbin" command -v ip >/dev/null || missing+=(iproute2)
  command -v cc >/dev/null || missing+=(gcc libc6-dev) # one node's clock is made to jump
  if [ "$MODE" = long ]; then
    [ -e /usr/lib/galera/libgalera_smm.so ] || missing+=(galera-4)
    command -v rsync >/dev/null || missing+=(rsync)
    command -v podman >/dev/null || missing+=(podman netavark aardvark-dns catatonit)
  fi
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  command -v setpriv >/dev/null || missing+=(util-linux)
  PATH="$PATH:/usr/sbin" command -v dockerd >/dev/null || missing+=(docker.io) # its tests start engines of their own
  command -v busybox >/dev/null || missing+=(busybox-static)
  command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core) # the console's tests look at it
  if [ ${#missing[@]} -gt 0 ]; then
    if ! may_apt; then
      echo "missing: ${missing[*]}. Run as root on Debian, or install them; OMNI_TEST_DATABASE_URL names a server elsewhere." >&2
      return 1
    fi
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" || { echo "apt-get install ${missing[*]} failed" >&2; return 1; }
  fi
}

lint() { "$VENV/bin/ruff" check . && "$VENV/bin/ruff" format --check .; }

types() { OMNI_STATE="$SCRATCH/state" "$VENV/bin/mypy" omni consensus accounts apps releases instances services agent cli sandbox observing; }

imports() { "$VENV/bin/python" -m omni.testing.import_rules; }

migrations() {
  OMNI_STATE="$SCRATCH/state" "$VENV/bin/python" manage.py makemigrations --check --dry-run &&
    OMNI_STATE="$SCRATCH/state" "$VENV/bin/python" manage.py check
}

leftovers() { "$VENV/bin/python" -m omni.testing.leftovers "$OMNI_TEST_RUN" "$SCRATCH"; }

begun=$SECONDS
if [ "$MODE" = fast ]; then
  export OMNI_NO_APT=1
else
  NEED_MYSQLCLIENT=1
fi
prepare_environment requirements.txt requirements-dev.txt requirements-tracing.txt || exit 1
if [ "$MODE" != fast ]; then install_servers || exit 1; fi
TIMES+=("$(printf '%-28s %4d s' "installs" $((SECONDS - begun)))")

part "lint" lint
part "imports" imports
if [ "$MODE" = fast ]; then
  tests "unit" -m "not slow and not story" -n 2 --dist loadfile
else
  if [ "$MODE" = long ]; then export OMNI_TEST_HYPOTHESIS=long; fi
  part "types" types
  part "migrations" migrations
  BUT_LONG=" and not long"
  [ "$MODE" = long ] && BUT_LONG=""
  tests "tests on SQLite" -m "not story$BUT_LONG" -n 4 --dist worksteal
  OMNI_TEST_DATABASE=mariadb tests "tests on MariaDB" -m "database and not story$BUT_LONG" -n 2 --dist worksteal
  if [ "$MODE" = long ]; then
    for round in 1 2 3 4 5 6 7 8 9 10; do tests "launcher, round $round" omni/launch; done
  fi
  # The proof (tests/cluster) waits more than it works: it runs beside the stories.
  tests "stories and the proof" -m "story$BUT_LONG" tests -n 2 --dist loadgroup
  part "nothing left running" leftovers
fi

printf '\n=== %s, %d s\n' "$MODE" $SECONDS
printf '  %s\n' "${TIMES[@]}"
printf '\n'
printf '%s\n' "${SUMMARIES[@]}"
if [ ${#FAILED[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${FAILED[@]}"
  exit 1
fi
