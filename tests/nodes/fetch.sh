#!/bin/bash
# fetch.sh FOLDER: bring what the tests on two nodes need.
#
# User Mode Linux, the NFS server's programs and their libraries are only unpacked into FOLDER: the
# machine gets no NFS server of its own. GlusterFS looks for its parts where it was built to be, so
# that it has to be installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

if ! command -v apt-get >/dev/null; then
    echo "The tests on two nodes need Debian's packages, and there is no apt-get here" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "The tests on two nodes mount file systems: run make test-nfs as root" >&2
    exit 1
fi
apt-get update -qq
if ! command -v glusterfsd >/dev/null; then
    # Its daemon is not wanted: nothing is started in run level 1.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends glusterfs-server glusterfs-client >/dev/null
fi
if ! command -v mkfs.ext4 >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends e2fsprogs >/dev/null
fi

rm -rf deb root
mkdir deb root
(
    cd deb
    # The user that apt-get downloads as may not write here.
    apt-get download -qq -o APT::Sandbox::User=root \
        user-mode-linux kmod libkmod2 \
        nfs-kernel-server nfs-common rpcbind \
        libnfsidmap1 libtirpc3 libtirpc-common libevent-core-2.1-7 libkeyutils1 libwrap0 \
        iproute2 libbpf1 libelf1 libmnl0 libxtables12
)
for package in deb/*.deb; do dpkg -x "$package" root; done
rm -rf deb
# modprobe looks for modules below lib/modules, and is kmod by another name.
mkdir -p modules/lib
ln -sfn "$PWD/root/usr/lib/uml/modules" modules/lib/modules
ln -sfn "$PWD/root/bin/kmod" modprobe

# On a processor with AMX it needs help: see registers.c.
rm -f registers.so
if grep -qw amx_tile /proc/cpuinfo; then
    command -v cc >/dev/null ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            gcc libc6-dev >/dev/null
    cc -shared -fPIC -O2 -Wall -o registers.so "$here/registers.c"
fi
