#!/bin/bash
# Scores on 64-bit ARM, emulated: Debian's arm64 files, PyPI's aarch64 wheels and qemu-user, in a folder.
#
#     bash tests/platforms/aarch64.sh FOLDER score /data/AUDIO -m /data/BUNDLE --out /data/TABLE
#
# FOLDER/data is copied to /data there first. Needs root (chroot), a C compiler, and the
# network the first time; installs nothing. The table is FOLDER/arm64/data/TABLE. docs/platforms.md says what
# was seen.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1" && cd "$1" && shift
root=$PWD/arm64

if [ ! -x "$root/usr/local/bin/python3" ]; then
    mkdir -p debs tools
    (cd debs && apt-get download debootstrap qemu-user-static)
    for deb in debs/*.deb; do dpkg -x "$deb" tools; done
    DEBOOTSTRAP_DIR=$PWD/tools/usr/share/debootstrap tools/usr/sbin/debootstrap --arch=arm64 --foreign \
        --variant=minbase --include=python3,python3-distutils,libgomp1 bookworm "$root"
    # Unpacked and not configured: nothing of arm64 could run before qemu is there.
    for deb in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$deb" "$root"; done
    cp tools/usr/bin/qemu-aarch64-static "$root/usr/bin/"
    grep -vE '^(torch|nvidia|cuda|triton|onnx==|onnxruntime-gpu|onnxscript|setuptools)' \
        "$here/requirements.portable.lock" | sed 's/ *;.*//' | grep -vE '^#|^colorama' > base.txt
    python3 -m pip install --no-deps --target "$root/site" --only-binary :all: --implementation cp \
        --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 -r base.txt
    # Decoders are started by name, and the kernel knows no arm64: this one is of its own kind, and starts qemu.
    cat > python.c <<'C'
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char **all = malloc((argc + 2) * sizeof *all);
    all[0] = "/usr/bin/qemu-aarch64-static";
    all[1] = "/usr/bin/python3.11";
    for (int i = 1; i <= argc; i++) all[i + 1] = argv[i];
    execv(all[0], all);
    return 127;
}
C
    mkdir -p "$root/usr/local/bin" && cc -static -o "$root/usr/local/bin/python3" python.c
fi

rm -rf "$root/rrtn" && mkdir -p "$root/rrtn/rrtn" data
for part in __init__.py __main__.py cli.py py.typed commands runtime train export; do
    cp -r "$here/$part" "$root/rrtn/rrtn/"
done
cat > "$root/rrtn/main.py" <<'PYTHON'
import multiprocessing, sys

sys.path[:0] = ["/rrtn", "/site"]
multiprocessing.set_executable("/usr/local/bin/python3")
sys.argv[0] = "rrtn"
from rrtn.__main__ import main

main()
PYTHON
mkdir -p "$root/data" && cp -r data/. "$root/data/"
env -i HOME=/root PATH="$PATH" chroot "$root" /usr/local/bin/python3 /rrtn/main.py "$@"
