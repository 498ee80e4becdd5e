#!/bin/sh
# Runs in the guest, as the login user, once for each fresh overlay.
# CASTRA_VM is the VM's name, CASTRA_PAYLOAD_DIR holds a copy of payload/.
set -eu

mkdir -p /var/www
cp -R "$CASTRA_PAYLOAD_DIR"/. /var/www/
echo "$CASTRA_VM serves $(ls /var/www)"
httpd -p 80 -h /var/www
