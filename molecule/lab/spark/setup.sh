# A host as Ansible finds a DGX Spark: systemd, sshd, a user with sudo, nvidia-smi. Stand-ins are in files/.
install $(packages spark)
cp -r --no-preserve=ownership /lab/molecule/spark/files/. /
chmod 440 /etc/sudoers.d/spark
useradd --create-home --shell /bin/bash --groups sudo spark
# A host has keys of its own, which spark-hostkeys.service makes at the first boot, and systemd an id.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
ln -s /etc/machine-id /var/lib/dbus/machine-id
systemctl enable spark-hostkeys.service
systemctl set-default multi-user.target
# What a container has no use for, and what would reach for the settings and modules of the machine's own kernel.
systemctl mask systemd-sysctl.service systemd-modules-load.service getty.target console-getty.service systemd-logind.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-hugepages.mount systemd-binfmt.service apt-daily.timer apt-daily-upgrade.timer
# The lab's depot stands where the distribution's mirror would be.
mkdir -p /etc/apt/keyrings
cp /lab/apt/depot.asc /etc/apt/keyrings/depot.asc
