#!/usr/bin/env bash
# The first process of a host made of namespaces; see machines.py. The host ends with it, and it ends with its standard input.
#
# NAME ADDRESS   host name, address and prefix length        LOGIN          the user
# DISK SHARED    its own folder; one that all hosts share    PYTHON         the prefix of the Python that ROOT/.venv uses
# ROOT PART      the checkout, and the part of it that lies in ~/radiograph-sweep: .venv, or . for all
set -euo pipefail

read -r outside _ </proc/self/stat  # this very process, as those outside number it
mount -t proc proc /proc
hostname "$NAME"
home=/home/$LOGIN project=/home/$LOGIN/radiograph-sweep

# What is needed of this machine is held in /mnt while folders that belong to each host alone are laid over it.
mkdir -p "$DISK"
mount -t tmpfs tmpfs /mnt
hold() { mkdir "/mnt/$2" && mount --bind "$1" "/mnt/$2"; }
hold "$DISK" disk
hold "$SHARED" shared
hold "$PYTHON" python
hold "$ROOT" checkout
for folder in /tmp /var/tmp /run /dev/shm /root /home; do
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done
chmod 1777 /tmp /var/tmp /dev/shm
show() { mkdir -p "$2" && mount --bind "$1" "$2"; }
overlay() {
  mkdir -p "/mnt/disk/$3/upper" "/mnt/disk/$3/work" "$2"
  mount -t overlay -o "lowerdir=$1,upperdir=/mnt/disk/$3/upper,workdir=/mnt/disk/$3/work" overlay "$2"
}
show /mnt/python "$PYTHON"
overlay /etc /etc etc
mkdir -p /mnt/disk/home
mount --bind /mnt/disk/home /home
mount -o remount,bind,ro /

# The user, with the host's own Python and uv.
if ! id "$LOGIN" >/dev/null 2>&1; then
  useradd --create-home --uid 23456 --shell /bin/bash "$LOGIN"
  usermod --password '*' "$LOGIN"
  install -d -o "$LOGIN" -g "$LOGIN" "$home/.local" "$home/.local/bin" "$home/.ssh" "$home/shared" "$project"
  ln -s "$PYTHON/bin/python3" "$ROOT/.venv/bin/uv" "$home/.local/bin/"
fi
show /mnt/shared "$home/shared"
overlay "/mnt/checkout/$PART" "$project/$PART" project
show "$project/.venv" "$ROOT/.venv"
# Of an environment that another user has made: its folders, for compiled modules, and what installing the project anew touches.
find "$project/.venv" -type d -exec chown "$LOGIN:" {} +
chown "$LOGIN:" "$project" "$project/.venv"/{pyvenv.cfg,.lock,.gitignore,CACHEDIR.TAG} "$project/.venv/bin"/{activate,pydoc,deactivate}* \
  2>/dev/null || true
chown -R "$LOGIN:" "$project"/.venv/lib/python*/site-packages/*radiograph_sweep*

# The network, once the cable is in.
echo "$outside"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add "$ADDRESS" dev eth0
ip link set eth0 up
ip route add default dev eth0

mkdir -p /run/sshd
test -e /etc/ssh/of_this_host || { rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/of_this_host; }
/usr/sbin/sshd -f /dev/null -h /etc/ssh/of_this_host -E /mnt/disk/sshd.log -o UsePAM=no -o PasswordAuthentication=no
echo ready
cat >/dev/null
