#!/bin/sh
# Unpacks viewers from npm into a build folder: packages.sh FOLDER [ONLY]. Each is pinned by version and by SHA-512.
set -eu
folder=$1 only=${2:-}
mkdir -p "$folder"
fetch() {
    name=$1 version=$2 digest=$3 place=$folder/$4
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    [ -f "$place/.complete-$version" ] && return
    command -v npm >/dev/null 2>&1 || { echo "npm is needed: apt-get install npm" >&2; exit 1; }
    rm -rf "$place"
    mkdir -p "$place"
    archive=$(cd "$folder" && npm pack --silent "$name@$version")
    echo "$digest  $folder/$archive" | sha512sum --check --quiet
    tar -xzf "$folder/$archive" -C "$place" --strip-components=1
    rm "$folder/$archive"
    touch "$place/.complete-$version"
}

fetch @ohif/app 3.13.2 5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10 ohif
fetch dcmjs 0.51.1 ea125bca03a25af2191ed021fee464354d75f6add213ffbbea532fabd8376c6abcc24cbaeac1c6c4932307683ff3a7b039899532b01a22be10f2d70911097026 dcmjs
fetch dwv 0.36.4 9171a5ba319c08a4890fab344c76b6cf82a7fda542765b6f6e0ae7f20d9671303c4e02d9247a7a6744dbbb783191eac868c0ab4c2e136da5892349eaf6d3c016 dwv
# What dwv imports.
fetch konva 10.2.0 241a33d178db7f8f543f10997a06785ac7aa3b327e0b80140ceb49f5e06f7b9452e4572afeef137410f97c397fb8f1489e90b76bdbb2726d2c4726691788617a konva
fetch jszip 3.10.1 c570ef79cc93a462eba85aef92b512a31c5f248e401fb53ccf1c6d55c969b14b4c0aae09436f742d8f005b973b1a09ebfd8fe82be6d031ba8adaa9ad937a4de2 jszip
fetch magic-wand-tool 1.1.7 4b8ac7cc2b3f6c0a7b9e140629e83e31c5aeaab77264aa67bbc02177c014ecdcee2d39bf1e1f2d929bf5b56f752a69b9f5fa08ad7ce2a7577e3fd343a32c6b64 magic-wand-tool
