# The engine that a Spark of today comes with: images in containerd. Of Debian's sid, on the distribution's own libc, systemd and runc.
install iptables pigz /lab/apt/newest-engine/*.deb
mkdir -p /etc/docker
echo '{"features": {"containerd-snapshotter": true}}' >/etc/docker/daemon.json
