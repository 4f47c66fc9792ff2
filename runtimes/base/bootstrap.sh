#!/bin/sh
# Make a small Debian with Python for machines that can reach a Debian mirror but no image registry.
#
#   bootstrap.sh WORK SUITE MIRROR
#
# WORK is an empty directory for this run alone. `WORK/base.tar` is the result; everything else in it is gone at the end,
# and all of WORK when this fails or is stopped. SUITE is the Debian release. MIRROR may be empty, for debootstrap's own
# choice. Needs root, debootstrap and util-linux. Says what it does on stdout.
set -eu

work=$1
suite=$2
mirror=$3
root=$work/root

child=
finished=
tidy() {
    [ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true
    wait
    rm -rf "$root"
    [ -n "$finished" ] || rm -rf "$work"
}
trap tidy EXIT
trap 'exit 143' HUP INT TERM

# In namespaces of its own: what debootstrap mounts and starts is gone when it ends, however it ends.
# In the background, because a shell acts on a signal only after the command in its foreground.
unshare --mount --pid --fork --kill-child=KILL \
    debootstrap --variant=minbase --include=ca-certificates,python3-venv "$suite" "$root" ${mirror:+"$mirror"} &
child=$!
wait "$child"
child=

echo "I: Trimming"
cd "$root"
rm -rf dev/* var/lib/apt/lists/* var/cache/apt/* var/cache/ldconfig/* var/cache/debconf/*-old var/lib/dpkg/*-old var/log/* tmp/* run/*
rm -rf usr/share/man/* usr/share/info/* usr/share/locale/*
find usr/share/doc -type f ! -name copyright -delete
find usr/share/doc -depth -type d -empty -delete
# What the host is called and asks is nobody's business here; /etc/hosts is given to every sandbox.
rm -f etc/hostname etc/hosts etc/machine-id etc/resolv.conf

# What is installed on top of this stays as small.
cat > etc/dpkg/dpkg.cfg.d/no-documentation <<'EOF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
EOF

# Where its packages came from is this host's affair; builds on it are told anew.
[ -z "$mirror" ] || rm -rf etc/apt/sources.list etc/apt/sources.list.d/*

echo "I: Packing"
tar --create --file "$work/base.tar" --numeric-owner --sort=name --directory "$root" .
finished=yes
