#!/bin/bash
# Process 1 of the machine in User Mode Linux: a file server, and two nodes that mount it by NFS.
#
# From the kernel's command line come STATE, a folder of the host that this may write to, and TOOLS,
# where fetch.sh unpacked. The host's files are the root here, read-only. Each node is a name space
# of network, host name and mounts, held by a process that sleeps, and sees
#     /mnt/shared    NFS 4.2 with default options, on ext4
#     /mnt/full      the same, on a disk of 4 MB
#     /mnt/nolock    NFS 3 with `nolock`, where locks exclude within a node only
# Then STATE/command is run, and the machine is switched off.
STATE=${STATE:?} TOOLS=${TOOLS:?}
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$TOOLS/root/sbin:$TOOLS/root/usr/sbin:$TOOLS/root/bin
export HOME=/root LANG=C.UTF-8
switch_off() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 5
}
trap switch_off EXIT
set -eu

libraries=$TOOLS/root/usr/lib/x86_64-linux-gnu:$TOOLS/root/lib/x86_64-linux-gnu:$TOOLS/root/usr/lib
tool() { env LD_LIBRARY_PATH="$libraries" "$@"; } # a program that fetch.sh unpacked

mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev 2>/dev/null || true
mkdir -p /dev/shm
for folder in /dev/shm /run /var/lib /srv /mnt; do mount -t tmpfs none $folder; done
mkdir -p /mnt/{etc,shared,full,nolock} /srv/{shared,full} /run/{rpcbind,tmp,state}
mkdir -p /var/lib/nfs/{v4recovery,sm,sm.bak,rpc_pipefs}
touch /var/lib/nfs/{etab,rmtab,state}
mount -t hostfs -o "$STATE" none /run/state
export TMPDIR=/run/tmp
# The host sees by this that the kernel here goes on, whatever the programs do.
while sleep 2; do cat /proc/uptime >/run/state/alive; done &

# A folder /etc of its own: the server's programs look for users and protocols that the host may lack.
for name in passwd group hosts protocols services ld.so.cache ld.so.conf localtime nsswitch.conf; do
    cp -r /etc/$name /mnt/etc/ 2>/dev/null || true
done
cp "$TOOLS/root/etc/netconfig" /mnt/etc/
for user in _rpc statd; do
    grep -q "^$user:" /mnt/etc/passwd || echo "$user:x:109:65534::/run:/bin/false" >>/mnt/etc/passwd
done
mount --bind /mnt/etc /etc

for module in nfsd nfsv3 nfsv4 veth; do tool "$TOOLS/modprobe" -d "$TOOLS/modules" $module; done
ip() { tool "$(type -P ip)" "$@"; }
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward # the nodes talk to each other through the server

# The disks are in the host's memory, which a barrier can't make any safer.
mount -t ext4 -o barrier=0,commit=1 /dev/ubda /srv/shared
mount -t ext4 -o barrier=0,commit=1 /dev/ubdb /srv/full
chmod 1777 /srv/shared /srv/full
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
# The server of NFS 3 locks has a grace period of its own, 50 s, in which NFS 4 gives none either.
echo 3 >/proc/sys/fs/nfs/nlm_timeout
echo 3 >/proc/sys/fs/nfs/nlm_grace_period
tool rpcbind
options=rw,no_root_squash,insecure,no_subtree_check
tool exportfs -i -o $options,fsid=0 '*:/srv'
tool exportfs -i -o $options '*:/srv/shared'
tool exportfs -i -o $options '*:/srv/full'
tool rpc.mountd --port 20048
tool rpc.nfsd --no-udp 8
echo Y >/proc/fs/nfsd/v4_end_grace

# node NAME NUMBER: make a node and mount everything there. Two clients of one host name would be one
# client to the server, and take each other's locks.
node() {
    local server=10.0.$2.1 address=10.0.$2.2 holder v3
    unshare --net --uts --mount --propagation private sleep infinity &
    holder=$!
    until [ "$(readlink /proc/$holder/ns/net)" != "$(readlink /proc/$$/ns/net)" ] &&
        [ "$(cat /proc/$holder/comm)" = sleep ]; do sleep 0.01; done
    ip link add "veth$2" type veth peer name eth0 netns $holder
    ip addr add "$server/24" dev "veth$2"
    ip link set "veth$2" up
    within() { nsenter -t $holder -n -u -m env LD_LIBRARY_PATH="$libraries" "$@"; }
    within hostname "$1"
    within ip link set lo up
    within ip addr add "$address/24" dev eth0
    within ip link set eth0 up
    within ip route add default via "$server"
    for mount in shared full; do
        within mount -i -t nfs4 -o "vers=4.2,addr=$server,clientaddr=$address" \
            "$server:/$mount" "/mnt/$mount"
    done
    v3=vers=3,proto=tcp,port=2049,mountproto=tcp,mountport=20048,mountaddr=$server,addr=$server
    within mount -i -t nfs -o "$v3,nolock" "$server:/srv/shared" /mnt/nolock
    echo "$1 $holder $address veth$2" >>/run/nodes
}
node nodea 2
node nodeb 3
echo "guest: two nodes up after $(cut -d' ' -f1 /proc/uptime) s"

set +e
bash /run/state/command
echo "guest: session ended with status $?"
