#!/bin/sh
# Installs the Debian packages that the tests use (as root), or says which are missing.
set -eu
missing=''
for package in "$@"; do
    case "$package" in
        orthanc) tool=Orthanc ;;
        orthanc-dicomweb) tool=/usr/share/orthanc/plugins/libOrthancDicomWeb.so ;;
        dcmtk) tool=storescu ;;
        dicom3tools) tool=dciodvfy ;;
        nodejs) tool=node ;;
        openjph-tools) tool=ojph_compress ;;
        poppler-utils) tool=pdftotext ;;
        redis-server) tool=redis-server ;;
        postgresql) tool=pg_ctlcluster ;;
        xvfb) tool=Xvfb ;;
        *) tool=$package ;;
    esac
    [ -e "$tool" ] || command -v "$tool" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q $missing >/dev/null
else
    echo "The tests need these programs of Debian's packages:$missing"
    echo "Install them (on Debian or Ubuntu: sudo apt-get install$missing), then run make test again."
    exit 1
fi
