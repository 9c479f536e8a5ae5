#!/usr/bin/env bash
# Benchmark of anomaly detection on textures. Paints synthetic defects into each image of a folder,
# trains one model on all normal parts, and fits one detector per texture. Prints AUROC and PRO,
# averaged over the textures.
#   benches/anomaly.sh TEXTURES WORK [arguments of `csae anomaly fit`]
# CSAE=FILE sets the program (default: csae in PATH). WORK receives all files.
set -euo pipefail
textures=$1 work=$2
shift 2
csae=${CSAE:-csae}
"$csae" anomaly paint "$textures" --each -o "$work/painted"
find "$work/painted" -path '*/normal/*.png' | sort > "$work/normal.txt"
"$csae" train "@$work/normal.txt" --preset plain --device cpu -q --out "$work/model"
for texture in "$work"/painted/*; do
    name=$(basename "$texture")
    "$csae" anomaly fit "$work/model" "$texture/normal" -o "$work/detectors/$name" \
        --device cpu -q "$@" > "$work/fit.txt"
    "$csae" anomaly eval "$work/detectors/$name" "$texture/test" \
        --device cpu -q > "$work/detectors/$name.txt"
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
