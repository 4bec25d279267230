# Registry and web server of the depot; the minimal Hub is hub.py, mounted when the depot runs.
install $(packages depot)
cp /lab/molecule/depot/depot /usr/local/bin/depot
cp /lab/molecule/depot/nginx.conf /lab/molecule/depot/registry.yml /etc/
