#!/usr/bin/env bash
# Runs the tests against real nodes, in a network namespace that has nothing but loopback: a node may look up names, dial
# seeds and advertise itself as it likes. Arguments go to vitest. BITCOIND=/path/to/bitcoind adds Bitcoin Core.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
export PATH="$root/node_modules/.bin:$PATH"

fail() {
  echo "interop: $*" >&2
  exit 1
}

if [[ "${1-}" != --inside ]]; then
  [[ -x "$root/node_modules/.bin/vitest" ]] || fail "run 'npm ci' in $root first"

  # The nodes, unless what is installed came from this very lock file.
  installed=$here/node_modules/.installed-from.json
  if ! cmp -s "$here/package-lock.json" "$installed"; then
    npm ci --ignore-scripts --prefix "$here" </dev/null
    cp "$here/package-lock.json" "$installed"
  fi

  for unshare in "unshare -n" "unshare -rn"; do
    if $unshare true 2>/dev/null; then
      exec $unshare bash "${BASH_SOURCE[0]}" --inside "$@"
    fi
  done
  fail "no network namespace can be made here ('unshare -n' and 'unshare -rn' both fail), and outside of one the nodes would talk to the network"
fi
shift

# To listen is allowed while it is down, to connect is not.
loopback_up() {
  node --eval 'const net = require("node:net")
    const server = net.createServer((socket) => { socket.destroy(); server.close() })
    server.listen(0, "127.0.0.1", () => net.connect(server.address().port, "127.0.0.1"))' 2>/dev/null
}
# SIOCSIFFLAGS, IFF_UP: what `ip link set lo up` does, for where there is no `ip`.
python_up='import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))'
perl_up='socket(my $s, 2, 2, 0) or die; ioctl($s, 0x8914, my $r = pack("a16 s x22", "lo", 1)) or die'
up() { "$@" >/dev/null 2>&1 && loopback_up; }

loopback_up || up ip link set lo up || up ifconfig lo up || up busybox ip link set lo up ||
  up python3 -c "$python_up" || up perl -e "$perl_up" ||
  fail "could not bring loopback up in the namespace: install one of ip, ifconfig, busybox, python3, perl"

cd "$root"
exec vitest run --config "$here/vitest.config.ts" "$@"
