#!/bin/sh
# Runs in each guest: puts the payload's page in place, with the VM's name in
# it, and serves it.
set -eu

mkdir -p /var/www
sed "s/@VM@/$CASTRA_VM/" "$CASTRA_PAYLOAD_DIR/index.html" > /var/www/index.html
httpd -p 80 -h /var/www
echo "httpd serves /var/www on port 80"
