#!/usr/bin/env bash
# Benchmark of anomaly detection.
#   benches/anomaly.sh TEXTURES WORK [arguments of `csae anomaly fit`]
# paints synthetic defects into each image of a folder and fits one detector per texture. Prints
# AUROC and PRO, averaged over the textures.
#   benches/anomaly.sh --set FOLDER WORK [arguments of `csae anomaly fit`]
# fits one detector to FOLDER/normal and evaluates it on FOLDER/test.
# CSAE=FILE sets the program (default: csae in PATH), CSAE_DEVICE the device. WORK receives all
# files.
set -euo pipefail
csae=${CSAE:-csae}
if [ "$1" = --set ]; then
    set=$2 work=$3
    shift 3
    mkdir -p "$work"
    "$csae" anomaly fit "$set/normal" -o "$work/detector" "$@"
    "$csae" anomaly eval "$work/detector" "$set/test"
    exit
fi
textures=$1 work=$2
shift 2
"$csae" anomaly paint "$textures" --each -o "$work/painted"
for texture in "$work"/painted/*; do
    name=$(basename "$texture")
    "$csae" anomaly fit "$texture/normal" -o "$work/detectors/$name" -q "$@" > "$work/fit.txt"
    "$csae" anomaly eval "$work/detectors/$name" "$texture/test" -q > "$work/detectors/$name.txt"
done
# Averages each row over the tables of all textures: the kinds of defects, all defects, and each
# view alone. Also prints the lowest pixel AUROC.
awk '
    FNR > 1 && /AUROC|threshold/ { next }
    FNR > 1 {
        name = /alone/ ? $2 " alone" : $1
        image = $(NF - 2); pixel = $(NF - 1); pro = $NF
        if (!(name in n)) order[++kinds] = name
        n[name]++; i[name] += image; p[name] += pixel; r[name] += pro
        worst[name] = (n[name] == 1 || pixel < worst[name]) ? pixel : worst[name]
    }
    END {
        printf "%-16s %8s %12s %12s %8s %12s\n",
            "mean over", "textures", "image AUROC", "pixel AUROC", "PRO", "min pixel"
        for (k = 1; k <= kinds; k++) {
            m = order[k]
            printf "%-16s %8d %12.4f %12.4f %8.4f %12.4f\n",
                m, n[m], i[m] / n[m], p[m] / n[m], r[m] / n[m], worst[m]
        }
    }
' "$work"/detectors/*.txt
